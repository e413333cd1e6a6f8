"""What a checkpoint holds, as values: tensors and where their bytes lie, and whatever else stands beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from weightstore.formats.dtypes import BITS, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Format = Literal["zip", "legacy", "safetensors", "torchscript"]


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of raw elements that tensors are views of.

    Attributes:
        key: its name in the file.
        dtype: the element type that the file declares for it; ``uint8`` where it declares none.
        nbytes: its size in bytes.
        offset: where in the file its first byte is, if its bytes lie there in one piece, uncompressed and in the
            checkpoint's byte order; None where they do not, or where finding out would cost a request for each.
    """

    key: str
    dtype: str
    nbytes: int
    offset: int | None


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a checkpoint: what it is, and which elements of which storage it is made of.

    Attributes:
        name: the keys that lead to it, with dots between them.
        path: the keys one by one.
        dtype: the element type as torch prints it, without ``torch.``: ``float32``, ``bfloat16``, ``quint8``.
        shape: its size in each dimension.
        stride: steps between neighbours in each dimension, in elements.
        storage: where its elements are. Two tensors with one storage share memory once loaded.
        storage_offset: the first element, counted in elements of ``dtype``.
        is_parameter: whether it was saved as a ``torch.nn.Parameter``.
        requires_grad: whether it was saved with ``requires_grad``.
        quantized: whether its elements are codes of quantized values; the scales are not described.
        flags: ``conj`` and ``neg`` where the bytes are those of the conjugate or negative values.
    """

    name: str
    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    storage: Storage
    storage_offset: int = 0
    is_parameter: bool = False
    requires_grad: bool = False
    quantized: bool = False
    flags: tuple[str, ...] = ()

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """The size of one element in bytes; 1 where several share a byte."""
        return (BITS[self.dtype] + 7) // 8

    @property
    def nbytes(self) -> int:
        """The size of its elements in bytes, as many as the shape says."""
        return size_of(self.dtype, self.numel)

    @property
    def offset(self) -> int | None:
        """Where in the file its first element is, in bytes; None where the storage's offset is not known."""
        if self.storage.offset is None:
            return None
        return self.storage.offset + self.storage_offset * self.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie one after the other, in the order of its indices."""
        expected = 1
        if 0 in self.shape:
            return True
        for size, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1:
                if stride != expected:
                    return False
                expected *= size
        return True


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint file holds, in the order of the file.

    Attributes:
        format: ``zip`` (PyTorch since 1.6), ``legacy`` (before), ``safetensors`` or ``torchscript``.
        tensors: all tensors, however deep they lie.
        is_flat: whether it is a plain state dict: names and tensors, and nothing else.
        metadata: the ``_metadata`` of a state dict, or the ``__metadata__`` of a safetensors file, as plain data.
        foreign: the names of whatever unpickling the file would import that a state dict does not need: more than
            ``torch.load(weights_only=True)`` allows. Here nothing was imported or called.
        others: the paths of what is no tensor, such as ``epoch`` or ``optimizer.param_groups.0.lr``.
        byteorder: of the tensors' bytes.
    """

    format: Format
    tensors: tuple[TensorInfo, ...]
    is_flat: bool
    metadata: Mapping[str, object] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    byteorder: Literal["little", "big"] = "little"

    @property
    def numel(self) -> int:
        """The number of elements of all tensors; what several tensors share is counted for each."""
        return sum(tensor.numel for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """The size of all tensors in bytes; what several tensors share is counted for each."""
        return sum(tensor.nbytes for tensor in self.tensors)
