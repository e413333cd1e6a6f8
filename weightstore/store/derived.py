"""Blobs that were made from others: the records of them in the store, and what this user knows of their truth."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from weightstore.digest import Digest
from weightstore.errors import InvalidDigest, InvalidRecord
from weightstore.records import Derived
from weightstore.store.layout import make_derived_directory, read_limited, translated, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightstore.store.layout import Layout

_NAME = re.compile(r"[0-9a-f]{64}\.[a-z]+\.json")


def write_derived(layout: Layout, derived: Derived) -> None:
    """Record that one blob was made from another.

    Raises:
        StoreError: it cannot be written.
    """
    make_derived_directory(layout)
    path = layout.derived_record(derived.source, derived.format)
    with translated(path):
        write_record(path, derived.encode(), mode=layout.modes.record, scratch=layout.tmp)


def read_derived(layout: Layout, source: Digest, kind: str) -> Derived | None:
    """Return what a store says was made from a blob; None where it says nothing that can be used."""
    return _read(layout.derived_record(source, kind))


def list_derived(layout: Layout) -> Iterator[Derived]:
    """Yield every record of a store that can be read."""
    try:
        names = sorted(os.listdir(layout.derived))
    except OSError:
        return
    for name in names:
        if _NAME.fullmatch(name) and (derived := _read(layout.derived / name)) is not None:
            yield derived


def _read(path: Path) -> Derived | None:
    try:
        derived = Derived.parse(read_limited(path), place=str(path))
    except (OSError, InvalidRecord):
        return None
    return derived if path.name == f"{derived.source.hex}.{derived.format}.json" else None


class Vouched:
    """The conversions that this user made or compared, noted in the user's own state directory.

    One line each: ``<source> <derived>``, appended in one write. A state directory that cannot be used costs speed.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / "derived"
        self._seen: tuple[tuple[int, int, int], dict[str, str]] | None = None

    def derived_of(self, source: Digest) -> Digest | None:
        """Return the blob that this user knows to hold the same tensors, the latest if there were several."""
        found = self._read().get(source.hex)
        if found is None:
            return None
        try:
            return Digest(found)
        except InvalidDigest:  # a torn line
            return None

    def vouch(self, source: Digest, derived: Digest) -> None:
        """Note that this user knows two blobs to hold the same tensors."""
        line = f"{source.hex} {derived.hex}\n".encode()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self._path, flags, 0o600)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)

    def _read(self) -> dict[str, str]:
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                found = os.fstat(fd)
                if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                    return {}
                now = (found.st_ino, found.st_size, found.st_mtime_ns)
                seen = self._seen
                if seen is None or seen[0] != now:
                    with open(fd, encoding="ascii", errors="replace", closefd=False) as file:
                        pairs = dict(line.split() for line in file if len(line) == 130)
                    seen = self._seen = (now, pairs)
                return seen[1]
            finally:
                os.close(fd)
        return {}
