"""Making a view as it was decided: the whole beside the old one, and then both exchanged in one step.

Programs see the old view or the new one, and never a name without its blob. Killed at any moment, the directory is the
old view or the new one; what is left beside it the next run clears away. Files of others are carried over by hard
links, so that no moment is without them. Where directories cannot be exchanged (the parent is not ours to write, a
mount point, a file system without hard links) each name is replaced in a step of its own, the manifest last.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from weightstore.errors import InvalidRecord, NoSpace, StoreError
from weightstore.interop.placing import place
from weightstore.interop.views.directory import (
    EDITED,
    UNFINISHED,
    Decision,
    Survey,
    above,
    left_over,
    real,
    survey,
    writing_to,
)
from weightstore.interop.views.exchange import exchange
from weightstore.interop.views.layouts import Link, Text
from weightstore.interop.views.manifest import (
    Manifest,
    Placement,
    exists,
    is_as_made,
    manifest_path,
    placement_at,
    read_manifest,
    write_manifest,
)
from weightstore.records import Owner
from weightstore.store.layout import write_record
from weightstore.store.owner import is_gone, place_of, this_process
from weightstore.store.receipts import Receipts, identity_of

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.interop.views.layouts import Entry
    from weightstore.store.blobs import OpenBlob

Open = Callable[["Digest"], "OpenBlob"]

_BESIDE = re.compile(r"\.(?P<name>.+)\.(?P<place>[A-Za-z0-9_-]+)\.(?P<pid>[0-9]+)\.[0-9a-f]{8}\.view")
_FORGOTTEN_S = 86400.0


class _CannotBeside(Exception):
    """The view cannot be built beside the old one here."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was made. ``how`` tells whether the whole view appeared in one step, or name by name."""

    manifest: Manifest
    how: Literal["at once", "name by name"]


def build(decision: Decision, *, open_blob: Open, receipts: Receipts, beside: bool = True) -> Built:
    """Make the view that was decided.

    Args:
        decision: what :func:`weightstore.interop.views.directory.decide` returned.
        open_blob: returns a blob, open and verified, or raises.
        receipts: where copies and reflinks are noted.
        beside: build the whole beside the old view and exchange the two, where that can be done.

    Raises:
        StoreError, NoSpace: it cannot be written. Of a view that was there before, nothing is lost.
    """
    if decision.old is not None and not _changes_anything(decision):
        return Built(decision.old, "at once")
    if beside and not _has_other_inhabitants(decision):
        with contextlib.suppress(_CannotBeside):
            return Built(_build_beside(decision, open_blob, receipts), "at once")
    return Built(_build_in_place(decision, open_blob, receipts), "name by name")


def _changes_anything(decision: Decision) -> bool:
    old = decision.old
    if old is None or old.scope != decision.scope:
        return True
    staying = {*decision.kept, *(one.path for one in decision.adopted)}
    same = staying == {one.path for one in old.placements}
    return not same or any((decision.added, decision.replaced, decision.removed, decision.edited, decision.left_over))


def _has_other_inhabitants(decision: Decision) -> bool:
    """Tell whether a directory is more than a cache, as a home directory is that has one: it is never exchanged."""
    tops = {path.partition("/")[0] for path in decision.plan.paths}
    there = {path.partition("/")[0] for path in (*decision.carried, *decision.found.directories)}
    return bool({top for top in there if not top.startswith(".")} - tops)


def recover(directory: Path) -> None:
    """Clear away what killed runs left beside a view; what others put into it meanwhile comes back first."""
    root = real(directory)
    try:
        names = os.listdir(root.parent)
    except OSError:
        return
    here = this_process()
    for name in names:
        match = _BESIDE.fullmatch(name)
        if match is None or match["name"] != root.name[:100]:
            continue
        path = root.parent / name
        if not _is_ours(path, root):
            continue
        owner = Owner(here.host, int(match["pid"]), here.boot, here.pid_namespace)
        with writing_to(path), contextlib.suppress(FileNotFoundError):
            ours = match["place"] == place_of(here)
            if is_gone(owner) if ours else time.time() - path.stat().st_mtime > _FORGOTTEN_S:
                _clear_away(path, root)


def _is_ours(beside: Path, root: Path) -> bool:
    """Tell whether we, or the view's owner for us, made a tree: beside a view in /tmp anybody may put one."""
    try:
        found = os.lstat(beside)
        owners = {os.geteuid(), os.lstat(root).st_uid} if os.geteuid() == 0 and exists(root) else {os.geteuid()}
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid in owners


