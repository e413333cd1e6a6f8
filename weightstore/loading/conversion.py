"""Checkpoints in a format that loads faster: made once, and used in the place of what they were made from.

A conversion is a blob of its own with a record that says which blob it was made from. In a shared store anybody may
write such a record, so it is a claim: a user believes it who made the conversion, or whose weightstore has compared the
tensors of both, byte by byte, once.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from weightstore.digest import Digest
from weightstore.errors import InvalidCheckpoint, InvalidInput, WeightStoreError
from weightstore.formats.checkpoint import Storage, TensorInfo
from weightstore.formats.writing import is_writable, plan_safetensors
from weightstore.loading.opening import OpenWeights, open_source
from weightstore.loading.state_dict import VERSIONS_KEY, Loading
from weightstore.records import Derived
from weightstore.store.derived import read_derived, write_derived
from weightstore.store.layout import translated
from weightstore.store.parts import Part
from weightstore.store.publish import publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from weightstore.client import Client, Name
    from weightstore.formats.checkpoint import Checkpoint
    from weightstore.records import Wanted
    from weightstore.transfer.progress import Meter

_FORMAT = "safetensors"
_SOURCE_KEY = "weightstore.source"
_PIECE = 8 << 20


@dataclass(frozen=True, slots=True)
class Conversion:
    """A checkpoint in another format. ``is_new`` tells whether it was made now; sizes are in bytes."""

    name: str
    source: Digest
    source_size: int
    digest: Digest
    size: int
    path: Path
    tensors: int
    is_new: bool


def convert(weights: Name, *, client: Client, meter: Meter | None = None) -> list[Conversion]:
    """Make safetensors files of some weights, which are fetched first where no store has them; one for each shard.

    From then on they are loaded in the place of what they were made from. What was already made is made no second time.

    Raises:
        InvalidInput: the checkpoint is in that format already, or holds what the format cannot: anything but tensors by
            name, element types that it does not know, tensors that share memory.
        MissingDependency: the tensors do not lie in one piece each, and torch is not here to straighten them.
        WeightStoreError: as for :meth:`Client.path`, and where the store cannot be written.
    """
    return [_convert_one(wanted, client, meter) for wanted in client.wants(weights)]


def _convert_one(wanted: Wanted, client: Client, meter: Meter | None) -> Conversion:
    with open_source(wanted, client, meter) as opened:
        source = opened.known_digest()
        checkpoint = opened.checkpoint()
        if checkpoint.format == _FORMAT:
            raise InvalidInput(f"{wanted.name} is a safetensors file already")
        made = _found(source, client)
        is_new = made is None
        if made is None:
            _write(opened, checkpoint, source, client)
            made = _found(source, client)
        if made is None:
            raise InvalidInput(f"{wanted.name}: what was made of it was removed by somebody else just now. Try again")
        with made:
            count = len(checkpoint.tensors)
            return Conversion(
                wanted.name, source, opened.size, made.known_digest(), made.size, made.path, count, is_new
            )


def _found(source: Digest, client: Client) -> OpenWeights | None:
    """Return the conversion of a blob that this user vouches for, if it is still there."""
    digest = client.vouched.derived_of(source)
    return None if digest is None else _opened(digest, client)


def _opened(digest: Digest, client: Client) -> OpenWeights | None:
    hit = client.obtainer.find(digest)
    if hit is None:
        return None
    with hit.blob as blob:
        return OpenWeights(blob.detach(), str(blob.path), blob.digest, blob.path, client.receipts)


def _write(opened: OpenWeights, checkpoint: Checkpoint, source: Digest, client: Client) -> None:
    versions = json.dumps(checkpoint.metadata, sort_keys=True) if checkpoint.metadata else ""
    metadata = {"format": "pt", _SOURCE_KEY: str(source)} | ({VERSIONS_KEY: versions} if versions else {})
    elements = _Elements(opened, checkpoint)
    plan = plan_safetensors(elements.tensors, metadata)
    layout = client.obtainer.writable()
    part = Part.create(layout, f"sha256-{source.hex}")
    try:
        hasher = hashlib.sha256(plan.head)
        with translated(part.path):
            size = _write_all(part.fd, plan.head)
            for piece in (piece for tensor in plan.tensors for piece in elements.of(tensor)):
                hasher.update(piece)
                size += _write_all(part.fd, piece)
        digest = Digest(hasher.hexdigest())
        publish(part, digest, size=size, receipts=client.receipts)
    except BaseException:
        part.discard()
        raise
    known = read_derived(layout, source, _FORMAT)
    if known is None or known.digest != digest:  # in a shared store an equal one may belong to somebody else
        write_derived(layout, Derived(source, digest, size, _FORMAT, datetime.now(UTC)))
    client.vouched.vouch(source, digest)


def _write_all(fd: int, piece: Any) -> int:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]
    return len(piece)


class _Elements:
    """The tensors of a checkpoint and their elements, in the order of their indices."""

    def __init__(self, opened: OpenWeights, checkpoint: Checkpoint) -> None:
        self._opened = opened
        self._straightened: Mapping[str, Any] = {}
        if not checkpoint.is_flat or checkpoint.foreign:
            raise InvalidInput(f"{opened.place} holds more than tensors by name, and safetensors holds nothing else")
        if not is_writable(checkpoint.tensors):
            raise InvalidInput(f"{opened.place} has tensors of types that safetensors does not have")
        _refuse_sharing(checkpoint.tensors, opened.place)
        self.tensors: tuple[TensorInfo, ...] = checkpoint.tensors
        if not all(tensor.is_contiguous and tensor.offset is not None for tensor in self.tensors):
            self._straightened = Loading(mmap=False).load(opened)
            self.tensors = tuple(_straight(tensor) for tensor in self.tensors)

    def of(self, tensor: TensorInfo) -> Iterator[Any]:
        """Yield a tensor's bytes in pieces."""
        if self._straightened:
            yield from _bytes_of(self._straightened[tensor.name])
            return
        offset = tensor.offset or 0
        for start in range(0, tensor.nbytes, _PIECE):
            length = min(_PIECE, tensor.nbytes - start)
            piece = os.pread(self._opened.fd, length, offset + start)
            if len(piece) != length:
                raise InvalidCheckpoint(place=self._opened.place, reason="it is shorter than it says")
            yield piece


