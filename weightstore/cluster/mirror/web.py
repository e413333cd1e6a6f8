"""A mirror on a web server that serves a store's files as they are: read only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightstore.cluster.index import parse_index
from weightstore.errors import InvalidInput, RefusedResponse, SourceNotFound
from weightstore.source import Source
from weightstore.store.image import INDEX_LIMIT, INDEX_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.mirror.place import Chunks, Outgoing
    from weightstore.digest import Digest
    from weightstore.transfer.transport import Transport


class Web:
    """A store behind an http(s) URL."""

    def __init__(self, source: Source, transport: Transport) -> None:
        self.source = source
        self._transport = transport

    @property
    def display(self) -> str:
        return self.source.display

    def read_index(self) -> ModelIndex | None:
        try:
            data = read_small(self._transport, inside(self.source, INDEX_NAME), INDEX_LIMIT)
        except SourceNotFound:
            return None
        return parse_index(data, place=inside(self.source, INDEX_NAME).display)

    def present(self, wanted: Mapping[Digest, int], index: ModelIndex | None) -> set[Digest]:
        """Return what its index says: asking for each blob would be as many requests."""
        entries = index.by_digest if index is not None else {}
        return {digest for digest, size in wanted.items() if digest in entries and entries[digest].size == size}

    def write(self, blob: Outgoing, chunks: Chunks) -> None:  # noqa: ARG002 - the protocol's signature
        raise self.read_only()

    def replace_index(self, index: ModelIndex) -> None:  # noqa: ARG002 - the protocol's signature
        raise self.read_only()

    def write_beside(self, files: Mapping[str, bytes]) -> None:  # noqa: ARG002 - the protocol's signature
        raise self.read_only()

    def read_only(self) -> InvalidInput:
        """Return the error that says so."""
        return InvalidInput(
            f"{self.display}: nothing can be pushed to a web server. Push to the directory that it serves, or to an "
            "oci:// or s3:// place"
        )


def inside(base: Source, path: str) -> Source:
    """Return the source of a file below a base; the base's query stays at the end."""
    url, question, query = base.url.partition("?")
    return Source(f"{url.rstrip('/')}/{path}{question}{query}")


def read_small(transport: Transport, source: Source, limit: int) -> bytes:
    """Return the content of a small file.

    Raises:
        TransferError: it cannot be read, or is larger than ``limit`` bytes.
    """
    body = transport.open(source)
    try:
        pieces, size = [], 0
        while data := body.read(1 << 20):
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise RefusedResponse(source=source.display, reason=f"sends more than {limit} bytes")
        return b"".join(pieces)
    finally:
        body.close()
