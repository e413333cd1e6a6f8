"""A mirror in an OCI registry: checkpoints as artifacts under tags, and the index as a manifest that names them all."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

from weightstore.cluster.index import INDEX_TYPE, MANIFEST_TYPE, ModelIndex, parse_index
from weightstore.digest import Digest
from weightstore.errors import DigestMismatch, RefusedResponse, SourceUnavailable, TransferError
from weightstore.store.image import DOCUMENT_LIMIT
from weightstore.transfer.attached import ATTACHED_TAG, make_attached
from weightstore.transfer.registry import expect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightstore.cluster.mirror.place import Chunks, Outgoing
    from weightstore.source import Source
    from weightstore.transfer.http import Reply
    from weightstore.transfer.registry import Registry
    from weightstore.transfer.retry import RetryPolicy

INDEX_TAG = "weightstore-index"
# So much is held in memory for each upload, and sent again where a connection breaks.
PIECE = 16 << 20


class InRegistry:
    """A repository of a registry."""

    def __init__(self, source: Source, registry: Registry, *, mount_from: str = "", retry: RetryPolicy) -> None:
        self.source = source
        self._registry = registry
        self._mount_from = mount_from
        self._retry = retry

    @property
    def display(self) -> str:
        return self.source.display

    def read_index(self) -> ModelIndex | None:
        reply = self._registry.ask(
            self.source, f"manifests/{INDEX_TAG}", headers={"Accept": INDEX_TYPE}, limit=DOCUMENT_LIMIT
        )
        if reply.status == 404:
            return None
        expect(reply, self.source, 200)
        return parse_index(reply.body, place=f"{self.display}:{INDEX_TAG}")

    def present(self, wanted: Mapping[Digest, int], index: ModelIndex | None) -> set[Digest]:
        """Return which blobs are there: by its index, and by one request for each that the index does not name."""
        entries = index.by_digest if index is not None else {}
        there = {digest for digest, size in wanted.items() if digest in entries and entries[digest].size == size}
        return there | {digest for digest, size in wanted.items() if digest not in there and self._has(digest, size)}

    def _has(self, digest: Digest, size: int | None = None) -> bool:
        reply = self._registry.ask(self.source, f"blobs/{digest}", method="HEAD")
        if reply.status == 404:
            return False
        expect(reply, self.source, 200)
        return size is None or reply.field("Content-Length") in {"", str(size)}

    def write(self, blob: Outgoing, chunks: Chunks) -> None:
        self._upload(blob.digest, chunks)

    def replace_index(self, index: ModelIndex) -> None:
        documents = index.documents
        for entry in index.entries:
            if entry.manifest not in documents:
                continue
            config = Digest.parse(json.loads(documents[entry.manifest])["config"]["digest"])
            if not self._has(config):
                self._upload(config, [documents[config]])
            self._tag(entry.ref_name, MANIFEST_TYPE, documents[entry.manifest], entry.manifest)
        self._tag(INDEX_TAG, INDEX_TYPE, index.encode(), None)

    def write_beside(self, files: Mapping[str, bytes]) -> None:
        manifest, blobs = make_attached(files)
        for digest, data in blobs.items():
            if not self._has(digest):
                self._upload(digest, [data])
        self._tag(ATTACHED_TAG, MANIFEST_TYPE, manifest, None)

    def _tag(self, tag: str, media_type: str, data: bytes, digest: Digest | None) -> None:
        if len(data) > DOCUMENT_LIMIT:
            raise RefusedResponse(
                source=self.display,
                reason="an index of so many weights is more than registries take. Use two repositories",
            )
        reply = self._registry.ask(
            self.source,
            f"manifests/{tag}",
            method="PUT",
            headers={"Content-Type": media_type},
            body=data,
            writes=True,
        )
        expect(reply, self.source, 201)
        self._compare(reply, digest)

    def _upload(self, digest: Digest, chunks: Iterable[bytes]) -> None:
        """Bring a blob there, in pieces. The registry itself compares the digest before it takes the whole."""
        mount = f"?mount={digest}&from={self._mount_from}" if self._mount_from else ""
        started = self._registry.ask(
            self.source, f"blobs/uploads/{mount}", method="POST", body=b"", writes=True, mounts=self._mount_from
        )
        expect(started, self.source, 202, 201)
        if started.status == 201:  # mounted: it was in the other repository
            self._compare(started, digest)
            return
        place, offset = _location(started, self.source), 0
        try:
            for piece, is_last in _pieces(chunks):
                if is_last:
                    self._finish(place, digest, piece, offset)
                    return
                place = self._patch(place, piece, offset)
                offset += len(piece)
        except BaseException:
            with contextlib.suppress(TransferError):  # else the registry forgets it by itself, later
                self._registry.ask(self.source, place, method="DELETE", writes=True)
            raise

    def _patch(self, place: str, piece: bytes, offset: int) -> str:
        """Send a piece, and again what did not arrive; return where the next one goes."""
        sent, attempt = 0, 0
        while True:
            rest = piece[sent:]
            begin = offset + sent
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{begin}-{begin + len(rest) - 1}",
            }
            try:
                reply = self._registry.ask(self.source, place, method="PATCH", headers=headers, body=rest, writes=True)
            except SourceUnavailable as error:
                attempt += 1
                if attempt > self._retry.attempts:
                    raise
                time.sleep(self._retry.delay_s(attempt, error))
                place, arrived = self._arrived(place)
                if not offset <= arrived <= offset + len(piece):
                    raise
                sent = arrived - offset
                if sent == len(piece):
                    return place
                continue
            expect(reply, self.source, 202)
            return _location(reply, self.source)

    def _arrived(self, place: str) -> tuple[str, int]:
        """Return where an upload goes on, and how many bytes of it the registry has."""
        reply = self._registry.ask(self.source, place, writes=True)
        expect(reply, self.source, 204)
        first, dash, last = reply.field("Range").removeprefix("bytes=").partition("-")
        if first != "0" or not dash or not last.isascii() or not last.isdigit():
            raise RefusedResponse(source=self.display, reason="does not say how much of an upload it has")
        # Of one byte and of none registries say the same.
        return _location(reply, self.source) if reply.field("Location") else place, int(last) + 1 if int(last) else 0

    def _finish(self, place: str, digest: Digest, last: bytes, offset: int) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        if offset and last:
            place, last = self._patch(place, last, offset), b""
        reply = self._registry.ask(
            self.source,
            f"{place}{'&' if '?' in place else '?'}digest={digest}",
            method="PUT",
            headers=headers,
            body=last,
            writes=True,
        )
        expect(reply, self.source, 201)
        self._compare(reply, digest)

    def _compare(self, reply: Reply, digest: Digest | None) -> None:
        told = reply.field("Docker-Content-Digest")
        if digest is not None and told and told != str(digest):
            raise DigestMismatch(source=self.display, expected=str(digest), actual=told[:100])


def _pieces(chunks: Iterable[bytes]) -> Iterable[tuple[bytes, bool]]:
    """Yield chunks joined to pieces, each with whether it is the last."""
    held = bytearray()
    for chunk in chunks:
        if len(held) >= PIECE:
            yield bytes(held), False
            held.clear()
        held += chunk
    yield bytes(held), True


def _location(reply: Reply, source: Source) -> str:
    place = reply.field("Location")
    if not place:
        raise RefusedResponse(source=source.display, reason="does not say where an upload goes")
    return place