def _clear_away(beside: Path, root: Path) -> None:
    """Remove a tree that is not, or no longer, the view; what only it has of others' files goes into the view."""
    if exists(beside / UNFINISHED) or not root.is_dir():
        shutil.rmtree(beside)
        return
    try:
        old = read_manifest(beside)
    except InvalidRecord:
        return  # nobody can tell what is ours in it
    now = read_manifest(root)
    ours = {piece.path for piece in old.pieces() if is_as_made(beside, piece)} if old is not None else set()
    new = {piece.path for piece in now.pieces()} if now is not None else set()
    there = survey(beside)
    remnants = left_over(there, ours | new)
    for path, found in there.files.items():
        if path not in ours and path not in remnants:
            _bring_over(beside / path, found, root / path, is_ours=path in new)
    _remove(beside, there, old)


def _remove(beside: Path, there: Survey, old: Manifest | None) -> None:
    """Remove what was looked at, and no more: a program may still work in the tree, and what it makes there stays.

    The next run brings that over. The manifest goes after what it tells of.
    """
    for path, found in there.files.items():
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(beside / path).st_ino == found.st_ino:
                os.unlink(beside / path)
    if old is not None:
        os.unlink(manifest_path(beside, old.kind))
    for path in (*sorted(there.directories, reverse=True), ""):
        try:
            os.rmdir(beside / path)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                raise


def _bring_over(source: Path, found: os.stat_result, target: Path, *, is_ours: bool) -> None:
    """Give the view a file that it lacks, or of which it has an older version. Our own names stay."""
    if is_ours:
        return
    try:
        there = os.lstat(target)
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
        return
    except NotADirectoryError:
        return
    if stat.S_ISDIR(there.st_mode) or there.st_ino == found.st_ino:
        return
    if there.st_mtime_ns < found.st_mtime_ns and not (stat.S_ISLNK(there.st_mode) and stat.S_ISLNK(found.st_mode)):
        os.replace(source, target)


def _build_beside(decision: Decision, open_blob: Open, receipts: Receipts) -> Manifest:
    root = decision.root
    if any(found.st_dev != os.stat(root).st_dev for found in decision.found.directories.values()):
        raise _CannotBeside  # what is mounted inside would go with the old view
    beside = _make_beside(root)
    try:
        manifest = _fill(decision, beside, open_blob, receipts)
        os.unlink(beside / UNFINISHED)
        if not root.exists():
            with _unless_made():
                os.rename(beside, root)
                return manifest
        if not exchange(beside, root):
            _mark_unfinished(beside)
            raise _CannotBeside
    except BaseException as error:
        # Only before the exchange: afterwards it is the old view that lies there, without this mark.
        if exists(beside / UNFINISHED):
            shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            with writing_to(root):
                raise
        raise
    with writing_to(beside):
        _clear_away(beside, root)
    _note_again(root, decision, receipts)
    return manifest


