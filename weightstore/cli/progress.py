"""What a running prefetch shows: live bars on a terminal, plain lines in a log, errors alone with --quiet."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from weightstore.cli import units
from weightstore.cli.complaints import complaining

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightstore.batch import Item, Plan, Progress, Result
    from weightstore.cli.complaints import Complaints
    from weightstore.cli.settings import Settings
    from weightstore.transfer.progress import Meter

_WINDOW_S = 5.0
_LINE_EVERY_S = 10.0


class Pace:
    """Bytes as they come, and their rate over the last seconds."""

    def __init__(self) -> None:
        self.received = 0
        self._began = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)])

    def add(self, size: int) -> None:
        self.received += size
        now = time.monotonic()
        if now - self._samples[-1][0] >= 0.1:
            self._samples.append((now, self.received))
            while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW_S:
                self._samples.popleft()

    @property
    def rate(self) -> float:
        """Bytes a second, now."""
        now = time.monotonic()
        since, before = self._samples[0]
        return (self.received - before) / max(now - since, 0.05)


class Track:
    """One file on its way. ``here`` are its bytes that are on this machine, resumed ones included."""

    def __init__(self, key: object, name: str, total: int | None) -> None:
        self.key = key
        self.name = name
        self.total = total
        self.here = 0
        self.source = ""
        self.pace = Pace()

    @property
    def share(self) -> float | None:
        return min(1.0, self.here / self.total) if self.total else None

    @property
    def left_s(self) -> float | None:
        rate = self.pace.rate
        return max(0, self.total - self.here) / rate if self.total and rate > 0 else None


def outcome_line(result: Result) -> str:
    """Return what became of an item, in one line."""
    name = result.item.wanted.name
    if result.obtained is None:
        return f"{result.status:<9} {name}"
    obtained = result.obtained
    if result.status == "present":
        return f"{'present':<9} {name}  {units.size(obtained.size)}"
    took = f"{units.size(obtained.size)} in {units.duration(result.elapsed_s)}"
    return f"{result.status:<9} {name}  {took}  from {obtained.via}"


class LineProgress:
    """Plain lines: when a file starts and ends, and every ten seconds how far it is."""

    def __init__(self, settings: Settings, complaints: Complaints, *, every_s: float = _LINE_EVERY_S) -> None:
        self._settings = settings
        self._complaints = complaints
        self._every_s = every_s

    def begin(self, plan: Plan) -> None:
        pass

    def meter(self, item: Item) -> Meter:
        return _LineMeter(Track(item, item.wanted.name, item.size), self._settings, self._every_s)

    def done(self, result: Result) -> None:
        if result.status == "failed":
            self._complaints.tell(result)
        elif not result.item.is_present and result.status != "cancelled":  # of these the summary tells
            self._settings.say(outcome_line(result))


class _LineMeter:
    def __init__(self, track: Track, settings: Settings, every_s: float) -> None:
        self._track = track
        self._settings = settings
        self._every_s = every_s
        self._told_at = time.monotonic()
        self._lock = threading.Lock()

    def start(self, source: str, *, offset: int, total: int | None) -> None:
        track = self._track
        first = not track.source
        track.source, track.here, track.total = source, offset, total if total is not None else track.total
        if first:
            place = "" if source == track.name else f" from {source}"
            self._settings.say(f"{'start':<9} {track.name}  {units.size(track.total)}{place}")

    def advance(self, size: int) -> None:
        with self._lock:
            self._track.here += size
            self._track.pace.add(size)
            if time.monotonic() - self._told_at < self._every_s:
                return
            self._told_at = time.monotonic()
        self._settings.say(progress_line(self._track))

    def note(self, message: str) -> None:
        self._settings.say(f"{'note':<9} {self._track.name}: {message}")


def progress_line(track: Track) -> str:
    """Return how far a file is, in one line."""
    share = f"{track.share:9.0%}" if track.share is not None else " " * 9
    of = f" of {units.size(track.total)}" if track.total else ""
    left = f", {units.duration(track.left_s)} left" if track.left_s is not None else ""
    return f"{share} {track.name}  {units.size(track.here)}{of} at {units.rate(track.pace.rate)}{left}"


@contextmanager
def progress_for(settings: Settings) -> Iterator[Progress]:
    """Yield the progress that suits where standard error goes."""
    with complaining(settings) as complaints:
        if not settings.is_live:
            yield LineProgress(settings, complaints)
            return
        from weightstore.cli.live import LiveProgress  # start-up: rich, and only a terminal needs it

        with LiveProgress(settings, complaints) as live:
            yield live


@contextmanager
def hashing_progress(settings: Settings, total: int, doing: str) -> Iterator[Callable[[int], None]]:
    """Yield a function to be told of bytes hashed, from any thread, and show how far they are of ``total``."""
    if settings.is_live and total:
        from weightstore.cli.live import single_bar  # start-up: rich, and only a terminal needs it

        with single_bar(settings, total, doing) as advance:
            yield advance
        return
    lock = threading.Lock()
    pace = Pace()
    told_at = time.monotonic()

    def advance_lines(size: int) -> None:
        nonlocal told_at
        with lock:
            pace.add(size)
            if time.monotonic() - told_at < _LINE_EVERY_S:
                return
            told_at = time.monotonic()
        share = pace.received / total if total else 1
        settings.say(f"{share:9.0%} {doing}  {units.size(pace.received)} of {units.size(total)}")

    yield advance_lines
