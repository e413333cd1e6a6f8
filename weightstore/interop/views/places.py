"""Where this user's views are, so that removing blobs can tell which of them lose names.

One file ``views`` in the state directory, a path a line. It is a convenience: whatever is wrong with it, nothing fails.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord
from weightstore.interop.views.manifest import read_manifest
from weightstore.store.layout import read_limited, write_record

if TYPE_CHECKING:
    from collections.abc import Collection

_FILE = "views"


def remember(state: Path, root: Path) -> None:
    """Note that a view is at ``root``; what is no view any more is forgotten."""
    known = _places(state)
    if root in known or not str(root).isprintable():
        return
    kept = [place for place in known if _links(place)] + [root]
    with contextlib.suppress(OSError):
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_record(state / _FILE, "".join(f"{place}\n" for place in kept).encode(), mode=0o600)


def _places(state: Path) -> list[Path]:
    try:
        lines = read_limited(state / _FILE).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [Path(line) for line in lines if line.startswith("/")]


def _links(root: Path) -> list[str]:
    try:
        manifest = read_manifest(root)
    except InvalidRecord:
        return []
    return [one.target for one in manifest.placements if one.placed == "symlink"] if manifest is not None else []


def names_lost(state: Path, blobs: Collection[Path]) -> dict[Path, int]:
    """Return how many names of each view that is known lead to one of these blobs, where there are any."""
    gone = {os.path.abspath(blob) for blob in blobs}
    counts = {root: sum(target in gone for target in _links(root)) for root in (_places(state) if gone else ())}
    return {root: count for root, count in counts.items() if count}
