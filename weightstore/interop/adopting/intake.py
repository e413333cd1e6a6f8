"""Bringing a file that was looked at into the store, by the store's own protocol: part, hash, publish."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Literal, TypeAlias

from weightstore.digest import Digest
from weightstore.errors import StoreError
from weightstore.store.blobs import BLOCK, hash_descriptor, open_regular
from weightstore.store.layout import translated
from weightstore.store.parts import Part
from weightstore.store.publish import publish
from weightstore.store.receipts import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from weightstore.records import Identity
    from weightstore.store.layout import Layout
    from weightstore.store.receipts import Receipts

How: TypeAlias = Literal["reflink", "hardlink", "copy"]

_FICLONE = 0x40049409


class Changed(StoreError):
    """The file is not the one that was looked at."""

    def __init__(self, *, place: str) -> None:
        super().__init__(place=place, reason="changed while it was looked at, and is left. Try again")
        self.fields = {"place": place}


@contextlib.contextmanager
def opened(path: Path, expected: Identity | None = None) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file for reading; links are not followed.

    Raises:
        Changed: it is gone, is something else, or is not the file that is expected.
    """
    with translated(path):
        fd = open_regular(path)
    if fd is None:
        raise Changed(place=str(path))
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or (expected is not None and identity_of(found) != expected):
            raise Changed(place=str(path))
        yield fd, found
    finally:
        os.close(fd)


def name_content(fd: int, *, size: int, for_git: bool, on_bytes: Callable[[int], None]) -> tuple[Digest, str]:
    """Return the digest of an open file, and if asked for what git calls the content: its object id."""
    if not for_git:
        hasher, _ = hash_descriptor(fd, on_bytes=on_bytes)
        return Digest(hasher.hexdigest()), ""
    digest = hashlib.sha256()
    # No word on security: it is how the Hub names small files.
    git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    offset = 0
    while data := os.pread(fd, BLOCK, offset):
        digest.update(data)
        git.update(data)
        offset += len(data)
        on_bytes(len(data))
    return Digest(digest.hexdigest()), git.hexdigest()


def take_in(
    path: Path, digest: Digest, expected: Identity, *, layout: Layout, receipts: Receipts, hard_link: bool
) -> tuple[Path, How]:
    """Publish a file's content in a store; return the blob's path, and how it came there.

    By a reflink where the file system can, else by a copy; with ``hard_link`` the file itself becomes the blob, with
    the blob's permissions. What is published is what was hashed in the store.

    Raises:
        Changed: it is not the file, or not the content, that was looked at.
        StoreError, NoSpace: the store cannot take it.
    """
    key = f"sha256-{digest.hex}"
    with opened(path, expected) as (fd, found):
        how: How
        if hard_link and _has_writers(fd):
            raise StoreError(place=str(path), reason="is open for writing somewhere, and is left. Try again")
        if hard_link and found.st_nlink == 1:  # with other names it is not only ours to make read-only
            part, how = Part.of_file(layout, key, path), "hardlink"
        else:
            part = Part.create(layout, key)
            how = "reflink" if _cloned(fd, part.fd) else "copy"
        try:
            actual = _copied(fd, part) if how == "copy" else Digest(hash_descriptor(part.fd)[0].hexdigest())
            if actual != digest or os.fstat(part.fd).st_size != found.st_size:
                raise Changed(place=str(path))
            return publish(part, digest, size=found.st_size, receipts=receipts), how
        except BaseException:
            part.discard()
            raise


def _has_writers(fd: int) -> bool:
    """Tell whether a process has the file open for writing, where the system would say: then it is no blob yet."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # whatever the reason is, a copy meets it too
        return False
    return True


def _copied(source: int, part: Part) -> Digest:
    hasher = hashlib.sha256()
    offset = 0
    with translated(part.path):
        while data := os.pread(source, BLOCK, offset):
            hasher.update(data)
            view = memoryview(data)
            while view:
                count = os.pwrite(part.fd, view, offset)
                view = view[count:]
                offset += count
    return Digest(hasher.hexdigest())
