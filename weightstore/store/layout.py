"""Where things lie in a store, and with which permissions.

::

    <root>/
      store.json           layout version, sharing mode
      blobs/sha256/<hex>   0444, named by content
      refs/<key>.json      one per source, replaced atomically
      tmp/                 the only place where bytes are ever incomplete
      locks/               advisory
      quarantine/          blobs that failed verification, with the reason
      oci-layout           so that a store is an OCI image layout
      CACHEDIR.TAG         so that backups pass it by

Modes are set explicitly: neither the umask nor mkstemp's 0600 decides who can read a shared store.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord, NoSpace, NotAStore, StoreError
from weightstore.records import RECORD_LIMIT, Sharing, StoreInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.source import Source

_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory is a cache of model weights, kept by weightstore.\n"
    "# See https://bford.info/cachedir/\n"
)
OCI_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}\n'
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Modes:
    """The permission bits of one sharing mode.

    ``published`` directories are sticky where others may write: members add blobs, and cannot replace each other's.
    ``working`` directories are not, in a group, so that a member can take over the part of another that died.
    """

    root: int
    published: int
    working: int
    blob: int
    record: int
    part: int
    lock: int


MODES: dict[Sharing, Modes] = {
    "private": Modes(0o700, 0o700, 0o700, blob=0o444, record=0o644, part=0o600, lock=0o600),
    "group": Modes(0o2755, 0o3775, 0o2770, blob=0o444, record=0o444, part=0o640, lock=0o660),
    "world": Modes(0o2755, 0o3777, 0o3777, blob=0o444, record=0o444, part=0o600, lock=0o666),
}


@dataclass(frozen=True)
class Layout:
    """The paths of one store. Making one touches nothing."""

    root: Path
    sharing: Sharing = "private"

    @property
    def modes(self) -> Modes:
        return MODES[self.sharing]

    @functools.cached_property
    def info(self) -> Path:
        return self.root / "store.json"

    @functools.cached_property  # joining paths is a tenth of what Python does for a small download
    def blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    @functools.cached_property
    def refs(self) -> Path:
        return self.root / "refs"

    @functools.cached_property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @functools.cached_property
    def locks(self) -> Path:
        return self.root / "locks"

    @functools.cached_property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @functools.cached_property
    def derived(self) -> Path:
        return self.root / "derived"

    def blob(self, digest: Digest) -> Path:
        return self.blobs / digest.hex

    def ref(self, source: Source) -> Path:
        return self.refs / f"{source.key}.json"

    def derived_record(self, source: Digest, kind: str) -> Path:
        return self.derived / f"{source.hex}.{kind}.json"

    def lock(self, key: str) -> Path:
        return self.locks / f"{key}.lock"

    def directories(self) -> Iterator[tuple[Path, int]]:
        """Yield every directory of the store with its mode, parents first."""
        modes = self.modes
        yield self.root, modes.root
        yield self.root / "blobs", modes.root
        yield self.blobs, modes.published
        yield self.refs, modes.published
        yield self.tmp, modes.working
        yield self.locks, modes.working if self.sharing != "world" else 0o2777
        yield self.quarantine, modes.published


_OTHER_STORE = "Choose a store of your own with WEIGHTSTORE_HOME, and keep reading this one with WEIGHTSTORE_LAYERS"


@contextlib.contextmanager
def translated(place: Path | str, *, needed: int | None = None, advice: str = _OTHER_STORE) -> Iterator[None]:
    """Turn the operating system's refusals, while writing to a store, into ours.

    ``advice`` is for who may not write there; the place is a store unless it is given.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            reason = "quota exceeded" if error.errno == errno.EDQUOT else "no space left"
            raise NoSpace(place=str(place), needed=needed, free=None, reason=reason) from None
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise StoreError(
                place=str(place),
                reason=f"cannot be written ({error.strerror}). {advice}",
            ) from None
        raise StoreError(place=str(error.filename or place), reason=error.strerror or str(error)) from error


def read_limited(path: Path, limit: int = RECORD_LIMIT) -> bytes:
    """Return a small regular file's bytes, and at most one more than the limit; symbolic links are not followed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        chunks = []
        left = limit + 1
        while left > 0 and (chunk := os.read(fd, left)):
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def read_given(path: Path, limit: int) -> bytes:
    """Return the bytes of a file that the user named, links and pipes included, and at most one more than the limit.

    Raises:
        InvalidRecord: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise InvalidRecord(place=str(path), reason=error.strerror or str(error)) from None


