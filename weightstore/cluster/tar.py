"""The tar of a bundle: written so that equal content gives equal bytes, read as if an enemy had written it.

The standard library's reader knows every dialect, and reads extended headers of any length into memory. What a bundle
needs of the format is one page, so that is all that is understood here: regular files of known names. Nothing is ever
extracted by its name.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from weightstore.digest import Digest
from weightstore.errors import InvalidBundle

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK = 512
BLOBS = "blobs/sha256/"
LAYOUT_FILE, INDEX_FILE = "oci-layout", "index.json"
END = bytes(2 * BLOCK)
_DIRECTORIES = frozenset({"", "blobs", "blobs/sha256"})  # others' tools write them; they hold nothing
_MOST_MEMBERS = 1_000_000
_EXTENDED_LIMIT = 64 * 1024
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]+)=")
# Of an extended header we heed the size. These would change what a member is called or holds; the others are of no
# interest: times, owners.
_REFUSED_RECORDS = re.compile(rb"path|linkpath|hdrcharset|GNU\..*|SCHILY\.realsize|SUN\..*")
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a directory",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"L": "a long name",
    b"K": "a long link",
    b"g": "a global header",
}


class Readable(Protocol):
    """Bytes at places: one file, or volumes in a row."""

    name: str
    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Return that many bytes, or what there is of them."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar: where its bytes begin, and how many there are."""

    name: str
    offset: int
    size: int

    @property
    def digest(self) -> Digest | None:
        """What a blob's name says that its digest is; None of the other files."""
        return Digest(self.name.removeprefix(BLOBS)) if self.name.startswith(BLOBS) else None


@dataclass(frozen=True, slots=True)
class Members:
    """The complete members of a tar by name; ``cut`` says how it ends early, and is empty where it does not.

    ``end`` is where its end mark begins, or where it was cut.
    """

    by_name: Mapping[str, Member]
    end: int
    cut: str = ""


def header(name: str, size: int) -> bytes:
    """Return the header of a member: nobody's, read-only for all, of no time."""
    information = tarfile.TarInfo(name)
    information.size, information.mode, information.mtime = size, 0o444, 0
    return information.tobuf(tarfile.GNU_FORMAT)  # sizes beyond 8 GiB in the header itself; Go's reader knows it


def padding(size: int) -> int:
    """Return how many zero bytes follow content of so many bytes."""
    return -size % BLOCK


def begins_bundle(block: bytes) -> bool:
    """Tell whether a bundle begins with a block: with a header, and not a blob's, which stands in the middle."""
    if len(block) < BLOCK or _number(block[148:156]) != _sum(block):
        return False
    return block[156:157] not in {b"0", b"\0"} or not block.removeprefix(b"./").startswith(BLOBS.encode())


def scan(file: Readable) -> Members:
    """Return where each member lies, by its headers alone: content is passed over.

    Raises:
        InvalidBundle: there is something in it that no bundle holds, or that is not tar.
    """
    found: dict[str, Member] = {}
    offset = 0
    announced: int | None = None  # the next member's size, by an extended header
    while True:
        block = file.read_at(offset, BLOCK)
        if len(block) < BLOCK:
            what = "ends without an end mark" if not block else "ends within a header"
            return Members(found, offset, f"it {what}")
        if not block.strip(b"\0"):
            if announced is not None:
                raise InvalidBundle(place=file.name, reason="an extended header stands before nothing")
            return Members(found, offset)
        size = _check(block, file=file, offset=offset)
        kind = block[156:157]
        offset += BLOCK
        if kind == b"x":
            if announced is not None or size > _EXTENDED_LIMIT:
                raise InvalidBundle(place=file.name, reason="its extended headers are not those of a bundle")
            records = file.read_at(offset, size)
            if len(records) < size:
                return Members(found, offset, "it ends within a header")
            announced = _announced_size(records, file)
            offset += size + padding(size)
            continue
        if announced is not None and announced >= 0:
            size = announced
        announced = None
        name = _name(block, kind, file)
        if kind == b"5":
            if name not in _DIRECTORIES or size:
                raise InvalidBundle(place=file.name, reason=f"holds a directory {name[:80]!r}, which no bundle does")
            continue
        if name in found:
            raise InvalidBundle(place=file.name, reason=f"holds {name} twice")
        if len(found) >= _MOST_MEMBERS:
            raise InvalidBundle(place=file.name, reason=f"holds more than {_MOST_MEMBERS} files")
        if size > file.size - offset:
            left = file.size - offset
            return Members(found, offset, f"{name} should have {size} bytes, and {left} are there")
        found[name] = Member(name, offset, size)
        offset += size + padding(size)


def _check(block: bytes, *, file: Readable, offset: int) -> int:
    """Make sure that a block is a header, and return the size that it states."""
    stated = _number(block[148:156])
    if stated is None or stated != _sum(block):
        if offset == 0:
            raise InvalidBundle(place=file.name, reason="is not a tar file, or not the first volume of one")
        raise InvalidBundle(
            place=file.name,
            reason=f"no header stands at byte {offset}: damaged, or volumes in wrong order or of another bundle",
        )
    size = _number(block[124:136])
    if size is None:
        raise InvalidBundle(place=file.name, reason=f"the header at byte {offset} has no size")
    return size


def _sum(block: bytes) -> int:
    """Return the sum of a header's bytes, as it is stated in it: of its own field as if that were blank."""
    return sum(block[:148]) + 8 * ord(" ") + sum(block[156:])


def _number(field: bytes) -> int | None:
    """Read octal digits or GNU's binary form; None where it is neither, or negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.fullmatch(field)
    return int(match[1], 8) if match else None


def _announced_size(records: bytes, file: Readable) -> int:
    """Return the size that an extended header states, or -1 where it states none."""
    size = -1
    while records:
        match = _RECORD.match(records)
        length = int(match[1]) if match else 0
        if match is None or not match.end() < length <= len(records) or records[length - 1 : length] != b"\n":
            raise InvalidBundle(place=file.name, reason="an extended header is damaged")
        key, value = match[2], records[match.end() : length - 1]
        if _REFUSED_RECORDS.fullmatch(key):
            raise InvalidBundle(
                place=file.name, reason=f"an extended header changes {key.decode('ascii', 'replace')!r}"
            )
        if key == b"size":
            if not re.fullmatch(rb"[0-9]{1,19}", value) or size >= 0:
                raise InvalidBundle(place=file.name, reason="an extended header states no size")
            size = int(value)
        records = records[length:]
    return size


def _name(block: bytes, kind: bytes, file: Readable) -> str:
    """Return a member's name, one of those that a bundle has."""
    raw = block[:100].partition(b"\0")[0]
    if block[257:265] == b"ustar\x0000" and (prefix := block[345:500].partition(b"\0")[0]):
        raw = prefix + b"/" + raw
    shown = raw.decode("ascii", "backslashreplace")[:120]
    if kind == b"5":
        return shown.removeprefix("./").rstrip("/").removeprefix(".")
    if kind not in {b"0", b"\0"}:
        what = _KINDS.get(kind, "something that is no file")
        raise InvalidBundle(place=file.name, reason=f"holds {what} {shown!r}, which no bundle does")
    name = shown.removeprefix("./")
    if name not in {LAYOUT_FILE, INDEX_FILE} and not re.fullmatch(BLOBS + "[0-9a-f]{64}", name):
        raise InvalidBundle(place=file.name, reason=f"holds a file {shown!r}, which no bundle does")
    return name
