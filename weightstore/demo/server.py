"""A small HTTP server on loopback: whole files and ranges, strong ETags, a log, and a brake."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PIECE = 64 << 10


@dataclass(slots=True)
class Served:
    """One answer. ``first`` is the offset of its first byte, ``sent`` the bytes of its body so far."""

    path: str
    status: int
    first: int = 0
    sent: int = 0


class Origin:
    """Serves files by name, and remembers what it sent. Set ``bytes_per_s`` to slow it down."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        self.etags = {name: _etag(path) for name, path in files.items()}
        self.log: list[Served] = []
        self.bytes_per_s: float | None = None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.origin = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening: from here on the port refuses. Stopping twice is no error."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _etag(path: Path) -> str:
    with path.open("rb") as file:
        return f'"{hashlib.file_digest(file, "sha256").hexdigest()[:32]}"'


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    origin: Origin

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of the demonstration."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """Nothing on the terminal: the log is for counting."""

    def _answer(self, *, with_body: bool) -> None:
        origin = self.server.origin
        name = self.path.partition("?")[0].lstrip("/")
        path = origin.files.get(name)
        if path is None:
            self.send_error(404)
            return
        size, etag = path.stat().st_size, origin.etags[name]
        span = self._span(size, etag)
        served = Served(name, 206 if span else 200, span.start if span else 0)
        if span is not None and not span:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        part = span if span is not None else range(size)
        self.send_response(served.status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(part)))
        if span is not None:
            self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
        self.end_headers()
        origin.log.append(served)
        if with_body:
            self._send(path, part, served)

    def _span(self, size: int, etag: str) -> range | None:
        """Return the part that was asked for; None for the whole, an empty range where it cannot be satisfied."""
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None or self.headers.get("If-Range", etag) != etag:
            return None
        first = int(match[1])
        last = int(match[2]) if match[2] else size - 1
        return range(first, min(last + 1, size))

    def _send(self, path: Path, part: range, served: Served) -> None:
        began = time.monotonic()
        with path.open("rb") as file:
            file.seek(part.start)
            while served.sent < len(part):
                data = file.read(min(_PIECE, len(part) - served.sent))
                if not data:
                    return
                self.wfile.write(data)
                served.sent += len(data)
                rate = self.server.origin.bytes_per_s
                if rate is not None:
                    time.sleep(max(0.0, served.sent / rate - (time.monotonic() - began)))
