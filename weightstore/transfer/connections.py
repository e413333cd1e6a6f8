"""The global cap on network connections, over all files that download side by side."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Connections:
    """Slots for connections. Every download waits for its first; further ones it takes only while some are free."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._slots = threading.BoundedSemaphore(limit)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Hold one slot, waiting for it."""
        with self._slots:
            yield

    def try_take(self) -> bool:
        """Take a further slot if one is free right now."""
        return self._slots.acquire(blocking=False)

    def give_back(self) -> None:
        self._slots.release()
