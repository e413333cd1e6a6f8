"""Reading blobs: what is opened is verified, and the descriptor that was verified is the one that is handed out."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from weightstore.digest import Digest
from weightstore.errors import BlobDamaged
from weightstore.store.receipts import Receipts, identity_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from weightstore.store.layout import Layout

BLOCK = 1 << 20


@dataclass(slots=True)
class OpenBlob:
    """A verified blob and the descriptor that was verified, positioned at its start. Close it, or use ``with``."""

    fd: int
    path: Path
    digest: Digest
    stat: os.stat_result

    @property
    def size(self) -> int:
        return self.stat.st_size

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def detach(self) -> int:
        """Hand the descriptor over to the caller, who closes it."""
        fd, self.fd = self.fd, -1
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Hasher(Protocol):
    """What hashlib's objects are."""

    def update(self, data: Any, /) -> None: ...
    def hexdigest(self) -> str: ...


def hash_descriptor(fd: int, *, on_bytes: Callable[[int], None] | None = None) -> tuple[Hasher, int]:
    """Return a SHA-256 that has seen an open file from its start, and its length. The position is left alone."""
    hasher: Hasher = hashlib.sha256()
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        hasher.update(view[:count])
        offset += count
        if on_bytes is not None:
            on_bytes(count)
    return hasher, offset


def digest_of_open(fd: int, receipts: Receipts) -> Digest:
    """Return the digest of an open file: from this user's receipts, or hashed, and noted for the next time."""
    found = os.fstat(fd)
    digest = receipts.digest_of(identity_of(found))
    if digest is None:
        hasher, _ = hash_descriptor(fd)
        digest = Digest(hasher.hexdigest())
        if identity_of(os.fstat(fd)) == identity_of(found):
            receipts.record(digest, found)
    return digest


def open_regular(path: Path, *, untouched: bool = False) -> int | None:
    """Return a read-only descriptor of a regular file, or None where there is none. Links are not followed.

    ``untouched`` leaves the access time alone where we may (the file is ours).
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = -1
        if untouched and hasattr(os, "O_NOATIME"):
            with contextlib.suppress(PermissionError):
                fd = os.open(path, flags | os.O_NOATIME)
        if fd < 0:
            fd = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return fd


def open_verified(
    path: Path,
    digest: Digest,
    receipts: Receipts,
    *,
    on_bytes: Callable[[int], None] | None = None,
    always_hash: bool = False,
) -> OpenBlob | None:
    """Open the blob at ``path`` and make sure that its content is ``digest``; None where there is no such file.

    A file with a valid receipt is not hashed; any other is hashed once and a receipt written. ``always_hash`` ignores
    receipts.

    Raises:
        BlobDamaged: the content is something else, or the name is not a regular file.
        OSError: it cannot be opened or read.
    """
    try:
        fd = open_regular(path, untouched=always_hash)
    except OSError as error:
        if path.is_symlink():
            raise BlobDamaged(place=str(path), expected=str(digest), actual="a symbolic link") from None
        raise error from None
    if fd is None:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BlobDamaged(place=str(path), expected=str(digest), actual="not a regular file")
        if always_hash or not receipts.attests(digest, identity_of(found)):
            found = _hash_once(fd, path, digest, receipts, on_bytes)
        return OpenBlob(fd, path, digest, found)
    except BlobDamaged as damage:
        damage.judged = os.fstat(fd)
        os.close(fd)
        raise
    except BaseException:
        os.close(fd)
        raise


def _hash_once(
    fd: int, path: Path, digest: Digest, receipts: Receipts, on_bytes: Callable[[int], None] | None
) -> os.stat_result:
    before = os.fstat(fd)
    hasher, size = hash_descriptor(fd, on_bytes=on_bytes)
    actual = Digest(hasher.hexdigest())
    after = os.fstat(fd)
    if actual != digest:
        raise BlobDamaged(place=str(path), expected=str(digest), actual=str(actual))
    if size == after.st_size and identity_of(before) == identity_of(after):
        receipts.record(digest, after)
    return after


def list_blobs(layout: Layout) -> dict[Digest, os.stat_result]:
    """Return every regular file with a blob's name, by digest. Other things in the directory are passed by."""
    found: dict[Digest, os.stat_result] = {}
    try:
        entries = list(os.scandir(layout.blobs))
    except FileNotFoundError:
        return found
    for entry in entries:
        if len(entry.name) != 64:
            continue
        with contextlib.suppress(OSError, ValueError):
            information = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(information.st_mode) and _is_hex(entry.name):
                found[Digest(entry.name)] = information
    return found


def digests_beginning(layout: Layout, prefix: str) -> list[Digest]:
    """Return the digests of the blobs whose names begin with these hexadecimal digits."""
    try:
        names = os.listdir(layout.blobs)
    except OSError:
        return []
    return sorted(Digest(name) for name in names if name.startswith(prefix) and len(name) == 64 and _is_hex(name))


def _is_hex(name: str) -> bool:
    return not name.strip("0123456789abcdef")