def write_record(path: Path, data: bytes, *, mode: int, scratch: Path | None = None, durable: bool = False) -> None:
    """Replace a small file in one step: readers see the old bytes or the new ones.

    ``scratch`` is a directory of the same file system for the new bytes; by default the file's own.
    """
    temporary = (scratch or path.parent) / f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:  # a disk that is nearly full takes a part of it before it refuses
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def open_layout(root: Path, *, strict: bool = False) -> Layout | None:
    """Return the layout of an existing store, or None where there is none yet.

    ``strict`` also refuses a directory that holds blobs without being a store.

    Raises:
        NotAStore: there is something else, or a store of another version.
    """
    path = root / "store.json"
    try:
        data = read_limited(path)
    except (FileNotFoundError, NotADirectoryError):
        if strict and (root / "blobs").exists():
            if path.exists():  # made by another process this moment
                return open_layout(root, strict=True)
            reason = "holds blobs but no store.json, so it is not one of our stores"
            if (root / "oci-layout").is_file() and (root / "index.json").is_file():
                reason = (
                    "is an OCI image layout that another tool wrote, and no store. To make it one, with all that is "
                    f"there kept: weightstore --home {root} mirror index"
                )
            raise NotAStore(place=str(root), reason=reason) from None
        return None
    except OSError as error:
        raise NotAStore(place=str(path), reason=error.strerror or str(error)) from None
    try:
        info = StoreInfo.parse(data, place=str(path))
    except StoreError as error:
        raise NotAStore(place=error.place, reason=error.reason) from None
    return Layout(root, info.sharing)


def require_layout(root: Path) -> Layout:
    """Return the layout of an existing store.

    Raises:
        NotAStore: there is none, or something else.
    """
    layout = open_layout(root, strict=True)
    if layout is None:
        reason = f"there is no store. If that is the right path, make one first: weightstore init {root}"
        raise NotAStore(place=str(root), reason=reason)
    return layout


def create_layout(root: Path, sharing: Sharing | None = None) -> Layout:
    """Return the layout of the store at ``root``, made (or its missing directories made) where needed. Idempotent.

    ``store.json`` comes first: whoever finds directories without it found something else. Any number of processes may
    do this at once.

    Args:
        root: the store's directory; its parents are made too.
        sharing: for a new store, by default ``private``; an existing one must be of this mode, if given.

    Raises:
        StoreError: it cannot be created there, or exists with another sharing mode.
        NotAStore: the directory holds something that is not a store of this version.
    """
    layout = open_layout(root, strict=True) or _new_layout(root, sharing or "private")
    if sharing is not None and layout.sharing != sharing:
        raise StoreError(
            place=str(root), reason=f"is already a {layout.sharing} store; its sharing mode is not changed in place"
        )
    with translated(root):
        for directory, mode in layout.directories():
            _make_directory(directory, mode)
        _write_once(root / "oci-layout", OCI_LAYOUT)
        _write_once(root / "CACHEDIR.TAG", _CACHEDIR_TAG.encode())
    return layout


def adopt_layout(root: Path) -> Layout:
    """Make a store of an OCI image layout that another tool wrote, and return it.

    A store is laid out as such, so ``store.json`` and our directories come beside what is there, which stays as it is,
    with its permissions: whoever could not read it cannot now.

    Raises:
        StoreError: it cannot be written.
    """
    with translated(root):
        is_closed = not stat.S_IMODE(os.stat(root).st_mode) & 0o077
        _write_once(root / "store.json", StoreInfo("private" if is_closed else "group").encode(), durable=True)
    return create_layout(root)


def make_derived_directory(layout: Layout) -> None:
    """Make the directory of :class:`Derived` records, which most stores do without."""
    with translated(layout.derived):
        _make_directory(layout.derived, layout.modes.published)


def _new_layout(root: Path, sharing: Sharing) -> Layout:
    layout = Layout(root, sharing)
    with translated(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        _make_directory(root, layout.modes.root)
        if os.stat(root).st_uid == os.geteuid():
            os.chmod(root, layout.modes.root)  # it may have been made beforehand, by the umask
        _write_once(layout.info, StoreInfo(sharing).encode(), durable=True)
    # Another process may have been first, with another mode: then its word counts.
    return open_layout(root, strict=True) or layout


def _make_directory(path: Path, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chmod(path, mode)
        return
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        # The root itself may be a link (a cache directory moved to a larger disk); what is inside may not.
        if stat.S_ISLNK(found.st_mode) and path.is_dir() and path.name not in _INSIDE:
            return
        raise StoreError(place=str(path), reason="is in the way: a store needs a directory here")


_INSIDE = frozenset({"blobs", "sha256", "refs", "tmp", "locks", "quarantine", "derived"})


def _write_once(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a small file unless it is there; of several writers the first wins."""
    if path.exists():
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
    write_record(scratch, data, mode=0o444, durable=durable)
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    except OSError:
        os.rename(scratch, path)  # no hard links here: the last wins, and says the same
        return
    os.unlink(scratch)
