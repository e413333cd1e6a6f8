"""This user's private notes that a file with a certain stat identity was hashed and had a certain digest.

A receipt is trusted because nobody else can write it: it lies in the user's own state directory, mode 0700, never in
a shared store. It spares hashing a file whose device, inode, size, mtime and ctime are what they were.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from weightstore.records import Identity
from weightstore.store.layout import write_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightstore.digest import Digest

# A change within the clock's granularity after hashing would go unseen (git calls such entries racy). Two seconds
# cover the coarsest file systems (FAT, some NFS servers).
_RACY_S = 2.0
# How stale "last used" may get before a hit notes it again.
_USE_NOTED_EVERY_S = 3600.0


def identity_of(found: os.stat_result) -> Identity:
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Receipts:
    """The receipts of one user. A state directory that cannot be used costs speed and is never an error."""

    def __init__(self, state: Path) -> None:
        self._directory = state / "receipts"

    def _path(self, digest: Digest, identity: Identity) -> str:
        return f"{self._directory}/{digest.hex}-{identity.device:x}-{identity.inode:x}"

    def attests(self, digest: Digest, identity: Identity) -> bool:
        """Tell whether this very file was hashed before and has not changed since."""
        path = self._path(digest, identity)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                return False
            if os.read(fd, 256) != _encode(identity):
                return False
        finally:
            os.close(fd)
        now = time.time()
        if now - found.st_mtime > _USE_NOTED_EVERY_S:
            with contextlib.suppress(OSError):
                os.utime(path)
        return True

    def record(self, digest: Digest, found: os.stat_result, *, by_us: bool = False) -> None:
        """Note that the file with this stat was hashed and had this digest.

        ``by_us`` says that this process wrote the file itself. Another's file that changed just now is not noted:
        it could change once more within the same tick of the clock.
        """
        if not by_us and abs(time.time() - found.st_ctime) < _RACY_S and found.st_uid != os.geteuid():
            return
        identity = identity_of(found)
        with contextlib.suppress(OSError):
            self._make_directory()
            path = self._directory / os.path.basename(self._path(digest, identity))
            write_record(path, _encode(identity), mode=0o600)

    def _make_directory(self) -> None:
        if not self._directory.is_dir():
            self._directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._directory.mkdir(exist_ok=True, mode=0o700)

    def last_used(self, digest: Digest, identity: Identity) -> float | None:
        """Return when this user last used the file, in seconds since the epoch, to the hour; None if never."""
        try:
            return os.stat(self._path(digest, identity)).st_mtime
        except OSError:
            return None

    def forget(self, digest: Digest) -> None:
        """Drop every receipt of a digest."""
        for name in self._names():
            if name.startswith(digest.hex):
                with contextlib.suppress(OSError):
                    os.unlink(self._directory / name)

    def sweep(self, *, older_than_s: float) -> int:
        """Drop receipts that nobody used for so long; return how many."""
        dropped = 0
        now = time.time()
        for name in self._names():
            path = self._directory / name
            with contextlib.suppress(OSError):
                if now - os.lstat(path).st_mtime > older_than_s:
                    os.unlink(path)
                    dropped += 1
        return dropped

    def _names(self) -> Iterator[str]:
        with contextlib.suppress(OSError):
            yield from os.listdir(self._directory)


def _encode(identity: Identity) -> bytes:
    return f"1 {identity.size} {identity.mtime_ns} {identity.ctime_ns}\n".encode()
