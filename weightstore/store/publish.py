"""How verified bytes get their name: the only way into ``blobs/``.

The part is complete and its digest known. Mode 0444, fsync, ``link()`` to the final name, remove the part, fsync of the
directory. No final name is ever opened for writing, and no lock is needed: of several writers one link succeeds, and
the others find a blob that they verify like any other. ``kill -9`` anywhere leaves at most a stray part.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from weightstore.errors import BlobDamaged, StoreError
from weightstore.store.blobs import open_verified
from weightstore.store.durability import sync_directory
from weightstore.store.layout import translated
from weightstore.store.quarantine import put_aside

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.store.parts import Part
    from weightstore.store.receipts import Receipts

# What link() answers where hard links are not to be had: FAT, some FUSE and object-store mounts, hardened kernels.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.EINVAL}


class PartLost(StoreError):
    """The part was taken over by another process that believed this one dead."""


def publish(part: Part, digest: Digest, *, size: int, receipts: Receipts) -> Path:
    """Give a complete part, whose content was hashed to ``digest``, its name; return the blob's path.

    Afterwards the blob is there, durable and verified, and the part is gone.

    Raises:
        PartLost: another process took the part over.
        CannotReplace: a damaged blob of another user holds the name.
        NoSpace, StoreError: the store cannot be written.
    """
    settle(part, size=size)
    path = give_name(part, digest, receipts)
    with translated(path):
        sync_directory(part.layout.blobs)
    return path


def settle(part: Part, *, size: int) -> None:
    """Make a complete part read-only and its content durable: the first half of publishing it."""
    with translated(part.path):
        os.fchmod(part.fd, part.layout.modes.blob)
        if os.fstat(part.fd).st_size != size:
            raise StoreError(place=str(part.path), reason="changed while it was written")
        os.fsync(part.fd)


def give_name(part: Part, digest: Digest, receipts: Receipts) -> Path:
    """Name a settled part, and remove it: the second half. Return the blob's path.

    The name itself is durable once the directory is synced; whoever publishes many does that once in the end. A name
    that a power cut takes away costs a download and never a wrong byte.
    """
    layout = part.layout
    final = layout.blob(digest)
    with translated(final):
        ours = _name(part, final, digest, receipts)
        if _is_ours(part, part.path):  # else somebody took the name, and what bears it is not ours to remove
            for path in (part.path, part.journal_path) if part.has_journal else (part.path,):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        if ours:
            receipts.record(digest, os.fstat(part.fd), by_us=True)
    part.abandon()
    return final


def _name(part: Part, final: Path, digest: Digest, receipts: Receipts) -> bool:
    """Link the part to its final name. True when it is our file that bears it, False when a good one already did."""
    while True:
        try:
            _link(part, final)
        except FileExistsError:
            if _is_good(part, final, digest, receipts):
                return False
        except FileNotFoundError:
            raise PartLost(place=str(part.path), reason="was taken over by another process") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if final.exists() and _is_good(part, final, digest, receipts):
                return False
            # rename() would replace a blob put there this moment: by the same, verified bytes.
            if not _is_ours(part, part.path):
                raise PartLost(place=str(part.path), reason="was taken over by another process") from None
            os.rename(part.path, final)
            if not _is_ours(part, final):  # swapped between the look and the rename; whoever opens it will hash it
                raise PartLost(place=str(part.path), reason="was taken over by another process") from None
            return True
        else:
            return True


def _link(part: Part, final: Path) -> None:
    """Link the very file that was hashed, and not whatever bears its name: in a group others may rename in ``tmp/``."""
    directory = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # With a directory descriptor Python calls linkat(AT_SYMLINK_FOLLOW), which resolves the descriptor's link.
        os.link(f"/proc/self/fd/{part.fd}", final.name, dst_dir_fd=directory, follow_symlinks=True)
    except FileNotFoundError:
        if not _is_ours(part, part.path):  # unlinked: nothing is left to be named
            raise
        os.link(part.path, final, follow_symlinks=False)  # there is no /proc
    finally:
        os.close(directory)


def _is_ours(part: Part, path: Path) -> bool:
    """Tell whether the file of that name is the one that we have open."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    mine = os.fstat(part.fd)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _is_good(part: Part, final: Path, digest: Digest, receipts: Receipts) -> bool:
    try:
        opened = open_verified(final, digest, receipts)
    except BlobDamaged as damage:
        put_aside(part.layout, final, damage)
        return False
    if opened is None:
        return False
    opened.close()
    return True
