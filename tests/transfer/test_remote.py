"""Reading parts of a file on a server: only what is asked for travels, and it is of one version of the file."""

from __future__ import annotations

import hashlib
import random
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.formats.conftest import archive, tensor, text
from tests.servers.behaviours import (
    chunked,
    delay,
    drip,
    gzip_encoding,
    ignore_range,
    no_accept_ranges,
    redirect,
    refuse_ranges,
    reset,
    shifted_range,
    short_ranges,
    status,
    truncate,
    wrong_content_range,
)
from tests.servers.hostile import HostileServer
from tests.servers.nginx import Nginx
from weightstore.client import Client
from weightstore.errors import (
    AccessDenied,
    Cancelled,
    InvalidCheckpoint,
    NotPresent,
    RefusedResponse,
    SizeMismatch,
    SourceNotFound,
    SourceUnavailable,
    UntrustedSource,
)
from weightstore.inspection import Inspection, inspect
from weightstore.source import Source
from weightstore.transfer.connections import Connections
from weightstore.transfer.http import HttpTransport
from weightstore.transfer.remote import LEAST_BYTES, RemoteFile
from weightstore.transfer.retry import RetryPolicy

Open = Callable[..., RemoteFile]
LARGE = 20_000_000


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    transport = HttpTransport(connect_timeout_s=5, read_timeout_s=2, pool_size=4, user_agent="test", trust_env=False)
    yield transport
    transport.close()


@pytest.fixture
def open_remote(transport: HttpTransport) -> Open:
    def make(url: str, *, retries: int = 0, slow_s: float = 5, stop: threading.Event | None = None) -> RemoteFile:
        return RemoteFile(
            Source(url),
            transport=transport,
            connections=Connections(4),
            retry=RetryPolicy(attempts=retries, base_s=0.001),
            slow_s=slow_s,
            stop=stop or threading.Event(),
        )

    return make


@pytest.fixture(scope="session")
def checkpoint() -> bytes:
    """A zip checkpoint of 20 MB with 200 tensors."""
    numel = LARGE // 4 // 200
    names = b"".join(text(f"layer{n}.weight") + tensor(str(n), numel) for n in range(200))
    content = random.Random(3).randbytes(4 * numel)
    return archive(b"}(" + names + b"u.", {str(n): content for n in range(200)}, byteorder=b"little")


def served(server: HostileServer) -> int:
    return sum(request.body_bytes_sent for request in server.requests)


def test_any_part_is_what_the_file_has(server: HostileServer, open_remote: Open, data: bytes) -> None:
    remote = open_remote(server.serve("/x", data))
    assert remote.size == len(data)
    dice = random.Random(4)
    for _ in range(60):
        offset = dice.randrange(len(data))
        length = dice.randrange(min(len(data) - offset, 100_000) + 1)
        assert remote.read(offset, length) == data[offset : offset + length]
    assert remote.read(0, len(data)) == data
    # No byte came twice.
    assert remote.received == served(server) == len(data)


def test_what_is_not_read_does_not_travel(server: HostileServer, open_remote: Open, data: bytes) -> None:
    remote = open_remote(server.serve("/x", data))
    assert remote.read(len(data) - 100, 100) == data[-100:]
    assert remote.read(len(data) - 50_000, 10) == data[-50_000:-49_990]
    assert served(server) == remote.received == 2 * LEAST_BYTES
    assert [request.status for request in server.requests] == [206, 206]


def test_a_small_file_comes_in_one_request_whatever_the_server(server: HostileServer, open_remote: Open) -> None:
    for behaviour in ((), (ignore_range(),), (no_accept_ranges(),)):
        remote = open_remote(server.serve("/x", b"small" * 1000, behaviour))
        assert remote.read(0, 5000) == b"small" * 1000
    assert len(server.requests) == 3


