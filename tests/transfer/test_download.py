"""One blob from one source into a part: cuts are resumed, changes start anew, and nothing wrong is ever returned."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour, Reply
from tests.servers.hostile import HostileServer
from tests.transfer.conftest import Fetch
from weightstore.digest import Pin
from weightstore.errors import (
    Cancelled,
    DigestMismatch,
    RefusedResponse,
    SizeMismatch,
    SourceNotFound,
    SourceUnavailable,
    TransferError,
)
from weightstore.transfer.download import Limits


def pin_of(data: bytes) -> Pin:
    return Pin(hashlib.sha256(data).hexdigest())


def other(data: bytes) -> bytes:
    """Content of the same length that shares nothing with it."""
    return bytes(byte ^ 0xFF for byte in data)


def sent(server: HostileServer) -> int:
    return sum(request.body_bytes_sent for request in server.requests)


@pytest.mark.parametrize("cut", [does.truncate, does.reset])
def test_a_cut_is_resumed_with_the_validator(server: HostileServer, fetch: Fetch, data: bytes, cut: object) -> None:
    assert callable(cut)
    url = server.serve("/x", data, cut(400_000, times=1), etag='"v1"')
    assert fetch(url) == data
    first, second = server.requests
    assert first.range is None
    assert second.status == 206
    assert second.headers["If-Range"] == '"v1"'
    assert sent(server) < 1.5 * len(data), "what was under way when it was cut may come again"


def test_the_date_is_the_validator_where_the_etag_is_weak(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.truncate(400_000, times=1), etag='W/"v1"')
    assert fetch(url) == data
    assert server.requests[1].headers["If-Range"] == "Mon, 01 Jan 2024 00:00:00 GMT"
    assert server.requests[1].status == 206


def test_many_cuts_with_progress_use_up_no_retries(server: HostileServer, fetch: Fetch, big: bytes) -> None:
    url = server.serve("/x", big, does.truncate(1 << 20))
    assert fetch(url, retries=1) == big
    assert len(server.requests) == 13


def test_cuts_without_progress_are_given_up(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.truncate(1000))
    with pytest.raises(SourceUnavailable, match=r"incomplete|early"):
        fetch(url, retries=3)
    assert len(server.requests) == 4


def test_a_file_that_changed_in_between_starts_anew(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.truncate(400_000, times=1))
    fetch.meter.on_advance = lambda _: server.replace("/x", other(data))
    assert fetch(url) == other(data)
    assert [request.status for request in server.requests] == [200, 200]


def test_a_file_that_changed_is_told_though_if_range_is_ignored(
    server: HostileServer, fetch: Fetch, data: bytes
) -> None:
    """A cache that answers 206 of the new version all the same: its own validator gives it away."""
    url = server.serve("/x", data, does.truncate(400_000, times=1))

    def change(_: int) -> None:
        server.serve("/x", other(data), drop_if_range(), etag='"v2"')

    fetch.meter.on_advance = change
    assert fetch(url) == other(data)
    assert [request.status for request in server.requests] == [200, 206, 200]


def drop_if_range() -> Behaviour:
    def drop(exchange: does.Exchange) -> None:
        del exchange.request.headers["If-Range"]

    return Behaviour("drop_if_range", does.Stage.SELECT, drop, lambda _: True)


def test_a_file_that_became_longer_starts_anew(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.truncate(400_000, times=1), etag=None, last_modified=None)
    longer = other(data) + b"more"
    fetch.meter.on_advance = lambda _: server.replace("/x", longer, etag=None)
    assert fetch(url, pin_of(longer)) == longer
    assert [request.status for request in server.requests] == [200, 206, 200]


def test_a_file_that_became_shorter_than_what_we_have_starts_anew(
    server: HostileServer, fetch: Fetch, data: bytes
) -> None:
    url = server.serve("/x", data, does.truncate(400_000, times=1), etag=None, last_modified=None)
    shorter = data[:1000]
    fetch.meter.on_advance = lambda _: server.replace("/x", shorter, etag=None)
    assert fetch(url, pin_of(shorter)) == shorter
    assert [request.status for request in server.requests] == [200, 416, 200]


def test_a_file_that_never_stops_changing_is_given_up(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    versions = iter(range(1000))
    url = server.serve("/x", data, [does.truncate(400_000), drop_if_range()])

    def change(_: int) -> None:
        server.replace("/x", data, etag=f'"{next(versions)}"')

    fetch.meter.on_advance = change
    with pytest.raises(SourceUnavailable, match="changed"):
        fetch(url, retries=20)
    assert len(server.requests) <= 10


def test_other_bytes_under_the_same_etag_start_anew_with_a_pin(
    server: HostileServer, fetch: Fetch, data: bytes
) -> None:
    url = server.serve("/x", data, [does.truncate(400_000, times=1), does.other_bytes_on_range(other(data))])
    assert fetch(url, pin_of(data)) == data
    assert [request.status for request in server.requests] == [200, 206, 200]


def test_other_bytes_under_the_same_etag_start_anew_with_a_prefix(
    server: HostileServer, fetch: Fetch, data: bytes
) -> None:
    url = server.serve("/x", data, [does.truncate(400_000, times=1), does.other_bytes_on_range(other(data))])
    assert fetch(url, Pin(pin_of(data).hex[:8])) == data


def test_other_bytes_on_every_request_are_a_mismatch(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", other(data), does.truncate(400_000, times=1))
    with pytest.raises(DigestMismatch) as caught:
        fetch(url, pin_of(data))
    assert caught.value.expected == str(pin_of(data))
    assert caught.value.actual == str(pin_of(other(data)))
    assert fetch.parts() == []


def test_a_wrong_file_is_asked_for_once(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    with pytest.raises(DigestMismatch):
        fetch(server.serve("/x", other(data)), pin_of(data))
    assert len(server.requests) == 1


def test_without_a_validator_a_pin_decides_what_was_resumed(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.truncate(400_000, times=1), etag=None, last_modified=None)
    assert fetch(url, pin_of(data)) == data
    assert server.requests[1].range == "bytes=400000-"
    assert server.requests[1].headers["If-Range"] is None


def test_without_ranges_a_cut_starts_anew(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, [does.ignore_range(), does.no_accept_ranges(), does.truncate(400_000, times=1)])
    assert fetch(url) == data
    assert [request.status for request in server.requests] == [200, 200]
    assert fetch.meter.starts == [(0, len(data)), (0, len(data))]


def test_a_416_on_resume_starts_anew(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, [does.refuse_ranges(), does.truncate(400_000, times=1)])
    assert fetch(url) == data
    assert [request.status for request in server.requests] == [200, 416, 200]


def test_a_416_to_a_plain_request_is_an_error(server: HostileServer, fetch: Fetch) -> None:
    with pytest.raises(TransferError, match="HTTP 416"):
        fetch(server.serve("/x", behaviour=does.status(416)))


@pytest.mark.parametrize(
    "lie",
    [
        does.wrong_content_range(start_by=-5),
        does.wrong_content_range(start_by=5),
        does.wrong_content_range(total=10),
        does.wrong_content_range(total="x"),
        does.shifted_range(7),
    ],
    ids=str,
)
def test_a_wrong_content_range_on_resume_starts_anew(
    server: HostileServer, fetch: Fetch, data: bytes, lie: Behaviour
) -> None:
    """A server whose ranges are broken can still serve the whole."""
    url = server.serve("/x", data, [lie, does.truncate(400_000, times=1)])
    assert fetch(url) == data
    assert [request.status for request in server.requests] == [200, 206, 200]


def test_another_total_in_the_content_range_starts_anew(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    lie = does.wrong_content_range(total=len(data) + 1)
    assert fetch(server.serve("/x", data, [lie, does.truncate(400_000, times=1)])) == data


@pytest.mark.parametrize("at_most", [100_000, 5])
def test_a_part_shorter_than_asked_for_is_not_taken_for_the_whole(
    server: HostileServer, fetch: Fetch, data: bytes, at_most: int
) -> None:
    """RFC 9110, 15.3.7: a server may answer with less. Without a pin nothing else would notice."""
    url = server.serve("/x", data, [does.truncate(400_000, times=1), does.short_ranges(at_most, times=1)])
    assert fetch(url) == data


def test_a_server_that_serves_small_parts_only_is_followed_without_waiting(
    server: HostileServer, fetch: Fetch, big: bytes
) -> None:
    url = server.serve("/x", big, [does.truncate(1 << 20, times=1), does.short_ranges(1 << 20)])
    assert fetch(url, retries=1) == big
    assert len(fetch.meter.notes) == 1, "the cut alone"


def test_a_part_of_unknown_total_keeps_what_was_known(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    unknown = does.wrong_content_range(total="*")
    url = server.serve("/x", data, [does.truncate(400_000, times=1), does.short_ranges(100_000, times=1), unknown])
    assert fetch(url) == data


def test_a_body_in_chunks_is_read_to_its_end(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    assert fetch(server.serve("/x", data, does.chunked())) == data


def test_a_body_in_chunks_that_is_cut_is_resumed(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, [does.chunked(times=1), does.truncate(400_000, times=1)])
    assert fetch(url) == data
    assert [request.status for request in server.requests] == [200, 206]


def test_a_body_in_chunks_that_is_always_cut_is_never_returned(
    server: HostileServer, fetch: Fetch, data: bytes
) -> None:
    url = server.serve("/x", data, [does.chunked(), does.ignore_range(), does.truncate(400_000)])
    with pytest.raises(SourceUnavailable):
        fetch(url)


def test_a_body_without_length_is_refused_without_a_pin(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    with pytest.raises(RefusedResponse, match="#sha256="):
        fetch(server.serve("/x", data, does.close_delimited()))
    assert fetch.parts() == []


def test_a_body_without_length_is_read_with_a_pin(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    assert fetch(server.serve("/x", data, does.close_delimited()), pin_of(data)) == data


def test_a_body_without_length_that_is_cut_is_never_returned(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, [does.close_delimited(), does.truncate(400_000)])
    with pytest.raises(DigestMismatch):
        fetch(url, pin_of(data))


def test_a_body_without_length_is_read_when_its_size_is_known(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.close_delimited())
    assert fetch(url, limits=Limits(exact_size=len(data))) == data
    with pytest.raises(SizeMismatch):
        fetch(url, limits=Limits(exact_size=len(data) + 1))


def test_another_size_than_locked_is_refused_before_a_byte_is_read(
    server: HostileServer, fetch: Fetch, data: bytes
) -> None:
    url = server.serve("/x", data)
    with pytest.raises(SizeMismatch) as caught:
        fetch(url, pin_of(data), limits=Limits(exact_size=len(data) - 1))
    assert (caught.value.expected, caught.value.actual) == (len(data) - 1, len(data))
    assert fetch.meter.received == 0


def test_a_file_of_just_max_size_is_accepted(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data)
    assert fetch(url, limits=Limits(max_size=len(data))) == data
    with pytest.raises(RefusedResponse, match="max_size"):
        fetch(url, limits=Limits(max_size=len(data) - 1))


def test_an_empty_file_is_a_file(server: HostileServer, fetch: Fetch) -> None:
    assert fetch(server.serve("/x", b"")) == b""


def test_stopping_keeps_what_came_for_the_next_run(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.rate_cap(2e6))
    stop = threading.Event()
    fetch.meter.on_advance = lambda received: stop.set() if received > 300_000 else None
    with pytest.raises(Cancelled):
        fetch(url, stop=stop)
    assert len(fetch.parts()) == 2, "the part and its journal"
    fetch.meter.on_advance = None
    assert fetch(url) == data
    start = int((server.requests[1].range or "").removeprefix("bytes=").removesuffix("-"))
    assert start > 300_000
    assert fetch.parts() == []


def test_stopping_ends_the_wait_between_attempts(server: HostileServer, fetch: Fetch) -> None:
    url = server.serve("/x", behaviour=does.status(Reply(status=503, retry_after_s=60)))
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Cancelled):
        fetch(url, stop=stop)


def test_who_is_stopped_already_asks_nobody(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        fetch(server.serve("/x", data), stop=stop)
    assert server.requests == []


def test_nothing_is_left_after_an_error_that_does_not_pass(server: HostileServer, fetch: Fetch) -> None:
    with pytest.raises(SourceNotFound):
        fetch(server.url("/nothing"))
    assert fetch.parts() == []


def test_a_part_that_cannot_be_judged_later_is_not_kept(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    """No pin, no validator: what comes next time could be another version."""
    url = server.serve("/x", data, does.truncate(400_000), etag=None, last_modified=None)
    with pytest.raises(SourceUnavailable):
        fetch(url, retries=0)
    assert fetch.parts() == []


def test_a_local_file_is_copied(fetch: Fetch, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(data)
    from weightstore.transfer.file import FileTransport

    http = fetch.transport
    fetch.transport = FileTransport()
    try:
        assert fetch(str(tmp_path / "model.pth"), pin_of(data)) == data
    finally:
        fetch.transport = http
