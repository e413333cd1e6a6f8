"""What an earlier process left behind is gone on with, if it is intact and still fits; else it starts anew."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.servers import behaviours as does
from tests.servers.hostile import HostileServer
from tests.transfer.conftest import Fetch
from weightstore.client import Client
from weightstore.config import Config
from weightstore.digest import Digest, Pin
from weightstore.errors import Cancelled, SourceUnavailable
from weightstore.records import Journal
from weightstore.source import Source

CUT = 400_000
SCRIPT = """
import sys
from pathlib import Path
from weightstore import Client
from weightstore.config import Config
home, state, url = sys.argv[1:]
print(Client(Config(home=Path(home), state=Path(state))).path(url))
"""


def pin_of(data: bytes) -> Pin:
    return Pin(hashlib.sha256(data).hexdigest())


def start_of(value: str | None) -> int:
    return 0 if value is None else int(value.removeprefix("bytes=").removesuffix("-"))


def run_client(config: Config, url: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", SCRIPT, str(config.home), str(config.state), url]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


@pytest.fixture
def left(server: HostileServer, fetch: Fetch, data: bytes) -> str:
    """A URL of which the first CUT bytes lie in tmp/, with their journal."""
    url = server.serve("/x", data, does.truncate(CUT, times=1))
    with pytest.raises(SourceUnavailable):
        fetch(url, retries=0)
    assert [path.suffix for path in fetch.parts()] == [".journal", ".part"]
    return url


def edit(fetch: Fetch, change: Callable[[Journal], Journal]) -> None:
    path = fetch.parts()[0]
    journal = Journal.parse(path.read_bytes(), place=str(path))
    path.write_bytes(change(journal).encode())


def last_range(server: HostileServer) -> int:
    return start_of(server.requests[-1].range)


def test_a_later_run_goes_on(server: HostileServer, fetch: Fetch, data: bytes, left: str) -> None:
    assert fetch(left) == data
    assert last_range(server) == CUT
    assert sum(request.body_bytes_sent for request in server.requests) == len(data)
    assert fetch.meter.notes == [f"resuming after {CUT / 1e6:.1f} MB"]
    assert fetch.parts() == []


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"\xff" * 100, b"{}" + b" " * 70_000])
def test_a_journal_that_is_garbage_is_not_gone_by(
    server: HostileServer, fetch: Fetch, data: bytes, left: str, garbage: bytes
) -> None:
    fetch.parts()[0].write_bytes(garbage)
    assert fetch(left) == data
    assert last_range(server) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda journal: replace(journal, offset=CUT - 1),
        lambda journal: replace(journal, offset=CUT + 1),
        lambda journal: replace(journal, offset=0),
        lambda journal: replace(journal, offset=1 << 50, total=1 << 51),
        lambda journal: replace(journal, digest=Digest("0" * 64)),
        lambda journal: replace(journal, source=Source("http://elsewhere.example/x")),
        lambda journal: replace(journal, pin=Pin("0123456789abcdef")),
    ],
    ids=["fewer bytes", "more bytes", "no bytes", "far beyond", "other digest", "other source", "other pin"],
)
def test_a_journal_that_does_not_fit_starts_anew(
    server: HostileServer, fetch: Fetch, data: bytes, left: str, change: Callable[[Journal], Journal]
) -> None:
    edit(fetch, change)
    assert fetch(left, Pin(pin_of(data).hex[:10])) == data
    assert last_range(server) == 0


def test_a_part_that_was_tampered_with_starts_anew(server: HostileServer, fetch: Fetch, data: bytes, left: str) -> None:
    with fetch.parts()[1].open("r+b") as file:
        file.seek(1000)
        file.write(b"tampered")
    assert fetch(left) == data
    assert last_range(server) == 0
    assert fetch.parts() == []


def test_a_part_that_was_cut_short_starts_anew(server: HostileServer, fetch: Fetch, data: bytes, left: str) -> None:
    os.truncate(fetch.parts()[1], 1000)
    assert fetch(left) == data
    assert last_range(server) == 0


def test_bytes_beyond_the_journal_are_dropped(server: HostileServer, fetch: Fetch, data: bytes, left: str) -> None:
    with fetch.parts()[1].open("ab") as file:
        file.write(b"not yet in the journal")
    assert fetch(left) == data
    assert last_range(server) == CUT


def test_another_version_on_the_server_starts_anew(server: HostileServer, fetch: Fetch, data: bytes, left: str) -> None:
    server.replace("/x", data[::-1])
    assert fetch(left) == data[::-1]
    assert server.requests[-1].status == 200


def test_a_validator_that_was_tampered_with_gives_no_wrong_bytes(
    server: HostileServer, fetch: Fetch, data: bytes, left: str
) -> None:
    server.replace("/x", data[::-1])
    etag = '"' + f"{zlib.crc32(data[::-1]):x}-{len(data):x}" + '"'
    edit(fetch, lambda journal: replace(journal, validator=replace(journal.validator, etag=etag)))
    assert fetch(left, pin_of(data[::-1])) == data[::-1]


def test_a_prefix_pin_goes_on_where_none_was_known(server: HostileServer, fetch: Fetch, data: bytes, left: str) -> None:
    assert fetch(left, Pin(pin_of(data).hex[:12])) == data
    assert last_range(server) == CUT


def test_only_the_most_advanced_of_several_parts_is_kept(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, [does.truncate(CUT, times=1), does.truncate(100_000, times=1).after_sparing(1)])
    pin = pin_of(data)
    for name in ("a", "b"):
        key = f"source-{hashlib.sha256(name.encode()).hexdigest()}"
        with pytest.raises(SourceUnavailable):
            fetch(url, pin, retries=0, key=key)
    key = f"source-{'0' * 64}"
    for path in fetch.parts():
        path.rename(path.with_name(key + path.name[len(key) :]))
    assert fetch(url, pin, key=key) == data
    assert last_range(server) == CUT
    assert fetch.parts() == []


def test_another_source_of_the_same_digest_goes_on(
    server: HostileServer, other_host: HostileServer, fetch: Fetch, data: bytes
) -> None:
    pin = pin_of(data)
    with pytest.raises(SourceUnavailable):
        fetch(
            other_host.serve("/blobs/y", data, does.truncate(CUT), etag='"theirs"'),
            pin,
            retries=0,
            key="sha256-" + pin.hex,
        )
    assert fetch(server.serve("/x", data), pin, key="sha256-" + pin.hex) == data
    assert last_range(server) == CUT
    assert server.requests[0].headers["If-Range"] is None, "the validator is of the other server"


def test_wrong_bytes_of_another_source_do_not_spoil_it(
    server: HostileServer, other_host: HostileServer, fetch: Fetch, data: bytes
) -> None:
    pin = pin_of(data)
    with pytest.raises(SourceUnavailable):
        fetch(other_host.serve("/y", data[::-1], does.truncate(CUT)), pin, retries=0, key="sha256-" + pin.hex)
    assert fetch(server.serve("/x", data), pin, key="sha256-" + pin.hex) == data
    assert [request.status for request in server.requests] == [206, 200]


def test_an_unpinned_part_is_not_gone_on_with_from_another_source(
    server: HostileServer, other_host: HostileServer, fetch: Fetch, data: bytes
) -> None:
    key = f"source-{'0' * 64}"
    with pytest.raises(SourceUnavailable):
        fetch(other_host.serve("/x", data, does.truncate(CUT)), retries=0, key=key)
    assert fetch(server.serve("/x", data), key=key) == data
    assert server.requests[0].range is None


def test_a_second_kill_right_after_the_takeover_costs_nothing(
    server: HostileServer, fetch: Fetch, data: bytes, left: str
) -> None:
    hold = server.hold("/x", after=0)
    stop = threading.Event()

    def run() -> None:
        with pytest.raises(Cancelled):
            fetch(left, stop=stop)

    runner = threading.Thread(target=run)
    runner.start()
    hold.wait_until_reached()
    journals = [Journal.parse(path.read_bytes(), place="") for path in fetch.parts() if path.suffix == ".journal"]
    stop.set()
    hold.release()
    runner.join(timeout=10)
    assert [journal.offset for journal in journals] == [CUT]


def test_a_download_resumes_after_sigkill(server: HostileServer, config: Config, data: bytes) -> None:
    big = data * 6
    url = server.serve("/x", big, does.rate_cap(2.5e6, times=1))
    first = run_client(config, url)
    try:
        deadline = time.monotonic() + 20
        while not list((config.home / "tmp").glob("*.journal")) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        first.kill()
        first.communicate()
    assert list((config.home / "blobs" / "sha256").iterdir()) == [], "nothing is visible yet"
    second = run_client(config, url)
    output, _ = second.communicate(timeout=30)
    assert second.returncode == 0
    assert Path(output.decode().strip()).read_bytes() == big
    assert last_range(server) > 1_000_000
    assert server.requests[-1].status == 206
    assert list((config.home / "tmp").iterdir()) == []


def test_a_client_resumes_after_it_was_stopped(
    server: HostileServer, make_client: Callable[..., Client], data: bytes
) -> None:
    url = server.serve("/x", data, does.rate_cap(2e6, times=1))
    client = make_client()
    stop = threading.Event()
    hold = server.hold("/x", after=CUT)
    threading.Thread(target=lambda: (hold.wait_until_reached(), stop.set(), hold.release())).start()
    report = client.prefetch([url], stop=stop)
    assert [result.status for result in report.results] == ["cancelled"]
    assert client.path(url).read_bytes() == data
    assert last_range(server) > 0


def test_the_journal_says_only_what_may_be_shown(fetch: Fetch, left: str) -> None:
    values = json.loads(fetch.parts()[0].read_text())
    assert values["source"] == left
    assert values["offset"] == CUT
    assert values["pid"] == os.getpid()
