"""What a mirror lost beside its blobs: the manifests and configs of artifacts that its index names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weightstore.cluster.merging import Details, details_of, documents_of, written_anew

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from weightstore.cluster.index import IndexEntry, ModelIndex
    from weightstore.digest import Digest


def mended(
    index: ModelIndex,
    mine: ModelIndex,
    *,
    manifest: Callable[[Digest], bytes | None],
    config: Callable[[Digest], bytes | None],
    present: Callable[[Mapping[Digest, int]], Collection[Digest]],
    is_named: Callable[[IndexEntry], bool] | None = None,
) -> tuple[ModelIndex, int]:
    """Return an index with the documents of those artifacts that have lost a part, so that these are written again.

    And how many artifacts those are.

    They are the mirror's own where it has them, and else made of what the index, and who pushes, say. Of a checkpoint
    that the mirror has lost itself, and that nobody brings, nothing can be made.

    Args:
        index: what the mirror says that it has.
        mine: what who pushes says of it.
        manifest: reads a manifest there; None where there is none, or another.
        config: reads a config there, in the same way.
        present: tells which blobs, given with their sizes, are there.
        is_named: whether an artifact that is whole has all of its tags, where mirrors have tags.
    """
    found = {entry.digest: documents_of(entry, manifest(entry.manifest), config) for entry in index.entries}
    there = present({entry.digest: entry.size for entry in index.entries if not found[entry.digest]})
    known = mine.by_digest
    entries: list[IndexEntry] = []
    documents: dict[Digest, bytes] = {}
    count = 0
    for entry in index.entries:
        kept = entry
        if entry.digest in there:
            ours = known.get(entry.digest)
            details = details_of(ours, mine.documents) if ours is not None else Details()
            kept, made = written_anew(entry, details)
            documents |= made
            count += 1
        elif found[entry.digest] and is_named is not None and not is_named(entry):
            documents |= found[entry.digest]
            count += 1
        entries.append(kept)
    return replace(index, entries=tuple(entries), documents=documents), count
