"""The hook for a whole Python environment: one line that Python runs at its start (``site``, ``.pth`` files)."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from weightstore.interop.running import site_directory
from weightstore.store.layout import translated, write_record

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "weightstore-autoload.pth"
# One line, as a .pth file's code has to be. Without the directory (weightstore was uninstalled) it does nothing.
_LINE = (
    "import sys, os; _d = {directory!r}; "
    "os.path.isdir(_d) and (sys.path.append(_d), __import__('weightstore_start').begin(), sys.path.remove(_d))\n"
)


def turn_on(packages: Path) -> None:
    """Have every process of an environment start with the hook.

    Raises:
        StoreError: the environment cannot be written.
    """
    with translated(packages / _NAME):
        write_record(packages / _NAME, _LINE.format(directory=str(site_directory())).encode(), mode=0o644)


def turn_off(packages: Path) -> None:
    """Leave the processes of an environment alone again."""
    with translated(packages / _NAME), contextlib.suppress(FileNotFoundError):
        os.unlink(packages / _NAME)


def is_on(packages: Path) -> bool:
    """Tell whether the processes of an environment start with the hook."""
    return (packages / _NAME).is_file()