def _straight(tensor: TensorInfo) -> TensorInfo:
    stride = []
    step = 1
    for size in reversed(tensor.shape):
        stride.append(step)
        step *= max(size, 1)
    storage = Storage(tensor.name, tensor.dtype, tensor.nbytes, None)
    return replace(tensor, stride=tuple(reversed(stride)), storage=storage, storage_offset=0)


def _bytes_of(tensor: Any) -> Iterator[Any]:
    straight = tensor.detach().contiguous()
    total = straight.numel() * straight.element_size()
    for start in range(0, total, _PIECE):
        length = min(_PIECE, total - start)
        yield bytes((ctypes.c_char * length).from_address(straight.data_ptr() + start))


def _refuse_sharing(tensors: Iterable[TensorInfo], place: str) -> None:
    """Refuse tied weights: written twice, they would come back as two."""
    ends: dict[str, tuple[int, str]] = {}
    for tensor in sorted(tensors, key=lambda one: (one.storage.key, one.storage_offset)):
        if not tensor.numel:
            continue
        reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True)) + 1
        start = tensor.storage_offset * tensor.itemsize
        end, other = ends.get(tensor.storage.key, (0, ""))
        if start < end:
            raise InvalidInput(f"{place}: {other} and {tensor.name} share memory, which safetensors cannot say")
        ends[tensor.storage.key] = (start + reach * tensor.itemsize, tensor.name)


def known_conversion(wanted: Wanted, client: Client) -> OpenWeights | None:
    """Return the conversion of some weights that this user vouches for, or None. The weights are not opened."""
    digest = client.obtainer.known_digest(wanted)
    return None if digest is None else _found(digest, client)


def converted_from(opened: OpenWeights, client: Client) -> OpenWeights | None:
    """Return what some layer says was made from an open blob, once the two are compared and found the same."""
    if opened.digest is None:
        return None
    for layer in client.obtainer.layers():
        claim = None if layer.layout is None else read_derived(layer.layout, opened.digest, _FORMAT)
        made = None if claim is None else _opened(claim.digest, client)
        if claim is None or made is None:
            continue
        try:
            if are_the_same(opened, made):
                client.vouched.vouch(opened.digest, claim.digest)
                return made
        except WeightStoreError:
            pass  # not even a checkpoint
        made.close()
    return None


def are_the_same(one: OpenWeights, other: OpenWeights) -> bool:
    """Tell whether two files hold the same tensors, bit by bit, under the same names and with the same versions."""
    ours, theirs = one.checkpoint(), other.checkpoint()
    versions = theirs.metadata.get(VERSIONS_KEY)
    expected = json.dumps(ours.metadata, sort_keys=True) if ours.metadata else None
    described = {tensor.name: tensor for tensor in theirs.tensors}
    if versions != expected or described.keys() != {tensor.name for tensor in ours.tensors}:
        return False
    mine, its = _Elements(one, ours), _Elements(other, theirs)
    for tensor in mine.tensors:
        there = described[tensor.name]
        if (tensor.dtype, tensor.shape) != (there.dtype, there.shape):
            return False
        if any(left != right for left, right in zip(mine.of(tensor), its.of(there), strict=True)):
            return False
    return True
