"""The transport for ``file`` sources: paths on this machine or on a mounted file system."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from weightstore.errors import AccessDenied, RefusedResponse, SourceNotFound, SourceUnavailable
from weightstore.records import Validator
from weightstore.transfer.transport import Answer

if TYPE_CHECKING:
    from weightstore.source import Source


class FileBody:
    """An open local file."""

    def __init__(self, source: Source, fd: int, answer: Answer) -> None:
        self._source = source
        self._fd = fd
        self._answer = answer
        self._left = (answer.end or 0) - answer.start

    @property
    def answer(self) -> Answer:
        return self._answer

    def read(self, size: int, *, into: memoryview | None = None) -> bytes:  # noqa: ARG002 - the protocol's signature
        try:
            data = os.read(self._fd, min(size, self._left))
        except OSError as error:
            raise SourceUnavailable(source=self._source.display, reason=error.strerror or str(error)) from None
        if not data and self._left:
            raise SourceUnavailable(source=self._source.display, reason="became shorter while it was read")
        self._left -= len(data)
        return data

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_file(source: Source) -> int:
    """Return a read-only descriptor of the regular file that a ``file`` source names; the caller closes it.

    Raises:
        SourceNotFound, AccessDenied, RefusedResponse: there is none, or it may not be read.
        SourceUnavailable: the file system fails.
    """
    name = source.display
    try:
        fd = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceNotFound(source=name, reason="no such file") from None
    except PermissionError:
        raise AccessDenied(source=name, reason="no permission to read it") from None
    except OSError as error:
        raise SourceUnavailable(source=name, reason=error.strerror or str(error)) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RefusedResponse(source=name, reason="not a regular file")
    return fd


class FileTransport:
    """Opens local files. The version of a file is its inode, size and modification time."""

    def interrupt(self) -> None:
        """Reads of files end by themselves."""

    def open(
        self, source: Source, *, start: int = 0, end: int | None = None, validator: Validator | None = None
    ) -> FileBody:
        fd = open_file(source)
        try:
            found = os.fstat(fd)
            current = Validator(etag=f'"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"')
            if start > found.st_size or (validator and validator != current):
                start, end = 0, None
            os.lseek(fd, start, os.SEEK_SET)
            last = found.st_size if end is None else min(end, found.st_size)
        except BaseException:
            os.close(fd)
            raise
        answer = Answer(start, last, found.st_size, current, accepts_ranges=False, self_delimiting=True)
        return FileBody(source, fd, answer)
