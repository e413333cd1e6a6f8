"""Parts: files in ``tmp/`` that are still being written, each owned by one process.

A part is named ``<key>.<host and boot>.<pid>.<random>.part``. Beside it lies a journal once there is something worth
resuming. Another process may take over a part whose owner is gone: it renames the part to a name of its own, which
exactly one process can do. Only where the owner is *provably* gone does it go on writing to that file. Otherwise it
copies: an open descriptor cannot be revoked, and an owner that was merely slow would go on writing to what we had
verified.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from weightstore.errors import InvalidRecord, StoreError
from weightstore.records import Journal, Owner
from weightstore.store.blobs import BLOCK, Hasher, hash_descriptor
from weightstore.store.layout import read_limited, translated, write_record
from weightstore.store.owner import is_alive, is_gone, place_of, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from weightstore.store.layout import Layout

_NAME = re.compile(
    r"(?P<key>[a-z0-9]+-[0-9a-f]{64})\.(?P<place>[A-Za-z0-9_-]+)\.(?P<pid>[0-9]+)\.(?P<random>[0-9a-f]{8})\.part"
)
_FICLONE = 0x40049409
# The parts that this process is writing now; others with its name it has left behind.
_OPEN: set[str] = set()


@dataclass(frozen=True, slots=True)
class PartSeen:
    """A part as somebody else sees it: what its name and stat say."""

    path: Path
    key: str
    place: str
    pid: int
    size: int
    mtime: float
    uid: int
    blocks: int

    @property
    def growth(self) -> tuple[int, float, int]:
        """Changes whenever the part grows."""
        return self.size, self.mtime, self.blocks

    @property
    def journal_path(self) -> Path:
        return self.path.with_suffix(".journal")


class Part:
    """A part of this process, open for reading and writing."""

    def __init__(self, layout: Layout, key: str, path: Path, fd: int) -> None:
        _OPEN.add(path.name)
        self.layout = layout
        self.key = key
        self.path = path
        self.fd = fd
        self.has_journal = False

    @classmethod
    def create(cls, layout: Layout, key: str) -> Self:
        """Return a new, empty part under a name that nobody else uses."""
        path = _own_name(layout, key)
        with translated(layout.tmp):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if layout.modes.part != 0o600:
                    os.fchmod(fd, layout.modes.part)
            except BaseException:
                os.close(fd)
                raise
        return cls(layout, key, path, fd)

    @classmethod
    def of_file(cls, layout: Layout, key: str, path: Path) -> Self:
        """Return an existing file as a part, by a hard link: it is not copied, and keeps its own name as well.

        Raises:
            StoreError: the file system has no hard link from there to the store, or the file is somebody else's.
        """
        own = _own_name(layout, key)
        try:
            os.link(path, own, follow_symlinks=False)
            fd = os.open(own, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(own)
            raise StoreError(
                place=str(path), reason=f"no hard link from there into the store is possible ({error.strerror})"
            ) from None
        return cls(layout, key, own, fd)

    @property
    def journal_path(self) -> Path:
        return self.path.with_suffix(".journal")

    def checkpoint(self, journal: Journal) -> None:
        """Note how far the part has come, so that this or another process can go on from there."""
        self.has_journal = True
        with translated(self.layout.tmp):
            write_record(self.journal_path, journal.encode(), mode=self.layout.modes.part)

    def truncate(self, size: int = 0) -> None:
        with translated(self.path):
            os.ftruncate(self.fd, size)

    def abandon(self) -> None:
        """Close the part and leave it, with its journal, to whoever wants to go on."""
        _OPEN.discard(self.path.name)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def discard(self) -> None:
        """Close the part and remove it."""
        self.abandon()
        for path in (self.path, self.journal_path):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abandon()


def _own_name(layout: Layout, key: str) -> Path:
    owner = this_process()
    return layout.tmp / f"{key}.{place_of(owner)}.{owner.pid}.{secrets.token_hex(4)}.part"


def list_parts(layout: Layout, key: str | None = None) -> list[PartSeen]:
    """Return the parts in ``tmp/``, all or those of one key."""
    found = []
    try:
        names = os.listdir(layout.tmp)
    except OSError:
        return []
    for name in names:
        if key is not None and not name.startswith(key):  # most are of others, while many files download
            continue
        if (match := _NAME.fullmatch(name)) is None or (key is not None and match["key"] != key):
            continue
        path = layout.tmp / name
        with contextlib.suppress(OSError):
            seen = os.lstat(path)
            if stat.S_ISREG(seen.st_mode):
                growth = (seen.st_size, seen.st_mtime, seen.st_uid, seen.st_blocks)
                found.append(PartSeen(path, match["key"], match["place"], int(match["pid"]), *growth))
    return found


def read_journal(part: PartSeen) -> Journal | None:
    """Return the part's journal, or None where there is none that can be used."""
    try:
        return Journal.parse(read_limited(part.journal_path), place=str(part.journal_path))
    except (OSError, InvalidRecord):
        return None


