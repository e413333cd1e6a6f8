"""One file over several connections, where one connection is what limits: a CDN's cap, or a long fat network.

It starts as a single stream. More connections are opened while each step makes the whole faster (1, 4, 8, 16), within
the file's and the global limit; when a step brings nothing, or the server refuses, no more are opened. Hashing follows
the frontier, reading back from the page cache.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from weightstore.digest import Digest
from weightstore.errors import (
    Cancelled,
    RefusedResponse,
    SourceUnavailable,
    TransferError,
)
from weightstore.store.durability import start_write_back
from weightstore.store.layout import translated
from weightstore.transfer.extents import MAX_CHUNK, Chunk, Extents
from weightstore.transfer.pace import Pace
from weightstore.transfer.pipeline import READ_SIZE, Cadence, Checkpoint

if TYPE_CHECKING:
    from weightstore.records import Validator
    from weightstore.source import Source
    from weightstore.store.blobs import Hasher
    from weightstore.transfer.connections import Connections
    from weightstore.transfer.progress import Meter
    from weightstore.transfer.transport import Body, Transport

# A stream faster than this is limited by hashing, the disk or this machine, which more streams do not help: on a
# loopback without caps eight ranges were a quarter slower than one stream.
FAST_BYTES_PER_S = 256 << 20
# Below these, a file is done before further connections would have paid for themselves.
WORTHWHILE_BYTES = 8 << 20
WORTHWHILE_S = 1.0
# Long enough for a server that paces its sending in bursts to show its mean rate.
SETTLE_S = 0.25
_STEPS = (4, 8, 16, 32, 64)
_GAIN_PER_DOUBLING = 1.2
_TICK_S = 0.02
_WRITE_BACK = 32 << 20
# Sixteen connections hold one such block each.
_READ_SIZE = 256 << 10
# A chunk is about one second of its connection: what lies beyond the frontier is lost when the download is stopped.
_CHUNK_S = 1.0
_SMALLEST_CHUNK = 256 << 10
# So often, when the last connection failed, one more is opened before all beyond the frontier is given up.
_REVIVALS = 3
_REVIVE_AFTER_S = 0.5


class FileChanged(TransferError):
    """The source serves another version of the file than when the download began."""


class RangedDownload:
    """Fetches ``[offset, total)`` of a source into an open file and hashes it on the way."""

    def __init__(
        self,
        source: Source,
        fd: int,
        *,
        transport: Transport,
        total: int,
        offset: int,
        hasher: Hasher,
        validator: Validator,
        connections: Connections,
        limit: int,
        meter: Meter,
        stop: threading.Event,
        slow_s: float,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._source = source
        # A descriptor of our own, closed by its last user: a thread that outlives an interrupted run must not write to
        # whatever file has got the number meanwhile.
        self._fd = os.dup(fd)
        self._users = 1
        self._transport = transport
        self._total = total
        self._validator = validator
        self._connections = connections
        self._limit = limit
        self._meter = meter
        self._stop = stop
        self._slow_s = slow_s
        self._cadence = Cadence(checkpoint, offset)
        self._extents = Extents(offset, total)
        self._lock = threading.Lock()
        self._workers: set[threading.Thread] = set()
        self._wanted = 1
        self._rate = 0.0
        self._fatal: Exception | None = None
        self._last: TransferError | None = None
        self.hasher = hasher
        self.hashed = offset

    def run(self, body: Body, *, rate: float) -> Digest:
        """Finish the download whose first stream is open at ``offset``; return the digest of the whole file.

        ``rate`` is what the single stream brought so far, in bytes a second. Afterwards, also after an error,
        ``hashed`` bytes from the front are good and ``hasher`` has seen exactly these.

        Raises:
            SourceUnavailable: no connection is left.
            FileChanged: another version of the file is served now.
            Cancelled: ``stop`` was set.
        """
        hashing = threading.Thread(target=self._follow, name="weightstore-hash", daemon=True)
        self._users += 1
        hashing.start()
        self._rate = rate
        try:
            self._spawn(body, self._claim(), extra=False)
            self._steer()
        except BaseException:
            self._extents.stop()
            self._transport.interrupt()
            raise
        finally:
            self._extents.stop()
            for worker in list(self._workers):
                worker.join()
            hashing.join()
            self._let_go()
        if self._fatal is not None:
            raise self._fatal
        if self._stop.is_set() and self.hashed < self._total:
            raise Cancelled
        if self.hashed < self._total:
            raise self._last or SourceUnavailable(source=self._source.display, reason="all connections ended")
        return Digest(self.hasher.hexdigest())

    # -- steering -----------------------------------------------------------------------------------------------

    def _steer(self) -> None:
        """Open connections while it helps, until all is fetched or nothing more can be done."""
        growing = True
        revivals = _REVIVALS
        measured_from, measured_at = self._extents.received, time.monotonic()
        self._grow()
        while not self._stop.is_set() and self._fatal is None:
            self._stop.wait(_TICK_S)
            if not self._alive():
                if self._extents.frontier >= self._total or revivals == 0:
                    return
                revivals -= 1
                self._stop.wait(_REVIVE_AFTER_S)
                self._spawn(None, None, extra=False)
            elapsed = time.monotonic() - measured_at
            if elapsed < SETTLE_S:
                continue
            received = self._extents.received
            rate = (received - measured_from) / elapsed
            growing = growing and rate >= self._rate * self._expected_gain() and self._grow()
            self._rate, measured_from, measured_at = rate, received, time.monotonic()

    def _claim(self) -> Chunk | None:
        return self._extents.claim(workers=self._limit, largest=self._largest())

    def _largest(self) -> int:
        return max(_SMALLEST_CHUNK, min(int(self._rate / self._wanted * _CHUNK_S), MAX_CHUNK))

    def _expected_gain(self) -> float:
        doublings = {4: 2.0}.get(self._wanted, 1.0)
        return float(_GAIN_PER_DOUBLING**doublings)

    def _grow(self) -> bool:
        step = next((step for step in _STEPS if step > self._wanted), self._limit)
        target = min(step, self._limit)
        before = self._wanted
        while self._wanted < target and self._connections.try_take():
            self._wanted += 1
            try:
                self._spawn(None, None, extra=True)
            except RuntimeError:  # can't start new thread: a limit of this machine
                self._connections.give_back()
                self._limit = target = self._wanted = self._wanted - 1
        return self._wanted > before

    def _alive(self) -> bool:
        with self._lock:
            return bool(self._workers)

    def _spawn(self, body: Body | None, chunk: Chunk | None, *, extra: bool) -> None:
        worker = threading.Thread(target=self._work, args=(body, chunk, extra), name="weightstore-range", daemon=True)
        with self._lock:
            worker.start()
            self._users += 1
            self._workers.add(worker)

    def _let_go(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                os.close(self._fd)

    # -- workers ------------------------------------------------------------------------------------------------

    def _work(self, body: Body | None, chunk: Chunk | None, extra: bool) -> None:  # noqa: FBT001 - a thread's target
        try:
            if body is not None and chunk is not None:
                self._stream(body, chunk)
            while (chunk := self._claim()) is not None:
                self._fetch(chunk)
        except FileChanged as error:
            self._fail(error)
        except TransferError as error:
            # This connection ends, and what it had not fetched is for the others.
            self._last = error
            self._limit = self._wanted
        except Exception as error:  # noqa: BLE001 - raised by run(), in the caller's thread
            self._fail(error)
        finally:
            if extra:
                self._connections.give_back()
            with self._lock:
                self._workers.discard(threading.current_thread())
            self._let_go()

    def _fetch(self, chunk: Chunk) -> None:
        try:
            body = self._transport.open(self._source, start=chunk.position, end=chunk.end, validator=self._validator)
        except BaseException:
            self._extents.give_back(chunk)
            raise
        answer = body.answer
        if answer.total != self._total or answer.validator.contradicts(self._validator):
            body.close()
            self._extents.give_back(chunk)
            raise FileChanged(source=self._source.display, reason="the file changed while it was downloaded")
        if answer.start != chunk.position:
            body.close()
            self._extents.give_back(chunk)
            raise RefusedResponse(source=self._source.display, reason="does not serve ranges after all")
        self._stream(body, chunk)

    def _stream(self, body: Body, chunk: Chunk) -> None:
        """Receive a chunk from a body that is open at its position, and what follows while nobody else took it."""
        pace = Pace(self._source.display, self._slow_s)
        try:
            self._receive(body, chunk, pace)
            while body.answer.end is not None and body.answer.end > chunk.end:
                following = self._extents.claim_at(chunk.end, workers=self._limit, largest=self._largest())
                if following is None:
                    break
                chunk = following
                self._receive(body, chunk, pace)
        except BaseException:
            self._extents.give_back(chunk)
            raise
        finally:
            body.close()

    def _receive(self, body: Body, chunk: Chunk, pace: Pace) -> None:
        while chunk.left and not self._extents.is_stopped():
            if self._stop.is_set():
                self._extents.stop()
                return
            data = body.read(min(_READ_SIZE, chunk.left))
            if not data:
                raise SourceUnavailable(source=self._source.display, reason="the connection ended early")
            if self._extents.is_stopped():
                return
            with translated(f"/dev/fd/{self._fd}"):
                written = 0
                while written < len(data):
                    written += os.pwrite(self._fd, memoryview(data)[written:], chunk.position + written)
            self._extents.advance(chunk, len(data))
            self._meter.advance(len(data))
            pace.passed(len(data))

    # -- hashing ------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        written_back = self.hashed
        try:
            while self.hashed < self._total:
                frontier = self._extents.wait_beyond(self.hashed)
                if frontier == self.hashed:
                    return
                while self.hashed < frontier:
                    data = os.pread(self._fd, min(READ_SIZE, frontier - self.hashed), self.hashed)
                    if not data:
                        raise TransferError(source=self._source.display, reason="its part cannot be read back")
                    self.hasher.update(data)
                    self.hashed += len(data)
                    self._cadence.passed(self.hashed, self.hasher)
                    if self.hashed - written_back >= _WRITE_BACK:
                        start_write_back(self._fd, written_back, self.hashed - written_back)
                        written_back = self.hashed
        except Exception as error:  # noqa: BLE001 - raised by run(), in the caller's thread
            self._fail(error)
        finally:
            self._let_go()

    def _fail(self, error: Exception) -> None:
        """Stop everything; :meth:`run` raises the error."""
        self._fatal = error
        self._extents.stop()
