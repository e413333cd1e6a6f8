"""``have.json``: which blobs one side has, so that another sends only what it lacks.

A list of names and no proof: it is believed as to what need not be sent, and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.records import Fields
from weightstore.store.blobs import list_blobs
from weightstore.store.gc import refs_by_digest
from weightstore.store.image import documents_in
from weightstore.store.layout import read_given

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.store.layers import Layer

_LIMIT = 64 << 20  # some 500,000 blobs


@dataclass(frozen=True, slots=True)
class Have:
    """The sizes in bytes of the blobs that one side has, by digest."""

    blobs: Mapping[Digest, int]

    @classmethod
    def of_layers(cls, layers: Iterable[Layer]) -> Have:
        """Return what weights some layers have by their names and sizes. Nothing is hashed.

        Manifests and configs are not among them: a bundle brings its own.
        """
        found: dict[Digest, int] = {}
        for layout in (layer.layout for layer in layers if layer.layout is not None):
            sizes = {digest: stat.st_size for digest, stat in list_blobs(layout).items()}
            documents = documents_in(layout, sizes, weights=refs_by_digest(layout))
            found = {**{digest: size for digest, size in sizes.items() if digest not in documents}, **found}
        return cls(dict(sorted(found.items())))

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Have:
        """Read a list, strictly; :meth:`encode` is the inverse.

        Raises:
            InvalidRecord: with the field that is wrong.
        """
        fields = Fields(data, what="list of blobs", place=place, limit=_LIMIT)
        fields.take_version(1)
        blobs: dict[Digest, int] = {}
        for one in fields.take_each("blobs"):
            digest, size = one.take_digest("digest"), one.take_size("size_bytes")
            one.done()
            if digest in blobs:
                raise fields.error(f"{digest} is listed twice")
            blobs[digest] = size
        fields.done()
        return cls(dict(sorted(blobs.items())))

    @classmethod
    def read(cls, path: Path) -> Have:
        """Read the list at a path.

        Raises:
            InvalidRecord: it cannot be read or does not parse.
        """
        return cls.parse(read_given(path, _LIMIT), place=str(path))

    def encode(self) -> bytes:
        blobs = [{"digest": str(digest), "size_bytes": size} for digest, size in sorted(self.blobs.items())]
        return (json.dumps({"version": 1, "blobs": blobs}, indent=2) + "\n").encode()
