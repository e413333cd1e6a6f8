"""What a mirror is, wherever it lives: something that has blobs and an index, and may take more of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from weightstore.digest import Digest
from weightstore.errors import BlobDamaged, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.cluster.index import ModelIndex
    from weightstore.records import Ref
    from weightstore.source import Source
    from weightstore.store.blobs import OpenBlob

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A blob that is to be in a mirror: its digest, size in bytes, what to call it, and what was recorded of it."""

    digest: Digest
    size: int
    name: str
    refs: tuple[Ref, ...] = ()


class Place(Protocol):
    """A mirror. Safe to use from many threads."""

    @property
    def display(self) -> str:
        """The place as it may be shown, without credentials."""
        ...

    @property
    def source(self) -> Source:
        """The base under which downloads ask it for blobs by digest."""
        ...

    def read_index(self) -> ModelIndex | None:
        """Return what it says it has, or None where it does not say.

        Raises:
            InvalidRecord: its index is damaged.
            TransferError, StoreError: it cannot be read.
        """
        ...

    def present(self, wanted: Mapping[Digest, int], index: ModelIndex | None) -> set[Digest]:
        """Return which of these blobs, given with their sizes, it has: by one listing, or by its index."""
        ...

    def write(self, blob: Outgoing, chunks: Chunks) -> None:
        """Take a blob. It is there whole, or not at all.

        Raises:
            TransferError, StoreError, NoSpace: it cannot be written.
        """
        ...

    def replace_index(self, index: ModelIndex) -> None:
        """Take the index's manifests and configs, and then, in one step, the index."""
        ...

    def write_beside(self, files: Mapping[str, bytes]) -> None:
        """Take small files that lie beside the index, one after the other; each replaces an older one in one step."""
        ...


class Chunks:
    """The content of a verified blob, hashed once more on its way out.

    The last piece is given only when the whole was right: a damaged blob never becomes a complete upload.
    """

    def __init__(self, blob: OpenBlob, *, size: int = 1 << 20, on_bytes: OnBytes | None = None) -> None:
        self.size = blob.size
        self._blob = blob
        self._piece = size
        self._on_bytes = on_bytes

    def __iter__(self) -> Iterator[bytes]:
        blob, hasher, offset = self._blob, hashlib.sha256(), 0
        while True:
            try:
                data = os.pread(blob.fd, self._piece, offset)
            except OSError as error:
                raise StoreError(place=str(blob.path), reason=error.strerror or str(error)) from None
            hasher.update(data)
            offset += len(data)
            is_last = offset >= blob.size or not data
            if is_last and (hasher.hexdigest() != blob.digest.hex or offset != blob.size):
                actual = str(Digest(hasher.hexdigest()))
                raise BlobDamaged(place=str(blob.path), expected=str(blob.digest), actual=actual)
            if self._on_bytes is not None:
                self._on_bytes(len(data))
            yield data
            if is_last:
                return
