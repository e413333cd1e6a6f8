"""Uploads that break: what arrived is not sent again, and what was left is taken back."""

from __future__ import annotations

import hashlib
import http.server
import random
import threading
from collections.abc import Iterator

import pytest

from weightstore.cluster.mirror.registry import PIECE, InRegistry
from weightstore.digest import Digest
from weightstore.errors import BlobDamaged, SourceUnavailable
from weightstore.source import Source
from weightstore.transfer.http import HttpTransport
from weightstore.transfer.logins import Logins
from weightstore.transfer.registry import Registry
from weightstore.transfer.retry import RetryPolicy

DATA = random.Random(7).randbytes(PIECE + 300_000)
CHUNKS = [DATA[start : start + (1 << 20)] for start in range(0, len(DATA), 1 << 20)]
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())


class CuttingRegistry(http.server.ThreadingHTTPServer):
    """A registry of one upload at a time, which hangs up in the middle of so many pieces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cuts = 0
        self.data = bytearray()
        self.received = 0
        self.said: str | None = None
        self.methods: list[str] = []
        self.is_complete = False


class _Handler(http.server.BaseHTTPRequestHandler):
    server: CuttingRegistry

    def answer(self) -> None:
        server = self.server
        server.methods.append(self.command)
        length = int(self.headers.get("Content-Length") or 0)
        if self.command == "PATCH" and server.cuts:
            server.cuts -= 1
            self.take(length // 2)
            self.close_connection = True
            return None
        if self.command == "PATCH":
            assert int(self.headers["Content-Range"].partition("-")[0]) == len(server.data)
        self.take(length)
        if self.command == "POST":
            server.data.clear()
        if self.command in {"POST", "PATCH"}:
            return self.reply(202, {"Location": "/v2/w/blobs/uploads/1?state=x"})
        if self.command == "PUT":
            server.is_complete = hashlib.sha256(server.data).hexdigest() in self.path
            return self.reply(201 if server.is_complete else 400)
        if self.command == "GET" and "uploads" in self.path:
            return self.reply(204, {"Range": server.said or f"0-{max(len(server.data) - 1, 0)}"})
        return self.reply(204 if self.command == "DELETE" else 200)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815 - as http.server calls them

    def take(self, length: int) -> None:
        data = self.rfile.read(length)
        self.server.data += data
        self.server.received += len(data)

    def reply(self, status: int, fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(fields or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[CuttingRegistry]:
    with CuttingRegistry() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def place(server: CuttingRegistry) -> Iterator[InRegistry]:
    http = HttpTransport(connect_timeout_s=5, read_timeout_s=5, pool_size=2, user_agent="test")
    registry = Registry(http, logins=Logins([]))
    source = Source(f"oci://127.0.0.1:{server.server_port}/w")
    yield InRegistry(source, registry, retry=RetryPolicy(attempts=3, base_s=0.01))
    http.close()


def test_a_piece_that_was_cut_is_gone_on_with(server: CuttingRegistry, place: InRegistry) -> None:
    server.cuts = 2
    place._upload(DIGEST, CHUNKS)
    assert server.is_complete
    assert server.received == len(DATA)


def test_an_upload_that_keeps_being_cut_is_given_up_and_taken_back(server: CuttingRegistry, place: InRegistry) -> None:
    server.cuts = 9
    with pytest.raises(SourceUnavailable):
        place._upload(DIGEST, CHUNKS)
    assert server.methods[-1] == "DELETE"
    assert "PUT" not in server.methods


@pytest.mark.parametrize("said", ["nothing", "5-7", "0-x", "0--1", "0-999999999999", f"0-{'9' * 99}"])
def test_an_upload_of_which_the_registry_does_not_know_what_it_has_is_begun_anew(
    server: CuttingRegistry, place: InRegistry, said: str
) -> None:
    server.cuts, server.said = 1, said
    place._upload(DIGEST, CHUNKS)
    assert server.is_complete
    assert server.methods.count("POST") == 2


def test_content_that_turns_out_damaged_never_completes(server: CuttingRegistry, place: InRegistry) -> None:
    def damaged() -> Iterator[bytes]:
        yield from CHUNKS[:-1]
        raise BlobDamaged(place="blob", expected="a", actual="b")

    with pytest.raises(BlobDamaged):
        place._upload(DIGEST, damaged())
    assert server.methods[-1] == "DELETE"
    assert "PUT" not in server.methods
