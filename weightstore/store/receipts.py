"""This user's private notes that a file with a certain stat identity was hashed and had a certain digest.

A receipt is trusted because nobody else can write it: all lie in one file of the user's own state directory, never in
a shared store. It spares hashing a file whose device, inode, size, mtime and ctime are what they were.

One line a receipt, appended in one write::

    <digest> <device>.<inode>.<size>.<mtime>.<ctime> <check> <noted at>

One file and not one a blob: creating a file costs more than everything else that a small download does. ``check`` is of
what stands before it, because on NFS two hosts may append to the same place; a torn line attests nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

from weightstore.digest import Digest
from weightstore.errors import InvalidDigest
from weightstore.records import Identity
from weightstore.store.layout import write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


# A change within the clock's granularity after hashing would go unseen (git calls such entries racy). Two seconds
# cover the coarsest file systems (FAT, some NFS servers).
_RACY_S = 2.0
# How stale "last used" may get before a hit notes it again.
_USE_NOTED_EVERY_S = 3600.0
_COMPACT_BEYOND = 1 << 20
_FORGOTTEN_AFTER_S = 365 * 86400.0


def identity_of(found: os.stat_result) -> Identity:
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Receipts:
    """The receipts of one user. A state directory that cannot be used costs speed and is never an error."""

    def __init__(self, state: Path) -> None:
        self._path = state / "receipts"
        # Swapped in one step and never locked: a lock held across a fork would hang the child's every hit.
        self._seen: tuple[tuple[int, int, int], bytes] | None = None
        self._local = threading.local()

    def attests(self, digest: Digest, identity: Identity) -> bool:
        """Tell whether this very file was hashed before and has not changed since."""
        noted_at = self._noted_at(digest, identity)
        if noted_at is None:
            return False
        if time.time() - noted_at > _USE_NOTED_EVERY_S:
            self._append(digest, identity)
        return True

    def last_used(self, digest: Digest, identity: Identity) -> float | None:
        """Return when this user last used the file, in seconds since the epoch, to the hour; None if never."""
        return self._noted_at(digest, identity)

    def digest_of(self, identity: Identity) -> Digest | None:
        """Return the digest that a file was hashed to, if it was hashed before and has not changed since."""
        data = self._read()
        found = data.rfind(b" " + _stat(identity) + b" ")
        if found < 64:
            return None
        try:
            digest = Digest(data[found - 64 : found].decode("ascii", "replace"))
        except InvalidDigest:  # a torn line
            return None
        return digest if self.attests(digest, identity) else None

    def record(self, digest: Digest, found: os.stat_result, *, by_us: bool = False) -> None:
        """Note that the file with this stat was hashed and had this digest.

        ``by_us`` says that this process wrote the file itself. Another's file that changed just now is not noted:
        it could change once more within the same tick of the clock.
        """
        if not by_us and abs(time.time() - found.st_ctime) < _RACY_S and found.st_uid != os.geteuid():
            return
        self._append(digest, identity_of(found))

    def forget(self, digest: Digest) -> None:
        """Drop every receipt of a digest."""
        self._rewrite(lambda line, _: not line.startswith(digest.hex.encode()))

    def sweep(self, *, older_than_s: float) -> int:
        """Drop receipts that were not used for so many seconds; return how many."""
        oldest = time.time() - older_than_s
        return self._rewrite(lambda _, noted_at: noted_at >= oldest)

    def _noted_at(self, digest: Digest, identity: Identity) -> float | None:
        data = self._read()
        line = b"\n" + _attestation(digest, identity) + b" "
        start = data.rfind(line)
        if start < 0:
            return None
        moment = data[start + len(line) :].partition(b"\n")[0]
        return float(moment) if moment.isdigit() and len(moment) < 16 else None

    def _read(self) -> bytes:
        """Return all receipts, each line preceded by a line break; read anew when the file has changed."""
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                found = os.fstat(fd)
                if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                    return b"\n"
                now = (found.st_ino, found.st_size, found.st_mtime_ns)
                seen = self._seen
                if seen is None or seen[0] != now:
                    with open(fd, "rb", closefd=False) as file:
                        seen = self._seen = (now, b"\n" + file.read())
                return seen[1]
            finally:
                os.close(fd)
        return b"\n"

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what this thread notes inside in one go: a file opened once, and not once for each."""
        self._local.held = []
        try:
            yield
        finally:
            held, self._local.held = self._local.held, None
            if held:
                self._write(b"".join(held))

    def _append(self, digest: Digest, identity: Identity) -> None:
        line = _attestation(digest, identity) + b" %d\n" % time.time()
        held = getattr(self._local, "held", None)
        if held is None:
            self._write(line)
        else:
            held.append(line)

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            fd = self._open_for_appending()
            try:
                os.write(fd, line)
                size = os.fstat(fd).st_size
            finally:
                os.close(fd)
            if size > _COMPACT_BEYOND:
                self.sweep(older_than_s=_FORGOTTEN_AFTER_S)

    def _open_for_appending(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            return os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return os.open(self._path, flags, 0o600)

    def _rewrite(self, keep: Callable[[bytes, float], bool]) -> int:
        """Replace the file by the newest line of each receipt that is to be kept; return how many receipts went.

        A line that another process appends meanwhile may be lost: that file is hashed once more.
        """
        newest = dict(_parse(self._read()))
        kept = {line: moment for line, moment in newest.items() if keep(line, moment)}
        if not newest:
            return 0
        with contextlib.suppress(OSError):
            data = b"".join(line + b" %d\n" % moment for line, moment in kept.items())
            write_record(self._path, data, mode=0o600)
        return len(newest) - len(kept)


def _attestation(digest: Digest, identity: Identity) -> bytes:
    body = digest.hex.encode() + b" " + _stat(identity)
    return body + b" " + hashlib.sha256(body).hexdigest()[:8].encode()


def _stat(one: Identity) -> bytes:
    return f"{one.device:x}.{one.inode:x}.{one.size:x}.{one.mtime_ns:x}.{one.ctime_ns:x}".encode()


def _parse(data: bytes) -> Iterator[tuple[bytes, float]]:
    for line in data.splitlines():
        attestation, _, moment = line.rpartition(b" ")
        if attestation.count(b" ") == 2 and moment.isdigit() and len(moment) < 16:
            yield attestation, float(moment)
