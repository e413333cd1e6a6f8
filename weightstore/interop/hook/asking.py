"""Which library is asking: the first one outside of those that only pass the question on."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

# They fetch for others. Whoever calls them is asking.
_BETWEEN = frozenset(
    [
        "weightstore",
        "weightstore_start",
        "torch",
        "urllib",
        "huggingface_hub",
        "contextlib",
        "functools",
        "concurrent",
        "threading",
        "tqdm",
        "importlib",
        "fsspec",
    ]
)
UNKNOWN = "unknown"


def asking_library() -> str:
    """Return the top-level package that asks, or the file name of the program."""
    # The documented way to a caller without reading source lines.
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        package = str(module).partition(".")[0]
        if package == "__main__":
            return os.path.basename(str(frame.f_globals.get("__file__", ""))) or "python -c"
        if package and package not in _BETWEEN and not frame.f_code.co_filename.startswith("<weightstore for "):
            return package
        frame = frame.f_back
    return UNKNOWN
