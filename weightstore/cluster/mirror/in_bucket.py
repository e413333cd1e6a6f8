"""A mirror in a bucket: the files of a store under a prefix, which whatever copies buckets can take along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightstore.cluster.index import parse_index
from weightstore.errors import RefusedResponse, SourceNotFound
from weightstore.records import StoreInfo
from weightstore.store.image import INDEX_LIMIT, INDEX_NAME
from weightstore.store.layout import OCI_LAYOUT
from weightstore.transfer.bucket import key_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.mirror.place import Chunks, Outgoing
    from weightstore.digest import Digest
    from weightstore.source import Source
    from weightstore.transfer.bucket import Bucket


class InBucket:
    """A prefix of a bucket."""

    def __init__(self, source: Source, bucket: Bucket) -> None:
        self.source = source
        self._bucket = bucket
        self._prefix = f"{key_in(source)}/".lstrip("/")

    @property
    def display(self) -> str:
        return self.source.display

    def read_index(self) -> ModelIndex | None:
        key = self._prefix + INDEX_NAME
        try:
            size = self._bucket.size(key)
        except SourceNotFound:
            return None
        if size > INDEX_LIMIT:
            raise RefusedResponse(source=self.display, reason=f"its index has more than {INDEX_LIMIT} bytes")
        return parse_index(self._bucket.read(key, 0, size), place=f"{self.display}/{INDEX_NAME}")

    def present(self, wanted: Mapping[Digest, int], index: ModelIndex | None) -> set[Digest]:  # noqa: ARG002 - it can look
        sizes = self._bucket.sizes(f"{self._prefix}blobs/sha256/")
        return {digest for digest, size in wanted.items() if sizes.get(self._key(digest)) == size}

    def write(self, blob: Outgoing, chunks: Chunks) -> None:
        self._bucket.write(self._key(blob.digest), chunks)

    def replace_index(self, index: ModelIndex) -> None:
        for digest, data in sorted(index.documents.items()):
            self._bucket.write(self._key(digest), data)
        # So that a copy of it in a directory is a store, and an OCI image layout.
        self._bucket.write(f"{self._prefix}oci-layout", OCI_LAYOUT)
        self._bucket.write(f"{self._prefix}store.json", StoreInfo("group").encode())
        self._bucket.write(self._prefix + INDEX_NAME, index.encode())

    def write_beside(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self._bucket.write(self._prefix + name, data)

    def blob_names(self) -> frozenset[str]:
        prefix = f"{self._prefix}blobs/sha256/"
        return frozenset(key.removeprefix(prefix) for key in self._bucket.sizes(prefix))

    def _key(self, digest: Digest) -> str:
        return f"{self._prefix}blobs/sha256/{digest.hex}"