@pytest.mark.parametrize("behaviour", [ignore_range(), refuse_ranges(), chunked()], ids=lambda one: one.name)
def test_a_server_without_ranges_is_refused(
    server: HostileServer, open_remote: Open, data: bytes, behaviour: object
) -> None:
    url = server.serve("/x", data, (behaviour, ignore_range()))
    with pytest.raises(RefusedResponse, match="does not serve parts of the file") as caught:
        open_remote(url, retries=3)
    assert "weightstore prefetch" in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "behaviour", [shifted_range(7), wrong_content_range(start_by=3), gzip_encoding()], ids=lambda one: one.name
)
def test_a_server_that_lies_about_ranges_is_refused(
    server: HostileServer, open_remote: Open, data: bytes, behaviour: object
) -> None:
    with pytest.raises(RefusedResponse):
        open_remote(server.serve("/x", data, behaviour))


def test_a_total_that_is_not_told_is_refused(server: HostileServer, open_remote: Open, data: bytes) -> None:
    with pytest.raises(RefusedResponse, match="how long the file is"):
        open_remote(server.serve("/x", data, wrong_content_range(total="*")))


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_a_file_that_changes_between_two_requests_is_refused(
    server: HostileServer, open_remote: Open, data: bytes, etag: str | None
) -> None:
    remote = open_remote(server.serve("/x", data, etag=etag))
    server.replace("/x", data[::-1], etag=etag and '"v2"')
    with pytest.raises(RefusedResponse, match="changed while it was read"):
        remote.read(200_000, 10)
    server.replace("/x", data[:1000])
    with pytest.raises(RefusedResponse, match="changed while it was read"):
        remote.read(300_000, 10)


def test_a_server_that_stops_serving_ranges_is_refused(server: HostileServer, open_remote: Open, data: bytes) -> None:
    remote = open_remote(server.serve("/x", data))
    server.serve("/x", data, ignore_range())
    with pytest.raises(RefusedResponse, match="now it sends the whole"):
        remote.read(300_000, 10)


@pytest.mark.parametrize(
    "behaviour",
    [status(503, times=2), reset(after=100, times=2), truncate(after=20_000, times=2), short_ranges(50_000)],
    ids=lambda one: one.name,
)
def test_what_may_pass_is_tried_again(server: HostileServer, open_remote: Open, data: bytes, behaviour: object) -> None:
    remote = open_remote(server.serve("/x", data, behaviour), retries=3)
    assert remote.read(100_000, 400_000) == data[100_000:500_000]


def test_what_does_not_pass_is_given_up(server: HostileServer, open_remote: Open, data: bytes) -> None:
    with pytest.raises(SourceUnavailable, match="503"):
        open_remote(server.serve("/x", data, status(503)), retries=2)
    assert len(server.requests) == 3
    with pytest.raises(SourceUnavailable):
        open_remote(server.serve("/y", data, drip(100)), slow_s=0.2)
    with pytest.raises(SourceNotFound):
        open_remote(server.url("/none"), retries=2)
    with pytest.raises(AccessDenied):
        open_remote(server.serve("/z", data, status(403)), retries=2)


def test_a_wait_for_the_next_attempt_can_be_stopped(server: HostileServer, open_remote: Open, data: bytes) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        open_remote(server.serve("/x", data, status(503)), retries=5, stop=stop)


# -- inspecting -----------------------------------------------------------------------------------------------------


def look(client: Client, name: str) -> Inspection:
    found = inspect(client.wanted(name), obtainer=client.obtainer, note=print, stop=threading.Event())
    assert found.checkpoint == client.inspect(name)
    return found


def test_of_a_large_checkpoint_only_headers_travel(
    server: HostileServer, make_client: Callable[..., Client], checkpoint: bytes
) -> None:
    client = make_client()
    found = look(client, server.serve("/x.pth", checkpoint))
    assert len(found.checkpoint.tensors) == 200
    assert found.checkpoint.nbytes == LARGE
    assert found.size == len(checkpoint)
    assert found.digest is None
    assert 2 * found.received == served(server) < 500_000
    assert len(server.requests) <= 8
    assert not client.config.home.exists()


