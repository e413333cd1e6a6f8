"""What the hostile server can do to an answer: one function for each misbehaviour, freely combined.

    server.serve(path, data, [truncate(after=1000, times=2), rate_cap(bytes_per_s=1e6)])

`times=n` means: the first n of the requests that the behaviour concerns, None: all of them. What is done to a body
concerns GET, what is done to ranges concerns GET with a Range field, all else any method. A request that was refused
(a status, a redirect, no credentials) does not count for the behaviours of later stages.
`after=n` counts the bytes of the body that is being sent, wherever in the content it starts.
"""

import base64
import enum
import gzip
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate

from tests.servers.exchange import CutShort, Exchange, Framing, Mark, Request, Resource, requested_part, zeros
from tests.servers.wire import Connection, Pacer


class Stage(enum.IntEnum):
    """When a behaviour has its say; within a stage they follow the order in which they were given."""

    ADMIT = enum.auto()
    """Before anything is looked up: a refusal ends the matter here."""
    SELECT = enum.auto()
    """Before the answer is made: what the resource is, which range was asked for."""
    ANSWER = enum.auto()
    """After a well-behaved answer was made: its head and its body."""
    SEND = enum.auto()
    """How the body goes out."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A change to some of the answers for a path; made by the functions of this module."""

    name: str
    stage: Stage
    effect: Callable[[Exchange], None]
    concerns: Callable[[Request], bool]
    times: int | None = None
    spared: int = 0

    def only(self, predicate: Callable[[Request], bool]) -> "Behaviour":
        """The same, for those requests alone that satisfy `predicate` (which are also the only ones counted)."""
        return replace(self, concerns=lambda request: self.concerns(request) and predicate(request))

    def after_sparing(self, requests: int) -> "Behaviour":
        """The same, but the first `requests` of those concerned are answered as if it were not there."""
        return replace(self, spared=requests)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A short answer: an error, or a page that has nothing to do with what was asked for."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: int | None = None
    """Retry-After as a number of seconds."""
    retry_date_s: float | None = None
    """Retry-After as the HTTP-date this many seconds after the request, rounded up to a whole second."""
    body: bytes = b"no\n"

    def give(self, exchange: Exchange) -> None:
        """Make this the answer."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.retry_date_s is not None:
            headers["Retry-After"] = formatdate(math.ceil(time.time() + self.retry_date_s), usegmt=True)
        exchange.settle(self.status, headers, self.body)


def status(reply: int | Reply, *, times: int | None = None) -> Behaviour:
    """Answers with this status instead of the content."""
    return Behaviour(f"status({_reply(reply).status})", Stage.ADMIT, _reply(reply).give, _any, times)


def statuses(*script: int | Reply) -> Behaviour:
    """Answers with these, one for each request in turn, and as usual once they are used up; 200 means "as usual"."""
    replies = [_reply(reply) for reply in script]

    def follow_script(exchange: Exchange) -> None:
        if replies[exchange.turn].status != 200:
            replies[exchange.turn].give(exchange)

    name = f"statuses({', '.join(str(reply.status) for reply in replies)})"
    return Behaviour(name, Stage.ADMIT, follow_script, _any, len(replies))


def redirect(to: str, *, status: int = 302, times: int | None = None) -> Behaviour:
    """Redirects to a URL or a path; chains and loops are made of several paths."""
    reply = Reply(status=status, headers={"Location": to})
    return Behaviour(f"redirect({to!r}, {status=})", Stage.ADMIT, reply.give, _any, times)


def basic_auth(user: str, password: str, *, times: int | None = None) -> Behaviour:
    """Answers 401 to whoever does not send these credentials."""
    credentials = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    refusal = Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="weights"'})

    def require(exchange: Exchange) -> None:
        if exchange.request.headers.get("Authorization") != credentials:
            refusal.give(exchange)

    return Behaviour(f"basic_auth({user=})", Stage.ADMIT, require, _any, times)


def connection_limit(limit: int, *, reply: int | Reply = 503) -> Behaviour:
    """Refuses a request while `limit` others for the same path are being answered."""

    def refuse_beyond(exchange: Exchange) -> None:
        if exchange.concurrent > limit:
            _reply(reply).give(exchange)

    return Behaviour(f"connection_limit({limit=})", Stage.ADMIT, refuse_beyond, _any, None)


def delay(seconds: float, *, times: int | None = None) -> Behaviour:
    """Waits before the status line."""

    def wait_first(exchange: Exchange) -> None:
        exchange.delay_s += seconds

    return Behaviour(f"delay({seconds=})", Stage.ADMIT, wait_first, _any, times)


def no_answer(*, times: int | None = None) -> Behaviour:
    """Closes the connection without a word."""
    return _raw("no_answer", lambda: iter(()), times)


def garbage_status_line(line: bytes = b"\x16\x03\x01 SMTP 9000 hello\r\n", *, times: int | None = None) -> Behaviour:
    """Sends `line` and an empty line where HTTP should be, and closes."""
    return _raw("garbage_status_line", lambda: iter((line, b"\r\n")), times)


def endless_headers(*, times: int | None = None) -> Behaviour:
    """Sends header fields until the client goes away."""

    def fields() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        for number in itertools.count():
            yield b"X-Filler-%d: %b\r\n" % (number, b"x" * 1000)

    return _raw("endless_headers", fields, times)


def dripping_head(pause_s: float = 0.05, *, times: int | None = None) -> Behaviour:
    """Sends a header field that never ends, a byte at a time: no wait for the next byte is ever long."""

    def drops() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Filler: "
        while True:
            time.sleep(pause_s)
            yield b"x"

    return _raw("dripping_head", drops, times)


def endless_continue(pause_s: float = 0.01, *, times: int | None = None) -> Behaviour:
    """Says 100 Continue until the client goes away, and never what comes then."""

    def replies() -> Iterator[bytes]:
        while True:
            time.sleep(pause_s)
            yield b"HTTP/1.1 100 Continue\r\n\r\n"

    return _raw("endless_continue", replies, times)


def ignore_range(*, times: int | None = None) -> Behaviour:
    """Answers 200 with everything to a request for a part."""

    def forget_range(exchange: Exchange) -> None:
        exchange.range = None

    return Behaviour("ignore_range", Stage.SELECT, forget_range, _is_ranged, times)


def other_bytes_on_range(data: bytes, *, times: int | None = None) -> Behaviour:
    """Takes parts from `data`, under the ETag and the date of the real content."""

    def swap(exchange: Exchange) -> None:
        if exchange.resource is not None:
            true = exchange.resource
            exchange.resource = Resource.of(data, etag=true.etag, last_modified=true.last_modified)

    return Behaviour("other_bytes_on_range", Stage.SELECT, swap, _is_ranged, times)


def corrupt(at: int, *, times: int | None = None) -> Behaviour:
    """Flips the bits of the byte at this offset of the content, and says nothing of it in the head."""

    def flip(exchange: Exchange) -> None:
        true = exchange.resource
        if true is not None:
            data = bytearray(b"".join(true.read(0, true.size)))
            data[at] ^= 0xFF
            exchange.resource = Resource.of(bytes(data), etag=true.etag, last_modified=true.last_modified)

    return Behaviour(f"corrupt({at=})", Stage.SELECT, flip, _is_get, times)


def shifted_range(by: int, *, times: int | None = None) -> Behaviour:
    """Answers with another part than was asked for, `by` bytes further on, and says so in Content-Range."""

    def shift(exchange: Exchange) -> None:
        part = _part(exchange)
        if part:
            exchange.range = f"bytes={part.start + by}-{part.stop - 1 + by}"

    return Behaviour(f"shifted_range({by=})", Stage.SELECT, shift, _is_ranged, times)


def short_ranges(at_most: int, *, times: int | None = None) -> Behaviour:
    """Answers with the first `at_most` bytes of the part only, and says so: permitted by RFC 9110, 15.3.7."""

    def shorten(exchange: Exchange) -> None:
        part = _part(exchange)
        if part:
            exchange.range = f"bytes={part.start}-{min(part.stop, part.start + at_most) - 1}"

    return Behaviour(f"short_ranges({at_most=})", Stage.SELECT, shorten, _is_ranged, times)


def no_accept_ranges(*, times: int | None = None) -> Behaviour:
    """Leaves Accept-Ranges out; combine with `ignore_range` for a server that has no ranges."""

    def leave_out(exchange: Exchange) -> None:
        exchange.headers.pop("Accept-Ranges", None)

    return Behaviour("no_accept_ranges", Stage.ANSWER, leave_out, _any, times)


def refuse_ranges(*, times: int | None = None) -> Behaviour:
    """Answers 416 to every request for a part."""

    def refuse(exchange: Exchange) -> None:
        size = 0 if exchange.resource is None else exchange.resource.size
        Reply(status=416, headers={"Content-Range": f"bytes */{size}"}, body=b"").give(exchange)

    return Behaviour("refuse_ranges", Stage.SELECT, refuse, _is_ranged, times)


def wrong_content_range(*, start_by: int = 0, total: int | str | None = None, times: int | None = None) -> Behaviour:
    """Sends the right part under a Content-Range with its start moved `start_by` bytes, or with another total."""

    def lie(exchange: Exchange) -> None:
        if "Content-Range" in exchange.headers and exchange.is_ranged:
            span, _, true_total = exchange.headers["Content-Range"].removeprefix("bytes ").partition("/")
            first, _, last = span.partition("-")
            said = true_total if total is None else total
            exchange.headers["Content-Range"] = f"bytes {int(first) + start_by}-{int(last) + start_by}/{said}"

    return Behaviour(f"wrong_content_range({start_by=}, {total=})", Stage.ANSWER, lie, _is_ranged, times)


def declared_length(length: int | None = None, *, by: int = 0, times: int | None = None) -> Behaviour:
    """Says `length`, or the true length changed `by` that much, in Content-Length; closes after the true body."""

    def lie(exchange: Exchange) -> None:
        exchange.declared_size = (exchange.size or 0) + by if length is None else length

    return Behaviour(f"declared_length({length=}, {by=})", Stage.ANSWER, lie, _any, times)


def gzip_encoding(*, times: int | None = None) -> Behaviour:
    """Sends the body gzipped, under Content-Encoding: gzip, whatever Accept-Encoding asked for."""

    def compress(exchange: Exchange) -> None:
        exchange.set_body(gzip.compress(b"".join(exchange.body), mtime=0))
        exchange.headers["Content-Encoding"] = "gzip"

    return Behaviour("gzip_encoding", Stage.ANSWER, compress, _is_get, times)


def chunked(*, times: int | None = None) -> Behaviour:
    """Sends the body chunked, without a length; cut short by `truncate`, it lacks the chunk that ends it."""
    return _framing("chunked", Framing.CHUNKED, "HTTP/1.1", times)


def close_delimited(*, times: int | None = None) -> Behaviour:
    """Sends the body without a length and closes, as HTTP/1.0 does; cut short, nothing shows it."""
    return _framing("close_delimited", Framing.CLOSE, "HTTP/1.0", times)


def endless_body(*, declared: int | None = 10 * 10**12, times: int | None = None) -> Behaviour:
    """Sends zeros until the client goes away, as 200 with `declared` bytes; None: chunked, so without a length."""

    def flood(exchange: Exchange) -> None:
        exchange.headers.pop("Content-Range", None)
        exchange.status, exchange.body, exchange.size, exchange.declared_size = 200, zeros(), None, declared
        if declared is None:
            exchange.framing = Framing.CHUNKED

    return Behaviour(f"endless_body({declared=})", Stage.ANSWER, flood, _any, times)


def endless_parts(*, times: int | None = None) -> Behaviour:
    """Sends zeros until the client goes away, chunked, under the head of the right answer to a request for a part."""

    def flood(exchange: Exchange) -> None:
        exchange.body, exchange.size, exchange.framing = zeros(), None, Framing.CHUNKED

    return Behaviour("endless_parts", Stage.ANSWER, flood, _is_get, times)


def truncate(after: int, *, times: int | None = None) -> Behaviour:
    """Closes the connection, in good order for TCP, after so many bytes of the body."""
    return _mark(f"truncate({after=})", after, _cut(reset=False), times)


def reset(after: int, *, times: int | None = None) -> Behaviour:
    """Sends RST after so many bytes of the body have reached the client's kernel."""
    return _mark(f"reset({after=})", after, _cut(reset=True), times)


