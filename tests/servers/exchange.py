"""One request and its answer: what a well-behaved server says, and how an answer is put on the wire.

A behaviour (see `behaviours`) edits an `Exchange` between the two.
"""

import enum
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Final

from tests.servers.wire import Buffer, ClientGone, Connection, Pacer, cut_into_pieces, render_head

DERIVED: Final = "derived"
"""In the place of an ETag: make a strong one from the content."""

_READ_SIZE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the server saw it, and what became of it so far."""

    method: str
    path: str
    headers: Message
    """Case-insensitive: `request.headers["if-range"]`; None where the field was not sent."""
    connection_id: int
    time: float
    """When its head had been read, in seconds since the epoch."""
    status: int | None = None
    """None until there is an answer, and for good if that has no status."""
    body_bytes_sent: int = 0
    """Body bytes handed to the kernel, without chunk headers; up to some MiB of them may not have been read."""

    @property
    def range(self) -> str | None:
        """The Range field."""
        return self.headers.get("Range")


@dataclass(frozen=True, slots=True)
class Resource:
    """What a path holds at one moment: content and validators."""

    content: bytes | Path
    size: int
    etag: str | None
    last_modified: float | None

    @classmethod
    def of(cls, content: bytes | Path, *, etag: str | None = DERIVED, last_modified: float | None) -> "Resource":
        """The resource with this content; a file's ETag is derived from its time and size, as nginx does."""
        if isinstance(content, bytes):
            size, fingerprint = len(content), zlib.crc32(content)
        else:
            stat = content.stat()
            size, fingerprint = stat.st_size, stat.st_mtime_ns
        return cls(content, size, f'"{fingerprint:x}-{size:x}"' if etag == DERIVED else etag, last_modified)

    def read(self, start: int, stop: int) -> Iterator[Buffer]:
        """Yield the bytes from `start` up to `stop`."""
        if isinstance(self.content, bytes):
            yield memoryview(self.content)[start:stop]
            return
        with self.content.open("rb") as file:
            file.seek(start)
            while start < stop and (data := file.read(min(_READ_SIZE, stop - start))):
                start += len(data)
                yield data


class Framing(enum.Enum):
    """How the end of a body is told."""

    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    CLOSE = enum.auto()


class CutShort(Exception):
    """The answer ends here, whatever was promised."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happens once `after` bytes of the body were sent: a wait, or CutShort."""

    after: int
    happens: Callable[[Connection], None]


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request with the answer that is being made to it."""

    request: Request
    resource: Resource | None
    range: str | None
    """The Range field as the server chooses to see it."""
    concurrent: int = 1
    """How many requests for this path are being answered, this one included."""
    turn: int = 0
    """For the behaviour at work: how many requests it was applied to before."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Iterable[Buffer] = ()
    size: int | None = 0
    """Of the body as it will be sent; None if it never ends."""
    is_settled: bool = False
    """Whether the answer is made and the resource plays no part in it."""

    http_version: str = "HTTP/1.1"
    framing: Framing = Framing.LENGTH
    declared_size: int | None = None
    """For Content-Length, when it is not the size of the body."""
    raw_head: Iterable[bytes] | None = None
    """Sent instead of a status line and all that follows it; the connection is closed then."""
    delay_s: float = 0.0
    marks: list[Mark] = field(default_factory=list)
    pacers: list[Pacer] = field(default_factory=list)
    sent: int = 0
    is_begun: bool = False
    is_counted: bool = False
    """Whether it counts as being answered, for limits on concurrency."""

    @property
    def is_ranged(self) -> bool:
        """Whether the answer is a part of the resource."""
        return self.status == HTTPStatus.PARTIAL_CONTENT

    def settle(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Answer this, without looking at the resource."""
        self.status, self.is_settled = status, True
        self.headers = {"Date": formatdate(usegmt=True), **(headers or {})}
        self.set_body(body)

    def set_body(self, body: bytes) -> None:
        """Send `body`, with its right length."""
        self.body, self.size = (body,), len(body)

    def let_go(self) -> None:
        """Drop (and close) what the answer was made of; what is told of it stays."""
        self.body, self.resource = (), None

    def snapshot(self) -> Request:
        """The request and what became of it so far."""
        request = self.request
        status = self.status if self.is_begun and self.raw_head is None else None
        return Request(
            request.method, request.path, request.headers, request.connection_id, request.time, status, self.sent
        )


def requested_part(field_value: str, size: int) -> range | None:
    """The part of `size` bytes that a Range field asks for (RFC 9110, 14.1.2), clipped to what there is.

    Empty if there is nothing there (416). None if the field is to be ignored: not a byte range, or several.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", field_value.strip())
    if match is None or match.group(0).endswith("=-"):
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)


