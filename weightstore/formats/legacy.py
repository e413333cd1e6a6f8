"""PyTorch's format before 1.6: five pickles one after the other, then the storages (torch, ``_legacy_save``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from weightstore.formats.access import Malformed, read_exactly
from weightstore.formats.checkpoint import Checkpoint, Storage
from weightstore.formats.dtypes import size_of
from weightstore.formats.inert import OutOfData
from weightstore.formats.pickled import MAX_BYTES, interpret
from weightstore.formats.rebuild import Stored, read_storage_id, resolve
from weightstore.formats.tree import Collected, is_flat, metadata_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightstore.formats.access import RandomAccess
    from weightstore.formats.inert import Global

# The pickle of the magic number 0x1950a86a20f9469cfc6c, in protocol 2.
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_VERSION = 1001
_FIRST_READ = 256 << 10
_COUNT = 8
_PICKLES = 5


def is_legacy(head: bytes) -> bool:
    """Tell whether a file that begins so is of this format, whatever protocol its pickles have."""
    return head.startswith(MAGIC) or MAGIC[2:] in head[:32]


def read_legacy(data: RandomAccess) -> Checkpoint:
    """Return what a legacy file holds. From afar the storages' sizes are believed; nearby they are compared."""
    foreign: set[str] = set()
    stored: dict[str, Stored] = {}

    def known(module: str, name: str) -> Global:
        found = resolve(module, name)
        if found.is_foreign:
            foreign.add(f"{module}.{name}")
        return found

    def persistent(value: object) -> object:
        found = read_storage_id(value)
        if type(found) is Stored:
            first = stored.setdefault(found.root, found)
            if (first.root_nbytes, first.dtype) != (found.root_nbytes, found.dtype):
                raise Malformed(f"the storage {found.root!r} has two sizes")
        return found

    values, position = _read_pickles(data, known, persistent)
    _, version, system, value, keys = values
    if version != _VERSION:
        raise Malformed("it is of a version of the legacy format that is not known")
    byteorder = _byteorder(system)
    offsets = _offsets(data, position, keys, stored, byteorder)
    collected = Collected(lambda found: _place(found, offsets))
    collected.add(value)
    return Checkpoint(
        "legacy",
        tuple(collected.tensors),
        is_flat=is_flat(value),
        metadata=metadata_of(value),
        foreign=tuple(sorted(foreign)),
        others=tuple(collected.others),
        byteorder=byteorder,
    )


def _read_pickles(
    data: RandomAccess, known: Callable[[str, str], Global], persistent: Callable[[object], object]
) -> tuple[list[object], int]:
    """Return what the five pickles describe, and where they end. How long they are shows when they are read."""
    window = _FIRST_READ
    while True:
        head = data.read(0, min(window, data.size))
        values: list[object] = []
        position = 0
        try:
            for _ in range(_PICKLES):
                value, position = interpret(head, position, resolve=known, persistent=persistent)
                values.append(value)
        except OutOfData:
            if window >= data.size or window > MAX_BYTES:
                raise
            window *= 4
        else:
            return values, position


def _byteorder(system: object) -> Literal["little", "big"]:
    little = system.get("little_endian", True) if isinstance(system, dict) else True
    return "little" if little else "big"


def _offsets(
    data: RandomAccess, position: int, keys: object, stored: dict[str, Stored], byteorder: Literal["little", "big"]
) -> dict[str, int]:
    """Return where each storage begins: they follow in the order of ``keys``, each after its number of elements."""
    if not isinstance(keys, list) or any(type(key) not in (str, int) for key in keys):
        raise Malformed("its list of storages is damaged")
    if {str(key) for key in keys} != set(stored) or len(keys) != len(stored):
        raise Malformed("its list of storages is not that of its tensors")
    offsets: dict[str, int] = {}
    for key in keys:
        found = stored[str(key)]
        if data.is_near:
            count = int.from_bytes(read_exactly(data, position, _COUNT, f"the storage {key!r}"), byteorder, signed=True)
            if count < 0 or size_of(found.dtype, count) != found.root_nbytes:
                raise Malformed(f"the storage {key!r} has {count} elements, and others are described")
        offsets[found.root] = position + _COUNT
        position += _COUNT + found.root_nbytes
        if position > data.size:
            raise Malformed(f"the storage {key!r} lies outside of the file: it may be cut short")
    return offsets


def _place(found: Stored, offsets: dict[str, int]) -> Storage:
    return Storage(found.key, found.dtype, found.nbytes, offsets[found.root] + found.start)
