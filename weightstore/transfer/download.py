"""One blob from one source into a part: sizes checked, hashed on the way, resumed after every kind of cut.

The part's bytes are right when :func:`download` returns: their digest is what it says, and agrees with the pin.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weightstore.digest import Digest
from weightstore.errors import (
    Cancelled,
    DigestMismatch,
    NoSpace,
    RefusedResponse,
    SizeMismatch,
    SourceUnavailable,
    TransferError,
)
from weightstore.records import Journal, Validator
from weightstore.store.owner import this_process
from weightstore.store.parts import Part, take_over
from weightstore.transfer.pace import SLOWEST_BYTES_PER_S, Pace
from weightstore.transfer.pipeline import READ_SIZE, Checkpoint, HashingWriter
from weightstore.transfer.progress import Meter, Silent
from weightstore.transfer.ranged import (
    FAST_BYTES_PER_S,
    SETTLE_S,
    WORTHWHILE_BYTES,
    WORTHWHILE_S,
    FileChanged,
    RangedDownload,
)
from weightstore.transfer.transport import RangeNotSatisfiable

if TYPE_CHECKING:
    from weightstore.digest import Pin
    from weightstore.source import Source
    from weightstore.store.blobs import Hasher
    from weightstore.store.layout import Layout
    from weightstore.transfer.connections import Connections
    from weightstore.transfer.retry import RetryPolicy
    from weightstore.transfer.transport import Answer, Body, Declared, Transport

# An attempt that brought less is one without progress, so that a source that drips cannot keep us forever.
_WORTH_ASKING_BYTES = 4 << 20
_PROGRESS_BYTES = 256 << 10
# So often may a file start anew because the server served another version of it.
_RESTARTS = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a download may use. Sizes are bytes, durations seconds.

    ``exact_size`` is what the file must have; ``max_size`` what it may have at most; ``connections_per_file`` counts
    the first one. ``needs_length`` refuses a source that does not say how long a file of unknown size is. Slower
    than ``slowest_bytes_per_s``, over ``slow_s``, a single stream is given up.
    """

    exact_size: int | None = None
    max_size: int | None = None
    needs_length: bool = False
    connections_per_file: int = 16
    stall_s: float = 60.0
    slow_s: float = 30.0
    slowest_bytes_per_s: int = SLOWEST_BYTES_PER_S


@dataclass(slots=True)
class _State:
    """How far a download has come. ``part``'s first ``offset`` bytes are those that ``hasher`` has seen."""

    part: Part
    offset: int = 0
    hasher: Hasher = field(default_factory=hashlib.sha256)
    total: int | None = None
    validator: Validator = field(default_factory=Validator)
    is_resumed: bool = False
    is_pieced: bool = False
    may_range: bool = True
    declared: Declared | None = None

    def start_anew(self) -> None:
        self.part.truncate(0)
        self.offset, self.hasher = 0, hashlib.sha256()
        self.total, self.validator, self.is_resumed, self.is_pieced = None, Validator(), False, False
        self.declared = None

    @property
    def is_complete(self) -> bool:
        return self.total is not None and self.offset == self.total


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A complete part: its content has ``digest`` and ``size`` bytes, of which ``received`` came just now.

    ``received`` is less than the size where a part was resumed, and more where something had to be fetched again.
    ``declared`` is what the Hub said of it, and the bytes do not contradict.
    """

    part: Part
    digest: Digest
    size: int
    received: int
    declared: Declared | None = None


class DeclaredOtherwise(DigestMismatch):
    """A source says beforehand that its content has another digest than the pin: no byte of it was used."""


def download(
    source: Source,
    pin: Pin,
    *,
    layout: Layout,
    key: str,
    transport: Transport,
    limits: Limits,
    connections: Connections,
    retry: RetryPolicy,
    stop: threading.Event,
    meter: Meter | None = None,
    may_resume: bool = True,
) -> Downloaded:
    """Bring a source's bytes into a part of ours; the caller publishes or discards it.

    What an earlier process left behind under the same ``key`` is taken over and gone on with. On errors that may pass,
    and when stopped, the part and its journal stay for the next run; on others they are removed.

    Raises:
        DigestMismatch, SizeMismatch: the source serves something else.
        TransferError: it cannot be read; SourceUnavailable where trying later may help.
        NoSpace: the disk or the quota is, or would be, full.
        Cancelled: ``stop`` was set.
    """
    job = _Download(source, pin, layout, key, transport, limits, connections, retry, stop, meter or Silent())
    return job.run(may_resume=may_resume)


class _Counting:
    """Passes everything on to a meter, and counts the bytes."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._lock = threading.Lock()
        self.received = 0
        self.start = meter.start
        self.note = meter.note

    def advance(self, size: int) -> None:
        with self._lock:
            self.received += size
        self._meter.advance(size)


