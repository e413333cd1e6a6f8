"""Writing down what a run asks for: lines in a spool while it runs, from all its processes, and a lockfile at its end.

Each process appends to a file of its own in the spool, one line a checkpoint, in one write: whatever way a process
ends, what it had asked for is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TYPE_CHECKING

from weightstore.catalog.lockfile import Locked, Lockfile
from weightstore.errors import WeightStoreError
from weightstore.records import Fields
from weightstore.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightstore.digest import Digest

_SUFFIX = ".asked"
_LIMIT = 64 << 20


class Recorder:
    """Appends what this process, or one that it forked, asks for to a spool."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._written: set[Locked] = set()

    def add(self, entry: Locked) -> None:
        """Write down a checkpoint; the same one of the same library only once."""
        if entry in self._written:
            return
        line = json.dumps(
            {
                "name": entry.name,
                "source": entry.source.display,
                "digest": str(entry.digest),
                "size": entry.size,
                "asked_by": entry.asked_by,
                "commit": entry.commit,
            }
        )
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._spool / f"{os.getpid()}{_SUFFIX}", flags, 0o600)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)
        self._written.add(entry)


def read_spool(spool: Path) -> tuple[list[Locked], list[str]]:
    """Return all that was asked for, once each, and what is worth knowing about it.

    Of several libraries that asked for one file the first is named.

    Raises:
        InvalidRecord: a line that is none of ours.
    """
    found: dict[str, Locked] = {}
    notes: list[str] = []
    for entry in _lines(spool):
        known = found.setdefault(entry.source.key, entry)
        if not known.is_same_content(entry):
            notes.append(f"{entry.source} was {known.digest} and {entry.digest} in one run; the first is locked")
    return list(found.values()), notes


def _lines(spool: Path) -> Iterator[Locked]:
    for path in sorted(spool.glob(f"*{_SUFFIX}")):
        with path.open("rb") as file:
            data = file.read(_LIMIT)
        for line in data.splitlines(keepends=True):
            if line.endswith(b"\n"):  # else a process was killed in the middle of it
                yield _parse(line, place=str(path))


def _parse(line: bytes, *, place: str) -> Locked:
    fields = Fields(line, what="line of a recorded run", place=place)
    entry = Locked(
        name=fields.take("name", str),
        source=fields.take_source("source"),
        digest=fields.take_digest("digest"),
        size=fields.take_size("size"),
        asked_by=fields.take("asked_by", str),
        commit=fields.take("commit", str),
    )
    fields.done()
    return entry


def merge_into(path: Path, entries: list[Locked]) -> Lockfile:
    """Add what a run asked for to a lockfile, and return it. What it holds of the same source is replaced.

    Several runs may do this at once: they take turns where the file system has locks.

    Raises:
        InvalidRecord: the file is there and no lockfile.
        StoreError: it cannot be written.
    """
    with _turn(path.parent):
        known = Lockfile.read(path) if path.exists() else Lockfile()
        asked = {entry.source.key for entry in entries}
        names = {entry.name for entry in entries}
        kept = [entry for entry in known.entries if entry.source.key not in asked and entry.name not in names]
        merged = Lockfile(tuple(sorted([*kept, *entries], key=lambda entry: entry.name)))
        if merged != known or not path.exists():
            merged.write(path)
    return merged


@contextlib.contextmanager
def _turn(directory: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def locked_entry(
    name: str, source: Source, digest: Digest, size: int, *, asked_by: str, commit: str = ""
) -> Locked | None:
    """Return a lockfile entry, or None where the source cannot be written down, being longer than a record may be."""
    try:
        return Locked(name, Source(source.display), digest, size, asked_by, commit)
    except WeightStoreError:
        return None
