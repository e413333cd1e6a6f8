"""A bar on standard error for downloads that a program starts by itself."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from weightstore.transfer.progress import Meter, Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def meter_for(*, progress: bool) -> Iterator[Meter]:
    """Yield a meter that draws a bar once bytes begin to come, or a silent one where nobody would see it."""
    if not progress or not sys.stderr.isatty():
        yield Silent()
        return
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    """One bar for one file at a time; nothing is imported or drawn before the first byte."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._advance: Callable[[int], object] = lambda _: None

    def start(self, source: str, *, offset: int, total: int | None) -> None:
        from rich.console import Console  # drawn only when something is downloaded
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._stack.close()
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        name = TextColumn("{task.description}", markup=False)
        bar = self._stack.enter_context(Progress(name, *columns, console=Console(stderr=True), transient=True))
        task = bar.add_task(source.rpartition("/")[2], total=total, completed=offset)
        self._advance = lambda size: bar.advance(task, size)

    def advance(self, size: int) -> None:
        self._advance(size)

    def note(self, message: str) -> None:
        pass

    def close(self) -> None:
        self._stack.close()
