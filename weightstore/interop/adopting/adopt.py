"""Adopting caches: look at every file, decide, then do exactly that."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from weightstore.digest import Digest
from weightstore.errors import StoreError
from weightstore.interop.adopting.intake import Changed, name_content, opened, take_in
from weightstore.interop.adopting.proof import judge
from weightstore.interop.placing import place
from weightstore.interop.views.directory import writing_to
from weightstore.interop.views.manifest import (
    Manifest,
    Placement,
    is_as_made,
    placement_at,
    read_manifest,
    write_manifest,
)
from weightstore.records import Ref
from weightstore.source import Source
from weightstore.store.blobs import open_verified
from weightstore.store.receipts import identity_of
from weightstore.store.refs import read_ref, write_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from weightstore.client import Client
    from weightstore.interop.adopting.caches import Cache, Candidate
    from weightstore.interop.adopting.proof import Known
    from weightstore.interop.placing import Placed
    from weightstore.records import Identity
    from weightstore.store.blobs import OpenBlob
    from weightstore.store.layers import Hit
    from weightstore.store.layout import Layout

_OTHERS = (
    "others can read it here, and could not read this private store. Adopt it into a shared one "
    "(weightstore init --shared group), leave the files with --keep, or take the permission away first"
)
Status: TypeAlias = Literal["adopt", "adopted", "present", "wrong", "unknown", "skipped", "left"]


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a cache, and what is, or was, done with it.

    ``adopt`` is what is planned, ``adopted`` what was done, ``present`` what leads to the store already. ``wrong``
    failed verification, ``unknown`` cannot be verified, ``skipped`` is no regular file, and ``left`` could not be dealt
    with: these stay as they are, and ``detail`` says why. ``is_stored`` tells that a store had the content before.
    """

    cache: Cache
    candidate: Candidate
    status: Status
    detail: str = ""
    digest: Digest | None = None
    identity: Identity | None = None
    sources: tuple[Source, ...] = ()
    is_stored: bool = False
    placement: Placement | None = None

    @property
    def path(self) -> Path:
        return self.cache.root / self.candidate.path

    @property
    def freed(self) -> int:
        """So many bytes were, or will be, in two places no more."""
        return self.candidate.size if self.is_stored and self.status in {"adopt", "adopted"} else 0


def examine(
    caches: Iterable[Cache],
    *,
    client: Client,
    known: Known,
    on_bytes: Callable[[int], None],
    own: Path | None = None,
) -> Iterator[Item]:
    """Yield every file of the caches, once, with what is to be done with it. Changes nothing but receipts.

    Args:
        caches: what :func:`find_caches` found.
        client: whose stores may have the content, and whose writable store would take it in.
        known: what is known of digests.
        on_bytes: told of bytes as they are hashed.
        own: a directory whose files are this user's alone, whatever their permissions: the home directory. Elsewhere a
            file that others can read is left, if they could not read the store that its name would lead to.

    Raises:
        InvalidRecord: a cache has a manifest that cannot be read, of a newer version perhaps: it is not written over.
    """
    seen: set[Path] = set()
    for cache in caches:
        before = _placements(cache.root)
        for candidate in cache.candidates:
            path = cache.root / candidate.path
            if path in seen:
                continue  # of a directory that was named twice, or within another
            seen.add(path)
            item = _led_to_store(cache, candidate, client)
            if item is None and candidate.problem:
                item = Item(cache, candidate, "skipped", candidate.problem)
            item = item or _examine(cache, candidate, before.get(candidate.path), client, known, on_bytes)
            if item.status == "adopt" and own is not None and _others_would_lose(item.path, own, client):
                item = replace(item, status="left", detail=_OTHERS)
            yield item


def _others_would_lose(path: Path, own: Path, client: Client) -> bool:
    """Tell whether others can read a file, and could not read the store."""
    path = path.resolve()
    if path.is_relative_to(own):
        return False
    layout = client.obtainer.layers()[-1].layout
    store = 0o700 if layout is None else stat.S_IMODE(layout.root.stat().st_mode)
    for read, search in ((0o004, 0o001), (0o040, 0o010)):
        may_read = path.stat().st_mode & read and all(parent.stat().st_mode & search for parent in path.parents)
        if may_read and not store & (read | search):
            return True
    return False


