"""One download at a time of one thing: sparing work, never guarding anything.

Whoever gets the advisory lock downloads; the others wait for the blob. Where the lock cannot be had (no flock on this
file system, a lock file that we may not open, locking switched off) everybody goes without: the store stays right, and
at worst some bytes are downloaded twice.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from weightstore.errors import Cancelled
from weightstore.store.locks import BestLock, Lock
from weightstore.store.parts import PartSeen, file_time, is_abandoned, list_parts, owner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightstore.store.layout import Layout

_T = TypeVar("_T")
_FIRST_POLL_S = 0.02
_LAST_POLL_S = 0.5


class Stop(Protocol):
    """Something that can be asked whether to stop, such as a :class:`threading.Event`."""

    def wait(self, timeout: float) -> bool:
        """Sleep so many seconds, or less when asked to stop; return whether to stop."""
        ...


@contextlib.contextmanager
def flight(
    layout: Layout,
    key: str,
    *,
    arrived: Callable[[], _T | None],
    locks: bool,
    stall_s: float,
    stop: Stop,
    on_wait: Callable[[str], None],
) -> Iterator[_T | None]:
    """Yield what ``arrived`` found while others worked, or None when it is this process's turn to work.

    A turn comes when the lock is free, when locks do not work here, or when those ahead have not written a byte for
    ``stall_s`` seconds. ``on_wait`` is told, once each, for whom we wait.

    Raises:
        Cancelled: ``stop`` was set while waiting.
    """
    with contextlib.ExitStack() as held:
        lock = BestLock(layout, key) if locks else None
        if lock is not None:
            held.callback(lock.release)
        yield _wait_for_turn(lock, _Watch(layout, key, stall_s), arrived, stop, on_wait)


def _wait_for_turn(
    lock: Lock | None,
    watch: _Watch,
    arrived: Callable[[], _T | None],
    stop: Stop,
    on_wait: Callable[[str], None],
) -> _T | None:
    poll = _FIRST_POLL_S
    told = ""
    while True:
        busy = False
        if lock is not None:
            state = lock.try_acquire()
            if state == "held":
                return arrived()
            if state == "impossible":
                lock = None
            busy = state == "busy"
        found = arrived()
        if found is not None:
            return found
        ahead = watch.ahead()
        if watch.stalled() or (not busy and not ahead):
            return None
        whom = str(owner_of(ahead[0])) if ahead else "another process that is about to download it"
        if whom != told:
            on_wait(whom)
            told = whom
        if stop.wait(poll):
            raise Cancelled
        poll = min(poll * 1.5, _LAST_POLL_S)


class _Watch:
    """Watches the parts of others for growth."""

    def __init__(self, layout: Layout, key: str, stall_s: float) -> None:
        self._layout = layout
        self._key = key
        self._stall_s = stall_s
        self._growth: object = None
        self._grown_at = time.monotonic()

    def ahead(self) -> list[PartSeen]:
        """Return the parts that somebody seems to be writing."""
        parts = list_parts(self._layout, self._key)
        if parts:
            now = file_time(self._layout)
            parts = [part for part in parts if not is_abandoned(part, now=now, stall_s=self._stall_s)]
        growth = sorted((part.path.name, part.growth) for part in parts)
        if growth != self._growth:
            self._growth = growth
            self._grown_at = time.monotonic()
        return parts

    def stalled(self) -> bool:
        return time.monotonic() - self._grown_at > self._stall_s