class _Download:
    def __init__(
        self,
        source: Source,
        pin: Pin,
        layout: Layout,
        key: str,
        transport: Transport,
        limits: Limits,
        connections: Connections,
        retry: RetryPolicy,
        stop: threading.Event,
        meter: Meter,
    ) -> None:
        self.source = source
        self.pin = pin
        self.layout = layout
        self.key = key
        self.transport = transport
        self.limits = limits
        self.connections = connections
        self.retry = retry
        self.stop = stop
        self.meter = _Counting(meter)

    def run(self, *, may_resume: bool) -> Downloaded:
        state = (self._resumed() if may_resume else None) or _State(Part.create(self.layout, self.key))
        try:
            if state.is_resumed:  # taking over took the journal away: another SIGKILL now must not cost it all
                self._checkpoint(state)(state.offset, Digest(state.hasher.hexdigest()))
            return self._complete(state)
        except (SourceUnavailable, Cancelled, KeyboardInterrupt, SystemExit):
            self._leave(state)
            raise
        except (TransferError, DeclaredOtherwise):
            # A mirror that does not have it, a branch that moved on: what an earlier source gave is for the next one.
            if state.is_resumed:
                self._leave(state)
            else:
                state.part.discard()
            raise
        except BaseException:
            state.part.discard()
            raise

    def _complete(self, state: _State) -> Downloaded:
        """Attempt until the file is complete and right, or no further attempt is worth it."""
        attempt = restarts = best = 0
        while True:
            is_pieced = state.is_resumed or state.offset > 0
            try:
                digest = self._attempt(state)
                self._compare(state, digest)
            except (FileChanged, RangeNotSatisfiable) as error:
                restarts += 1
                if state.offset == 0:
                    raise
                if restarts > _RESTARTS:
                    raise SourceUnavailable(source=error.source, reason=error.reason) from None
                self.meter.note(f"{error.reason}: starting anew")
                state.start_anew()
                state.may_range = False
            except DeclaredOtherwise:
                raise
            except DigestMismatch:
                # The pieces may be of several versions, or the beginning was damaged while it lay, or the connection
                # was cut where only its end tells the file's: once more, whole.
                if not (is_pieced or state.is_pieced) or restarts >= _RESTARTS:
                    raise
                restarts = _RESTARTS
                self.meter.note("the pieces do not fit: starting anew")
                state.start_anew()
                state.may_range = False
            except SourceUnavailable as error:
                if self.stop.is_set():
                    raise Cancelled from None
                attempt = 1 if state.offset >= best + _PROGRESS_BYTES else attempt + 1
                best = max(best, state.offset)
                if attempt > self.retry.attempts:
                    raise
                self._pause(self.retry.delay_s(attempt, error), error)
            else:
                return Downloaded(state.part, digest, state.offset, self.meter.received, state.declared)

    def _compare(self, state: _State, digest: Digest) -> None:
        if not self.pin.matches(digest):
            raise DigestMismatch(source=self.source.display, expected=str(self.pin), actual=str(digest))
        declared = state.declared.digest if state.declared is not None else None
        if declared is not None and declared != digest:
            raise DigestMismatch(source=self.source.display, expected=f"{declared} (by the Hub)", actual=str(digest))
        expected = self.limits.exact_size
        if expected is not None and state.offset != expected:
            raise SizeMismatch(source=self.source.display, expected=expected, actual=state.offset)

    def _pause(self, delay_s: float, error: SourceUnavailable) -> None:
        self.meter.note(f"{error.reason}; trying again in {delay_s:.1f} s")
        if self.stop.wait(delay_s):
            raise Cancelled

    # -- resuming -----------------------------------------------------------------------------------------------

    def _resumed(self) -> _State | None:
        """Return the most advanced part left behind that this download can go on with."""
        chosen: _State | None = None
        for part, journal, hasher in take_over(self.layout, self.key, stall_s=self.limits.stall_s):
            if chosen is None and self._can_resume(journal):
                same = journal.source == self.source
                chosen = _State(
                    part,
                    journal.offset,
                    hasher,
                    journal.total if same else None,
                    journal.validator if same else Validator(),
                    is_resumed=True,
                )
                self.meter.note(f"resuming after {journal.offset / 1e6:.1f} MB")
            else:
                part.discard()
        return chosen

    def _can_resume(self, journal: Journal) -> bool:
        if not self.pin.agrees_with(journal.pin):
            return False
        if self.pin.is_full:
            return True  # whoever served the beginning, the digest of the whole decides
        return journal.source == self.source and (self.pin.is_pinned or bool(journal.validator))

    def _leave(self, state: _State) -> None:
        """Leave the part for the next run, if there is something in it worth going on with."""
        if state.offset == 0 or not self._is_resumable(state):
            state.part.discard()
            return
        try:
            state.part.truncate(state.offset)
            self._checkpoint(state)(state.offset, Digest(state.hasher.hexdigest()))
        finally:
            state.part.abandon()

    def _is_resumable(self, state: _State) -> bool:
        return self.pin.is_pinned or bool(state.validator)

    def _checkpoint(self, state: _State) -> Checkpoint:
        def note(offset: int, digest: Digest) -> None:
            journal = Journal(self.source, self.pin, state.total, state.validator, offset, digest, this_process())
            state.part.checkpoint(journal)

        return note

    # -- one attempt --------------------------------------------------------------------------------------------

    def _attempt(self, state: _State) -> Digest:
        """Receive what is still missing; return the digest of the whole. Leaves ``state`` right, also after errors."""
        with self.connections.one():
            while not state.is_complete:
                if self.stop.is_set():
                    raise Cancelled
                began = state.offset
                body = self.transport.open(self.source, start=state.offset, validator=state.validator)
                try:
                    self._accept(body.answer, state)
                    self.meter.start(self.source.display, offset=state.offset, total=state.total)
                    digest = self._receive(body, state)
                finally:
                    body.close()
                if state.total is None:
                    return digest
                # A server may answer a range with less of it (RFC 9110, 15.3.7): ask for the rest.
                if state.offset < min(state.total, began + _PROGRESS_BYTES):
                    raise SourceUnavailable(source=self.source.display, reason="sends less than was asked for")
        return Digest(state.hasher.hexdigest())

    def _accept(self, answer: Answer, state: _State) -> None:
        """Check an answer against what is known, before its first byte is used."""
        source = self.source.display
        declared = answer.declared.digest if answer.declared is not None else None
        if declared is not None and not self.pin.matches(declared):
            raise DeclaredOtherwise(source=source, expected=str(self.pin), actual=str(declared))
        if answer.start not in {0, state.offset}:
            raise RefusedResponse(source=source, reason="sent another range than was asked for")
        changed = (
            state.total is not None and answer.total is not None and answer.total != state.total
        ) or answer.validator.contradicts(state.validator)
        if state.offset and answer.start == state.offset and changed:
            raise FileChanged(source=source, reason="the file changed since the download began")
        if answer.start != state.offset:
            state.start_anew()
        # A partial answer may leave out what the first one said.
        state.total = state.total if answer.total is None else answer.total
        state.validator = answer.validator or state.validator
        state.declared = answer.declared
        state.is_pieced |= not answer.self_delimiting
        is_delimited = answer.self_delimiting or (answer.start > 0 and state.total is not None)
        if state.total is None and self.limits.exact_size is None and self.limits.needs_length:
            raise RefusedResponse(source=source, reason="does not say how long the file is")
        if not is_delimited and not self.pin.is_pinned and self.limits.exact_size is None:
            raise RefusedResponse(
                source=source,
                reason="does not say how long the file is, so a cut could not be told from its end. "
                "Give its digest: #sha256=<64 hex>",
            )
        if answer.total is not None:
            self._check_size(answer.total)
            self._check_space(answer.total - state.offset)

    def _check_size(self, size: int) -> None:
        limits = self.limits
        if limits.exact_size is not None and size != limits.exact_size:
            raise SizeMismatch(source=self.source.display, expected=limits.exact_size, actual=size)
        if limits.max_size is not None and size > limits.max_size:
            raise RefusedResponse(
                source=self.source.display,
                reason=f"{size} bytes are more than the {limits.max_size} that max_size or its known size allows",
            )

    def _check_space(self, needed: int) -> None:
        if needed < _WORTH_ASKING_BYTES:
            return  # a full disk says so soon enough
        try:
            found = os.statvfs(self.layout.tmp)
        except OSError:
            return
        free = found.f_bavail * found.f_frsize
        if needed > free:
            reason = f"{self.source.display} declares more than there is room for"
            raise NoSpace(place=str(self.layout.root), needed=needed, free=free, reason=reason)

    def _receive(self, body: Body, state: _State) -> Digest:
        checkpoint = self._checkpoint(state) if self._is_resumable(state) else None
        writer = HashingWriter(
            state.part.fd, hasher=state.hasher, offset=state.offset, expected=state.total, checkpoint=checkpoint
        )
        rate: float | None = None
        try:
            rate = self._stream(body, state, writer)
        finally:
            state.offset, digest, state.hasher = writer.suspend()
        del writer  # and its buffers: ranges bring their own
        if rate is None:
            return digest
        return self._ranged(body, state, rate)

    def _stream(self, body: Body, state: _State, writer: HashingWriter) -> float | None:
        """Write what comes until the end, and return None; or, where more connections are worth a try, the rate."""
        may_range = state.may_range and self._may_range(body.answer, state)
        began = time.monotonic()
        pace = Pace(self.source.display, self.limits.slow_s, slowest=self.limits.slowest_bytes_per_s)
        while data := body.read(READ_SIZE, into=writer.room()):
            writer.write(data)
            self.meter.advance(len(data))
            if self.stop.is_set():
                raise Cancelled
            self._check_growth(writer.offset, state)
            pace.passed(len(data))
            now = time.monotonic()
            if may_range and now - began >= SETTLE_S:
                rate = (writer.offset - state.offset) / (now - began)
                left = (state.total or 0) - writer.offset
                if rate < FAST_BYTES_PER_S and left > max(WORTHWHILE_BYTES, rate * WORTHWHILE_S):
                    return rate
                may_range = False
        return None

    def _check_growth(self, size: int, state: _State) -> None:
        """Hold a body of undeclared length to the limits while it comes."""
        if state.total is None:
            if self.limits.exact_size is not None and size > self.limits.exact_size:
                raise SizeMismatch(source=self.source.display, expected=self.limits.exact_size, actual=size)
            if self.limits.max_size is not None and size > self.limits.max_size:
                self._check_size(size)

    def _may_range(self, answer: Answer, state: _State) -> bool:
        return (
            self.limits.connections_per_file > 1
            and answer.accepts_ranges
            and state.total is not None
            and (bool(state.validator) or self.pin.is_pinned)
        )

    def _ranged(self, body: Body, state: _State, rate: float) -> Digest:
        if state.total is None:
            raise TransferError(source=self.source.display, reason="ranges of a file of unknown length")
        state.is_pieced = True
        ranged = RangedDownload(
            self.source,
            state.part.fd,
            transport=self.transport,
            total=state.total,
            offset=state.offset,
            hasher=state.hasher,
            validator=state.validator,
            connections=self.connections,
            limit=self.limits.connections_per_file,
            meter=self.meter,
            stop=self.stop,
            slow_s=self.limits.slow_s,
            checkpoint=self._checkpoint(state) if self._is_resumable(state) else None,
        )
        try:
            return ranged.run(body, rate=rate)
        except RefusedResponse as error:  # it announced ranges and has none: the whole may be had over one connection
            state.may_range = False
            raise SourceUnavailable(source=error.source, reason=error.reason) from None
        finally:
            state.offset, state.hasher = ranged.hashed, ranged.hasher
            if state.offset < state.total:
                state.part.truncate(state.offset)