def _placements(root: Path) -> dict[str, Placement]:
    manifest = read_manifest(root)
    return {one.path: one for one in manifest.placements if is_as_made(root, one)} if manifest is not None else {}


def _led_to_store(cache: Cache, candidate: Candidate, client: Client) -> Item | None:
    """Tell of a symbolic link that it leads to a blob: it was adopted, or placed by a view."""
    if not stat.S_ISLNK(candidate.found.st_mode):
        return None
    target = os.readlink(cache.root / candidate.path)
    for layer in client.obtainer.layers():
        if layer.layout is not None and os.path.dirname(target) == str(layer.layout.blobs):
            try:
                digest = Digest(os.path.basename(target))
            except ValueError:
                return None
            return Item(cache, candidate, "present", digest=digest, is_stored=True)
    return None


def _examine(
    cache: Cache,
    candidate: Candidate,
    before: Placement | None,
    client: Client,
    known: Known,
    on_bytes: Callable[[int], None],
) -> Item:
    path = cache.root / candidate.path
    for_git = len(candidate.etag) == 40
    try:
        with opened(path, identity_of(candidate.found)) as (fd, found):
            identity = identity_of(found)
            digest, git_id = None if for_git else client.receipts.digest_of(identity), ""
            if digest is None:
                digest, git_id = name_content(fd, size=found.st_size, for_git=for_git, on_bytes=on_bytes)
                if identity_of(os.fstat(fd)) != identity:
                    raise Changed(place=str(path))
                client.receipts.record(digest, found)
            else:
                on_bytes(found.st_size)
    except (StoreError, OSError) as error:
        return Item(cache, candidate, "left", str(error))
    verdict = judge(candidate, digest=digest, git_id=git_id, known=known, folder=cache.root.name)
    if verdict.answer != "proven":
        status: Status = "wrong" if verdict.answer == "refuted" else "unknown"
        return Item(cache, candidate, status, verdict.reason, digest, identity)
    hit = _hit(digest, verdict.sources, client)
    item = Item(cache, candidate, "adopt", verdict.by, digest, identity, verdict.sources, is_stored=hit is not None)
    if hit is None:
        return item
    with hit.blob as blob:
        is_blob = (blob.stat.st_dev, blob.stat.st_ino) == (found.st_dev, found.st_ino)
    is_placed = before is not None and before.digest == digest and before.placed in {"reflink", "copy"}
    return replace(item, status="present") if is_blob or is_placed else item


def _hit(digest: Digest, sources: Iterable[Source], client: Client) -> Hit | None:
    """Look for a blob that may take the file's place.

    A layer that is not ours may go away: a node's disk is emptied after a job. Where no source is known to fetch the
    content from again, our own store has to have it.
    """
    hit = client.obtainer.find(digest)
    if hit is None or hit.layer.writable or any(source.scheme != "file" for source in sources):
        return hit
    hit.blob.close()
    return None


def carry_out(
    items: Sequence[Item], *, client: Client, hard_link: bool = False, keep: bool = False
) -> Generator[Item, None, None]:
    """Adopt what is to be adopted; yield every item as it is then.

    Each file is published, recorded, and only then replaced, in one step. A run that is killed goes on where it was.

    Args:
        items: what :func:`examine` returned.
        client: whose writable store takes them in.
        hard_link: make the files themselves the blobs, where the file system allows.
        keep: leave the files as they are: the store has a second copy.

    Raises:
        NoSpace: the disk or quota is full.
    """
    for cache in dict.fromkeys(item.cache for item in items):
        done: list[Item] = []
        try:
            for item in items:
                if item.cache is cache:
                    done.append(_carry_out(item, client, hard_link=hard_link, keep=keep))
                    yield done[-1]
        finally:
            if not keep:
                with writing_to(cache.root):
                    _write_manifest(cache, done)


