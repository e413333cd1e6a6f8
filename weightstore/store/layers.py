"""Layers: stores consulted in order, of which the last is the writable one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.errors import BlobDamaged, CannotReplace, InvalidRecord, NotAStore
from weightstore.store.blobs import OpenBlob, open_verified
from weightstore.store.layout import Layout, open_layout
from weightstore.store.quarantine import put_aside
from weightstore.store.refs import read_ref

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.digest import Digest, Pin
    from weightstore.records import Ref
    from weightstore.source import Source
    from weightstore.store.receipts import Receipts

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Layer:
    """One store among those consulted. ``layout`` is None where there is no store (yet) at ``root``."""

    root: Path
    layout: Layout | None
    writable: bool = False

    @property
    def name(self) -> str:
        return "store" if self.writable else str(self.root)


@dataclass(frozen=True, slots=True)
class Hit:
    """A verified blob and the layer that had it."""

    blob: OpenBlob
    layer: Layer


def open_layers(home: Path, read_only: Iterable[Path], *, note: Note) -> tuple[Layer, ...]:
    """Return the layers in search order. A read-only layer that is not a store is noted and skipped.

    Raises:
        NotAStore: the writable root is something else, or of another layout version.
    """
    layers = []
    for root in read_only:
        try:
            layout = open_layout(root)
        except NotAStore as error:
            note(f"layer skipped: {error}")
            continue
        if layout is None:
            note(f"layer skipped: {root}: there is no store")
        layers.append(Layer(root, layout))
    layers.append(Layer(home, open_layout(home), writable=True))
    return tuple(layers)


def find_blob(digest: Digest, layers: Sequence[Layer], receipts: Receipts, *, note: Note) -> Hit | None:
    """Return the first layer's good copy of a blob, or None. Damaged copies go to quarantine where we may."""
    for layer in layers:
        if layer.layout is None:
            continue
        path = layer.layout.blob(digest)
        try:
            blob = open_verified(path, digest, receipts)
        except BlobDamaged as damage:
            note(_treat(damage, layer.layout, path, writable=layer.writable))
        except OSError as error:
            note(f"{path} cannot be read: {error.strerror}")
        else:
            if blob is not None:
                return Hit(blob, layer)
    return None


def _treat(damage: BlobDamaged, layout: Layout, path: Path, *, writable: bool) -> str:
    if not writable:
        return f"{damage.place} is damaged (its content is {damage.actual}) and was skipped"
    try:
        aside = put_aside(layout, path, damage)
    except CannotReplace as refusal:
        return str(refusal)
    return f"{damage.place} was damaged (its content is {damage.actual}) and moved to {aside or 'nowhere: it is gone'}"


def find_ref(
    source: Source,
    layers: Sequence[Layer],
    *,
    pin: Pin,
    note: Note,
    counts: Callable[[Ref], bool] = lambda _: True,
) -> Ref | None:
    """Return what the first layer recorded of a source, if the pin allows it and it ``counts`` for the caller.

    Damaged refs are noted and passed by.
    """
    for layer in layers:
        if layer.layout is None:
            continue
        try:
            ref = read_ref(layer.layout, source)
        except InvalidRecord as damage:
            note(str(damage))
            continue
        # What a mirror served under somebody's pin is no word of the origin: believed only where the pin agrees.
        if ref is not None and pin.matches(ref.digest) and (ref.via != "mirror" or pin.is_pinned) and counts(ref):
            return ref
    return None
