"""Bytes that can be read anywhere: an open file, or a file on a server of which ranges are asked for."""

from __future__ import annotations

import os
from typing import Protocol


class Malformed(Exception):
    """The bytes are no checkpoint; the text says why, in the middle of a sentence."""


class RandomAccess(Protocol):
    """A file's bytes, wherever they are."""

    @property
    def size(self) -> int:
        """The size of the whole, in bytes."""
        ...

    @property
    def is_near(self) -> bool:
        """Whether a small read costs microseconds, and not a round trip through a network."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly so many bytes; the range lies within the size.

        Raises:
            Malformed: the file became shorter.
            WeightStoreError: it cannot be read.
        """
        ...


class OpenFile:
    """An open file descriptor, which stays the caller's. Its position is left alone."""

    is_near = True

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self.fd, length, offset)
        if len(data) == length:
            return data
        pieces = [data]
        missing = length - len(data)
        while missing:
            # The kernel gives at most 2 GiB at a time.
            data = os.pread(self.fd, missing, offset + length - missing)
            if not data:
                raise Malformed("the file became shorter while it was read")
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)


def read_exactly(data: RandomAccess, offset: int, length: int, what: str) -> bytes:
    """Return a range that the file itself named.

    Raises:
        Malformed: it does not lie in the file.
    """
    if not 0 <= offset <= offset + length <= data.size:
        raise Malformed(f"{what} lies outside of the file")
    return data.read(offset, length)