def answer_well(exchange: Exchange) -> None:
    """Answer as RFC 9110 has it: 200, 206, 416, or 404 and 405, with validators, Range and If-Range."""
    resource, request = exchange.resource, exchange.request
    if request.method not in {"GET", "HEAD"}:
        exchange.settle(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        return
    if resource is None:
        exchange.settle(HTTPStatus.NOT_FOUND, {"Content-Type": "text/plain"}, b"there is nothing here\n")
        return
    exchange.headers = headers = {
        "Date": formatdate(usegmt=True),
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
    }
    if resource.etag is not None:
        headers["ETag"] = resource.etag
    if resource.last_modified is not None:
        headers["Last-Modified"] = formatdate(resource.last_modified, usegmt=True)
    part = None
    if exchange.range is not None and request.method == "GET" and _is_if_range_met(request, headers):
        part = requested_part(exchange.range, resource.size)
    if part is None:
        exchange.status, exchange.size = HTTPStatus.OK, resource.size
        exchange.body = resource.read(0, resource.size)
    elif part:
        exchange.status, exchange.size = HTTPStatus.PARTIAL_CONTENT, len(part)
        exchange.body = resource.read(part.start, part.stop)
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{resource.size}"
    else:
        exchange.settle(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers | {"Content-Range": f"bytes */{resource.size}"}
        )


def transmit(exchange: Exchange, connection: Connection, *, wants_close: bool, leave: Callable[[], None]) -> bool:
    """Send the answer and return whether the connection can carry another.

    `leave()` is called just before the last byte of the body goes out, when its number can be known: whoever
    has read the whole answer finds the request ended. Raises CutShort and ClientGone.
    """
    if exchange.delay_s:
        connection.pause(exchange.delay_s)
    exchange.is_begun = True
    if exchange.raw_head is not None:
        for data in exchange.raw_head:
            connection.send(data)
        return False
    keeps_open = not wants_close and exchange.framing is not Framing.CLOSE
    is_headless = exchange.request.method == "HEAD"
    if exchange.framing is Framing.CHUNKED:
        exchange.headers["Transfer-Encoding"] = "chunked"
    elif exchange.framing is Framing.LENGTH:
        declared = exchange.size if exchange.declared_size is None else exchange.declared_size
        exchange.headers["Content-Length"] = str(declared)
        keeps_open = keeps_open and (is_headless or declared == exchange.size)
    if wants_close or exchange.framing is Framing.CLOSE:
        exchange.headers["Connection"] = "close"
    try:
        reason = HTTPStatus(exchange.status).phrase
    except ValueError:
        reason = "Unheard Of"
    if is_headless or exchange.size == 0:
        leave()
    connection.send(render_head(f"{exchange.http_version} {exchange.status:d} {reason}", exchange.headers))
    if is_headless:
        return keeps_open
    _transmit_body(exchange, connection, leave)
    return keeps_open and exchange.sent == exchange.size  # less where a file shrank while it was sent


def _transmit_body(exchange: Exchange, connection: Connection, leave: Callable[[], None]) -> None:
    marks = [mark for mark in exchange.marks if exchange.size is None or mark.after <= exchange.size]
    marks.sort(key=lambda mark: mark.after)
    largest = min((pacer.piece for pacer in exchange.pacers), default=_READ_SIZE)

    def reach_marks() -> None:
        while marks and marks[0].after <= exchange.sent:
            marks.pop(0).happens(connection)

    def room() -> int:
        reach_marks()
        return min(largest, marks[0].after - exchange.sent) if marks else largest

    for piece in cut_into_pieces(iter(exchange.body), room):
        for pacer in exchange.pacers:
            connection.pause(pacer.delay_s(len(piece)))
        # Counted before it is sent: a client that has read the last byte must find all of them counted.
        exchange.sent += len(piece)
        if exchange.sent == exchange.size and not marks:
            leave()
        try:
            connection.send(_chunk(piece) if exchange.framing is Framing.CHUNKED else piece)
        except ClientGone as gone:
            exchange.sent -= min(gone.unsent, len(piece))
            raise
    reach_marks()
    if exchange.framing is Framing.CHUNKED:
        connection.send(b"0\r\n\r\n")


def zeros() -> Iterator[Buffer]:
    """Zero bytes without end."""
    return itertools.repeat(memoryview(bytes(_READ_SIZE)))


def _chunk(piece: memoryview) -> bytes:
    return b"".join((b"%x\r\n" % len(piece), piece, b"\r\n"))


def _is_if_range_met(request: Request, headers: dict[str, str]) -> bool:
    """Whether If-Range allows a part: a strong ETag that is the same, or the very date (RFC 9110, 13.1.5)."""
    validator = request.headers.get("If-Range")
    if validator is None:
        return True
    if validator.startswith(('"', "W/")):
        return validator.startswith('"') and validator == headers.get("ETag")
    return validator == headers.get("Last-Modified")
