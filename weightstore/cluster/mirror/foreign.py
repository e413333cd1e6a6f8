"""What other tools have put into a mirror: manifests that an index names and does not describe, read one by one.

skopeo and oras write indexes of their own when they copy, without what ours tells of each checkpoint; it stands in the
manifests all the same. An index in an index is read as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weightstore.cluster.index import INDEX_TYPE, MANIFEST_TYPE, IndexEntry, ModelIndex, parse_index
from weightstore.cluster.manifest import parse_manifest
from weightstore.digest import Digest
from weightstore.errors import DigestMismatch, InvalidRecord, RefusedResponse, SourceNotFound
from weightstore.store.image import DOCUMENT_LIMIT
from weightstore.transfer.policy import blob_in
from weightstore.transfer.small import read_small

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from weightstore.client import Client
    from weightstore.source import Source

# Whoever makes indexes of indexes makes us ask no more than so often, and no deeper.
_MOST = 10_000
_DEEPEST = 4


def understood(index: ModelIndex, mirror: Source, *, client: Client) -> ModelIndex:
    """Return an index with the checkpoints of the manifests that it merely names.

    What cannot be read of them is noted, and left out. For reading only: an index that is written keeps what is foreign
    as it is.

    Raises:
        TransferError: the mirror cannot be asked.
    """
    if not index.foreign:
        return index
    reader = _Reader(mirror, client)
    entries = {entry.digest: entry for entry in index.entries}
    for entry in reader.entries_of(index.foreign, depth=1):
        known = entries.get(entry.digest)
        if known is not None:
            sources = tuple(sorted({*known.sources, *entry.sources}, key=str))
            entry = replace(known, sources=sources, name=known.name or entry.name)
        entries[entry.digest] = entry
    return replace(index, entries=tuple(entries[digest] for digest in sorted(entries)))


class _Reader:
    def __init__(self, mirror: Source, client: Client) -> None:
        self._mirror = mirror
        self._client = client
        self._seen: set[Digest] = set()

    def entries_of(self, descriptors: Iterable[Mapping[str, Any]], *, depth: int) -> Iterator[IndexEntry]:
        for descriptor in descriptors:
            digest = Digest.parse(descriptor["digest"])
            if descriptor["mediaType"] not in {MANIFEST_TYPE, INDEX_TYPE} or digest in self._seen:
                continue
            self._seen.add(digest)
            if depth > _DEEPEST or len(self._seen) > _MOST:
                self._client.note(f"{self._mirror}: indexes in indexes, deeper than anybody needs them, are left out")
                return
            try:
                data = self._read(digest, descriptor["size"])
                if descriptor["mediaType"] == MANIFEST_TYPE:
                    yield from parse_manifest(data, place=f"{self._mirror}: {digest}")
                    continue
                inner = parse_index(data, place=f"{self._mirror}: {digest}")
            except (InvalidRecord, SourceNotFound, RefusedResponse, DigestMismatch) as error:
                self._client.note(f"left out: {error}")
                continue
            yield from inner.entries
            yield from self.entries_of(inner.foreign, depth=depth + 1)

    def _read(self, digest: Digest, size: int) -> bytes:
        source = blob_in(self._mirror, digest)
        data = read_small(self._client.obtainer.transports().transport_for(source), source, min(size, DOCUMENT_LIMIT))
        if (actual := hashlib.sha256(data).hexdigest()) != digest.hex:
            raise DigestMismatch(source=source.display, expected=str(digest), actual=f"sha256:{actual}")
        return data