def _carry_out(item: Item, client: Client, *, hard_link: bool, keep: bool) -> Item:
    if item.status == "present":
        return replace(item, placement=_placement_of(item))
    if item.status != "adopt" or item.digest is None or item.identity is None:
        return item
    layout = client.obtainer.writable()
    try:
        placed: Placed | None = None
        hit = _hit(item.digest, item.sources, client)
        if hit is None:
            path, how = take_in(
                item.path,
                item.digest,
                item.identity,
                layout=layout,
                receipts=client.receipts,
                hard_link=hard_link and not keep,
            )
            placed = how if how != "copy" else None
            blob = open_verified(path, item.digest, client.receipts)
        else:
            blob = hit.blob
        if blob is None:
            raise StoreError(place=str(layout.root), reason=f"lost {item.digest} this moment. Try again")
        with blob:
            _record(item, layout)
            if not keep:
                placed = _replace(item, blob, placed, client, hard_link=hard_link)
    except StoreError as error:
        return replace(item, status="left", detail=str(error))
    done = replace(item, status="adopted")
    return done if placed is None else replace(done, placement=_placed(item, placed))


def _record(item: Item, layout: Layout) -> None:
    """Record where the content comes from. Without a ref that names it, gc would take it away."""
    if item.digest is None:
        return
    commits = {one.source: one.commit for one in item.candidate.hub_names}
    sources = item.sources or (Source.of_path(item.path),)
    now = datetime.now(UTC)
    for source in sources:
        ref = Ref(
            source, item.digest, item.candidate.size, now, "adopted", commits.get(source, ""), item.candidate.etag
        )
        write_ref(layout, ref)
    if not any((known := read_ref(layout, source)) and known.digest == item.digest for source in sources):
        write_ref(layout, Ref(Source.of_path(item.path), item.digest, item.candidate.size, now, "adopted"))


def _replace(item: Item, blob: OpenBlob, placed: Placed | None, client: Client, *, hard_link: bool) -> Placed:
    """Let the file's name lead to the blob, where it does not share its bytes already."""
    try:
        found = os.lstat(item.path)
    except OSError:
        raise Changed(place=str(item.path)) from None
    if (found.st_dev, found.st_ino) == (blob.stat.st_dev, blob.stat.st_ino):
        return "hardlink"
    if identity_of(found) != item.identity:
        raise Changed(place=str(item.path))
    if placed is not None:
        return placed
    return place(blob, item.path, link="hardlink" if hard_link else "auto", receipts=client.receipts)


def _placed(item: Item, placed: Placed) -> Placement:
    if item.digest is None:
        raise AssertionError("what was placed has a digest")
    sources = [source for source in item.sources if source.scheme != "file"]
    return placement_at(
        item.cache.root,
        item.candidate.path,
        digest=item.digest,
        size=item.candidate.size,
        placed=placed,
        source=sources[0] if sources else None,
        is_adopted=True,
    )


def _placement_of(item: Item) -> Placement | None:
    """Return the placement of what leads to the store already, as a run may have left it that was killed."""
    if stat.S_ISLNK(item.candidate.found.st_mode):
        try:
            size = item.path.stat().st_size
        except OSError:
            return None  # its blob is gone
        return replace(_placed(item, "symlink"), size=size)
    try:
        shares = item.path.stat().st_nlink > 1
        return _placed(item, "hardlink" if shares else "reflink")
    except OSError:
        return None  # removed this moment


def _write_manifest(cache: Cache, done: Iterable[Item]) -> None:
    old = read_manifest(cache.root)
    known = {one.path: one for one in old.placements if is_as_made(cache.root, one)} if old is not None else {}
    new = {item.placement.path: item.placement for item in done if item.placement is not None}
    for path, placement in new.items():
        # What a view placed, or an earlier run knew the source of, is known better.
        if path not in known or (known[path].placed, known[path].digest) != (placement.placed, placement.digest):
            known[path] = placement
    placements = tuple(known[path] for path in sorted(known))
    if old is None and not placements:
        return
    if old is None:
        write_manifest(cache.root, Manifest(cache.kind, "chosen", placements))
    elif placements != old.placements:
        write_manifest(cache.root, replace(old, placements=placements))