def stall(after: int, seconds: float, *, times: int | None = None) -> Behaviour:
    """Sends nothing for some time after so many bytes of the body, then goes on."""
    return _mark(f"stall({after=}, {seconds=})", after, lambda connection: connection.pause(seconds), times)


def drip(bytes_per_s: float, *, times: int | None = None) -> Behaviour:
    """Sends the body in the smallest pieces that still make the rate, down to single bytes."""
    piece = max(1, int(bytes_per_s / 1000))
    return _pace(f"drip({bytes_per_s=:g})", lambda: Pacer(bytes_per_s, piece=piece), times)


def rate_cap(bytes_per_s: float, *, times: int | None = None) -> Behaviour:
    """Limits each response, and so each connection, to this rate, evenly: a piece every 10 ms or more often."""
    return _pace(f"rate_cap({bytes_per_s=:g})", lambda: Pacer(bytes_per_s), times)


def _any(request: Request) -> bool:
    return True


def _is_get(request: Request) -> bool:
    return request.method == "GET"


def _is_ranged(request: Request) -> bool:
    return request.method == "GET" and request.range is not None


def _reply(reply: int | Reply) -> Reply:
    return reply if isinstance(reply, Reply) else Reply(status=reply)


def _part(exchange: Exchange) -> range | None:
    if exchange.range is None or exchange.resource is None:
        return None
    return requested_part(exchange.range, exchange.resource.size)


def _raw(name: str, head: Callable[[], Iterator[bytes]], times: int | None) -> Behaviour:
    def replace_head(exchange: Exchange) -> None:
        exchange.settle(200)
        exchange.raw_head = head()

    return Behaviour(name, Stage.ADMIT, replace_head, _any, times)


def _framing(name: str, framing: Framing, http_version: str, times: int | None) -> Behaviour:
    def frame(exchange: Exchange) -> None:
        exchange.framing, exchange.http_version = framing, http_version

    return Behaviour(name, Stage.ANSWER, frame, _any, times)


def _mark(name: str, after: int, happens: Callable[[Connection], None], times: int | None) -> Behaviour:
    mark = Mark(after, happens)
    return Behaviour(name, Stage.SEND, lambda exchange: exchange.marks.append(mark), _is_get, times)


def _pace(name: str, pacer: Callable[[], Pacer], times: int | None) -> Behaviour:
    return Behaviour(name, Stage.SEND, lambda exchange: exchange.pacers.append(pacer()), _is_get, times)


def _cut(*, reset: bool) -> Callable[[Connection], None]:
    def cut(_: Connection) -> None:
        raise CutShort(reset=reset)

    return cut
