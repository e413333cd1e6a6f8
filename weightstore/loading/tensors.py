"""Tensors straight from a checkpoint's bytes: mapped into memory or read, and never through an unpickler.

What a state dict needs to be rebuilt is plain data: for each tensor its element type, shape and strides, and where its
storage lies in the file. :mod:`weightstore.formats` reads that without running anything; here it becomes tensors.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch

from weightstore.errors import InvalidCheckpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weightstore.formats.checkpoint import Checkpoint, Storage, TensorInfo

# torch.save aligns storages to 64 bytes, and so does what we read ourselves.
_ALIGNMENT = 64
# One read system call gives at most 2 GiB less a page; smaller ones keep a network file system's read-ahead busy.
_READ_AT_ONCE = 64 << 20


def is_plain(checkpoint: Checkpoint, tensors: Iterable[TensorInfo]) -> bool:
    """Tell whether these tensors can be made from bytes alone: ordinary ones of a flat state dict."""
    return (
        checkpoint.format in {"zip", "legacy", "safetensors"}
        and checkpoint.is_flat
        and not checkpoint.foreign
        and checkpoint.byteorder == sys.byteorder
        and all(_is_ordinary(tensor) for tensor in tensors)
    )


def _is_ordinary(tensor: TensorInfo) -> bool:
    return (
        tensor.storage.offset is not None
        and not tensor.quantized
        and not tensor.flags
        and isinstance(getattr(torch, tensor.dtype, None), torch.dtype)
    )


def read_tensors(fd: int, tensors: Sequence[TensorInfo], *, mapped: bool, place: str) -> OrderedDict[str, torch.Tensor]:
    """Return plain tensors of an open file by name, on the CPU; those that share a storage there share it here.

    Args:
        fd: the file; it may be closed afterwards.
        tensors: what to load, of a checkpoint that :func:`is_plain`. Nothing but their storages is read.
        mapped: whether to map the file's pages, privately: writing to a tensor changes neither the file nor other
            processes' tensors, and what is never used is never read. Otherwise storages are read, in the file's order.
        place: what to call the file in errors.

    Raises:
        InvalidCheckpoint: the file is shorter than it says.
        OSError: it cannot be read.
    """
    storages = {tensor.storage.key: tensor.storage for tensor in tensors}
    alignment: dict[str, int] = {}
    for tensor in tensors:
        alignment[tensor.storage.key] = max(tensor.itemsize, alignment.get(tensor.storage.key, 1))
    in_file: list[Storage] = []
    to_read: list[Storage] = []
    for storage in storages.values():
        # safetensors and the legacy format align nothing; an element across two words is for no kernel.
        is_aligned = (storage.offset or 0) % alignment[storage.key] == 0
        (in_file if mapped and is_aligned else to_read).append(storage)
    try:
        bases = _map(fd, in_file, place)
    except OSError:  # no mappings of this file system, or none that may be written to, where memory is strictly counted
        bases, to_read = {}, [*in_file, *to_read]
    bases |= _read(fd, to_read, place)
    result: OrderedDict[str, torch.Tensor] = OrderedDict()
    typed: dict[tuple[str, str], torch.Tensor] = {}
    for tensor in tensors:
        key = (tensor.storage.key, tensor.dtype)
        elements = typed.get(key)
        if elements is None:
            elements = typed[key] = bases[tensor.storage.key].view(getattr(torch, tensor.dtype))
        result[tensor.name] = _tensor(elements, tensor)
    return result


def _tensor(elements: torch.Tensor, about: TensorInfo) -> torch.Tensor:
    tensor = elements.as_strided(about.shape, about.stride, about.storage_offset)
    if about.is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=about.requires_grad)
    return tensor.requires_grad_() if about.requires_grad else tensor


def _map(fd: int, storages: Sequence[Storage], place: str) -> dict[str, torch.Tensor]:
    """Return each storage's bytes as pages of the file, copied when first written to."""
    if not storages:
        return {}
    size = os.fstat(fd).st_size
    if any((storage.offset or 0) + storage.nbytes > size for storage in storages):
        raise InvalidCheckpoint(place=place, reason="it is shorter than it says")
    pages = mmap.mmap(fd, size, access=mmap.ACCESS_COPY)
    return {storage.key: _bytes_of(pages, storage.offset or 0, storage.nbytes) for storage in storages}


def _read(fd: int, storages: Sequence[Storage], place: str) -> dict[str, torch.Tensor]:
    """Return each storage's bytes in memory of our own, read once, from the front of the file to its end."""
    if not storages:
        return {}
    in_order = sorted(storages, key=lambda storage: storage.offset or 0)
    starts = {}
    total = 0
    for storage in in_order:
        starts[storage.key] = total
        total += -(-storage.nbytes // _ALIGNMENT) * _ALIGNMENT
    if total == 0:
        return {storage.key: torch.empty(0, dtype=torch.uint8) for storage in storages}
    # Anonymous pages and not a bytearray, which would be filled with zeros first.
    memory = mmap.mmap(-1, total)
    view = memoryview(memory)
    for storage in in_order:
        start = starts[storage.key]
        _read_into(fd, view[start : start + storage.nbytes], storage.offset or 0, place)
    return {storage.key: _bytes_of(memory, starts[storage.key], storage.nbytes) for storage in storages}


def _read_into(fd: int, target: memoryview, offset: int, place: str) -> None:
    done = 0
    while done < len(target):
        count = os.preadv(fd, [target[done : done + _READ_AT_ONCE]], offset + done)
        if count == 0:
            raise InvalidCheckpoint(place=place, reason="it became shorter while it was read")
        done += count


def _bytes_of(memory: mmap.mmap, start: int, length: int) -> torch.Tensor:
    if length == 0:
        return torch.empty(0, dtype=torch.uint8)
    # A storage of its own for each: whoever saves one tensor then saves its bytes, and not the whole file's.
    return torch.frombuffer(memory, dtype=torch.uint8, count=length, offset=start)
