"""Where blobs go that failed verification: out of the way, kept for the administrator, with the reason beside them."""

from __future__ import annotations

import contextlib
import json
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.digest import Digest
from weightstore.errors import CannotReplace
from weightstore.records import timestamp
from weightstore.store.layout import write_record

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.errors import BlobDamaged
    from weightstore.store.layout import Layout


_ASIDE = re.compile(r"([0-9a-f]{64})\.[0-9a-f]{8}")


def put_aside(layout: Layout, path: Path, damage: BlobDamaged) -> Path | None:
    """Move a damaged blob to the quarantine; return where it lies, or None where it was already gone.

    When another process has meanwhile put a good blob in the place of the one that was judged, that one stays.

    Raises:
        CannotReplace: the file belongs to somebody else, or the store is read-only.
    """
    judged = damage.judged
    target = layout.quarantine / f"{path.name}.{os.urandom(4).hex()}"
    try:
        if judged is not None and not _is_same(os.lstat(path), judged):
            return None
        os.rename(path, target)
        if judged is not None and not _is_same(os.lstat(target), judged):
            _put_back(target, path)
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotReplace(
            place=str(path),
            reason=f"is damaged and cannot be moved away ({error.strerror}). Ask its owner or the store's "
            f"administrator to run: weightstore --home {layout.root} verify --repair",
        ) from None
    reason = {"found_at": timestamp(datetime.now(UTC)), "expected": damage.expected, "actual": damage.actual}
    write_record(target.with_name(target.name + ".json"), json.dumps(reason).encode() + b"\n", mode=0o644)
    return target


def list_quarantined(layout: Layout) -> dict[Digest, Path]:
    """Return what lies in quarantine by the digest that it should have had; of several files the last one found bad."""
    found: dict[Digest, tuple[float, Path]] = {}
    try:
        entries = list(os.scandir(layout.quarantine))
    except OSError:
        return {}
    for entry in entries:
        if match := _ASIDE.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                seen = (entry.stat(follow_symlinks=False).st_ctime, layout.quarantine / entry.name)
                digest = Digest(match[1])
                found[digest] = max(found.get(digest, seen), seen)
    return {digest: path for digest, (_, path) in found.items()}


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _put_back(target: Path, path: Path) -> None:
    """Undo the move of a file that was not the one judged. Where a third one took the name, both are verified later."""
    try:
        os.link(target, path, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError:  # no hard links here
        os.rename(target, path)
        return
    os.unlink(target)
