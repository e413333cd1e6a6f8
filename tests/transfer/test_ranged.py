"""Several connections for one file: opened where one is what limits, within the caps, and never a wrong byte."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour
from tests.servers.exchange import Request
from tests.servers.hostile import HostileServer
from tests.servers.nginx import Nginx
from tests.servers.wire import Pacer
from tests.transfer.conftest import Fetch
from weightstore.client import Client
from weightstore.digest import Digest, Pin
from weightstore.errors import Cancelled, SourceUnavailable, StoreError, TransferError
from weightstore.source import Source
from weightstore.transfer.connections import Connections
from weightstore.transfer.download import Limits
from weightstore.transfer.extents import MIN_CHUNK
from weightstore.transfer.pipeline import Checkpoint
from weightstore.transfer.ranged import RangedDownload

# 12 MiB at this rate take 1.5 s, which is long enough for further connections to be worth while.
CAP = 8 << 20
MakeClient = Callable[..., Client]


def pin_of(data: bytes) -> Pin:
    return Pin(hashlib.sha256(data).hexdigest())


def is_plain(request: Request) -> bool:
    return request.range is None


class SlowBeginning(Pacer):
    """Slow until something happened, and then as fast as can be."""

    def __init__(self, happened: threading.Event) -> None:
        super().__init__(CAP)
        self._happened = happened

    def delay_s(self, size: int) -> float:
        return 0.0 if self._happened.is_set() else super().delay_s(size)


def slow_first() -> list[Behaviour]:
    """A first connection that is slow until further ones are opened; to save the tests' time all are fast then."""
    opened = threading.Event()
    pacer = SlowBeginning(opened)
    return [
        Behaviour("notice", does.Stage.ADMIT, lambda _: opened.set(), lambda request: not is_plain(request)),
        Behaviour("slow", does.Stage.SEND, lambda exchange: exchange.pacers.append(pacer), is_plain, times=1),
    ]


def starts(server: HostileServer) -> list[int]:
    return [int(one.range.removeprefix("bytes=").partition("-")[0]) for one in server.requests if one.range]


def fetch_most(fetch: Fetch, url: str, limits: Limits | None = None) -> None:
    """Fetch until it is plain whether further connections were opened."""
    stop = threading.Event()
    fetch.meter.on_advance = lambda received: stop.set() if received > 7 << 19 else None
    with pytest.raises(Cancelled):
        fetch(url, limits=limits, stop=stop)


