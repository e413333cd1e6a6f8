"""Checking a view: whether each of its names still leads to what it led to when it was made, and to what it should."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from weightstore.errors import BlobDamaged
from weightstore.interop.views.manifest import Placement, is_as_made
from weightstore.store.blobs import open_verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightstore.digest import Digest
    from weightstore.interop.views.layouts import Link, Text
    from weightstore.interop.views.manifest import Manifest
    from weightstore.interop.views.plan import ViewPlan
    from weightstore.source import Source
    from weightstore.store.receipts import Receipts

Status: TypeAlias = Literal[
    "ok", "missing", "dangling", "written through", "replaced", "unreadable", "stale", "not in view"
]
BAD: frozenset[Status] = frozenset({"missing", "dangling", "written through", "replaced", "unreadable"})
OLD: frozenset[Status] = frozenset({"stale", "not in view"})


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one name. ``detail`` says more in words; ``digest`` and ``source`` are None of other names."""

    path: str
    status: Status
    detail: str = ""
    digest: Digest | None = None
    source: Source | None = None


def check_view(
    root: Path,
    manifest: Manifest,
    *,
    current: Callable[[Source], Digest | None],
    plan: Callable[[], ViewPlan] | None,
    receipts: Receipts,
) -> list[Finding]:
    """Return a finding for each name of a view, and for each that it lacks. Changes nothing but receipts.

    Args:
        root: the view's directory.
        manifest: what it was made of.
        current: the digest that a source has now, as far as the store knows.
        plan: returns what a view of everything stored would be made of now; None for a view of what somebody chose. It
            is called last: a store that is looked through puts damaged blobs aside.
        receipts: spare hashing what was hashed before.
    """
    findings = [_check_placement(root, one, current, receipts) for one in manifest.placements]
    findings += [_check_other(root, one) for one in manifest.pieces() if not isinstance(one, Placement)]
    known = {piece.path for piece in manifest.pieces()}
    lacking = plan().entries if plan is not None else ()
    findings += [
        Finding(one.path, "not in view", "stored since the view was made", one.digest, one.source)
        for one in lacking
        if one.path not in known
    ]
    return sorted(findings, key=lambda one: one.path)


def _check_placement(
    root: Path, one: Placement, current: Callable[[Source], Digest | None], receipts: Receipts
) -> Finding:
    status, detail = _content(root, one, receipts)
    if status == "ok" and one.source is not None:
        now = current(one.source)
        if now is not None and now != one.digest:
            status, detail = "stale", f"its source has {now} now"
    return Finding(one.path, status, detail, one.digest, one.source)


def _content(root: Path, one: Placement, receipts: Receipts) -> tuple[Status, str]:
    path = root / one.path
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing", "it was removed"
    except OSError as error:
        return "unreadable", error.strerror or str(error)
    if one.placed == "symlink":
        if not stat.S_ISLNK(found.st_mode) or os.readlink(path) != one.target:
            return "replaced", "another program put something else in its place"
        path = Path(one.target)
    elif not stat.S_ISREG(found.st_mode):
        return "replaced", "another program put something else in its place"
    try:
        blob = open_verified(path, one.digest, receipts)
    except BlobDamaged as damage:
        if one.placed == "symlink":
            return "written through", f"the blob itself was changed: its content is {damage.actual}"
        if found.st_ino == one.inode:
            return "written through", f"its content is {damage.actual}"
        return "replaced", f"another file was put in its place: its content is {damage.actual}"
    except OSError as error:
        return "unreadable", error.strerror or str(error)
    if blob is None:
        return "dangling", f"{path} is gone"
    blob.close()
    return "ok", ""


def _check_other(root: Path, one: Link | Text) -> Finding:
    if is_as_made(root, one):
        return Finding(one.path, "ok")
    if not os.path.lexists(root / one.path):
        return Finding(one.path, "missing", "it was removed")
    return Finding(one.path, "stale", "another program changed it")


def worst(findings: Iterable[Finding]) -> frozenset[Status]:
    """Return the statuses that there are, other than ``ok``."""
    return frozenset(one.status for one in findings if one.status != "ok")
