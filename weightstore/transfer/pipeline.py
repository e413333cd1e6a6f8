"""Bytes on their way into a part: hashed in a second thread while the first one receives and writes.

Receiving, writing and hashing each release the GIL, so the wall time nears the slowest of them and not their sum. Dirty
pages are handed to the disk as they come, which leaves the final fsync little to do.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from weightstore.digest import Digest
from weightstore.store.layout import translated

if TYPE_CHECKING:
    from weightstore.store.blobs import Hasher
from weightstore.store.durability import start_write_back

READ_SIZE = 1 << 20
_QUEUED = 8
_WRITE_BACK = 32 << 20
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
        self._failure: BaseException | None = None
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=_QUEUED)
        self._thread: threading.Thread | None = None
        if expected is None or expected > _SMALL:
            self._thread = threading.Thread(target=self._run, name="weightstore-hash", daemon=True)
            self._thread.start()

    def write(self, data: bytes) -> None:
        """Append data.

        Raises:
            NoSpace: the disk or the quota is full.
        """
        with translated(f"/dev/fd/{self._fd}"):
            view = memoryview(data)
            while view:
                count = os.pwrite(self._fd, view, self.offset)
                self.offset += count
                view = view[count:]
        if self._thread is None:
            self._hash(data)
        else:
            self._queue.put(data)
        if self._failure is not None:
            raise self._failure
        if self.offset - self._written_back >= _WRITE_BACK:
            start_write_back(self._fd, self._written_back, self.offset - self._written_back)
            self._written_back = self.offset

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
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._hash(data)
                except BaseException as error:  # noqa: BLE001 - handed to the writing thread, which raises it
                    self._failure = error

    def _hash(self, data: bytes) -> None:
        self._hasher.update(data)
        self._hashed += len(data)
        self._cadence.passed(self._hashed, self._hasher)
