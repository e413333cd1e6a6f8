"""A mirror in a directory: a store, which others use as a mirror or as a layer, or serve with any web server."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from weightstore.client import Client
from weightstore.cluster.index import ModelIndex, build_index, index_of, write_index
from weightstore.cluster.merging import merged
from weightstore.cluster.mirror.mending import mended
from weightstore.cluster.mirror.place import RACES, parse_told, too_many_races
from weightstore.cluster.page import page_of, write_page
from weightstore.cluster.renewal import document_there
from weightstore.errors import BlobDamaged, InvalidRecord, NoSpace, StoreError
from weightstore.source import Source
from weightstore.store.blobs import list_blobs, open_verified
from weightstore.store.image import INDEX_NAME, is_of_another_tool, read_index_file
from weightstore.store.layout import Layout, adopt_layout, create_layout, open_layout, translated, write_record
from weightstore.store.locks import BestLock
from weightstore.store.parts import Part
from weightstore.store.publish import publish
from weightstore.store.receipts import identity_of
from weightstore.store.refs import read_ref_of_key, write_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from weightstore.cluster.mirror.place import Change, Chunks, Outgoing
    from weightstore.digest import Digest
    from weightstore.records import Ref
    from weightstore.store.receipts import Receipts

# What a store's first file is called until it is complete.
_MADE_FIRST = re.compile(r"\.{1,2}store\.json\..*\.new")
# Writing an index takes less; who holds the lock for longer hangs.
_LOCK_S = 30.0


class Directory:
    """A store in a directory. It is made when the first blob is pushed: readable by all, writable by its group."""

    def __init__(self, root: Path, receipts: Receipts, *, locks: bool = True, check: bool = False) -> None:
        """``check`` has the manifests and configs that its index names looked at when that is changed."""
        self._check = check
        self.mended = 0
        self.root = root.expanduser().absolute()
        self._receipts = receipts
        self._locks = locks
        self._made: Layout | None = None
        self._lock = threading.Lock()

    @property
    def display(self) -> str:
        return str(self.root)

    @property
    def is_of_another_tool(self) -> bool:
        """Whether it is an image layout that another tool wrote, which becomes a store with the first push."""
        return is_of_another_tool(self.root)

    @property
    def source(self) -> Source:
        return Source.of_path(self.root)

    def read_index(self) -> ModelIndex | None:
        layout = self._readable()
        if layout is None:
            return None
        data = read_index_file(layout)
        if data is None:  # a store that nobody has indexed yet
            return build_index(layout, ())
        return parse_told(
            data,
            place=str(self.root / INDEX_NAME),
            remedy=f"Write it anew: weightstore --home {self.root} mirror index",
        )

    def present(self, wanted: Mapping[Digest, int], index: ModelIndex | None) -> set[Digest]:  # noqa: ARG002 - it can look
        layout = self._readable()
        if layout is None:
            return set()
        return {digest for digest, found in list_blobs(layout).items() if wanted.get(digest) == found.st_size}

    def unproven(self, digests: Collection[Digest]) -> dict[Digest, int]:
        """Return the sizes of those blobs there that this user has not hashed, or that changed since."""
        layout = self._readable()
        there = list_blobs(layout) if layout is not None else {}
        return {
            digest: found.st_size
            for digest, found in there.items()
            if digest in digests and not self._receipts.attests(digest, identity_of(found))
        }

    def damaged(self, digests: Collection[Digest], *, on_bytes: Callable[[int], None]) -> set[Digest]:
        """Return which of the blobs there are not what their names say, or cannot be read. They are hashed."""
        layout = self._readable()
        if layout is None:
            return set()

        def is_good(digest: Digest) -> bool:
            try:
                blob = open_verified(layout.blob(digest), digest, self._receipts, on_bytes=on_bytes, always_hash=True)
            except (BlobDamaged, OSError):
                # One that was true of the very same file is not to stand in the way of the one that is written.
                self._receipts.forget(digest)
                return False  # writing it puts that one aside, or tells why it cannot
            if blob is not None:
                blob.close()
            return blob is not None

        ordered = sorted(digests)
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="verify") as pool:
            return {digest for digest, good in zip(ordered, pool.map(is_good, ordered), strict=True) if not good}

    def check_room(self, needed: int) -> None:
        """Make sure that so many bytes will fit.

        Raises:
            NoSpace: they will not.
        """
        there = next(place for place in (self.root, *self.root.parents) if place.exists())
        with translated(there):
            found = os.statvfs(there)
        if needed > (free := found.f_bavail * found.f_frsize):
            with self._room_is_made_there():
                raise NoSpace(place=str(self.root), needed=needed, free=free, reason="too little free space")

    @contextlib.contextmanager
    def _room_is_made_there(self) -> Iterator[None]:
        try:
            yield
        except NoSpace as error:
            is_store = (self.root / "store.json").exists()
            how = f" (`weightstore --home {self.root} gc --dry-run`)" if is_store else ""
            raise error.advising(f"Make room there{how}, or push to another place.") from None

    def write(self, blob: Outgoing, chunks: Chunks) -> None:
        with self._room_is_made_there():
            self._write(blob, chunks)

    def _write(self, blob: Outgoing, chunks: Chunks) -> None:
        layout = self._layout()
        part = Part.create(layout, f"sha256-{blob.digest.hex}")
        try:
            with translated(part.path, needed=blob.size):
                for data in chunks:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(part.fd, view) :]
            publish(part, blob.digest, size=blob.size, receipts=self._receipts)
        except BaseException:
            part.discard()
            raise

    def record(self, blob: Outgoing, *, counts: Callable[[Ref], bool]) -> None:
        """Record where a blob came from, so that who uses the mirror as a layer finds it by its source.

        A signature that does not ``count`` for this user gives way to one that does.
        """
        layout = self._layout()
        for ref in blob.refs:
            if ref.source.scheme != "file":  # a path of this machine, which says nothing to others
                write_ref(layout, ref, counts=counts)

    def change_index(self, change: Change) -> None:
        layout = self._layout()
        with self._alone(layout):
            for attempt in range(RACES):
                seen = self.read_index() or ModelIndex()
                whole = self._with_lost(layout, seen)
                if self._check and attempt == 0 and not seen.documents:
                    whole = self._mended(layout, whole, change(ModelIndex()))
                new = change(whole)
                if new.encode() == seen.encode() and not new.documents:  # with documents it is not there yet
                    return
                self._check_writable(layout)
                with self._room_is_made_there():
                    write_index(layout, new, receipts=self._receipts)
        raise too_many_races(self.display)

    def renew_index(self, renewed: Callable[[Layout], ModelIndex]) -> ModelIndex:
        """Write the index anew and return it; what a push adds to it meanwhile is waited for, or looked at again."""
        layout = self._layout()
        with self._alone(layout):
            for _ in range(RACES):
                before = read_index_file(layout)
                new = renewed(layout)
                if read_index_file(layout) == before:
                    write_index(layout, new, receipts=self._receipts)
                    if read_index_file(layout) == new.encode():
                        return new
        raise too_many_races(self.display)

    @contextlib.contextmanager
    def _alone(self, layout: Layout) -> Iterator[None]:
        """Keep other pushes from the index for a moment. Without locks they are, at worst, found by what they left."""
        lock = BestLock(layout, "index")
        try:
            give_up_at = time.monotonic() + _LOCK_S
            while self._locks and lock.try_acquire() == "busy" and time.monotonic() < give_up_at:
                time.sleep(0.02)
            yield
        finally:
            lock.release()

    def _mended(self, layout: Layout, index: ModelIndex, mine: ModelIndex) -> ModelIndex:
        def document(digest: Digest) -> bytes | None:
            return index.documents.get(digest) or document_there(layout, digest)

        def present(blobs: Mapping[Digest, int]) -> set[Digest]:
            return self.present(blobs, index)

        made, self.mended = mended(index, mine, manifest=document, config=document, present=present)
        return replace(made, documents={**index.documents, **made.documents})

    @staticmethod
    def _with_lost(layout: Layout, index: ModelIndex) -> ModelIndex:
        """Return an index with what others recorded here and somebody's later index lost."""
        known = {f"{source.key}.json" for entry in index.entries for source in entry.sources}
        with translated(layout.refs):
            names = set(os.listdir(layout.refs)) - known
        sizes: dict[Digest, int] = {}
        refs: dict[Digest, list[Ref]] = {}
        for name in sorted(names):
            with contextlib.suppress(InvalidRecord, OSError):
                ref = read_ref_of_key(layout, name.removesuffix(".json"))
                if ref is not None and ref.source.scheme != "file":
                    sizes[ref.digest] = layout.blob(ref.digest).stat().st_size
                    refs.setdefault(ref.digest, []).append(ref)
        return merged(index, index_of(sizes, refs, ())) if sizes else index

    def blob_names(self) -> frozenset[str]:
        layout = open_layout(self.root, strict=True)
        if layout is None:
            return frozenset()
        with translated(layout.blobs):
            return frozenset(os.listdir(layout.blobs))

    def write_beside(self, files: Mapping[str, bytes]) -> None:
        layout = self._layout()
        for name, data in files.items():
            path = layout.root / name
            with translated(path):
                write_record(path, data, mode=layout.modes.blob, scratch=layout.tmp, durable=True)

    @staticmethod
    def _check_writable(layout: Layout) -> None:
        """Make sure that this user may replace the index: members of a group add blobs and refs, and cannot do that."""
        if not os.access(layout.root, os.W_OK):
            keeper = _owner_of(layout.root)
            raise StoreError(
                place=str(layout.root / INDEX_NAME),
                reason=f"only {keeper} writes it. What was pushed is in the mirror, and served by digest; {keeper} has "
                f"the index tell of it by: weightstore --home {layout.root} mirror index",
            )

    def show(self, client: Client) -> None:
        """Write the mirror's front page, by what its index and a client's catalogs say."""
        config = client.config.but(home=self.root, layers=())
        write_page(self._layout(), page_of(Client(config, note=client.note), only_here=True))

    def _readable(self) -> Layout | None:
        """Return the store that is there, or an image layout that another tool wrote; None where there is neither."""
        if self.is_of_another_tool:
            return Layout(self.root)
        return open_layout(self.root, strict=True)

    def check_writable(self) -> None:
        """Make sure, as far as looking tells it, that blobs can be written there. Writes nothing.

        Raises:
            StoreError: they cannot.
        """
        layout = self._store_or_room()
        place = layout.tmp if layout is not None else self.root
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        if not os.path.isdir(place):
            raise StoreError(place=str(place), reason="is in the way: a mirror needs a directory here")
        if not os.access(place, os.W_OK | os.X_OK):
            raise StoreError(place=str(place), reason="cannot be written. Ask its owner, or choose another place")

    def _store_or_room(self) -> Layout | None:
        """Return the store that is there, or None where one can be made.

        Raises:
            StoreError: there are other things.
        """
        if self.is_of_another_tool:
            return None
        layout = open_layout(self.root, strict=True)
        if layout is None and self._holds_other_things():
            raise StoreError(
                place=str(self.root),
                reason="is a directory that holds other things, and no store. Choose a new one, or make it a "
                f"store: weightstore --home {self.root} init",
            )
        return layout

    def _layout(self) -> Layout:
        with self._lock:
            if self._made is None:
                is_new = self._store_or_room() is None
                if self.is_of_another_tool:
                    self._made = adopt_layout(self.root)
                else:
                    self._made = create_layout(self.root, "group" if is_new else None)
            return self._made

    def _holds_other_things(self) -> bool:
        """Tell whether there is anything but what another process leaves while it makes a store there."""
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise StoreError(place=str(self.root), reason="is a file, and a mirror needs a directory") from None
        except OSError as error:
            raise StoreError(place=str(self.root), reason=error.strerror or str(error)) from None
        others = [name for name in names if not _MADE_FIRST.fullmatch(name)]
        return bool(others) and open_layout(self.root) is None


def _owner_of(root: Path) -> str:
    try:
        return root.owner()
    except (KeyError, OSError):
        return "its owner"
