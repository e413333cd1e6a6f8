"""What the terminal can show: how wide it is, and whether text may be styled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_INCAPABLE = {"", "dumb", "unknown"}


def can_move_its_cursor() -> bool:
    """Tell whether the terminal, if it is one, knows what escape codes are."""
    return os.environ.get("TERM", "") not in _INCAPABLE


def is_plain() -> bool:
    """Tell whether text is to be left without colour and bold: see https://no-color.org."""
    return bool(os.environ.get("NO_COLOR")) or not can_move_its_cursor()


def width() -> int:
    """Return how many columns there are: COLUMNS if it is set, else as many as standard output has, else 80."""
    import shutil  # start-up: not for a hit

    return shutil.get_terminal_size().columns


def console(*, at_least: int = 0) -> Console:
    """Return a console for standard output, as wide as the terminal or ``at_least`` so many columns."""
    from rich.console import Console  # start-up: 0.1 s, and only a terminal needs it

    # Both of them said: rich makes every dumb terminal 80 columns wide.
    return Console(
        width=max(width(), at_least), height=25, color_system=None if is_plain() else "auto", highlight=False
    )


def printable(text: str) -> str:
    """Return text from a file that anybody may have written, with control characters as their escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
