"""What there is, as an index: what refs tell now, and what the stores' own indexes tell of what is still here."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weightstore.cluster.index import ModelIndex, index_of, merged, parse_index
from weightstore.digest import Digest
from weightstore.errors import InvalidRecord
from weightstore.store.blobs import list_blobs
from weightstore.store.image import INDEX_NAME, read_index_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.cluster.index import IndexEntry
    from weightstore.cluster.serving.shelf import Shelf
    from weightstore.records import Ref


def index_of_shelf(shelf: Shelf) -> ModelIndex:
    """Return the index of all layers, as they are now. Reads no blob.

    Manifests and configs that were made just now are among its documents, and the others lie in a store.
    """
    return shelf.kept("index", functools.partial(_made, shelf))


def _made(shelf: Shelf) -> ModelIndex:
    sizes: dict[Digest, int] = {}
    for layout in shelf.layouts():
        sizes = {digest: found.st_size for digest, found in list_blobs(layout).items()} | sizes
    refs: dict[Digest, list[Ref]] = {}
    for ref in shelf.refs():
        refs.setdefault(ref.digest, []).append(ref)
    now = index_of(sizes, refs, shelf.client.catalogs.all())
    whole = merged(_written(shelf, sizes), now)
    return replace(whole, documents={**now.documents, **whole.documents})


def _written(shelf: Shelf, sizes: Mapping[Digest, int]) -> ModelIndex:
    """Return what the layers' index files name, as far as it is here: the blob, and its manifest."""
    entries: dict[Digest, IndexEntry] = {}
    foreign: dict[Digest, Mapping[str, Any]] = {}
    tags: set[str] = set()
    for layout in shelf.layouts():
        try:
            data = read_index_file(layout)
            index = parse_index(data, place=str(layout.root / INDEX_NAME)) if data is not None else ModelIndex()
        except InvalidRecord as damage:
            shelf.client.note(str(damage))
            continue
        for entry in index.entries:
            is_here = sizes.get(entry.digest) == entry.size and entry.manifest in sizes
            if is_here and entry.digest not in entries:
                tag = entry.ref_name if entry.ref_name not in tags else entry.digest.hex
                entries[entry.digest] = replace(entry, ref_name=tag)
                tags.add(tag)
        for one in index.foreign:
            digest = Digest.parse(one["digest"])
            if digest in sizes:
                foreign.setdefault(digest, one)
    return ModelIndex(tuple(entries[digest] for digest in sorted(entries)), tuple(foreign.values()))
