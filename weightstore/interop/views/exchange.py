"""Exchanging two directories in one step."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# No such call (musl, old kernels, other systems), a file system that cannot (NFS, some FUSE), a mount point, and
# directories that we may not write.
_CANNOT = {
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EBUSY,
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EROFS,
}


def exchange(one: Path, other: Path) -> bool:
    """Let two directories of one file system take each other's name in one step; False where that cannot be done.

    Raises:
        OSError: one of the two is not there, or the disk fails.
    """
    import ctypes  # start-up: only a rebuilt view needs it

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
