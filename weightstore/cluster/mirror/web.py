"""A mirror on a web server that serves a store's files as they are: read only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightstore.cluster.mirror.place import parse_told
from weightstore.errors import InvalidInput, SourceNotFound
from weightstore.signing.trusted import inside
from weightstore.store.image import INDEX_LIMIT, INDEX_NAME
from weightstore.transfer.small import read_small

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.mirror.place import Change, Chunks, Outgoing
    from weightstore.digest import Digest
    from weightstore.source import Source
    from weightstore.transfer.transport import Transport


class Web:
    """A store behind an http(s) URL."""

    def __init__(self, source: Source, transport: Transport, *, slow_s: float) -> None:
        """``slow_s`` is how long its index may come at no useful pace, in seconds."""
        self.source = source
        self.mended = 0
        self._transport = transport
        self._slow_s = slow_s

    @property
    def display(self) -> str:
        return self.source.display

    def read_index(self) -> ModelIndex | None:
        try:
            data = read_small(self._transport, inside(self.source, INDEX_NAME), INDEX_LIMIT, slow_s=self._slow_s)
        except SourceNotFound:
            return None
        return parse_told(
            data,
            place=inside(self.source, INDEX_NAME).display,
            remedy="Whoever keeps the mirror writes it anew: weightstore --home DIR mirror index",
        )

    def present(self, wanted: Mapping[Digest, int], index: ModelIndex | None) -> set[Digest]:
        """Return what its index says: asking for each blob would be as many requests."""
        entries = index.by_digest if index is not None else {}
        return {digest for digest, size in wanted.items() if digest in entries and entries[digest].size == size}

    def write(self, blob: Outgoing, chunks: Chunks) -> None:  # noqa: ARG002 - the protocol's signature
        raise self.read_only()

    def change_index(self, change: Change) -> None:  # noqa: ARG002 - the protocol's signature
        raise self.read_only()

    def write_beside(self, files: Mapping[str, bytes]) -> None:  # noqa: ARG002 - the protocol's signature
        raise self.read_only()

    def read_only(self) -> InvalidInput:
        """Return the error that says so."""
        return InvalidInput(
            f"{self.display}: nothing can be pushed to a web server. Push to the directory that it serves, or to an "
            "oci:// or s3:// place"
        )
