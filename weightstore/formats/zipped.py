"""PyTorch's zip format (``torch.save`` since 1.6), and TorchScript archives, which are built the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from weightstore.formats.access import Malformed
from weightstore.formats.archive import offset_of, read_directory, read_record
from weightstore.formats.checkpoint import Checkpoint, Format, Storage
from weightstore.formats.pickled import MAX_BYTES, interpret
from weightstore.formats.rebuild import read_storage_id, resolve
from weightstore.formats.tree import Collected, is_flat, metadata_of

if TYPE_CHECKING:
    from weightstore.formats.access import RandomAccess
    from weightstore.formats.archive import Record
    from weightstore.formats.inert import Global
    from weightstore.formats.rebuild import Stored


def read_zip(data: RandomAccess) -> Checkpoint:
    """Return what a zip file of PyTorch holds. Of the tensors' records only headers are read, and none from afar."""
    records = read_directory(data)
    if not records:
        raise Malformed("the archive is empty")
    root = next(iter(records)).partition("/")[0]  # as torch takes it: the directory of the first record
    described = records.get(f"{root}/data.pkl")
    if described is None:
        raise Malformed("it is a zip archive, and not one that PyTorch wrote: it has no data.pkl")
    form: Format = "torchscript" if f"{root}/constants.pkl" in records else "zip"
    pickle = read_record(data, described, at_most=MAX_BYTES)
    foreign: set[str] = set()

    def known(module: str, name: str) -> Global:
        found = resolve(module, name)
        # A TorchScript module is described by types of its own archive, which are no Python.
        if found.is_foreign and not (form == "torchscript" and f"{module}.".startswith("__torch__.")):
            foreign.add(f"{module}.{name}")
        return found

    value, _ = interpret(pickle, 0, resolve=known, persistent=read_storage_id)
    collected = Collected(_Places(data, records, root).place_of)
    collected.add(value)
    return Checkpoint(
        form,
        tuple(collected.tensors),
        is_flat=is_flat(value),
        metadata=metadata_of(value),
        foreign=tuple(sorted(foreign)),
        others=tuple(collected.others),
        byteorder=_byteorder(data, records, root),
    )


def _byteorder(data: RandomAccess, records: dict[str, Record], root: str) -> Literal["little", "big"]:
    record = records.get(f"{root}/byteorder")
    if record is None:
        return "little"  # written since 2.1; torch, too, takes files without it for little-endian
    found = read_record(data, record, at_most=16)
    if found not in (b"little", b"big"):
        raise Malformed("its byte order is neither little nor big")
    return "little" if found == b"little" else "big"


class _Places:
    """Where the storages of an archive lie."""

    def __init__(self, data: RandomAccess, records: dict[str, Record], root: str) -> None:
        self._data = data
        self._records = records
        self._root = root
        self._known: dict[str, Storage] = {}

    def place_of(self, stored: Stored) -> Storage:
        known = self._known.get(stored.key)
        if known is not None:
            if known.nbytes != stored.nbytes:
                raise Malformed(f"the storage {stored.key!r} has two sizes")
            return known
        record = self._records.get(f"{self._root}/data/{stored.key}")
        if record is None:
            raise Malformed(f"the storage {stored.key!r} is missing")
        if record.size < stored.nbytes:
            raise Malformed(f"the storage {stored.key!r} has {record.size} bytes instead of {stored.nbytes}")
        offset = offset_of(self._data, record) if self._data.is_near and record.is_stored else None
        made = self._known[stored.key] = Storage(stored.key, stored.dtype, stored.nbytes, offset)
        return made
