"""Garbage collection: decide what may go, then remove exactly that.

:func:`take_inventory` looks, :func:`plan_removals` decides (a pure function), :func:`remove` acts. A dry run prints the
plan that the real run executes. Nothing outside the store is touched, and no symbolic link is followed: files are
removed by name relative to directory descriptors that were opened without following links, after checking that each is
still the file that was judged.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from weightstore.errors import InvalidRecord, StoreError
from weightstore.store.blobs import list_blobs
from weightstore.store.derived import list_derived
from weightstore.store.image import NamedByIndex, named_by_index
from weightstore.store.owner import is_alive, is_gone
from weightstore.store.parts import file_time, list_parts, owner_of
from weightstore.store.receipts import Receipts, identity_of
from weightstore.store.refs import list_refs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.records import Ref
    from weightstore.store.layout import Layout

Kind = Literal["blob", "part", "leftover", "lock", "quarantine"]
State = Literal["idle", "owned", "orphaned"]
# The longest that a process may be between writing bytes and still be believed to work, whatever the grace period.
_WORKING_S = 60.0
# The longest that writing a small record and renaming it may take.
_RECORD_S = 2.0
_LOCK_S = 3600.0
_QUARANTINE_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class File:
    """One file of the store as it was when looked at. ``used_at`` and ``written_at`` are seconds since the epoch."""

    kind: Kind
    path: Path
    size: int
    used_at: float
    written_at: float
    device: int
    inode: int
    state: State = "idle"
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a store holds at one moment, by its own file system's clock.

    ``referenced`` is what refs and index.json name as content. ``derived_from`` tells of which blob another
    one is a conversion: what names the one keeps both. ``documents`` are the manifests and configs that index.json
    names: never removed while it does. ``only_here`` are blobs of which no source is known: adopted ones whose file may
    be a link to the blob by now, and what only index.json names.
    """

    now: float
    files: tuple[File, ...]
    referenced: frozenset[Digest]
    refs_are_readable: bool = True
    derived_from: Mapping[Digest, Digest] = field(default_factory=dict)
    documents: frozenset[Digest] = frozenset()
    only_here: frozenset[Digest] = frozenset()

    @property
    def blob_bytes(self) -> int:
        return sum(file.size for file in self.files if file.kind == "blob")


@dataclass(frozen=True, slots=True)
class Removal:
    """One file to remove, and why."""

    file: File
    reason: str


def take_inventory(layout: Layout, receipts: Receipts) -> Inventory:
    """Look at everything that a collection could remove."""
    now = file_time(layout)
    files = [*_blobs(layout, receipts), *_parts(layout), *_others(layout)]
    refs = list(list_refs(layout))
    good = [ref for ref in refs if not isinstance(ref, InvalidRecord)]
    named = {ref.digest for ref in good}
    fetchable = {ref.digest for ref in good if ref.via != "adopted" or ref.source.scheme != "file"}
    # A ref that we cannot read, of a newer version perhaps, may name any blob.
    readable = len(good) == len(refs)
    index = NamedByIndex()
    try:
        index = named_by_index(layout)
    except InvalidRecord:
        readable = False  # and so may an index
    derived_from = {one.digest: one.source for one in list_derived(layout)}
    named |= index.content  # what other tools copied here, or came from a file, has no ref
    return Inventory(
        now, tuple(files), frozenset(named), readable, derived_from, index.documents, frozenset(named - fetchable)
    )


def _file(kind: Kind, path: Path, found: os.stat_result, *, used_at: float | None = None) -> File:
    used = max(found.st_atime, found.st_mtime, used_at or 0)
    written = max(found.st_mtime, found.st_ctime if kind == "blob" else 0)
    return File(kind, path, found.st_size, used, written, found.st_dev, found.st_ino)


def _blobs(layout: Layout, receipts: Receipts) -> Iterable[File]:
    for digest, found in list_blobs(layout).items():
        used_at = receipts.last_used(digest, identity_of(found))
        file = _file("blob", layout.blob(digest), found, used_at=used_at)
        yield File(
            file.kind, file.path, file.size, file.used_at, file.written_at, file.device, file.inode, digest=digest
        )


def _parts(layout: Layout) -> Iterable[File]:
    for part in list_parts(layout):
        with contextlib.suppress(OSError):
            found = os.lstat(part.path)
            owner = owner_of(part)
            file = _file("part", part.path, found)
            state: State = "owned" if is_alive(owner) else "orphaned" if is_gone(owner) else "idle"
            yield File(
                "part", file.path, file.size, file.used_at, file.written_at, file.device, file.inode, state=state
            )


