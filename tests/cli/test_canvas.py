"""What many threads print above a drawing is there afterwards, line by line: a terminal's screen is read."""

from __future__ import annotations

import io
import threading

import pyte
import pytest
from rich.console import ConsoleOptions, RenderResult
from rich.text import Text

from weightstore.cli import canvas
from weightstore.cli.canvas import Canvas

COLUMNS, THREADS, LINES = 60, 4, 150


class Growing:
    """As bars do, it has another height each time."""

    def __init__(self) -> None:
        self.drawn = 0

    def __rich_console__(self, console: object, options: ConsoleOptions) -> RenderResult:
        self.drawn += 1
        yield Text("\n".join(f"bar {number}" for number in range(1 + self.drawn % 5)))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_line_is_lost_and_no_bar_left_when_many_threads_print(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    for name, value in {"TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(canvas, "_EVERY_S", 0.0005)
    with Canvas(Growing()) as drawn:

        def work(thread: int) -> None:
            for number in range(LINES):
                if number % 2:
                    drawn.write(f"note: {thread} {number}")
                else:
                    drawn.print(Text(f"pushed {thread} {number}"))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    screen = pyte.HistoryScreen(COLUMNS, THREADS * LINES + 40)
    pyte.Stream(screen).feed(terminal.getvalue().replace("\n", "\r\n"))
    shown = sorted(line.strip() for line in screen.display if line.strip())
    expected = [
        f"note: {thread} {number}" if number % 2 else f"pushed {thread} {number}"
        for thread in range(THREADS)
        for number in range(LINES)
    ]
    assert shown == sorted(expected)
