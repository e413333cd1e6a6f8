"""The safetensors format: the length of a header, a header in JSON, and the tensors' bytes.

Its rules are those of the format's reference reader (github.com/huggingface/safetensors): a header of at most 100 MB,
no name twice, every byte after the header in exactly one tensor.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeGuard

from weightstore.formats.access import Malformed, read_exactly
from weightstore.formats.checkpoint import Checkpoint, Storage, TensorInfo
from weightstore.formats.dtypes import SAFETENSORS, size_of

if TYPE_CHECKING:
    from weightstore.formats.access import RandomAccess

_LENGTH = 8
_MAX_HEADER = 100_000_000
# JSON takes up to some hundred times its length once it is read: these bound it.
_MAX_OBJECTS = 500_000
_MAX_VALUES = 5_000_000
_LARGEST = 1 << 60


def is_safetensors(head: bytes) -> bool:
    """Tell whether a file that begins so may be of this format."""
    length = int.from_bytes(head[:_LENGTH], "little")
    return len(head) > _LENGTH and 2 <= length <= _MAX_HEADER and head[_LENGTH : _LENGTH + 1] == b"{"


def read_safetensors(data: RandomAccess) -> Checkpoint:
    """Return what a safetensors file holds. Only its header is read."""
    length = int.from_bytes(read_exactly(data, 0, _LENGTH, "the header"), "little")
    header = _parse(read_exactly(data, _LENGTH, length, "the header"))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Malformed("its metadata is not text")
    begin = _LENGTH + length
    tensors = [_tensor(name, described, begin) for name, described in header.items()]
    _check_cover(tensors, begin, data.size)
    return Checkpoint("safetensors", tuple(tensors), is_flat=True, metadata=metadata)


def _parse(text: bytes) -> dict[str, Any]:
    if text.count(b"{") > _MAX_OBJECTS or text.count(b",") > _MAX_VALUES or text.count(b"[") > 2 * _MAX_OBJECTS:
        raise Malformed("its header has more values than can be listed")
    try:
        header = json.loads(str(text, "utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Malformed("its header is not JSON") from None
    if not isinstance(header, dict):
        raise Malformed("its header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed("its header has a name twice")
    for name, value in pairs:
        for text in (name, value) if isinstance(value, str) else (name,):
            text.encode()  # half of a surrogate pair can be written as an escape, and is no text: a ValueError
    return made


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _tensor(name: str, described: object, begin: int) -> TensorInfo:
    if not isinstance(described, dict):
        raise Malformed(f"the tensor {name!r} is not described")
    code, shape, offsets = described.get("dtype"), described.get("shape"), described.get("data_offsets")
    dtype = SAFETENSORS.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise Malformed(f"the tensor {name!r} has a type that is not known")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Malformed(f"the tensor {name!r} has no shape or no place")
    numel = 1
    stride = []
    for size in reversed(shape):
        stride.append(numel)
        numel *= size
        if numel > _LARGEST:
            raise Malformed(f"the tensor {name!r} has more elements than there can be")
    nbytes = offsets[1] - offsets[0]
    if size_of(dtype, numel) != nbytes:
        raise Malformed(f"the tensor {name!r} has {nbytes} bytes, which are not those of its shape")
    storage = Storage(name, dtype, nbytes, begin + offsets[0])
    return TensorInfo(name, (name,), dtype, tuple(shape), tuple(reversed(stride)), storage)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < _LARGEST for one in value)


def _check_cover(tensors: list[TensorInfo], begin: int, size: int) -> None:
    """Make sure that the tensors cover what follows the header, without holes and without sharing."""
    position = begin
    for storage in sorted((one.storage for one in tensors), key=lambda one: ((one.offset or 0), one.nbytes)):
        if storage.offset != position:
            raise Malformed(f"the tensor {storage.key!r} does not begin where the one before it ends")
        position += storage.nbytes
    if position != size:
        raise Malformed(f"its tensors end at byte {position}, and the file at byte {size}")
