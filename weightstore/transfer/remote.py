"""A file on a server as bytes that can be read anywhere, by asking for ranges: what is not read does not travel."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from weightstore.errors import Cancelled, RefusedResponse, SourceUnavailable
from weightstore.transfer.pace import Pace
from weightstore.transfer.transport import RangeNotSatisfiable

if TYPE_CHECKING:
    import threading

    from weightstore.records import Validator
    from weightstore.source import Source
    from weightstore.transfer.connections import Connections
    from weightstore.transfer.retry import RetryPolicy
    from weightstore.transfer.transport import Answer, Declared, Transport

# So much is asked for at least. A round trip takes as long as some hundred kilobytes do.
LEAST_BYTES = 64 << 10
_READ_SIZE = 1 << 20


class RemoteFile:
    """A source's bytes. What was received is kept; memory grows with what is read, never with the file.

    All of it is of one version of the file, as far as the server tells versions apart. It is *not* verified.
    """

    is_near = False

    def __init__(
        self,
        source: Source,
        *,
        transport: Transport,
        connections: Connections,
        retry: RetryPolicy,
        slow_s: float,
        stop: threading.Event,
    ) -> None:
        """Ask for the beginning, and so learn how long the file is.

        Raises:
            RefusedResponse: the server does not serve ranges, or does not say how long the file is.
            SourceUnavailable: it cannot be reached, after the retries.
            SourceNotFound, AccessDenied: it is not there, or not for us.
            Cancelled: ``stop`` was set.
        """
        self.received = 0
        self.size = LEAST_BYTES  # until the first answer says it
        self.declared: Declared | None = None  # what the Hub said of it, where it is on the Hub
        self._source = source
        self._transport = transport
        self._connections = connections
        self._retry = retry
        self._slow_s = slow_s
        self._stop = stop
        self._validator: Validator | None = None
        # Spans of what is here: their first offsets, in order, and their bytes.
        self._starts: list[int] = []
        self._spans: list[bytes] = []
        self._fetch(0, LEAST_BYTES)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly so many bytes; the range lies within the size.

        Raises:
            RefusedResponse: the file changed since the first read.
            SourceUnavailable: it cannot be reached, after the retries.
            Cancelled: the caller's event was set.
        """
        pieces = []
        position, end = offset, offset + length
        while position < end:
            index = bisect.bisect_right(self._starts, position) - 1
            inside = position - self._starts[index]  # the first span begins at 0
            span = self._spans[index]
            if inside < len(span):
                piece = span[inside : inside + end - position]
                pieces.append(piece)
                position += len(piece)
            else:
                self._fetch_around(position, end, index)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _fetch_around(self, start: int, end: int, index: int) -> None:
        """Fetch what is missing from ``start``, up to ``end`` and a little further: backwards where the file ends."""
        following = self._starts[index + 1] if index + 1 < len(self._starts) else self.size
        stop = min(max(end, start + LEAST_BYTES), following)
        if stop == self.size:
            before = self._starts[index] + len(self._spans[index])
            start = max(before, min(start, self.size - LEAST_BYTES))
        self._fetch(start, stop)

    def _fetch(self, start: int, end: int) -> None:
        got = bytearray()
        attempt = 0
        while start + len(got) < min(end, self.size):
            before = len(got)
            try:
                with self._connections.one():
                    self._receive(start + len(got), end, got)
                if len(got) == before:
                    raise SourceUnavailable(source=self._source.display, reason="sends less than was asked for")
            except SourceUnavailable as error:
                if self._stop.is_set():
                    raise Cancelled from None
                attempt = 0 if len(got) - before >= LEAST_BYTES else attempt
                attempt += 1
                if attempt > self._retry.attempts:
                    raise
                if self._stop.wait(self._retry.delay_s(attempt, error)):
                    raise Cancelled from None
        index = bisect.bisect_left(self._starts, start)
        self._starts.insert(index, start)
        self._spans.insert(index, bytes(got))

    def _receive(self, start: int, end: int, got: bytearray) -> None:
        try:
            body = self._transport.open(self._source, start=start, end=end, validator=self._validator)
        except RangeNotSatisfiable as error:
            raise self._no_ranges(error.reason) if self._validator is None else self._changed() from None
        try:
            self._accept(body.answer, start, end)
            pace = Pace(self._source.display, self._slow_s)
            while data := body.read(_READ_SIZE):
                got += data
                self.received += len(data)
                pace.passed(len(data))
                if self._stop.is_set():
                    raise Cancelled
        finally:
            body.close()

    def _accept(self, answer: Answer, start: int, end: int) -> None:
        """Check an answer before its first byte is used: it must be of the version and the range that is wanted."""
        if self._validator is None:
            if answer.total is None or answer.end is None:
                raise self._no_ranges("it does not say how long the file is")
            if answer.end > end:
                raise self._no_ranges("it sends the whole")
            self.size, self._validator, self.declared = answer.total, answer.validator, answer.declared
            return
        if answer.total != self.size or answer.validator.contradicts(self._validator):
            raise self._changed()
        if answer.start != start or answer.end is None or answer.end > end:
            raise self._no_ranges("it did, and now it sends the whole")

    def _no_ranges(self, why: str) -> RefusedResponse:
        return RefusedResponse(
            source=self._source.display,
            reason=f"does not serve parts of the file ({why}), so that it cannot be looked into from here. "
            "Fetch it first: weightstore prefetch",
        )

    def _changed(self) -> RefusedResponse:
        return RefusedResponse(source=self._source.display, reason="the file changed while it was read. Try again")
