"""Which bytes of a file are taken, and how far it is complete from the front: the books of a ranged download."""

from __future__ import annotations

import threading
from dataclasses import dataclass

MIN_CHUNK = 2 << 20
MAX_CHUNK = 32 << 20


@dataclass(slots=True)
class Chunk:
    """A run of bytes that one worker fetches: ``position`` moves from ``start`` to ``end``."""

    position: int
    end: int

    @property
    def left(self) -> int:
        return self.end - self.position


class Extents:
    """Hands out chunks from the front, and knows the frontier: all bytes before it are written.

    Chunks shrink towards the end of the file (guided self-scheduling), so that the workers finish together; they are
    handed out in order, so that the hasher can follow closely behind.
    """

    def __init__(self, start: int, total: int) -> None:
        self.total = total
        self._next = start
        self._returned: list[Chunk] = []
        self._active: list[Chunk] = []
        self._condition = threading.Condition()
        self._stopped = False
        self._received = 0

    def claim(self, *, workers: int, largest: int = MAX_CHUNK) -> Chunk | None:
        """Return the next chunk to fetch, or None when all are taken."""
        with self._condition:
            if self._stopped:
                return None
            if self._returned:
                chunk = self._returned.pop()
            elif self._next < self.total:
                left = self.total - self._next
                size = min(max(left // (2 * workers), MIN_CHUNK), largest, left)
                chunk = Chunk(self._next, self._next + size)
                self._next = chunk.end
            else:
                return None
            self._active.append(chunk)
            return chunk

    def claim_at(self, position: int, *, workers: int, largest: int = MAX_CHUNK) -> Chunk | None:
        """Return the chunk that begins at ``position``, for whoever is already receiving it; None when it is taken."""
        with self._condition:
            first = self._returned[-1].position if self._returned else self._next
            if first != position:
                return None
            return self.claim(workers=workers, largest=largest)

    def advance(self, chunk: Chunk, size: int) -> None:
        """Note that the next ``size`` bytes of a chunk are written."""
        with self._condition:
            chunk.position += size
            self._received += size
            if chunk.position >= chunk.end:
                self._active.remove(chunk)
            self._condition.notify_all()

    def give_back(self, chunk: Chunk) -> None:
        """Return what is left of a chunk, for somebody else to fetch."""
        with self._condition:
            if chunk in self._active:
                self._active.remove(chunk)
                self._returned.append(Chunk(chunk.position, chunk.end))
                self._returned.sort(key=lambda one: one.position, reverse=True)
            self._condition.notify_all()

    @property
    def received(self) -> int:
        """Bytes received so far by all workers."""
        with self._condition:
            return self._received

    @property
    def frontier(self) -> int:
        with self._condition:
            return self._frontier()

    def _frontier(self) -> int:
        return min((chunk.position for chunk in (*self._active, *self._returned)), default=self._next)

    def wait_beyond(self, position: int) -> int:
        """Wait until the frontier lies beyond ``position``; return it, or ``position`` when stopped."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or self._frontier() > position)
            return max(self._frontier(), position)

    def stop(self) -> None:
        """Hand out nothing more, and wake everybody."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def is_stopped(self) -> bool:
        with self._condition:
            return self._stopped
