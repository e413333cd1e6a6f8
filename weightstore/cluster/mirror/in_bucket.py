"""A mirror in a bucket: the files of a store under a prefix, which whatever copies buckets can take along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightstore.cluster.index import ModelIndex
from weightstore.cluster.mirror.place import RACES, give_way, parse_told, too_many_races
from weightstore.errors import SourceNotFound
from weightstore.records import StoreInfo
from weightstore.store.image import INDEX_LIMIT, INDEX_NAME
from weightstore.store.layout import OCI_LAYOUT
from weightstore.transfer.bucket import Superseded, key_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.cluster.mirror.place import Change, Chunks, Outgoing
    from weightstore.digest import Digest
    from weightstore.source import Source
    from weightstore.transfer.bucket import Bucket, Version


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
        return self._read()[0]

    def _read(self) -> tuple[ModelIndex | None, Version | None]:
        try:
            data, version = self._bucket.read_whole(self._prefix + INDEX_NAME, INDEX_LIMIT)
        except SourceNotFound:
            return None, None
        index = parse_told(
            data,
            place=f"{self.display}/{INDEX_NAME}",
            remedy="Whoever keeps the mirror removes that object and pushes again",
        )
        return index, version

    def present(self, wanted: Mapping[Digest, int], index: ModelIndex | None) -> set[Digest]:  # noqa: ARG002 - it can look
        sizes = self._bucket.sizes(f"{self._prefix}blobs/sha256/")
        return {digest for digest, size in wanted.items() if sizes.get(self._key(digest)) == size}

    def write(self, blob: Outgoing, chunks: Chunks) -> None:
        key = self._key(blob.digest)
        try:
            self._bucket.write(key, chunks)
        except Superseded:
            if self._bucket.size(key) != blob.size:
                raise

    def change_index(self, change: Change) -> None:
        for _ in range(RACES):
            seen, version = self._read()
            new = change(seen or ModelIndex())
            if seen is not None and new.encode() == seen.encode():
                return
            for digest, data in sorted(new.documents.items()):
                self._bucket.write(self._key(digest), data)
            # So that a copy of it in a directory is a store, and an OCI image layout.
            self._bucket.write(f"{self._prefix}oci-layout", OCI_LAYOUT)
            self._bucket.write(f"{self._prefix}store.json", StoreInfo("group").encode())
            if not self._bucket.replace(self._prefix + INDEX_NAME, new.encode(), version):
                give_way()
        raise too_many_races(self.display)

    def write_beside(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self._bucket.write(self._prefix + name, data)

    def blob_names(self) -> frozenset[str]:
        prefix = f"{self._prefix}blobs/sha256/"
        return frozenset(key.removeprefix(prefix) for key in self._bucket.sizes(prefix))

    def _key(self, digest: Digest) -> str:
        return f"{self._prefix}blobs/sha256/{digest.hex}"