@pytest.mark.needs("nginx")
def test_nginx_sends_only_headers(make_client: Callable[..., Client], checkpoint: bytes, tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "x.pth").write_bytes(checkpoint)
    header = b'{"a":{"dtype":"U8","shape":[9000000],"data_offsets":[0,9000000]}}'
    (tmp_path / "www" / "y.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(9_000_000))
    with Nginx(tmp_path / "www") as nginx:
        assert len(make_client().inspect(nginx.url("/x.pth")).tensors) == 200
        assert sum(row.body_bytes_sent for row in nginx.log()) < 250_000
        before = len(nginx.log())
        assert make_client().inspect(nginx.url("/y.safetensors")).nbytes == 9_000_000
        assert [row.body_bytes_sent for row in nginx.log()[before:]] == [LEAST_BYTES]


def test_what_is_stored_is_read_there(
    server: HostileServer, make_client: Callable[..., Client], checkpoint: bytes
) -> None:
    url = server.serve("/x.pth", checkpoint)
    client = make_client()
    path = client.path(url)
    before = len(server.requests)
    found = look(client, url)
    assert (found.place, found.received) == (str(path), 0)
    assert str(found.digest) == f"sha256:{path.name}"
    assert len(server.requests) == before
    assert all(one.offset is not None for one in found.checkpoint.tensors)
    assert client.inspect(url) == make_client(offline=True).inspect(url)


def test_offline_asks_nobody(server: HostileServer, make_client: Callable[..., Client], checkpoint: bytes) -> None:
    url = server.serve("/x.pth", checkpoint)
    with pytest.raises(NotPresent, match="offline mode forbids"):
        make_client(offline=True).inspect(url)
    assert server.connections == 0


def test_a_pinned_trust_refuses_what_has_no_pin(
    server: HostileServer, make_client: Callable[..., Client], checkpoint: bytes
) -> None:
    with pytest.raises(UntrustedSource):
        make_client(trust="pinned").inspect(server.serve("/x.pth", checkpoint))
    assert server.connections == 0


def test_a_local_file_is_read_where_it_is(
    make_client: Callable[..., Client], checkpoint: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x.pth").write_bytes(checkpoint)
    client = make_client(offline=True)
    found = look(client, str(tmp_path / "x.pth"))
    assert (found.received, found.digest, len(found.checkpoint.tensors)) == (0, None, 200)
    assert not client.config.home.exists()
    with pytest.raises(SourceNotFound):
        client.inspect(str(tmp_path / "y.pth"))
    with pytest.raises(RefusedResponse, match="not a regular file"):
        client.inspect(str(tmp_path))


def test_a_mirror_is_asked_first_and_passed_over_when_it_fails(
    server: HostileServer,
    make_client: Callable[..., Client],
    checkpoint: bytes,
    notes: list[str],
) -> None:
    digest = hashlib.sha256(checkpoint).hexdigest()
    url = server.serve("/x.pth", checkpoint)
    server.serve(f"/good/blobs/sha256/{digest}", checkpoint)
    server.serve(f"/bad/blobs/sha256/{digest}", b"no checkpoint")
    good = make_client(mirrors=(Source(server.url("/good")),))
    assert good.inspect(f"{url}#sha256={digest}").nbytes == LARGE
    assert all(request.path.startswith("/good") for request in server.requests)
    bad = make_client(mirrors=(Source(server.url("/bad")), Source(server.url("/none"))))
    assert bad.inspect(f"{url}#sha256={digest}").nbytes == LARGE
    assert len([note for note in notes if note.startswith("mirror passed over")]) == 2


def test_a_redirect_is_followed_and_what_is_no_checkpoint_said(
    server: HostileServer, make_client: Callable[..., Client], checkpoint: bytes
) -> None:
    target = server.serve("/x.pth", checkpoint)
    assert make_client().inspect(server.serve("/moved", b"", redirect(target))).nbytes == LARGE
    with pytest.raises(InvalidCheckpoint, match="neither"):
        make_client().inspect(server.serve("/page", b"<html>" * 100, delay(0.01)))
    with pytest.raises(RefusedResponse):
        make_client().inspect(server.serve("/empty", b""))


def test_a_size_that_is_known_is_compared(
    server: HostileServer, make_client: Callable[..., Client], checkpoint: bytes
) -> None:
    client = make_client()
    digest = hashlib.sha256(checkpoint).hexdigest()
    wanted = replace(
        client.wanted(f"{server.serve('/x.pth', checkpoint)}#sha256={digest}"),
        size=len(checkpoint) - 1,
        size_is_exact=True,
    )
    with pytest.raises(SizeMismatch):
        inspect(wanted, obtainer=client.obtainer, note=print, stop=threading.Event())
