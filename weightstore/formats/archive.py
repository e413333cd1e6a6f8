"""The directory of a zip archive: which records there are and where their bytes lie (PKWARE APPNOTE 6.3).

Not :mod:`zipfile`: it wants a seekable file, reads entry by entry and, above all, does not say where the bytes of a
record begin, which is what mapping them takes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.formats.access import Malformed, read_exactly

if TYPE_CHECKING:
    from weightstore.formats.access import RandomAccess

_END = struct.Struct("<4sHHHHIIH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_LONGEST_COMMENT = 65_535
_MAX_DIRECTORY = 64 << 20
_MAX_RECORDS = 500_000
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
# Enough for the end records of an archive without a comment, which PyTorch's are.
_USUAL_TAIL = _END.size + _END64_LOCATOR.size + _END64.size
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an archive. Sizes are bytes; ``header`` is where its local header is in the file."""

    name: str
    size: int
    compressed_size: int
    method: int
    header: int

    @property
    def is_stored(self) -> bool:
        """Whether its bytes lie in the file as they are."""
        return self.method == _STORED


def read_directory(data: RandomAccess) -> dict[str, Record]:
    """Return the records of an archive by name, in its order.

    Raises:
        Malformed: it is no archive, or one that readers could read in different ways.
    """
    count, size, offset = _find_directory(data)
    if size > _MAX_DIRECTORY or count > _MAX_RECORDS or count * _ENTRY.size > size:
        raise Malformed("the directory of the archive is damaged")
    listed = read_exactly(data, offset, size, "the directory of the archive")
    records: dict[str, Record] = {}
    position = 0
    try:
        for _ in range(count):
            record, position = _entry(listed, position)
            if record.name in records:
                raise Malformed("the archive has two records of one name")
            records[record.name] = record
    except (struct.error, UnicodeDecodeError):
        raise Malformed("the directory of the archive is damaged") from None
    return records


def _find_directory(data: RandomAccess) -> tuple[int, int, int]:
    """Return the number of records, and the directory's size and offset."""
    tail = _tail(data, _USUAL_TAIL)
    at = len(tail) - _END.size
    if at < 0 or tail[at : at + 4] != b"PK\5\6":
        tail = _tail(data, _END.size + _LONGEST_COMMENT + _USUAL_TAIL)
        at = tail.rfind(b"PK\5\6", 0, len(tail) - _END.size + 4)
        if at < 0:
            raise Malformed("the archive has no end: it may be cut short")
    _, disk, first_disk, _, count, size, offset, _ = _END.unpack_from(tail, at)
    if disk or first_disk:
        raise Malformed("the archive has several volumes")
    end_of_directory = data.size - len(tail) + at
    if count == _FULL16 or _FULL32 in (size, offset):
        begin = at - _END64_LOCATOR.size
        if begin >= 0 and tail[begin : begin + 4] == b"PK\6\7":
            end64 = _END64_LOCATOR.unpack_from(tail, begin)[2]
            found = read_exactly(data, end64, _END64.size, "the directory of the archive")
            if found[:4] != b"PK\6\6":
                raise Malformed("the directory of the archive is damaged")
            count, size, offset = _END64.unpack(found)[7:10]
            end_of_directory = end64
    if offset + size > end_of_directory:
        raise Malformed("the directory of the archive lies outside of it")
    return count, size, offset


def _tail(data: RandomAccess, size: int) -> bytes:
    size = min(size, data.size)
    return data.read(data.size - size, size)


def _entry(listed: bytes, position: int) -> tuple[Record, int]:
    fields = _ENTRY.unpack_from(listed, position)
    signature, _, _, flags, method, _, _, _, compressed, size, name_size, extra_size, comment_size = fields[:13]
    header = fields[16]
    if signature != b"PK\1\2":
        raise Malformed("the directory of the archive is damaged")
    if flags & _ENCRYPTED:
        raise Malformed("the archive is encrypted")
    begin = position + _ENTRY.size
    name = str(listed[begin : begin + name_size], "utf-8")
    if _FULL32 in (compressed, size, header):
        extra = listed[begin + name_size : begin + name_size + extra_size]
        size, compressed, header = _from_zip64(extra, size, compressed, header)
    if method == _STORED and size != compressed:
        raise Malformed("the directory of the archive contradicts itself")
    return Record(name, size, compressed, method, header), begin + name_size + extra_size + comment_size


def _from_zip64(extra: bytes, size: int, compressed: int, header: int) -> tuple[int, int, int]:
    """Return the sizes and offset that did not fit into 32 bits (APPNOTE 4.5.3): only those are there, in order."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == 1:
            values = [size, compressed, header]
            at = position
            for index, value in enumerate(values):
                if value == _FULL32 and at + 8 <= position + length:
                    values[index] = struct.unpack_from("<Q", extra, at)[0]
                    at += 8
            return values[0], values[1], values[2]
        position += length
    return size, compressed, header


def offset_of(data: RandomAccess, record: Record) -> int:
    """Return where a record's bytes begin. That takes reading its local header, whose length the directory hides.

    Raises:
        Malformed: the record does not lie in the file, or is another one.
    """
    found = read_exactly(data, record.header, _LOCAL.size, f"the record {record.name!r}")
    fields = _LOCAL.unpack(found)
    name_size, extra_size = fields[9], fields[10]
    if fields[0] != b"PK\3\4" or name_size != len(record.name.encode()):
        raise Malformed(f"the record {record.name!r} is not where the archive says")
    begin: int = record.header + _LOCAL.size + name_size + extra_size
    if begin + record.compressed_size > data.size:
        raise Malformed(f"the record {record.name!r} lies outside of the file")
    return begin


def read_record(data: RandomAccess, record: Record, *, at_most: int) -> bytes:
    """Return a record's content, uncompressed.

    Raises:
        Malformed: it is larger than ``at_most`` bytes, or damaged.
    """
    if record.size > at_most or record.compressed_size > at_most:
        raise Malformed(f"the record {record.name!r} has {record.size} bytes, and {at_most} are the most")
    if not data.is_near:
        # The local header and what follows in one read: the header is hardly ever longer than this.
        window = min(_LOCAL.size + len(record.name) + 1024 + record.compressed_size, data.size - record.header)
        if window > 0:
            read_exactly(data, record.header, window, f"the record {record.name!r}")
    content = read_exactly(data, offset_of(data, record), record.compressed_size, f"the record {record.name!r}")
    if record.method == _STORED:
        return content
    if record.method != _DEFLATED:
        raise Malformed(f"the record {record.name!r} is compressed in a way that is not known")
    try:
        engine = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = engine.decompress(content, record.size + 1)
    except zlib.error:
        raise Malformed(f"the record {record.name!r} is damaged") from None
    if len(plain) != record.size:
        raise Malformed(f"the record {record.name!r} is damaged")
    return plain
