"""An index written anew: what a store's refs and catalogs say now, and what its index said that they do not know."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from weightstore.cluster.index import ModelIndex, build_index, parse_index
from weightstore.cluster.manifest import parse_manifest
from weightstore.cluster.merging import details_of, documents_of, merged, written_anew
from weightstore.cluster.words import all_count
from weightstore.digest import Digest
from weightstore.errors import InvalidRecord
from weightstore.store.blobs import list_blobs
from weightstore.store.gc import refs_by_digest
from weightstore.store.image import DOCUMENT_LIMIT, INDEX_NAME, read_index_file
from weightstore.store.layout import read_limited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from weightstore.catalog.entries import Catalog
    from weightstore.cluster.index import IndexEntry
    from weightstore.records import Ref
    from weightstore.source import Source
    from weightstore.store.layout import Layout


def index_there(layout: Layout) -> ModelIndex:
    """Return what a store's index says, with the manifests and configs that lie beside it; of no index, nothing.

    Raises:
        InvalidRecord: it is damaged.
    """
    data = read_index_file(layout)
    if data is None:
        return ModelIndex()
    index = parse_index(data, place=str(layout.root / INDEX_NAME))
    documents: dict[Digest, bytes] = {}
    for entry in index.entries:
        documents |= documents_there(layout, entry)
    return replace(index, documents=documents)


def documents_there(layout: Layout, entry: IndexEntry) -> dict[Digest, bytes]:
    """Return an entry's manifest and config as a store has them; nothing where one of them is missing or damaged."""
    return documents_of(entry, document_there(layout, entry.manifest), lambda digest: document_there(layout, digest))


def told_by_others(layout: Layout, index: ModelIndex) -> Iterator[IndexEntry]:
    """Yield the weights of those manifests in a store that other tools put there, and that say what they are."""
    for one in index.foreign:
        data = document_there(layout, Digest.parse(one["digest"]))
        if data is not None:
            with contextlib.suppress(InvalidRecord):
                yield from parse_manifest(data, place=str(layout.root / INDEX_NAME))


def document_there(layout: Layout, digest: Digest) -> bytes | None:
    """Return a manifest or a config of a store; None where it is not there, or damaged."""
    try:
        data = read_limited(layout.blob(digest), DOCUMENT_LIMIT)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest.hex else None


def renewed_index(
    layout: Layout,
    catalogs: Iterable[Catalog],
    *,
    note: Callable[[str], None],
    counts: Callable[[Ref], bool] = all_count,
) -> ModelIndex:
    """Return the index of a store as it is now.

    Refs and catalogs come first. What the index there says beyond them stays: names and licences from catalogs that are
    not here, files that came without a source, artifacts of other tools, tags. What has gone from the store goes from
    the index, and so does a source that the store has recorded for other content since, or by a
    signature that does not count for this user. Reads no weights.
    """
    built = build_index(layout, catalogs, counts=counts)
    try:
        old = index_there(layout)
    except InvalidRecord as damage:
        note(f"{damage}; it is written anew, by what is recorded here")
        old = ModelIndex()
    sizes = {digest: found.st_size for digest, found in list_blobs(layout).items()}
    recorded: dict[Source, set[Digest]] = {}
    for digest, refs in refs_by_digest(layout).items():
        for ref in refs:
            recorded.setdefault(ref.source, set()).update({digest} if counts(ref) else ())
    entries = []
    documents = dict(old.documents)
    for entry in old.entries:
        if sizes.get(entry.digest) == entry.size:
            kept, made = _still_so(entry, recorded, documents)
            entries.append(kept)
            documents |= made
    foreign = [one for one in old.foreign if Digest.parse(one["digest"]) in sizes]
    return merged(replace(old, entries=tuple(entries), foreign=tuple(foreign), documents=documents), built)


def _still_so(
    entry: IndexEntry, recorded: Mapping[Source, set[Digest]], documents: Mapping[Digest, bytes]
) -> tuple[IndexEntry, Mapping[Digest, bytes]]:
    """Return an entry without the sources that have other content now, and whole where its manifest has gone."""
    sources = [source for source in entry.sources if entry.digest in recorded.get(source, {entry.digest})]
    if len(sources) == len(entry.sources) and entry.manifest in documents:
        return entry, {}
    return written_anew(entry, details_of(entry, documents), sources=sources)
