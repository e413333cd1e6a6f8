"""Writing safetensors files: the same tensors always give the same bytes, and memory stays small.

The safetensors library writes its metadata in an order that differs from run to run, and holds all tensors in memory.
What a store names by content should come out the same everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.formats.dtypes import SAFETENSORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightstore.formats.checkpoint import TensorInfo

_CODES = {name: code for code, name in SAFETENSORS.items()}
# The first tensor begins on a boundary at which memory can be mapped and read in any element type.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """A file to be written: its head, and the tensors whose elements follow, one after the other."""

    head: bytes
    tensors: tuple[TensorInfo, ...]


def is_writable(tensors: Iterable[TensorInfo]) -> bool:
    """Tell whether the format has these element types, and the tensors are what a reader gets back."""
    return all(tensor.dtype in _CODES and not tensor.quantized and not tensor.flags for tensor in tensors)


def plan_safetensors(tensors: Iterable[TensorInfo], metadata: Mapping[str, str]) -> Plan:
    """Return how a file with these tensors is written. Larger elements come first, so that all are aligned."""
    named = list(tensors)
    in_file = sorted(named, key=lambda tensor: -tensor.itemsize)
    places: dict[str, tuple[int, int]] = {}
    offset = 0
    for tensor in in_file:
        places[tensor.name] = (offset, offset + tensor.nbytes)
        offset += tensor.nbytes
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for tensor in named:
        header[tensor.name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": list(places[tensor.name]),
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return Plan(len(text).to_bytes(8, "little") + text, tuple(in_file))
