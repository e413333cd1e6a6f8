"""A mirror in a bucket: the files of a store under a prefix, which whatever copies buckets can take along."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from weightstore.cluster.index import ModelIndex
from weightstore.cluster.mirror.mending import mended
from weightstore.cluster.mirror.place import RACES, give_way, parse_told, too_many_races
from weightstore.errors import RefusedResponse, SourceNotFound
from weightstore.records import StoreInfo
from weightstore.store.image import DOCUMENT_LIMIT, INDEX_LIMIT, INDEX_NAME
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

    def __init__(self, source: Source, bucket: Bucket, *, check: bool = False) -> None:
        """``check`` has it asked for the manifests and configs that its index names when that is changed."""
        self.source = source
        self._check = check
        self.mended = 0
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
        for attempt in range(RACES):
            seen, version = self._read()
            whole = seen or ModelIndex()
            if self._check and attempt == 0:
                whole = self._mended(whole, change(ModelIndex()))
            new = change(whole)
            if seen is not None and new.encode() == seen.encode() and not new.documents:
                return
            for digest, data in sorted(new.documents.items()):
                self._bucket.write(self._key(digest), data)
            # So that a copy of it in a directory is a store, and an OCI image layout.
            self._bucket.write(f"{self._prefix}oci-layout", OCI_LAYOUT)
            self._bucket.write(f"{self._prefix}store.json", StoreInfo("group").encode())
            if not self._bucket.replace(self._prefix + INDEX_NAME, new.encode(), version):
                give_way()
        raise too_many_races(self.display)

    def _mended(self, index: ModelIndex, mine: ModelIndex) -> ModelIndex:
        def present(blobs: Mapping[Digest, int]) -> set[Digest]:
            return self.present(blobs, None) if blobs else set()

        whole, self.mended = mended(index, mine, manifest=self._document, config=self._document, present=present)
        return whole

    def _document(self, digest: Digest) -> bytes | None:
        """Return a manifest or a config; None where it is not there, or damaged."""
        try:
            data, _ = self._bucket.read_whole(self._key(digest), DOCUMENT_LIMIT)
        except (SourceNotFound, RefusedResponse):
            return None
        return data if hashlib.sha256(data).hexdigest() == digest.hex else None

    def write_beside(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self._bucket.write(self._prefix + name, data)

    def blob_names(self) -> frozenset[str]:
        prefix = f"{self._prefix}blobs/sha256/"
        return frozenset(key.removeprefix(prefix) for key in self._bucket.sizes(prefix))

    def _key(self, digest: Digest) -> str:
        return f"{self._prefix}blobs/sha256/{digest.hex}"
