"""What a mirror is, wherever it lives: something that has blobs and an index, and may take more of them."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from weightstore.cluster.index import parse_index
from weightstore.digest import Digest
from weightstore.errors import BlobDamaged, InvalidRecord, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.cluster.index import ModelIndex
    from weightstore.records import Ref
    from weightstore.source import Source
    from weightstore.store.blobs import OpenBlob

OnBytes = Callable[[int], None]
Change = Callable[["ModelIndex"], "ModelIndex"]
# So often others may write the index between our reading and our writing it.
RACES = 20


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A blob that is to be in a mirror: its digest, size in bytes, what to call it, and what was recorded of it.

    ``title`` is the file name that the store's index has for it where nothing is recorded.
    """

    digest: Digest
    size: int
    name: str
    refs: tuple[Ref, ...] = ()
    title: str = ""


class Place(Protocol):
    """A mirror. Safe to use from many threads.

    ``mended`` is of how many artifacts the last change of its index wrote again what had been lost there.
    """

    mended: int

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

    def change_index(self, change: Change) -> None:
        """Have the index become what ``change`` makes of it, and keep what others write into it at the same moment.

        Its manifests and configs are written first, and then, in one step, the index. ``change`` may be called several
        times, and changes nothing where that is done already.

        Raises:
            InvalidRecord: the index is damaged.
            TransferError, StoreError: it cannot be read or written.
        """
        ...

    def write_beside(self, files: Mapping[str, bytes]) -> None:
        """Take small files that lie beside the index, one after the other; each replaces an older one in one step."""
        ...


def parse_told(data: bytes, *, place: str, remedy: str) -> ModelIndex:
    """Return what a mirror's index says.

    Raises:
        InvalidRecord: it is damaged, or lies; with what to do about it.
    """
    try:
        return parse_index(data, place=place)
    except InvalidRecord as error:
        raise InvalidRecord(place=error.place, reason=f"{error.reason}. {remedy}") from None


class Chunks:
    """The content of a verified blob, hashed once more on its way out.

    The last piece is given only when the whole was right: a damaged blob never becomes a complete upload.
    """

    def __init__(
        self,
        blob: OpenBlob,
        *,
        size: int = 1 << 20,
        on_bytes: OnBytes | None = None,
        on_start: OnBytes | None = None,
    ) -> None:
        self.size = blob.size
        self._blob = blob
        self._piece = size
        self._on_bytes = on_bytes or _ignore
        self._on_start = on_start or _ignore

    def __iter__(self) -> Iterator[bytes]:
        return self.since(0)

    def since(self, begin: int) -> Iterator[bytes]:
        """Yield the content from ``begin`` on. What lies before is hashed as well, and told to nobody."""
        blob, hasher, offset = self._blob, hashlib.sha256(), 0
        self._on_start(begin)
        while True:
            # A piece ends where the wanted ones begin.
            wanted = min(self._piece, begin - offset) if offset < begin else self._piece
            try:
                data = os.pread(blob.fd, wanted, offset)
            except OSError as error:
                raise StoreError(place=str(blob.path), reason=error.strerror or str(error)) from None
            hasher.update(data)
            is_wanted = offset >= begin
            offset += len(data)
            is_last = (offset >= blob.size and is_wanted) or not data
            if is_last and (hasher.hexdigest() != blob.digest.hex or offset != blob.size):
                actual = str(Digest(hasher.hexdigest()))
                raise BlobDamaged(place=str(blob.path), expected=str(blob.digest), actual=actual)
            self._on_bytes(len(data) if is_wanted else 0)
            if is_wanted or is_last:
                yield data
            if is_last:
                return


def _ignore(_size: int) -> None:
    pass


def too_many_races(display: str) -> StoreError:
    """Return the error of an index that others wrote again and again."""
    return StoreError(place=display, reason="others keep replacing the index. Run it again when they are done")


def give_way() -> None:
    """Wait for a moment, so that of two that write at once one comes to its end."""
    time.sleep(random.uniform(0, 0.2))  # noqa: S311 - nothing secret
