"""A mirror in a directory: a store, which others use as a mirror or as a layer, or serve with any web server."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from weightstore.cluster.index import build_index, parse_index, write_index
from weightstore.errors import StoreError
from weightstore.source import Source
from weightstore.store.blobs import list_blobs
from weightstore.store.image import INDEX_NAME, is_image_layout, read_index_file
from weightstore.store.layout import Layout, create_layout, open_layout, translated, write_record
from weightstore.store.parts import Part
from weightstore.store.publish import publish
from weightstore.store.refs import write_ref

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.mirror.place import Chunks, Outgoing
    from weightstore.digest import Digest
    from weightstore.store.receipts import Receipts


class Directory:
    """A store in a directory. It is made when the first blob is pushed: readable by all, writable by its group."""

    def __init__(self, root: Path, receipts: Receipts) -> None:
        self.root = root.expanduser().absolute()
        self._receipts = receipts
        self._made: Layout | None = None
        self._lock = threading.Lock()

    @property
    def display(self) -> str:
        return str(self.root)

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
        return parse_index(data, place=str(self.root / INDEX_NAME))

    def present(self, wanted: Mapping[Digest, int], index: ModelIndex | None) -> set[Digest]:  # noqa: ARG002 - it can look
        layout = self._readable()
        if layout is None:
            return set()
        return {digest for digest, found in list_blobs(layout).items() if wanted.get(digest) == found.st_size}

    def write(self, blob: Outgoing, chunks: Chunks) -> None:
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

    def record(self, blob: Outgoing) -> None:
        """Record where a blob came from, so that who uses the mirror as a layer finds it by its source."""
        layout = self._layout()
        for ref in blob.refs:
            if ref.source.scheme != "file":  # a path of this machine, which says nothing to others
                write_ref(layout, ref)

    def replace_index(self, index: ModelIndex) -> None:
        write_index(self._layout(), index, receipts=self._receipts)

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

    def _readable(self) -> Layout | None:
        """Return the store that is there, or an image layout that another tool wrote; None where there is neither."""
        if not (self.root / "store.json").exists() and is_image_layout(self.root):
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
        others = [name for name in names if not (name.startswith(".store.json.") and name.endswith(".new"))]
        return bool(others) and open_layout(self.root) is None
