"""Bytes on their way into a part: hashed in a second thread while the first one receives.

Receiving, writing and hashing each release the GIL, so the wall time nears half their sum: what is received over TLS is
decrypted, which takes about as long as hashing it, so a block is written by the thread that has less to do. Dirty pages
are handed to the disk as they come, which leaves the final fsync little to do.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from weightstore.digest import Digest
from weightstore.store.layout import translated

if TYPE_CHECKING:
    from weightstore.store.blobs import Hasher
from weightstore.store.durability import allocate, start_write_back

READ_SIZE = 1 << 20
_QUEUED = 8
# Beside those in the queue: the block that is hashed and the one that is received.
_AT_WORK = 2
_WRITE_BACK = 32 << 20
# Room is set aside so far ahead: far enough to spare the file system its work block by block, and not the whole at
# once, for the size is only what a server says.
_ALLOCATED = 128 << 20
# A file this small is hashed before a thread would have started.
_SMALL = 4 << 20
_CHECKPOINT_BYTES = 64 << 20
_CHECKPOINT_S = 1.0


Checkpoint = Callable[[int, Digest], None]


class Cadence:
    """Calls a checkpoint every second or 64 MiB, whichever comes first."""

    def __init__(self, checkpoint: Checkpoint | None, offset: int) -> None:
        self._checkpoint = checkpoint
        self._noted_at = time.monotonic()
        self._noted = offset

    def passed(self, hashed: int, hasher: Hasher) -> None:
        """Tell that so many bytes are hashed."""
        if self._checkpoint is None:
            return
        now = time.monotonic()
        if hashed - self._noted >= _CHECKPOINT_BYTES or now - self._noted_at >= _CHECKPOINT_S:
            self._noted, self._noted_at = hashed, now
            self._checkpoint(hashed, Digest(hasher.hexdigest()))


class _Scratch(threading.local):
    """One buffer for each thread, for files that are hashed where they are received."""

    def __init__(self) -> None:
        self._room: memoryview | None = None

    def room(self) -> memoryview:
        if self._room is None:
            self._room = memoryview(bytearray(READ_SIZE))
        return self._room


_SCRATCH = _Scratch()


class HashingWriter:
    """Appends to an open file and hashes what it appended.

    ``offset`` bytes are already there, and ``hasher`` has seen them. ``checkpoint`` is called in the hashing thread,
    every second or 64 MiB, with the number of bytes hashed and their digest; these bytes have been written.
    """

    def __init__(
        self,
        fd: int,
        *,
        hasher: Hasher | None = None,
        offset: int = 0,
        expected: int | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.offset = offset
        self._fd = fd
        self._hasher: Hasher = hasher or hashlib.sha256()
        self._hashed = offset
        self._cadence = Cadence(checkpoint, offset)
        self._written_back = offset
        self._expected = expected
        # Up to here there is no room to be set aside, or none that is worth it.
        self._allocated = offset if expected is not None and expected > _SMALL else sys.maxsize
        self._failure: BaseException | None = None
        # Blocks with their offset; one that is yet to be written says so.
        self._queue: queue.Queue[tuple[bytes | memoryview, int, bool] | None] = queue.Queue(maxsize=_QUEUED)
        self._rooms: list[memoryview] = []
        self._next_room = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if expected is None or expected > _SMALL:
            self._thread = threading.Thread(target=self._run, name="weightstore-hash", daemon=True)
            self._thread.start()

    def room(self) -> memoryview:
        """Return a buffer of ``READ_SIZE`` bytes for the next :meth:`write`, whose content is not wanted any more."""
        if self._thread is None:
            return _SCRATCH.room()
        if len(self._rooms) < _QUEUED + _AT_WORK:
            self._rooms.append(memoryview(bytearray(READ_SIZE)))
            return self._rooms[-1]
        self._next_room = (self._next_room + 1) % len(self._rooms)
        return self._rooms[self._next_room - 1]

    def write(self, data: bytes | memoryview) -> None:
        """Append data, which stays as it is until as many buffers were asked for as there are.

        Raises:
            NoSpace: the disk or the quota is full, now or for data of an earlier call.
        """
        offset = self.offset
        if offset + len(data) > self._allocated:
            self._allocate()
        if self._thread is None:
            self._write(data, offset)
            self.offset += len(data)
            self._hash(data)
        else:
            is_idle = self._queue.empty()
            if not is_idle:
                self._write(data, offset)
            self.offset += len(data)
            self._queue.put((data, offset, is_idle))
        if self._failure is not None:
            raise self._failure
        if self._hashed - self._written_back >= _WRITE_BACK:
            start_write_back(self._fd, self._written_back, self._hashed - self._written_back)
            self._written_back = self._hashed

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        with translated(f"/dev/fd/{self._fd}"):
            view = memoryview(data)
            while view:
                count = os.pwrite(self._fd, view, offset)
                offset += count
                view = view[count:]

    def _allocate(self) -> None:
        """Set room aside ahead of what is written. Where there is none, writing says so when it comes to that.

        Measured on ext4: 1 GiB received, hashed and synced in 0.87 s, and in 0.97 s without.
        """
        size = min(_ALLOCATED, (self._expected or 0) - self.offset)
        if size <= 0 or allocate(self._fd, self.offset, size):
            self._allocated = sys.maxsize
        else:
            self._allocated = self.offset + size

    def finish(self) -> Digest:
        """Return the digest of the whole file, once all of it is hashed. The writer is not used afterwards."""
        self._join()
        if self._failure is not None:
            raise self._failure
        return Digest(self._hasher.hexdigest())

    def suspend(self) -> tuple[int, Digest, Hasher]:
        """Stop, and return how far the file is hashed (and written at least), its digest up to there and the hasher."""
        digest = self.finish()
        # Not self.offset: Ctrl-C may fall between writing and hashing.
        return self._hashed, digest, self._hasher

    def _join(self) -> None:
        """Wait until the thread has ended, whatever happens meanwhile: it writes to what the caller closes next."""
        # Not Thread.join(): in Python 3.11 and 3.12 one that Ctrl-C interrupts takes a running thread for one that has
        # ended (https://github.com/python/cpython/issues/90882).
        interrupted: BaseException | None = None
        while self._thread is not None and not self._ended.is_set():
            try:
                self._queue.put(None)
                self._ended.wait()
            except BaseException as error:  # noqa: BLE001 - raised below
                interrupted = self._failure = error  # what is still in the queue is let go
        if interrupted is not None:
            raise interrupted

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def _work(self) -> None:
        while (block := self._queue.get()) is not None:
            if self._failure is not None:
                continue
            data, offset, is_ours_to_write = block
            try:
                if is_ours_to_write:
                    self._write(data, offset)
                self._hash(data)
            except BaseException as error:  # noqa: BLE001 - handed to the writing thread, which raises it
                self._failure = error

    def _hash(self, data: bytes | memoryview) -> None:
        self._hasher.update(data)
        self._hashed += len(data)
        self._cadence.passed(self._hashed, self._hasher)
