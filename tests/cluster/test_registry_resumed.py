"""Pushes that are broken off: the next one goes on with what the registry has, and with nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Run, Site
from tests.cluster.test_registry_uploads import CuttingRegistry
from tests.servers.pipe import Front, Pipe
from tests.servers.registry import DockerRegistry
from weightstore.cluster.mirror.place import Chunks, Outgoing
from weightstore.cluster.mirror.registry import PIECE, InRegistry
from weightstore.cluster.mirror.uploads import UploadRecord, Uploads, upload_in
from weightstore.digest import Digest
from weightstore.errors import Cancelled, InvalidRecord, SourceUnavailable
from weightstore.records import Owner
from weightstore.source import Source
from weightstore.store.blobs import open_verified
from weightstore.store.layout import Layout
from weightstore.store.owner import this_process
from weightstore.store.parts import Part
from weightstore.store.publish import publish
from weightstore.store.receipts import Receipts
from weightstore.transfer.http import HttpTransport
from weightstore.transfer.logins import Logins
from weightstore.transfer.registry import Registry, Repository
from weightstore.transfer.retry import RetryPolicy

Spawn = Callable[..., subprocess.Popen[str]]
DATA = random.Random(11).randbytes(3 * PIECE + 300_000)
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())
# Of a process that has gone: no machine has so many.
GONE = replace(this_process(), pid=2_000_000_000, started=1)


# -- with a registry that hangs up --------------------------------------------------------------------------------


@pytest.fixture
def cutting() -> Iterator[CuttingRegistry]:
    with CuttingRegistry() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def place(cutting: CuttingRegistry, layout: Layout) -> Iterator[InRegistry]:
    http = HttpTransport(connect_timeout_s=5, read_timeout_s=5, pool_size=2, user_agent="test")
    source = Source(f"oci://127.0.0.1:{cutting.server_port}/w")
    retry = RetryPolicy(attempts=2, base_s=0.01)
    yield InRegistry(source, Registry(http, logins=Logins([])), retry=retry, uploads=Uploads(layout))
    http.close()


class Push:
    """Pushes one blob, and counts what is read of it to be sent."""

    def __init__(self, layout: Layout, receipts: Receipts) -> None:
        part = Part.create(layout, f"sha256-{DIGEST.hex}")
        os.write(part.fd, DATA)
        publish(part, DIGEST, size=len(DATA), receipts=receipts)
        self._layout, self._receipts = layout, receipts
        self.starts: list[int] = []

    def __call__(self, place: InRegistry, *, stop_at: int | None = None) -> None:
        read = 0

        def advance(size: int) -> None:
            nonlocal read
            read += size
            if stop_at is not None and read > stop_at:
                raise Cancelled

        blob = open_verified(self._layout.blob(DIGEST), DIGEST, self._receipts)
        assert blob is not None
        with blob:
            chunks = Chunks(blob, on_bytes=advance, on_start=self.starts.append)
            place.write(Outgoing(DIGEST, len(DATA), "it"), chunks)

    def left(self) -> list[Path]:
        return list(self._layout.tmp.iterdir())


@pytest.fixture
def push(layout: Layout, receipts: Receipts) -> Push:
    return Push(layout, receipts)


def test_a_push_after_a_cut_sends_what_did_not_arrive(
    cutting: CuttingRegistry,
    place: InRegistry,
    push: Push,
) -> None:
    cutting.cuts = 9
    with pytest.raises(SourceUnavailable):
        push(place)
    assert "DELETE" not in cutting.methods
    arrived, cutting.cuts = len(cutting.data), 0
    assert arrived > 0
    push(place)
    assert cutting.is_complete
    assert cutting.received == len(DATA)
    assert push.starts == [0, arrived]
    assert push.left() == []


def test_a_push_that_was_stopped_is_gone_on_with(
    cutting: CuttingRegistry,
    place: InRegistry,
    push: Push,
) -> None:
    with pytest.raises(Cancelled):
        push(place, stop_at=2 * PIECE + 5_000_000)
    (record,) = push.left()
    assert record.stat().st_mode & 0o777 == 0o600
    push(place)
    assert cutting.is_complete
    assert cutting.received == len(DATA)
    assert push.starts == [0, 2 * PIECE]


def test_an_upload_that_arrived_whole_is_only_completed(
    cutting: CuttingRegistry,
    place: InRegistry,
    push: Push,
) -> None:
    with pytest.raises(Cancelled):
        push(place, stop_at=2 * PIECE)
    cutting.data += DATA[len(cutting.data) :]
    push(place)
    assert cutting.is_complete


def test_an_upload_that_holds_other_bytes_is_begun_anew(
    cutting: CuttingRegistry,
    place: InRegistry,
    push: Push,
) -> None:
    with pytest.raises(Cancelled):
        push(place, stop_at=2 * PIECE)
    cutting.data[:] = bytes(len(cutting.data))
    push(place)
    assert cutting.is_complete
    assert push.starts[-1] == 0
    assert push.left() == []


@pytest.mark.parametrize("said", ["nothing", f"0-{len(DATA)}", "5-7"])
def test_a_registry_that_says_what_cannot_be_of_an_upload_gets_all_anew(
    cutting: CuttingRegistry,
    place: InRegistry,
    push: Push,
    said: str,
) -> None:
    with pytest.raises(Cancelled):
        push(place, stop_at=2 * PIECE)
    cutting.said = said
    push(place)
    assert cutting.is_complete
    assert push.starts == [0, 0]


def test_an_upload_that_another_process_is_at_is_left_to_it(layout: Layout) -> None:
    repository = Repository("https://r.example.org/v2/", "r.example.org", "w")
    location = "https://r.example.org/v2/w/blobs/uploads/1"
    with subprocess.Popen(["sleep", "60"]) as other:
        started = int(Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19])
        owner = replace(this_process(), pid=other.pid, started=started)
        path = _record(layout, repository, owner=owner, location=location)
        assert Uploads(layout).take(repository, DIGEST, 7).location == ""
        other.kill()
        other.wait()
    assert Uploads(layout).take(repository, DIGEST, 7).location == location
    assert not path.exists()


def test_of_many_that_want_an_upload_one_gets_it(layout: Layout) -> None:
    repository = Repository("https://r.example.org/v2/", "r.example.org", "w")
    _record(layout, repository, owner=GONE, location="/v2/w/blobs/uploads/1")
    taken = [Uploads(layout).take(repository, DIGEST, 7).location for _ in range(3)]
    assert taken == ["https://r.example.org/v2/w/blobs/uploads/1", "", ""]


def _record(layout: Layout, repository: Repository, *, owner: Owner, location: str, size: int = 7) -> Path:
    url = f"{repository.base}{repository.name}"
    key = hashlib.sha256(f"{url} {DIGEST}".encode()).hexdigest()
    path = layout.tmp / f"upload-{key}.host-12345678.{owner.pid}.deadbeef.json"
    path.write_bytes(UploadRecord(url, DIGEST, size, location, owner).encode())
    return path


# -- what is read is not believed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example.org/v2/w/blobs/uploads/1",
        "//evil.example.org/v2/w/blobs/uploads/1",
        "https://r.example.org@evil.example.org/v2/w/blobs/uploads/1",
        "https://ada:secret@r.example.org/v2/w/blobs/uploads/1",
        "http://r.example.org/v2/w/blobs/uploads/1",
        "https://r.example.org:444/v2/w/blobs/uploads/1",
        "/v2/other/blobs/uploads/1",
        "/v2/w/manifests/latest",
        "/v2/w/blobs/uploads/../../manifests/latest",
        "/v2/w/blobs/uploads/%2e%2e/%2e%2e/manifests/latest",
        "/v2/w/blobs/uploads/",
        "/v2/w/blobs/uploads/1#x",
        "/v2/w/blobs/uploads/1\r\nX: y",
        "https://[r.example.org/v2/w/blobs/uploads/1",
        "/v2/w/blobs/uploads/" + "1" * 9000,
    ],
)
def test_a_url_that_is_not_of_an_upload_of_the_repository_is_none(layout: Layout, location: str) -> None:
    repository = Repository("https://r.example.org/v2/", "r.example.org", "w")
    assert upload_in(repository, location) == ""
    _record(layout, repository, owner=GONE, location=location)
    assert Uploads(layout).take(repository, DIGEST, 7).location == ""


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("https://r.example.org/v2/w/blobs/uploads/1?_state=a%2Fb", "uploads/1?_state=a%2Fb"),
        ("/v2/w/blobs/uploads/1", "uploads/1"),
        ("/v2/w/blobs/upload/1.2", "upload/1.2"),
        ("blobs/uploads/1", "uploads/1"),
    ],
)
def test_a_registry_may_say_where_in_many_ways(location: str, leads_to: str) -> None:
    repository = Repository("https://r.example.org/v2/", "r.example.org", "w")
    assert upload_in(repository, location) == f"https://r.example.org/v2/w/blobs/{leads_to}"


def test_a_record_of_another_size_or_repository_is_not_gone_on_with(layout: Layout) -> None:
    repository = Repository("https://r.example.org/v2/", "r.example.org", "w")
    path = _record(layout, repository, owner=GONE, location="/v2/w/blobs/uploads/1", size=8)
    assert Uploads(layout).take(repository, DIGEST, 7).location == ""
    assert not path.exists()
    path = _record(layout, repository, owner=GONE, location="/v2/w/blobs/uploads/1")
    path.write_bytes(path.read_bytes().replace(b"r.example.org", b"evil.example"))
    assert Uploads(layout).take(repository, DIGEST, 7).location == ""


def test_a_link_in_the_place_of_a_record_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    repository = Repository("https://r.example.org/v2/", "r.example.org", "w")
    path = _record(layout, repository, owner=GONE, location="/v2/w/blobs/uploads/1")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert Uploads(layout).take(repository, DIGEST, 7).location == ""


@pytest.mark.needs("root")
def test_the_record_of_another_user_is_not_read(layout: Layout) -> None:
    repository = Repository("https://r.example.org/v2/", "r.example.org", "w")
    path = _record(layout, repository, owner=GONE, location="/v2/w/blobs/uploads/1")
    os.chown(path, 12345, -1)
    assert Uploads(layout).take(repository, DIGEST, 7).location == ""


RECORD = UploadRecord("https://r/v2/w", DIGEST, 7, "https://r/v2/w/blobs/uploads/1", this_process())


def test_a_record_reads_as_it_was_written() -> None:
    assert UploadRecord.parse(RECORD.encode(), place="here") == RECORD


FIELDS = sorted(json.loads(RECORD.encode()))


@given(st.sampled_from(FIELDS), st.none() | st.booleans() | st.text() | st.lists(st.none()))
def test_a_record_with_another_kind_of_value_is_refused(name: str, value: object) -> None:
    fields = json.loads(RECORD.encode())
    if type(value) is type(fields[name]) and name not in {"digest", "version"}:
        return
    with pytest.raises(InvalidRecord):
        UploadRecord.parse(json.dumps({**fields, name: value}).encode(), place="here")


@given(st.binary(max_size=300))
def test_garbage_is_no_record(data: bytes) -> None:
    with pytest.raises(InvalidRecord):
        UploadRecord.parse(data, place="here")


# -- with a real registry -----------------------------------------------------------------------------------------

SIZE = 100_000_000


@pytest.fixture
def registry() -> Iterator[DockerRegistry]:
    with DockerRegistry() as registry:
        yield registry


@pytest.fixture
def stored(site: Site, run: Run) -> str:
    """The digits of a blob of 100 MB in the store, which is all that is there."""
    data = random.Random(13).randbytes(SIZE)
    run("prefetch", site.server.serve("/large.pth", data))
    return hashlib.sha256(data).hexdigest()


def _killed(spawn: Spawn, pipe: Pipe, at: int, number: signal.Signals) -> str:
    """Start a push, send it a signal when so much was sent, and return what it said."""
    pipe.bytes_per_s = 60_000_000
    process = spawn("mirror", "push", f"oci://{pipe.address}/w", "--all")
    pipe.wait_for(pipe.up + at)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    pipe.bytes_per_s = None
    return told


def _is_right(site: Site, run: Run, address: str, digits: str) -> None:
    shutil.rmtree(site.home)
    run("mirror", "pull", f"oci://{address}/w", "--all", "--trust-mirror")
    assert hashlib.sha256((site.home / "blobs/sha256" / digits).read_bytes()).hexdigest() == digits


@pytest.mark.needs("docker-registry", "nginx")
def test_a_push_that_was_killed_behind_a_reverse_proxy_is_gone_on_with(
    site: Site, run: Run, spawn: Spawn, registry: DockerRegistry, stored: str
) -> None:
    with Front(registry.address) as front, Pipe(front.address) as pipe:
        _killed(spawn, pipe, 60_000_000, signal.SIGKILL)
        before = pipe.up
        assert "1 pushed" in run("mirror", "push", f"oci://{pipe.address}/w", "--all").stderr
        assert SIZE - 60_000_000 < pipe.up - before < SIZE - 2 * PIECE
        _is_right(site, run, pipe.address, stored)
        assert not list((site.home / "tmp").glob("upload-*"))


@pytest.mark.needs("docker-registry")
def test_a_push_that_was_stopped_with_ctrl_c_is_gone_on_with(
    site: Site, run: Run, spawn: Spawn, registry: DockerRegistry, stored: str
) -> None:
    with Pipe(registry.address) as pipe:
        _killed(spawn, pipe, 60_000_000, signal.SIGINT)
        before = pipe.up
        assert "1 pushed" in run("mirror", "push", f"oci://{pipe.address}/w", "--all").stderr
        assert pipe.up - before < SIZE - 3 * PIECE
        _is_right(site, run, pipe.address, stored)


@pytest.mark.needs("docker-registry")
def test_what_a_registry_lost_with_the_connection_is_sent_anew(
    site: Site, run: Run, spawn: Spawn, registry: DockerRegistry, stored: str
) -> None:
    # docker-registry 2.8 refuses to go on with an upload that was cut in the middle of a piece.
    with Pipe(registry.address) as pipe:
        _killed(spawn, pipe, 60_000_000, signal.SIGKILL)
        assert "1 pushed" in run("mirror", "push", f"oci://{pipe.address}/w", "--all").stderr
        _is_right(site, run, pipe.address, stored)


@pytest.mark.needs("docker-registry")
def test_a_connection_that_is_cut_in_the_middle_of_a_piece_does_not_fail_the_push(
    site: Site, run: Run, registry: DockerRegistry, stored: str
) -> None:
    with Pipe(registry.address) as pipe:
        pipe.cut_at = 50_000_000
        assert "1 pushed" in run("mirror", "push", f"oci://{pipe.address}/w", "--all").stderr
        assert pipe.cut_at is None
        _is_right(site, run, pipe.address, stored)


@pytest.mark.needs("docker-registry")
def test_an_upload_that_has_expired_is_begun_anew(
    site: Site, run: Run, spawn: Spawn, registry: DockerRegistry, stored: str
) -> None:
    with Pipe(registry.address) as pipe:
        _killed(spawn, pipe, 60_000_000, signal.SIGINT)
        registry.forget_uploads()
        before = pipe.up
        assert "1 pushed" in run("mirror", "push", f"oci://{pipe.address}/w", "--all").stderr
        assert pipe.up - before >= SIZE
        _is_right(site, run, pipe.address, stored)


@pytest.mark.needs("docker-registry")
def test_a_registry_that_is_started_again_in_the_middle_of_a_push_does_not_fail_it(
    site: Site, run: Run, spawn: Spawn, registry: DockerRegistry, stored: str
) -> None:
    with Pipe(registry.address) as pipe:
        pipe.bytes_per_s = 60_000_000
        process = spawn("mirror", "push", f"oci://{pipe.address}/w", "--all")
        pipe.wait_for(40_000_000)
        registry.stop()
        registry.start()
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
        _is_right(site, run, pipe.address, stored)