def test_connections_are_added_where_each_is_capped(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    url = server.serve("/x", big, does.rate_cap(CAP))
    began = time.monotonic()
    assert fetch(url) == big
    assert time.monotonic() - began < 0.75 * len(big) / CAP
    assert 4 <= server.peak_concurrency <= 16


def test_further_connections_ask_for_the_version_of_the_first(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    url = server.serve("/x", big, slow_first(), etag='"v1"')
    assert fetch(url) == big
    assert len(starts(server)) >= 3
    assert all(one.headers["If-Range"] == '"v1"' for one in server.requests if one.range)


def test_no_part_is_asked_for_twice(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    assert fetch(server.serve("/x", big, slow_first())) == big
    assert len(set(starts(server))) == len(starts(server))
    assert fetch.meter.received == len(big)


@pytest.mark.parametrize("size", [2 * MIN_CHUNK - 1, 2 * MIN_CHUNK, 2 * MIN_CHUNK + 1])
def test_sizes_around_a_chunk_come_out_right(
    server: HostileServer, fetch: Fetch, big: bytes, tmp_path: Path, size: int
) -> None:
    assert download_ranged(server, fetch, big[:size], tmp_path, checkpoint=None) == big[:size]


def download_ranged(
    server: HostileServer, fetch: Fetch, content: bytes, tmp_path: Path, *, checkpoint: Checkpoint | None
) -> bytes:
    """Use several connections from the first byte on."""
    source = Source(server.serve("/x", content))
    with (tmp_path / "part").open("w+b") as part:
        body = fetch.transport.open(source)
        ranged = RangedDownload(
            source,
            part.fileno(),
            transport=fetch.transport,
            total=len(content),
            offset=0,
            hasher=hashlib.sha256(),
            validator=body.answer.validator,
            connections=fetch.connections,
            limit=4,
            meter=fetch.meter,
            stop=threading.Event(),
            slow_s=5,
            checkpoint=checkpoint,
        )
        digest = ranged.run(body, rate=1)
        received = part.read()
        assert digest.hex == hashlib.sha256(received).hexdigest()
        return received


def test_a_fast_server_keeps_one_connection(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    assert fetch(server.serve("/x", big)) == big
    assert len(server.requests) == 1


@pytest.mark.parametrize("behaviour", [does.no_accept_ranges(), does.chunked()], ids=str)
def test_a_server_without_ranges_keeps_one_connection(
    server: HostileServer, fetch: Fetch, big: bytes, behaviour: Behaviour
) -> None:
    fetch_most(fetch, server.serve("/x", big, [behaviour, does.rate_cap(CAP)]))
    assert len(server.requests) == 1


def test_without_pin_and_validator_one_connection_is_kept(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    """Nothing would tell that two connections reached two versions."""
    fetch_most(fetch, server.serve("/x", big, does.rate_cap(CAP), etag=None, last_modified=None))
    assert len(server.requests) == 1


def test_a_small_file_keeps_one_connection(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    content = big[: 2 << 20]
    assert fetch(server.serve("/x", content, does.rate_cap(CAP))) == content
    assert len(server.requests) == 1


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_file_has_no_more_connections_than_configured(
    server: HostileServer, fetch: Fetch, big: bytes, limit: int
) -> None:
    url = server.serve("/x", big, does.rate_cap(CAP))
    fetch_most(fetch, url, limits=Limits(connections_per_file=limit))
    assert server.peak_concurrency <= limit + 1, "one more while the server has not seen that its client hung up"


def test_all_files_together_have_no_more_connections_than_configured(
    server: HostileServer, make_client: MakeClient, big: bytes
) -> None:
    urls = [server.serve(f"/{number}", big[number:], does.rate_cap(5 << 20)) for number in range(2)]
    report = make_client(max_connections=6, jobs=2).prefetch(urls)
    assert report.failures == ()
    assert 2 < server.peak_concurrency <= 6 + 2, "as above, one for each file"


def test_the_slots_of_all_connections_are_given_back(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    fetch.connections = Connections(5)
    fetch(server.serve("/x", big, slow_first()))
    assert [fetch.connections.try_take() for _ in range(6)] == [True] * 5 + [False]


def test_a_server_that_serves_small_parts_only_is_gone_along_with(
    server: HostileServer, fetch: Fetch, big: bytes
) -> None:
    url = server.serve("/x", big, [*slow_first(), does.short_ranges(1 << 20)])
    assert fetch(url) == big


@pytest.mark.parametrize("status", [503])
def test_a_server_that_refuses_further_connections_is_gone_along_with(
    server: HostileServer, fetch: Fetch, big: bytes, status: int
) -> None:
    url = server.serve("/x", big, [does.connection_limit(2, reply=status), does.rate_cap(CAP)])
    assert fetch(url, retries=1) == big
    assert server.peak_concurrency <= 2


def test_a_server_that_ignores_ranges_after_all_is_gone_along_with(
    server: HostileServer, fetch: Fetch, big: bytes
) -> None:
    url = server.serve("/x", big, [*slow_first(), does.ignore_range()])
    assert fetch(url) == big


def test_a_server_that_refuses_ranges_after_all_is_gone_along_with(
    server: HostileServer, fetch: Fetch, big: bytes
) -> None:
    url = server.serve("/x", big, [*slow_first(), does.refuse_ranges()])
    assert fetch(url) == big


@pytest.mark.parametrize("lie", [does.wrong_content_range(start_by=-1), does.shifted_range(1)], ids=str)
def test_a_server_with_broken_ranges_is_gone_along_with(
    server: HostileServer, fetch: Fetch, big: bytes, lie: Behaviour
) -> None:
    assert fetch(server.serve("/x", big, [*slow_first(), lie])) == big


def test_a_cut_among_broken_ranges_starts_anew(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    """Nobody is left, and what the others met was a refusal: that does not end the download."""
    cut = does.truncate(3 << 20, times=1).only(is_plain)
    late = does.delay(0.5).only(lambda request: not is_plain(request))
    assert fetch(server.serve("/x", big, [*slow_first(), cut, late, does.ignore_range()])) == big


def test_a_connection_that_breaks_is_made_up_for_by_the_others(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    breaks = does.reset(500_000, times=1).only(lambda request: not is_plain(request))
    assert fetch(server.serve("/x", big, [*slow_first(), breaks])) == big


def test_all_connections_may_break_and_be_made_anew(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    breaks = does.truncate(1_500_000)
    assert fetch(server.serve("/x", big, [*slow_first(), breaks]), retries=5) == big


def test_a_connection_that_stalls_is_made_up_for(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    from weightstore.transfer.http import HttpTransport

    fetch.transport = HttpTransport(
        connect_timeout_s=1, read_timeout_s=0.3, pool_size=16, user_agent="test", trust_env=False
    )
    stalls = does.stall(500_000, 60, times=1).only(lambda request: not is_plain(request))
    assert fetch(server.serve("/x", big, [*slow_first(), stalls])) == big


def test_a_connection_that_drips_is_made_up_for(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    drips = does.drip(200, times=1).only(lambda request: not is_plain(request))
    assert fetch(server.serve("/x", big, [*slow_first(), drips]), limits=Limits(slow_s=0.5)) == big


def test_a_file_replaced_in_the_middle_starts_anew(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    url = server.serve("/x", big, slow_first())
    replaced = threading.Event()

    def once(received: int) -> None:
        if received > 500_000 and not replaced.is_set():
            replaced.set()
            server.replace("/x", big[::-1])

    fetch.meter.on_advance = once
    assert fetch(url) == big[::-1]
    assert any("changed" in note for note in fetch.meter.notes)


def test_connections_that_reach_servers_with_different_etags_give_a_right_result(
    server: HostileServer, fetch: Fetch, big: bytes
) -> None:
    """A farm whose machines make ETags of their own: parts of one are refused by the others."""
    url = server.serve("/x", big, [*slow_first(), other_etag()])
    assert fetch(url) == big


def other_etag() -> Behaviour:
    def rename(exchange: does.Exchange) -> None:
        exchange.headers["ETag"] = f'"machine-{id(exchange)}"'

    return Behaviour("other_etag", does.Stage.ANSWER, rename, lambda request: request.range is not None)


def test_other_bytes_on_further_connections_make_it_start_anew_over_one(
    server: HostileServer, fetch: Fetch, big: bytes
) -> None:
    url = server.serve("/x", big, [*slow_first(), does.other_bytes_on_range(big[::-1])])
    assert fetch(url, pin_of(big)) == big
    assert any("do not fit" in note for note in fetch.meter.notes)


def test_stopping_keeps_the_beginning_for_the_next_run(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    url = server.serve("/x", big, does.rate_cap(CAP))
    stop = threading.Event()
    fetch.meter.on_advance = lambda received: stop.set() if received > 4 << 20 else None
    with pytest.raises(Cancelled):
        fetch(url, stop=stop)
    assert len(starts(server)) >= 3
    assert len(fetch.parts()) == 2
    fetch.meter.on_advance = None
    before = len(server.requests)
    server.serve("/x", big)
    assert fetch(url) == big
    assert "-" in (server.requests[before].range or ""), "it went on"


def test_a_server_that_goes_away_leaves_the_beginning(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    url = server.serve("/x", big, does.rate_cap(CAP))
    gone = threading.Event()

    def go(received: int) -> None:
        if received > 4 << 20 and not gone.is_set():
            gone.set()
            threading.Thread(target=server.stop).start()

    fetch.meter.on_advance = go
    with pytest.raises(SourceUnavailable):
        fetch(url, retries=1)
    assert len(fetch.parts()) == 2


def test_a_large_file_is_handed_to_the_disk_as_it_comes(
    server: HostileServer, fetch: Fetch, big: bytes, tmp_path: Path
) -> None:
    content = big * 3
    assert download_ranged(server, fetch, content, tmp_path, checkpoint=None) == content


def test_an_error_of_a_checkpoint_ends_the_download(
    server: HostileServer, fetch: Fetch, big: bytes, tmp_path: Path
) -> None:
    def fail(offset: int, digest: Digest) -> None:
        raise StoreError(place="tmp", reason="cannot be written")

    with pytest.raises(StoreError, match="cannot be written"):
        download_ranged(server, fetch, big * 6, tmp_path, checkpoint=fail)


def test_a_part_that_vanishes_under_our_hands_is_an_error(
    server: HostileServer, fetch: Fetch, big: bytes, tmp_path: Path
) -> None:
    fetch.meter.on_advance = lambda _: os.truncate(tmp_path / "part", 0)
    with pytest.raises(TransferError, match="cannot be read back"):
        download_ranged(server, fetch, big, tmp_path, checkpoint=None)


@pytest.mark.needs("nginx")
def test_a_capped_nginx_is_read_over_several_connections(fetch: Fetch, big: bytes, tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "x").write_bytes(big)
    with Nginx(tmp_path / "www", capped_bytes_per_s=CAP // 2) as nginx:
        assert fetch(nginx.url("/x", capped=True), pin_of(big)) == big
        assert len({row.connection_id for row in nginx.log()}) >= 4


@pytest.mark.needs("nginx")
def test_an_nginx_without_cap_is_read_over_one_connection(fetch: Fetch, big: bytes, tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "x").write_bytes(big)
    with Nginx(tmp_path / "www") as nginx:
        assert fetch(nginx.url("/x"), pin_of(big)) == big
        assert len(nginx.log()) == 1
