"""``weights.lock``: weights names and sources pinned to full digests and sizes, checked in beside the code.

TOML, because people read and merge it (ADR 6)::

    version = 1

    [[weights]]
    name = "torchvision/ResNet50_Weights.IMAGENET1K_V2"
    source = "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    digest = "sha256:11ad3fa6…"
    size = 102540417
    asked_by = "torchvision"        # the library that asked for it, where a run was recorded

A file on the Hub also has its ``commit``, so that it can be fetched when its branch has moved on.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from weightstore.digest import Digest, Pin
from weightstore.errors import Drift, InvalidDigest, InvalidRecord, InvalidSource, StoreError
from weightstore.hub import is_commit
from weightstore.records import MAX_SIZE, Wanted
from weightstore.source import Source
from weightstore.store.layout import read_given, write_record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

VERSION = 1
_LONGEST_NAME = 8200  # the name of what was locked by its URL is the URL
_LIMIT = 64 << 20
_HEADER = "# Written by `weightstore lock`. Check it in; fetch with `weightstore prefetch --locked`.\n"


@dataclass(frozen=True, slots=True)
class Locked:
    """One locked blob: what it is called, where it came from, what it is. ``size`` is in bytes.

    ``asked_by`` is the library that asked for it in a recorded run. ``commit`` is what the revision of a file on the
    Hub meant. Both are empty elsewhere.
    """

    name: str
    source: Source
    digest: Digest
    size: int
    asked_by: str = ""
    commit: str = ""

    def is_same_content(self, other: Locked) -> bool:
        """Tell whether both lock the same bytes of the same source, whoever asked for them."""
        return (self.source, self.digest, self.size) == (other.source, other.digest, other.size)

    def wanted(self) -> Wanted:
        hub_file = self.source.hub_file
        is_branch = hub_file is not None and self.commit not in {"", hub_file.revision}
        pinned = (Source(str(hub_file.at(self.commit))),) if hub_file is not None and is_branch else ()
        return Wanted(self.name, self.source, Pin.of(self.digest), self.size, size_is_exact=True, alternatives=pinned)


@dataclass(frozen=True, slots=True)
class Lockfile:
    """The contents of a lockfile, in order of name."""

    entries: tuple[Locked, ...] = ()

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Lockfile:
        """Read a lockfile, strictly.

        Raises:
            InvalidRecord: with the entry and field that is wrong.
        """
        if len(data) > _LIMIT:
            raise InvalidRecord(place=place, reason=f"larger than {_LIMIT} bytes")
        try:
            values = tomllib.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise InvalidRecord(place=place, reason=f"not TOML ({error})") from None
        version = values.pop("version", None)
        if type(version) is not int or version != VERSION:
            raise InvalidRecord(place=place, reason=f"version {version!r}; this weightstore reads version {VERSION}")
        items = values.pop("weights", [])
        if values or not isinstance(items, list):
            raise InvalidRecord(place=place, reason="holds something other than 'version' and [[weights]]")
        entries = [_parse_entry(item, place=place, number=number) for number, item in enumerate(items, 1)]
        names = [entry.name for entry in entries]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidRecord(place=place, reason=f"{twice!r} is locked twice")
        return cls(tuple(sorted(entries, key=lambda entry: entry.name)))

    @classmethod
    def read(cls, path: Path) -> Lockfile:
        """Read the lockfile at a path.

        Raises:
            InvalidRecord: it cannot be read or does not parse.
        """
        return cls.parse(read_given(path, _LIMIT), place=str(path))

    def encode(self) -> bytes:
        """Return the file's bytes; :meth:`parse` is the inverse."""
        tables = (
            "\n[[weights]]\n"
            f"name = {_toml(entry.name)}\n"
            f"source = {_toml(entry.source.display)}\n"
            f"digest = {_toml(str(entry.digest))}\n"
            f"size = {entry.size}\n"
            + (f"asked_by = {_toml(entry.asked_by)}\n" if entry.asked_by else "")
            + (f"commit = {_toml(entry.commit)}\n" if entry.commit else "")
            for entry in sorted(self.entries, key=lambda entry: entry.name)
        )
        return "".join([_HEADER, f"version = {VERSION}\n", *tables]).encode()

    def write(self, path: Path) -> None:
        """Replace the file in one step.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            write_record(path, self.encode(), mode=0o644, durable=True)
        except OSError as error:
            raise StoreError(place=str(path), reason=f"cannot be written: {error.strerror or error}") from None

    def named(self, name: str) -> Locked | None:
        """Return the entry of a whole name, with its namespace or, where that is clear, without."""
        found = [entry for entry in self.entries if entry.name == name]
        found = found or [
            entry for entry in self.entries if "://" not in entry.name and entry.name.endswith(f"/{name}")
        ]
        return found[0] if len(found) == 1 else None

    def pinned(self, wanted: Wanted) -> Wanted:
        """Return what is wanted by the full digest under which its source is locked, if that is what the pin allows."""
        for entry in self.entries:
            if entry.source == wanted.source and wanted.pin.matches(entry.digest):
                locked = entry.wanted()
                alternatives = tuple(dict.fromkeys((*wanted.alternatives, *locked.alternatives)))
                return replace(wanted, pin=locked.pin, size=locked.size, size_is_exact=True, alternatives=alternatives)
        return wanted

    def digests(self) -> frozenset[Digest]:
        return frozenset(entry.digest for entry in self.entries)

    def merge(self, entries: Iterable[Locked], *, update: bool, place: str) -> Lockfile:
        """Return this lockfile with entries added.

        Raises:
            Drift: an entry is already locked otherwise, and ``update`` does not say that this is meant.
        """
        merged = {entry.name: entry for entry in self.entries}
        for entry in entries:
            known = merged.get(entry.name)
            if known is not None and not known.is_same_content(entry) and not update:
                raise Drift(
                    name=entry.name,
                    recorded=f"{known.digest} ({known.size} bytes) from {known.source} in {place}",
                    found=f"{entry.digest} ({entry.size} bytes) from {entry.source}",
                    remedy="If the change is meant, lock again with --update.",
                )
            if known is not None and known.is_same_content(entry):  # what a run or the Hub once told stays known
                entry = replace(entry, asked_by=entry.asked_by or known.asked_by, commit=entry.commit or known.commit)
            merged[entry.name] = entry
        return Lockfile(tuple(sorted(merged.values(), key=lambda entry: entry.name)))


def _parse_entry(item: Any, *, place: str, number: int) -> Locked:
    def wrong(reason: str) -> InvalidRecord:
        return InvalidRecord(place=place, reason=f"entry {number}: {reason}")

    if not isinstance(item, dict) or set(item) - {"asked_by", "commit"} != {"name", "source", "digest", "size"}:
        raise wrong("has name, source, digest and size, perhaps asked_by and commit, and nothing else")
    name, source, digest, size = item["name"], item["source"], item["digest"], item["size"]
    asked_by, commit = item.get("asked_by", ""), item.get("commit", "")
    if not (isinstance(name, str) and isinstance(source, str) and isinstance(digest, str)):
        raise wrong("name, source and digest are strings")
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise wrong("the name is empty, too long or not printable")
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise wrong("size is not a number of bytes")
    if not isinstance(asked_by, str) or len(asked_by) > 200 or not asked_by.isprintable():
        raise wrong("asked_by is not a library's name")
    if not isinstance(commit, str) or (commit and not is_commit(commit)):
        raise wrong("commit is not a commit")
    try:
        return Locked(name, Source(source), Digest.parse(digest), size, asked_by, commit)
    except (InvalidSource, InvalidDigest) as error:
        raise wrong(str(error)) from None


def _toml(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped and JSON leaves.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