@contextlib.contextmanager
def _unless_made() -> Iterator[None]:
    """Pass over that the directory is there and not empty: another process made the view this moment."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise


def _make_beside(root: Path) -> Path:
    owner = this_process()
    name = f".{root.name[:100]}.{place_of(owner)}.{owner.pid}.{secrets.token_hex(4)}.view"
    beside = root.parent / name
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        os.mkdir(beside)
        _mark_unfinished(beside)
        if root.exists():
            like = root.stat()
            if (like.st_uid, like.st_gid) != (os.geteuid(), beside.stat().st_gid):
                os.chown(beside, like.st_uid, like.st_gid)
            os.chmod(beside, stat.S_IMODE(like.st_mode))
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(beside)
        if not root.exists():
            with writing_to(root):
                raise
        raise _CannotBeside from error
    return beside


def _mark_unfinished(beside: Path) -> None:
    # In one step: what a kill leaves is either marked, or empty.
    os.close(os.open(beside / UNFINISHED, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _fill(decision: Decision, beside: Path, open_blob: Open, receipts: Receipts) -> Manifest:
    root = decision.root
    for path in _directories(decision):
        os.makedirs(beside / path, exist_ok=True)
        if (like := decision.found.directories.get(path)) is not None:
            with contextlib.suppress(OSError):
                os.chmod(beside / path, stat.S_IMODE(like.st_mode))
    for path in (*decision.carried, *(one.path for one in decision.adopted)):
        _carry(root / path, beside / path)
    for path in decision.edited:
        if not exists(beside / (path + EDITED)):
            _carry(root / path, beside / (path + EDITED))
    placements = list(decision.adopted)
    for entry in decision.plan.entries:
        known = decision.kept.get(entry.path)
        if known is not None and known.placed != "symlink" and _is_carried(root / entry.path, beside / entry.path):
            placements.append(known)
        else:
            placements.append(_place(entry, beside, decision, open_blob, receipts))
    for link in decision.plan.links:
        os.symlink(link.target, beside / link.path)
    for text in decision.plan.texts:
        write_record(beside / text.path, text.text.encode(), mode=0o644)
    manifest = _manifest(decision, placements)
    write_manifest(beside, manifest)
    return manifest


def _directories(decision: Decision) -> list[str]:
    """Return the directories that the new view has: those that lead to something, and the empty ones of others."""
    paths = {*decision.plan.paths, *decision.carried, *(one.path for one in decision.adopted)}
    inhabited = {directory for path in decision.found.files for directory in above(path)}
    empty = decision.found.directories.keys() - inhabited
    needed = {directory for path in paths for directory in above(path)} | _ends_of_links(decision)
    return sorted(needed | (empty - decision.plan.paths))


def _ends_of_links(decision: Decision) -> set[str]:
    """Return the directories that second ways in lead to; they are there, even if nothing is in them."""
    return {one.target for one in decision.plan.links if one.digest is None}


def _carry(source: Path, target: Path) -> None:
    try:
        if stat.S_ISLNK(os.lstat(source).st_mode):
            os.symlink(os.readlink(source), target)
        else:
            os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        pass  # removed by its owner this moment
    except OSError as error:
        raise _CannotBeside from error


def _is_carried(source: Path, target: Path) -> bool:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        return False
    return True


def _place(entry: Entry, root: Path, decision: Decision, open_blob: Open, receipts: Receipts) -> Placement:
    with open_blob(entry.digest) as blob:
        try:
            placed = place(blob, root / entry.path, link=decision.link, receipts=receipts)
        except (StoreError, NoSpace) as error:  # says where it is to be, and not where it is made
            error.fields["place"] = error.place = error.place.replace(str(root), str(decision.root), 1)
            raise
        size = blob.size
    before = decision.old.placements if decision.old is not None else ()
    is_adopted = any(one.path == entry.path and one.is_adopted for one in before)
    return placement_at(
        root,
        entry.path,
        digest=entry.digest,
        size=size,
        placed=placed,
        source=entry.source,
        is_adopted=is_adopted,
    )


def _manifest(decision: Decision, placements: list[Placement]) -> Manifest:
    links = tuple(Link(one.path, one.target) for one in decision.plan.links)
    ordered = tuple(sorted(placements, key=lambda one: one.path))
    return Manifest(decision.plan.kind, decision.scope, ordered, links, decision.plan.texts)


def _note_again(root: Path, decision: Decision, receipts: Receipts) -> None:
    """Note carried copies once more: a hard link that comes and goes changes the ctime of a file, and nothing else."""
    for path, one in decision.kept.items():
        before = decision.found.files.get(path)
        if one.placed not in {"reflink", "copy"} or before is None:
            continue
        with contextlib.suppress(OSError):
            now = os.lstat(root / path)
            mine, theirs = identity_of(now), identity_of(before)
            if (mine.inode, mine.size, mine.mtime_ns) == (theirs.inode, theirs.size, theirs.mtime_ns):
                receipts.record(one.digest, now, by_us=True)


def _build_in_place(decision: Decision, open_blob: Open, receipts: Receipts) -> Manifest:
    root = decision.root
    with writing_to(root):
        root.mkdir(parents=True, exist_ok=True)
        ours = _ours(decision)
        for path in (*decision.left_over, *decision.removed):
            if path in decision.left_over or (path in ours and is_as_made(root, ours[path])):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(root / path)
                _prune(root, path)
        for path in decision.edited:
            with contextlib.suppress(FileExistsError):
                os.link(root / path, root / (path + EDITED), follow_symlinks=False)
        for path in decision.plan.paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
        for path in _ends_of_links(decision):
            (root / path).mkdir(parents=True, exist_ok=True)
        placements = list(decision.adopted)
        for entry in decision.plan.entries:
            known = decision.kept.get(entry.path)
            placements.append(known or _place(entry, root, decision, open_blob, receipts))
        for link in decision.plan.links:
            if not is_as_made(root, link):
                _link(root / link.path, link.target)
        for text in decision.plan.texts:
            if not is_as_made(root, text):
                write_record(root / text.path, text.text.encode(), mode=0o644)
        manifest = _manifest(decision, placements)
        write_manifest(root, manifest)
    return manifest


def _ours(decision: Decision) -> dict[str, Placement | Link | Text]:
    return {piece.path: piece for piece in decision.old.pieces()} if decision.old is not None else {}


def _prune(root: Path, path: str) -> None:
    """Remove the directories that a removed name leaves empty."""
    for directory in _upwards(path):
        try:
            os.rmdir(root / directory)
        except OSError:
            return


def _upwards(path: str) -> Iterator[str]:
    yield from reversed(list(above(path)))


def _link(path: Path, target: str) -> None:
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.new")
    os.symlink(target, temporary)
    try:
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
