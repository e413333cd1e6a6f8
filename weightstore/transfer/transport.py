"""What a transport is: something that opens a source and lets its bytes be read. HTTP, files and the Hub are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from weightstore.digest import Digest
from weightstore.errors import RefusedResponse
from weightstore.records import Validator

if TYPE_CHECKING:
    from weightstore.source import Source

_SHA256_DIGITS = 64


class RangeNotSatisfiable(RefusedResponse):
    """The range that was asked for is not to be had: the file became shorter, or the source's ranges are broken."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What the Hub said of a file before its first byte: a claim, to be held against the bytes.

    Attributes:
        commit: what the revision that was asked for means now.
        etag: what the Hub calls the content: its SHA-256, or its Git object id. Empty where it does not say.
        size: in bytes; None where it does not say.
    """

    commit: str
    etag: str
    size: int | None

    @property
    def digest(self) -> Digest | None:
        """The digest that the content is said to have: only of what git LFS keeps."""
        return Digest(self.etag) if len(self.etag) == _SHA256_DIGITS else None

    @property
    def validator(self) -> Validator:
        """The version of the file. It stays the same wherever the Hub redirects to."""
        return Validator(f'"{self.etag}"') if self.etag else Validator()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source said before the first byte.

    Attributes:
        start: offset in the file of the first byte that will come, in bytes. 0 when a range was asked for and refused.
        end: offset after the last byte that will come; None where the source does not say.
        total: size of the whole file in bytes; None where the source does not say.
        validator: the version of the file.
        accepts_ranges: whether later parts can be asked for by themselves.
        self_delimiting: whether the end of the body can be told from a cut connection.
        declared: what the Hub says of the file; None elsewhere.
    """

    start: int
    end: int | None
    total: int | None
    validator: Validator
    accepts_ranges: bool
    self_delimiting: bool
    declared: Declared | None = None


class Body(Protocol):
    """An open source. ``read`` returns what has arrived, at most ``size`` bytes, and nothing at the end."""

    @property
    def answer(self) -> Answer: ...

    def read(self, size: int, *, into: memoryview | None = None) -> bytes | memoryview:
        """Return some bytes.

        They may have been put ``into`` a buffer of at least ``size`` bytes, and are then the beginning of it: memory
        that is used again costs less than new memory for every block.

        Raises:
            SourceUnavailable: the connection was cut, or nothing came within the time-out.
        """
        ...

    def close(self) -> None:
        """Let go of the connection. A body read to its end leaves the connection for the next one."""
        ...


class Transport(Protocol):
    """Opens sources of some schemes."""

    def open(
        self, source: Source, *, start: int = 0, end: int | None = None, validator: Validator | None = None
    ) -> Body:
        """Return the source's bytes from ``start`` up to and without ``end``.

        With a ``validator`` the range is wanted only of that version of the file: of another one the whole is sent.

        Raises:
            SourceNotFound, AccessDenied, RefusedResponse: asking again is no use.
            SourceUnavailable: it may pass.
        """
        ...

    def interrupt(self) -> None:
        """End all reads that are under way in other threads: they raise SourceUnavailable."""
        ...