def owner_of(part: PartSeen) -> Owner:
    """Return who writes the part, as far as its journal or its name tells."""
    journal = read_journal(part)
    if journal is not None and journal.owner.pid == part.pid:
        return journal.owner
    here = this_process()
    if part.place == place_of(here):
        return Owner(here.host, part.pid, here.boot, here.pid_namespace)
    return Owner(part.place.rpartition("-")[0], part.pid)


def is_abandoned(part: PartSeen, *, now: float, stall_s: float) -> bool:
    """Tell whether the part's owner has gone, or at least has not written for ``stall_s`` seconds of file time."""
    if part.path.name in _OPEN:
        return False
    owner = owner_of(part)
    if is_gone(owner) or owner == this_process():
        return True
    if is_alive(owner) and now - part.mtime < 10 * stall_s:
        return False  # it waits for a slow server; its own time-outs are shorter than ten of ours
    return now - part.mtime > stall_s


def file_time(layout: Layout) -> float:
    """Return the time by the clock that stamps this store's files, which on a network is not this machine's."""
    path = layout.tmp / f".clock.{os.getpid()}.{secrets.token_hex(4)}.new"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return time.time()
    try:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)
        os.unlink(path)


def take_over(layout: Layout, key: str, *, stall_s: float) -> Iterator[tuple[Part, Journal, Hasher]]:
    """Yield parts of this key that were left behind and whose beginning is intact, most advanced first.

    Each is already renamed, cut to the journal's offset and hashed again: its bytes have the journal's digest, and
    the hasher has seen them. The caller keeps one and discards the others.
    """
    parts = list_parts(layout, key)
    if not parts:
        return
    now = file_time(layout)
    usable = []
    for part in parts:
        if not is_abandoned(part, now=now, stall_s=stall_s):
            continue
        journal = read_journal(part)
        if journal is not None and 0 < journal.offset <= part.size:
            usable.append((part, journal))
        elif is_gone(owner_of(part)):
            _remove(part)  # nothing to go on with, and nobody who would
    for part, journal in sorted(usable, key=lambda item: item[1].offset, reverse=True):
        claimed = _claim(layout, part, journal)
        if claimed is not None:
            part_of_ours, hasher = claimed
            yield part_of_ours, journal, hasher


def _remove(part: PartSeen) -> None:
    for path in (part.path, part.journal_path):
        with contextlib.suppress(OSError):
            os.unlink(path)


def _claim(layout: Layout, seen: PartSeen, journal: Journal) -> tuple[Part, Hasher] | None:
    path = _own_name(layout, seen.key)
    try:
        os.rename(seen.path, path)  # one process wins; the others get ENOENT
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.rename(seen.journal_path, path.with_suffix(".journal"))
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        fd = -1
    part = Part(layout, seen.key, path, fd)
    try:
        mine = fd >= 0 and seen.uid == os.geteuid() and is_gone(journal.owner) and os.fstat(fd).st_nlink == 1
        if not mine:
            part = _copy(part, journal)
        part.truncate(journal.offset)
        hasher, size = hash_descriptor(part.fd)
        if hasher.hexdigest() == journal.digest.hex and size == journal.offset:
            return part, hasher
    except OSError:
        pass
    except BaseException:
        part.abandon()
        raise
    part.discard()
    return None


def _copy(old: Part, journal: Journal) -> Part:
    """Return a part with the same first bytes in a file that nobody else has open; the old one is removed."""
    size = journal.offset
    old.abandon()
    source = os.open(old.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    new = Part.create(old.layout, old.key)
    try:
        try:
            fcntl.ioctl(new.fd, _FICLONE, source)
        except OSError:
            _copy_bytes(source, new.fd, size)
        new.checkpoint(journal)
    except BaseException:
        new.discard()
        raise
    finally:
        os.close(source)
    old.discard()
    return new


def _copy_bytes(source: int, target: int, size: int) -> None:
    offset = 0
    while offset < size and (data := os.pread(source, min(BLOCK, size - offset), offset)):
        offset += os.pwrite(target, data, offset)
    if offset != size:
        raise OSError(errno.EIO, "the part is shorter than its journal says")
