"""Bundles on the side that makes them: what another side lacks, as an OCI image layout in one tar.

:func:`choose` finds what is wanted, :func:`create` writes it. Equal content gives equal bytes, and every byte is hashed
on its way: a damaged blob does not leave this side.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weightstore.catalog.entries import best_known_first
from weightstore.cluster.index import IndexEntry, ModelIndex, make_entry, model_index
from weightstore.cluster.tar import BLOBS, END, INDEX_FILE, LAYOUT_FILE, header, padding
from weightstore.cluster.volumes import Writer
from weightstore.errors import BlobDamaged, NoSpace, NotPresent
from weightstore.store.blobs import BLOCK, open_regular
from weightstore.store.layout import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from weightstore.catalog.entries import Entry
    from weightstore.client import Client
    from weightstore.cluster.have import Have
    from weightstore.digest import Digest
    from weightstore.records import Wanted
    from weightstore.source import Source

_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}\n'


@dataclass(frozen=True, slots=True)
class Item:
    """One blob that goes into a bundle: where it lies here, and what is told of it."""

    digest: Digest
    size: int
    path: Path
    sources: tuple[Source, ...]
    name: str = ""
    title: str = ""  # the file name, where no source is known


def choose(client: Client, wanted: Iterable[Wanted]) -> list[Item]:
    """Return the stored blobs of some weights, each once, in order of digest.

    Raises:
        NotPresent: one is in no layer; a bundle is made of what is here.
    """
    found: dict[Digest, Item] = {}
    for one in wanted:
        located = client.obtainer.locate(one)
        if located.hit is None:
            missing = client.obtainer.not_present(one, located)
            raise _ahead_of_time(missing) if isinstance(missing, NotPresent) else missing
        with located.hit.blob as blob:
            item = Item(blob.digest, blob.size, blob.path, one.sources, one.qualified_name or _called(one))
        known = found.get(item.digest, item)
        sources = dict.fromkeys([*known.sources, *item.sources])
        found[item.digest] = replace(known, sources=tuple(sources), name=known.name or item.name)
    return [found[digest] for digest in sorted(found)]


def _ahead_of_time(missing: NotPresent) -> NotPresent:
    return NotPresent(**{**missing.fields, "offline": False, "is_local": True})


def _called(wanted: Wanted) -> str:
    return "" if "://" in wanted.name else wanted.name


def choose_all(client: Client) -> tuple[list[Item], int]:
    """Return every blob of every layer of which a source or a file name is known, and how many others there are."""
    found: dict[Digest, Item] = {}
    others: set[Digest] = set()
    for one in client.stored():
        if one.made_from is not None or not (one.refs or one.title):
            others.add(one.digest)
        else:
            sources = tuple(ref.source for ref in one.refs)
            name = next(iter(one.names), "")
            found.setdefault(one.digest, Item(one.digest, one.size, one.path, sources, name, one.title))
    return [found[digest] for digest in sorted(found)], len(others - set(found))


@dataclass(frozen=True, slots=True)
class Created:
    """A bundle that was written: its files, what is in them, and what the other side has already."""

    paths: tuple[Path, ...]
    size: int
    index: ModelIndex
    spared: tuple[Item, ...]


def create(
    items: Sequence[Item],
    output: Path,
    *,
    client: Client,
    have: Have | None = None,
    volume_size: int | None = None,
    on_bytes: Callable[[int], None],
) -> Created:
    """Write a bundle of all items that the other side lacks. Equal content gives equal bytes.

    Raises:
        BlobDamaged: a blob's content is not what its name says; nothing is left of the bundle.
        InvalidInput, NoSpace, StoreError: it cannot be written there.
    """
    there = have.blobs if have is not None else {}
    sent = [item for item in items if there.get(item.digest) != item.size]
    index = _index_of(sent, client)
    small = {f"{BLOBS}{digest.hex}": data for digest, data in sorted(index.documents.items())}
    small = {LAYOUT_FILE: _LAYOUT, INDEX_FILE: index.encode(), **small}
    sizes = [*map(len, small.values()), *(item.size for item in sent)]
    total = sum(len(header("", 0)) + size + padding(size) for size in sizes) + len(END)
    with _refusals_name(output), Writer(output, total=total, volume_size=volume_size) as writer:
        for name, data in small.items():
            writer.write(header(name, len(data)) + data + bytes(padding(len(data))))
        for item in sent:
            writer.write(header(f"{BLOBS}{item.digest.hex}", item.size))
            for block in _content(item, on_bytes=on_bytes):
                writer.write(block)
            writer.write(bytes(padding(item.size)))
        writer.write(END)
        paths = writer.finish()
    return Created(tuple(paths), total, index, tuple(item for item in items if item not in sent))


@contextmanager
def _refusals_name(output: Path) -> Iterator[None]:
    try:
        with translated(output, advice="Write the bundle elsewhere, or ask who owns that directory"):
            yield
    except NoSpace as error:
        raise error.advising(f"Make room there, or write the bundle elsewhere than to {output}.") from None


def _index_of(items: Iterable[Item], client: Client) -> ModelIndex:
    entries: list[IndexEntry] = []
    documents: dict[Digest, bytes] = {}
    for item in items:
        found = _entries_of(item, client)
        known = found[0] if found else None
        entry, made = make_entry(
            item.digest,
            item.size,
            sources=item.sources,
            title=item.title,
            name=known.qualified_name if known is not None else item.name,
            aliases=[one.qualified_name for one in found[1:]],
            licence=(known.licence or "") if known is not None else "",
            task=known.task if known is not None else "",
            num_params=known.num_params if known is not None else None,
        )
        entries.append(entry)
        documents |= made
    return model_index(entries, documents=documents)


def _entries_of(item: Item, client: Client) -> list[Entry]:
    """Return what the first catalog that knows any of an item's sources says of them."""
    for catalog in client.catalogs.near():
        found = [one for source in item.sources for one in catalog.entries_of_source(source)]
        if found:
            return best_known_first(found)
    return []


def _content(item: Item, *, on_bytes: Callable[[int], None]) -> Iterator[memoryview]:
    """Yield a blob's bytes, hashed as they pass: who has taken the last of them has taken the right ones."""
    fd = open_regular(item.path)
    if fd is None:
        raise BlobDamaged(place=str(item.path), expected=str(item.digest), actual="gone")
    hasher = hashlib.sha256()
    buffer = bytearray(BLOCK)
    left = item.size
    try:
        while left > 0 and (count := os.readv(fd, [memoryview(buffer)[: min(left, BLOCK)]])):
            view = memoryview(buffer)[:count]
            hasher.update(view)
            left -= count
            yield view
            on_bytes(count)
        if left or os.fstat(fd).st_size != item.size or hasher.hexdigest() != item.digest.hex:
            raise BlobDamaged(place=str(item.path), expected=str(item.digest), actual=f"sha256:{hasher.hexdigest()}")
    finally:
        os.close(fd)