def _others(layout: Layout) -> Iterable[File]:
    """Journals and half-written records in ``tmp/``, lock files, and what lies in quarantine."""
    parts = {part.path.name for part in list_parts(layout)}
    kinds: dict[Path, Kind] = {layout.tmp: "leftover", layout.locks: "lock", layout.quarantine: "quarantine"}
    for directory, kind in kinds.items():
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(directory), key=lambda item: item.name):
                if kind == "lock" and not entry.name.endswith(".lock"):
                    continue  # the shared file stays
                beside = entry.name.removesuffix(".journal") + ".part"
                if entry.name in parts or (entry.name.endswith(".journal") and beside in parts):
                    continue
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                        yield _file(kind, directory / entry.name, found)


def plan_removals(
    inventory: Inventory,
    *,
    keep: frozenset[Digest] = frozenset(),
    grace_s: float,
    max_size: int | None = None,
) -> tuple[Removal, ...]:
    """Decide what goes: stray parts and leftovers, unreferenced blobs, the least recently used beyond ``max_size``.

    ``keep`` are digests named by lockfiles: never removed. Nothing written or used within ``grace_s`` seconds is
    removed, and no part whose owner is provably running. ``max_size`` bounds the blobs' bytes in total; it too respects
    ``keep`` and the grace period, and spares what could not be fetched again, so it may not be reached.
    """
    removals = []
    for file in inventory.files:
        reason = _why_stray(file, inventory, keep, grace_s)
        if reason:
            removals.append(Removal(file, reason))
    if max_size is not None:
        gone = {removal.file.path for removal in removals}
        left = [file for file in inventory.files if file.kind == "blob" and file.path not in gone]
        excess = sum(file.size for file in left) - max_size
        spared = keep | inventory.only_here
        for file in sorted(left, key=lambda file: file.used_at):
            if excess <= 0:
                break
            is_young = inventory.now - max(file.used_at, file.written_at) < grace_s
            if file.digest in spared | inventory.documents or is_young:
                continue
            removals.append(Removal(file, "least recently used, beyond the size limit"))
            excess -= file.size
    return tuple(removals)


def _why_stray(file: File, inventory: Inventory, keep: frozenset[Digest], grace_s: float) -> str:
    age = inventory.now - file.written_at
    if file.kind == "blob":
        digests = {file.digest, inventory.derived_from.get(file.digest) if file.digest else None}
        unnamed = digests.isdisjoint(inventory.referenced) and digests.isdisjoint(keep | inventory.documents)
        idle = inventory.now - max(file.used_at, file.written_at) >= grace_s
        return "no ref or lockfile names it" if unnamed and idle and inventory.refs_are_readable else ""
    if file.kind == "part":
        if file.state == "owned" or (file.state == "idle" and age < max(grace_s, _WORKING_S)):
            return ""
        if age < grace_s:
            return ""
        return "its owner is gone" if file.state == "orphaned" else "it has not grown for long"
    if file.kind == "lock":
        # Locks guard nothing: one that is taken away while held costs at most a second download.
        return "an old lock" if age >= max(grace_s, _LOCK_S) else ""
    if file.kind == "quarantine":
        return "in quarantine for long" if age >= max(grace_s, _QUARANTINE_S) else ""
    return "left over in tmp" if age >= max(grace_s, _RECORD_S) else ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one planned removal: ``problem`` is empty where the file is gone."""

    removal: Removal
    problem: str = ""


def remove(layout: Layout, removals: Iterable[Removal]) -> list[Outcome]:
    """Remove exactly the planned files, each only if it is still the one that was judged and has not grown."""
    outcomes = []
    with contextlib.ExitStack() as stack:
        descriptors: dict[Path, int] = {}
        for removal in removals:
            directory = removal.file.path.parent
            if directory not in descriptors:
                fd = _open_inside(layout.root, directory)
                stack.callback(os.close, fd)
                descriptors[directory] = fd
            outcomes.append(Outcome(removal, _remove_one(descriptors[directory], removal.file)))
    return outcomes


def _remove_one(directory: int, file: File) -> str:
    try:
        found = os.stat(file.path.name, dir_fd=directory, follow_symlinks=False)
        same = (found.st_dev, found.st_ino, found.st_size) == (file.device, file.inode, file.size)
        if not same or found.st_mtime > file.written_at:
            return "changed since the plan was made; kept"
        os.unlink(file.path.name, dir_fd=directory)
        if file.kind == "part":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.path.with_suffix(".journal").name, dir_fd=directory)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _open_inside(root: Path, directory: Path) -> int:
    """Return a descriptor of a directory below the root, with no symbolic link on the way from the root."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(root, flags)
    try:
        for name in directory.relative_to(root).parts:
            inner = os.open(name, flags | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inner
    except OSError as error:
        os.close(fd)
        raise StoreError(place=str(directory), reason=f"is not a directory of the store: {error.strerror}") from None
    return fd


def refs_by_digest(layout: Layout) -> dict[Digest, list[Ref]]:
    """Return the refs of a store by the digest that they name."""
    found: dict[Digest, list[Ref]] = {}
    for ref in list_refs(layout):
        if not isinstance(ref, InvalidRecord):
            found.setdefault(ref.digest, []).append(ref)
    return found
