"""Ends reads that hang, from a thread beside them.

A read of a large block is one call into C, which is what makes it fast; while it lasts, nobody can look at the pace or
at a wish to stop. So somebody else does.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol


class Watched(Protocol):
    """Something that may hang in a read. ``blocked_since`` is of the monotonic clock, None between reads."""

    blocked_since: float | None

    def interrupt(self) -> None:
        """End a read that is under way, and all further ones."""
        ...


class Watch:
    """Interrupts every watched read that lasts longer than ``limit_s`` seconds."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._running = 0

    def add(self, watched: Watched) -> None:
        with self._lock:
            self._watched.add(watched)
            if self._running != os.getpid():  # after a fork the thread is not there any more
                self._running = os.getpid()
                threading.Thread(target=self._run, name="weightstore-watch", daemon=True).start()

    def discard(self, watched: Watched) -> None:
        with self._lock:
            self._watched.discard(watched)

    def interrupt_all(self) -> None:
        """Interrupt everything that is being read."""
        with self._lock:
            watched = list(self._watched)
        for one in watched:
            one.interrupt()

    def _run(self) -> None:
        while True:
            time.sleep(min(1.0, self._limit_s / 4))
            with self._lock:
                if not self._watched:
                    self._running = 0
                    return
                watched = list(self._watched)
            now = time.monotonic()
            for one in watched:
                since = one.blocked_since
                if since is not None and now - since > self._limit_s:
                    one.interrupt()
