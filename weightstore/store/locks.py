"""Advisory locks that spare duplicate downloads, and guard nothing: every failure means "go without".

On Linux a flight's lock is one byte of one shared file, by open file description (``F_OFD_SETLK``): it ends with its
process, network file systems carry it to their server, and no file is created for it, which for a small download would
cost as much as its fsync. Elsewhere, or where the file system refuses, it is a lock file of py-filelock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
import sys
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from weightstore.store.layout import Layout

State = Literal["held", "busy", "impossible"]
SHARED_FILE = "flights"
_BUSY = {errno.EAGAIN, errno.EACCES}


class Lock(Protocol):
    """A lock that is tried and never waited for."""

    def try_acquire(self) -> State:
        """Take the lock, or say that another has it, or that there is no locking here."""
        ...

    def release(self) -> None:
        """Let go of it; nothing happens where it is not held."""
        ...


class RangeLock:
    """One byte of the store's shared lock file. The byte's offset is derived from the key."""

    def __init__(self, layout: Layout, key: str) -> None:
        self._path = layout.locks / SHARED_FILE
        self._mode = layout.modes.lock
        self._offset = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 2
        self._fd = -1

    @staticmethod
    def is_known() -> bool:
        """Tell whether this system has such locks, with the structure that we know."""
        return sys.platform == "linux" and sys.maxsize > 2**32 and hasattr(fcntl, "F_OFD_SETLK")

    def try_acquire(self) -> State:
        try:
            if self._fd < 0:
                self._fd = self._open()
        except OSError:
            return "impossible"
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, self._request(fcntl.F_WRLCK))
        except OSError as error:
            if error.errno in _BUSY:
                return "busy"
            self.release()
            return "impossible"
        return "held"

    def _request(self, kind: int) -> bytes:
        # struct flock of 64-bit Linux: type, whence, start, length, pid (0 for these locks).
        return struct.pack("@hhqqi0q", kind, os.SEEK_SET, self._offset, 1, 0)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with contextlib.suppress(FileNotFoundError):
            return os.open(self._path, flags)
        try:
            fd = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, self._mode)
        except FileExistsError:
            return os.open(self._path, flags)
        with contextlib.suppress(OSError):
            os.fchmod(fd, self._mode)
        return fd

    def release(self) -> None:
        if self._fd >= 0:
            # Said, and not left to close(): a child forked meanwhile has the description open too.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, self._request(fcntl.F_UNLCK))
            os.close(self._fd)
            self._fd = -1


class FileLock:
    """A lock file of py-filelock."""

    def __init__(self, layout: Layout, key: str) -> None:
        import filelock  # start-up: some 60 ms, and only where it is needed

        self._timeout = filelock.Timeout
        self._lock = filelock.FileLock(
            layout.lock(key),
            timeout=0,
            mode=layout.modes.lock,
            thread_local=False,
            fallback_to_soft=False,
            preserve_lock_file=True,  # the collector removes old ones; creating them anew is what costs
        )

    def try_acquire(self) -> State:
        try:
            self._lock.acquire(timeout=0)
        except self._timeout:
            return "busy"
        except (OSError, NotImplementedError, RuntimeError):
            # ENOLCK, ENOSYS, EIO, EOPNOTSUPP from the file system, EACCES from another user's lock file.
            return "impossible"
        return "held"

    def release(self) -> None:
        with contextlib.suppress(OSError):
            self._lock.release()


class BestLock:
    """The range lock where it works, else the lock file."""

    def __init__(self, layout: Layout, key: str) -> None:
        self._layout = layout
        self._key = key
        self._lock: Lock = RangeLock(layout, key) if RangeLock.is_known() else FileLock(layout, key)

    def try_acquire(self) -> State:
        state = self._lock.try_acquire()
        if state == "impossible" and isinstance(self._lock, RangeLock):
            self._lock = FileLock(self._layout, self._key)
            state = self._lock.try_acquire()
        return state

    def release(self) -> None:
        self._lock.release()
