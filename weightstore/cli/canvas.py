"""The part of a terminal that is drawn again and again, and the lines that scroll away above it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

_EVERY_S = 1 / 8


class Canvas:
    """Draws something eight times a second, and prints lines above it, from any thread.

    rich computes how far to move the cursor under its own lock, and writes that after it has let go of it: two threads
    that print, or one that prints while another draws, delete each other's lines. Here one of them writes at a time.
    """

    def __init__(self, drawn: RenderableType) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(drawn, console=self._console, auto_refresh=False, transient=True)
        self._lock = threading.Lock()
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        self._live.start()
        threading.Thread(target=self._run, name="weightstore-draw", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        with self._lock:
            self._live.stop()

    def print(self, text: Text) -> None:
        """Print a line above what is drawn."""
        with self._lock:
            self._console.print(text, soft_wrap=True)

    def write(self, message: str) -> None:
        """Print one of the command's messages above what is drawn."""
        style = "bold red" if message.startswith("error:") else "dim" if message.startswith("note:") else ""
        self.print(Text(message, style=style))

    def _run(self) -> None:
        while not self._is_over.wait(_EVERY_S):
            with self._lock:
                if not self._is_over.is_set():
                    self._live.refresh()
