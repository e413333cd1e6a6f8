"""Giving a verified blob a further name outside of the store, where another library looks for it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from weightstore.errors import StoreError
from weightstore.store.layout import translated
from weightstore.store.receipts import identity_of

if TYPE_CHECKING:
    from weightstore.config import Link
    from weightstore.store.blobs import OpenBlob
    from weightstore.store.receipts import Receipts

Placed: TypeAlias = Literal["reflink", "symlink", "hardlink", "copy"]

_FICLONE = 0x40049409
_CHUNK = 64 << 20
# What ioctl(FICLONE) answers where the file system has no reflinks, or the two files are not on one.
_NO_REFLINKS = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EBADF}


def place(
    blob: OpenBlob,
    destination: Path,
    *,
    link: Link = "auto",
    own: bool = False,
    receipts: Receipts | None = None,
) -> Placed:
    """Make a verified blob appear at ``destination``, in one step, replacing what is there; tell how it was done.

    ``auto`` makes a reflink where the file system can (a file of its own that shares the blob's bytes until somebody
    writes to it), else a symbolic link; but a copy in a directory of several users where the store is private, as they
    could not follow the link. A reflink and a copy get their permissions from the umask, as a download would; a
    symbolic and a hard link are the blob itself, which is read-only.

    Args:
        blob: open and verified; it is what the descriptor reads that is placed.
        destination: its directory must exist.
        link: how; anything but ``auto`` is done or refused.
        own: with ``auto``, a file of its own in any case: a copy where there are no reflinks.
        receipts: where a copy or reflink is noted, so that it need not be hashed when it is met again.

    Raises:
        StoreError: it cannot be written there, or not in the way that was asked for.
        NoSpace: the disk or quota is full.
    """
    temporary = destination.with_name(f".{destination.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.new")
    with translated(destination):
        try:
            placed = _place_at(blob, temporary, destination, link, own=own)
            os.replace(temporary, destination)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if receipts is not None and placed in {"reflink", "copy"}:
            # After the rename, which changes the ctime.
            found = os.lstat(destination)
            if found.st_size == blob.size:
                receipts.record(blob.digest, found, by_us=True)
    return placed


def _place_at(blob: OpenBlob, temporary: Path, destination: Path, link: Link, *, own: bool) -> Placed:
    if link in {"auto", "reflink"}:
        if _reflink(blob, temporary):
            return "reflink"
        if link == "reflink":
            raise StoreError(place=str(destination), reason="this file system has no reflinks between it and the store")
    if link == "hardlink":
        _hard_link(blob, temporary, destination)
        return "hardlink"
    if link == "copy" or (link == "auto" and (own or _needs_own_file(blob.path, destination.parent))):
        _copy(blob, temporary)
        return "copy"
    os.symlink(Path(os.path.abspath(blob.path)), temporary)
    return "symlink"


def _needs_own_file(blob: Path, directory: Path) -> bool:
    """Tell whether a directory has other users, who cannot read the store."""
    there = os.stat(directory)
    is_shared = bool(there.st_mode & 0o022) or there.st_uid != os.geteuid()
    # <root>/blobs/sha256/<hex>
    return is_shared and not os.stat(blob.parents[2]).st_mode & 0o055


def _reflink(blob: OpenBlob, temporary: Path) -> bool:
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.ioctl(fd, _FICLONE, blob.fd)
    except OSError as error:
        os.unlink(temporary)
        if error.errno not in _NO_REFLINKS:
            raise
        return False
    finally:
        os.close(fd)
    return True


def _hard_link(blob: OpenBlob, temporary: Path, destination: Path) -> None:
    try:
        os.link(blob.path, temporary, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}:
            raise StoreError(
                place=str(destination), reason=f"no hard link from here to the store is possible ({error.strerror})"
            ) from None
        raise
    found = os.lstat(temporary)
    if (found.st_dev, found.st_ino) != (blob.stat.st_dev, blob.stat.st_ino):
        raise StoreError(place=str(blob.path), reason="was replaced by somebody this moment. Try again")


def _copy(blob: OpenBlob, temporary: Path) -> None:
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        offset = 0
        while offset < blob.size:
            count = _copied(blob.fd, fd, offset, min(_CHUNK, blob.size - offset))
            if not count:
                raise StoreError(place=str(blob.path), reason="became shorter while it was copied")
            offset += count
    finally:
        os.close(fd)


def _copied(source: int, target: int, offset: int, count: int) -> int:
    """Copy at most ``count`` bytes within the kernel, where it can, from and to the same offset."""
    try:
        return os.copy_file_range(source, target, count, offset, offset)
    except OSError as error:
        if error.errno not in _NO_REFLINKS:
            raise
        return os.pwrite(target, os.pread(source, min(count, 1 << 20), offset), offset)


def is_blob(path: Path, blob: OpenBlob) -> bool:
    """Tell whether a name leads to the very file that is open: by a symbolic or a hard link."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return identity_of(found) == identity_of(os.fstat(blob.fd))
