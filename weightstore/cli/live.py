"""Live progress on a terminal: a bar for each file on its way, and one for all of them."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from weightstore.cli import units
from weightstore.cli.canvas import Canvas
from weightstore.cli.complaints import Complaints
from weightstore.cli.progress import Pace, Track, outcome_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderResult

    from weightstore.batch import Item, Plan, Result
    from weightstore.cli.settings import Settings
    from weightstore.transfer.progress import Meter

_STYLES = {"fetched": "green", "pushed": "green", "present": "green", "failed": "bold red"}


class LiveProgress:
    """Draws a prefetch, or a push.

    Finished files and notes scroll away above the bars, unless ``outcomes`` are told elsewhere.
    """

    def __init__(self, settings: Settings, complaints: Complaints | None = None, *, outcomes: bool = True) -> None:
        self._settings = settings
        self._complaints = complaints or Complaints(settings)
        self._outcomes = outcomes
        self._canvas = Canvas(self)
        self._lock = threading.Lock()
        self._tracks: list[Track] = []
        self._total: int | None = None
        self._finished = 0
        self._files_done = 0
        self._files = 0
        self._pace = Pace()

    def __enter__(self) -> Self:
        self._through = self._settings.printing_through(self._canvas.write)
        self._through.__enter__()
        self._canvas.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._canvas.__exit__(kind, error, traceback)
        self._through.__exit__(kind, error, traceback)

    # -- the prefetch's progress --------------------------------------------------------------------------------

    def begin(self, plan: Plan) -> None:
        self.expect(len(plan.missing), plan.bytes_to_fetch if not plan.sizes_unknown else None)

    def meter(self, item: Item) -> Meter:
        return self.track(item, item.wanted.name, item.size)

    def advance(self, size: int) -> None:
        with self._lock:
            self._pace.add(size)

    def note(self, track: Track, message: str) -> None:
        if self._outcomes:
            self._settings.note(f"{track.name}: {message}")

    def done(self, result: Result) -> None:
        item, size = result.item, result.obtained.size if result.obtained else None
        # The plan's size may be a rounded one: what has come is what counts.
        self.finish(item, size=size, planned=item.size, counts=not item.is_present)
        if item.is_present or result.status == "cancelled" or not self._outcomes:
            return
        self.tell(outcome_line(result), result.status)
        if result.status == "failed":
            self._complaints.tell(result)

    # -- what any files on their way have in common -------------------------------------------------------------

    def expect(self, files: int, total: int | None) -> None:
        """Begin: so many files and bytes are on their way; None for bytes of which that is not known."""
        self._files, self._total = files, total
        self._pace = Pace()

    def track(self, key: object, name: str, total: int | None) -> Meter:
        """Return what watches one file."""
        track = Track(key, name, total)
        with self._lock:
            self._tracks.append(track)
        return _LiveMeter(track, self)

    def finish(self, key: object, *, size: int | None, planned: int | None, counts: bool = True) -> None:
        """Take a file's bar away. ``size`` are its bytes, or None where it did not come to its end."""
        with self._lock:
            if counts:
                self._files_done += 1
                self._finished += size or 0
                if self._total is not None and size is not None:
                    self._total += size - (planned or 0)
            self._tracks = [track for track in self._tracks if track.key is not key]

    def tell(self, line: str, status: str) -> None:
        """Print what became of a file above the bars."""
        text = Text(line)
        text.stylize(_STYLES[status], 0, 9)
        self._canvas.print(text)

    # -- drawing ------------------------------------------------------------------------------------------------

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            tracks = [track for track in self._tracks if track.source][: max(1, console.height - 4)]
            here = self._finished + sum(track.here for track in self._tracks)
            total, rate = self._known_total(), self._pace.rate
            title = f"total {self._files_done}/{self._files}"
        left = max(0, total - here) / rate if total is not None and rate > 0 else None
        yield _bars(
            [
                *((_short(track.name), track.here, track.total, track.pace.rate, track.left_s) for track in tracks),
                (title, here, total, rate, left),
            ],
            width=options.max_width,
        )

    def _known_total(self) -> int | None:
        """Return the bytes of all files: as planned, or where some sizes were unknown, once all files have begun."""
        if self._total is not None or self._files_done + len(self._tracks) < self._files:
            return self._total
        totals = [track.total for track in self._tracks]
        return self._finished + sum(total or 0 for total in totals) if all(totals) else None


def _short(name: str) -> str:
    """Return what tells a file from others in little room: of a URL, the file's name."""
    return (name.rstrip("/").rpartition("/")[2] or name) if "://" in name else name


class _LiveMeter:
    def __init__(self, track: Track, owner: LiveProgress) -> None:
        self._track = track
        self._owner = owner

    def start(self, source: str, *, offset: int, total: int | None) -> None:
        self._track.here = offset
        self._track.total = total if total is not None else self._track.total
        self._track.source = source

    def advance(self, size: int) -> None:
        self._track.here += size
        self._track.pace.add(size)
        self._owner.advance(size)

    def note(self, message: str) -> None:
        self._owner.note(self._track, message)


def _bars(rows: list[tuple[str, int, int | None, float, float | None]], *, width: int) -> Table:
    """Return one line for each row that fits the width: on a narrow terminal without bars, then without rates."""
    table = Table.grid(padding=(0, 1, 0, 0))
    name_width = max(12, min(max(len(row[0]) for row in rows), width - 22, width // 2 - 6))
    table.add_column(no_wrap=True, overflow="ellipsis", width=name_width)
    with_rate, with_left = width >= name_width + 30, width >= name_width + 40
    bar_width = min(40, width - name_width - 45)
    if bar_width >= 8:
        table.add_column(width=bar_width)
    table.add_column(justify="right", no_wrap=True, width=5)
    if with_rate or width - name_width >= 17:
        table.add_column(justify="right", no_wrap=True, width=9)
    if with_rate:
        table.add_column(justify="right", no_wrap=True, width=11)
    if with_left:
        table.add_column(justify="right", no_wrap=True, width=9)
    for name, here, total, rate, left in rows:
        cells: list[Text | ProgressBar] = [Text(name)]
        if bar_width >= 8:
            cells.append(ProgressBar(total=total, completed=here, width=bar_width, pulse=total is None))
        cells.append(Text(f"{min(1.0, here / total):.0%}" if total else "?"))
        if with_rate or width - name_width >= 17:
            cells.append(Text(units.size(here)))
        if with_rate:
            cells.append(Text(units.rate(rate)))
        if with_left:
            cells.append(Text("" if left is None or left > 359999 else units.duration(left)))
        table.add_row(*cells)
    return table


@contextmanager
def single_bar(settings: Settings, total: int, doing: str) -> Iterator[Callable[[int], None]]:
    """Yield a function to be told of bytes done, and draw one bar until the end."""
    pace = Pace()
    lock = threading.Lock()

    class Bar:
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            rate = pace.rate
            left = max(0, total - pace.received) / rate if rate > 0 else None
            yield _bars([(doing, pace.received, total, rate, left)], width=options.max_width)

    def advance(size: int) -> None:
        with lock:
            pace.add(size)

    with Canvas(Bar()) as canvas, settings.printing_through(canvas.write):
        yield advance
