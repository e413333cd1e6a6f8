"""A mirror in an OCI registry: checkpoints as artifacts under tags, and the index as a manifest that names them all."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, Unpack

from weightstore.cluster.index import INDEX_TAG, INDEX_TYPE, MANIFEST_TYPE, TAG, ModelIndex, tags_of
from weightstore.cluster.manifest import parse_manifest
from weightstore.cluster.merging import merged
from weightstore.cluster.mirror.mending import mended
from weightstore.cluster.mirror.place import RACES, Chunks, give_way, parse_told, too_many_races
from weightstore.cluster.mirror.uploader import PIECE, Uploader, compare
from weightstore.digest import Digest
from weightstore.errors import (
    InvalidRecord,
    RefusedResponse,
    SourceNotFound,
    SourceUnavailable,
    TransferError,
)
from weightstore.records import Fields
from weightstore.store.image import DOCUMENT_LIMIT
from weightstore.transfer.answers import url_in
from weightstore.transfer.attached import ATTACHED_TAG, make_attached
from weightstore.transfer.policy import blob_in
from weightstore.transfer.registry import RegistryTransport, Repository, expect, said
from weightstore.transfer.small import read_small

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightstore.cluster.index import IndexEntry
    from weightstore.cluster.mirror.place import Change, Outgoing
    from weightstore.cluster.mirror.uploads import KeptUpload, Uploads
    from weightstore.source import Source
    from weightstore.transfer.http import Reply
    from weightstore.transfer.registry import Registry
    from weightstore.transfer.retry import RetryPolicy

_OWN_TAGS = "weightstore-"
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')
# Of tags that the index does not name so many are looked at: a repository may hold other things.
_MOST_LOST = 200
_MOST_PAGES = 200
_MOST_TOLD = 5
_TRIES = 5


class _Request(TypedDict, total=False):
    method: str
    headers: dict[str, str]
    body: bytes
    writes: bool
    limit: int


class InRegistry:
    """A repository of a registry."""

    def __init__(
        self,
        source: Source,
        registry: Registry,
        *,
        mount_from: str = "",
        retry: RetryPolicy,
        uploads: Uploads | None = None,
        check: bool = False,
    ) -> None:
        """``check`` has it asked for each thing that its index names, and not only for what that does not name."""
        self.source = source
        self._check = check
        self.mended = 0
        self._repository, _ = Repository.of(source)
        self._uploads = uploads
        self._artifacts: dict[str, IndexEntry | None] = {}
        self._registry = registry
        self._retry = retry
        self._uploader = Uploader(source, registry, mount_from=mount_from, retry=retry, has=self._has)

    @property
    def display(self) -> str:
        return self.source.display

    def read_index(self) -> ModelIndex | None:
        return self._stored() or self._told_by_tags()

    def _told_by_tags(self) -> ModelIndex | None:
        """Return what is there where nobody wrote an index: single checkpoints that another tool copied there."""
        entries: dict[Digest, IndexEntry] = {}
        for tag in self._tags()[:_MOST_LOST]:
            for entry in self._checkpoints(tag):
                entries.setdefault(entry.digest, replace(entry, ref_name=tag))
        return ModelIndex(tuple(entries.values())) if entries else None

    def _stored(self) -> ModelIndex | None:
        """Return the index that a push wrote."""
        reply = self._ask(f"manifests/{INDEX_TAG}", headers={"Accept": INDEX_TYPE}, limit=DOCUMENT_LIMIT)
        if reply.status == 404:
            return None
        expect(reply, self.source, 200)
        return parse_told(
            reply.body,
            place=f"{self.display}:{INDEX_TAG}",
            remedy="Whoever keeps the mirror removes that tag and pushes again",
        )

    def present(self, wanted: Mapping[Digest, int], index: ModelIndex | None) -> set[Digest]:
        """Return which blobs are there: by its index, and by one request for each that the index does not name."""
        entries = index.by_digest if index is not None and not self._check else {}
        there = {digest for digest, size in wanted.items() if digest in entries and entries[digest].size == size}
        return there | {digest for digest, size in wanted.items() if digest not in there and self._has(digest, size)}

    def _has(self, digest: Digest, size: int | None = None) -> bool:
        reply = self._ask(f"blobs/{digest}", method="HEAD")
        if reply.status == 404:
            return False
        expect(reply, self.source, 200)
        return size is None or reply.field("Content-Length") in {"", str(size)}

    def write(self, blob: Outgoing, chunks: Chunks) -> None:
        if self._uploads is None or blob.size <= PIECE:
            self._upload(blob.digest, chunks)
            return
        kept = self._uploads.take(self._repository, blob.digest, blob.size)
        try:
            self._upload(blob.digest, chunks, kept)
        finally:
            kept.leave()

    def change_index(self, change: Change) -> None:
        """Change the index, of which registries replace whatever version there is.

        Artifacts get their tags before the index names them. So whoever writes the index looks at the tags afterwards,
        and finds what another push, which had finished meanwhile, had put there and this index does not name.
        """
        ours: set[str] = set()
        for attempt in range(RACES):
            if attempt > 1:
                give_way()
            seen = self._stored() or ModelIndex()
            whole = self._mended(seen, change(ModelIndex())) if self._check and attempt == 0 else seen
            new = change(self._with_lost(whole, ours))
            if new.encode() == seen.encode() and not new.documents:
                return
            namesakes = self._replace_index(new, seen, ours)
            if namesakes:  # they take part in the names, so nothing was written yet
                self._replace_index(merged(new, ModelIndex(tuple(namesakes))), seen, ours)
        raise too_many_races(self.display)

    def _with_lost(self, index: ModelIndex, ours: set[str]) -> ModelIndex:
        """Return an index with the artifacts of pushes that a later index lost.

        They are under tags that it does not name; or under one that we put, and somebody else at the same moment.
        """
        known, digests = set(index.tags), index.by_digest
        unknown = [tag for tag in self._tags() if tag not in known and not tag.startswith(_OWN_TAGS)]
        self._artifacts = {tag: entry for tag, entry in self._artifacts.items() if tag not in ours}
        found = (self._artifact(tag) for tag in (*unknown[:_MOST_LOST], *sorted(ours)))
        lost = tuple(entry for entry in found if entry is not None and entry.digest not in digests)
        return merged(index, ModelIndex(lost)) if lost else index

    def _mended(self, index: ModelIndex, mine: ModelIndex) -> ModelIndex:
        tags: dict[Digest, list[str]] = {}
        for tag, entry in index.tags.items():
            tags.setdefault(entry.digest, []).append(tag)
        whole, self.mended = mended(
            index,
            mine,
            manifest=lambda digest: self._manifest(str(digest), digest),
            config=self._config,
            present=lambda blobs: self.present(blobs, None),
            is_named=lambda entry: all(self._manifest(tag, entry.manifest) for tag in tags[entry.digest]),
        )
        return whole

    def _config(self, digest: Digest) -> bytes | None:
        try:
            data = read_small(RegistryTransport(self._registry), blob_in(self.source, digest), DOCUMENT_LIMIT)
        except SourceNotFound:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest.hex else None

    def _manifest(self, reference: str, digest: Digest | None = None) -> bytes | None:
        """Return what is under a tag or a digest; None where there is nothing, or not that of the ``digest``."""
        reply = self._ask(f"manifests/{reference}", headers={"Accept": MANIFEST_TYPE}, limit=DOCUMENT_LIMIT)
        is_it = digest is None or hashlib.sha256(reply.body).hexdigest() == digest.hex
        return reply.body if reply.status == 200 and is_it else None

    def _tags(self) -> list[str]:
        found: list[str] = []
        page = "tags/list"
        for _ in range(_MOST_PAGES):
            reply = self._ask(page, limit=DOCUMENT_LIMIT)
            if reply.status != 200:
                return found  # a new repository, or a registry that tells no tags
            fields = Fields(reply.body, what="list of tags", place=self.display, limit=DOCUMENT_LIMIT)
            if fields.values.get("tags") is None:
                return found
            found += [tag for tag in fields.take("tags", list) if isinstance(tag, str) and TAG.fullmatch(tag)]
            following = _NEXT.search(reply.field("Link"))
            if following is None:
                return found
            page = url_in(following[1], source=self.source, base=reply.url)
        return found

    def _artifact(self, tag: str) -> IndexEntry | None:
        """Return the checkpoint under a tag that a push gave it; None for whatever else there is.

        What another is just writing is nothing yet, and is not remembered as such: the next look has to find it.
        """
        if tag not in self._artifacts:
            data = self._manifest(tag)
            if data is None:
                return None
            entries = self._parsed(data, tag)
            if entries is None:
                return None
            self._artifacts[tag] = entries[0] if len(entries) == 1 and tag in tags_of(entries[0]) else None
        return self._artifacts[tag]

    def _checkpoints(self, tag: str) -> tuple[IndexEntry, ...]:
        """Return the checkpoints under a tag, whoever gave it."""
        data = self._manifest(tag)
        return (self._parsed(data, tag) or ()) if data is not None else ()

    def _parsed(self, data: bytes, tag: str) -> tuple[IndexEntry, ...] | None:
        try:
            return parse_manifest(data, place=f"{self.display}:{tag}")
        except InvalidRecord:
            return None

    def _replace_index(self, index: ModelIndex, seen: ModelIndex, ours: set[str]) -> list[IndexEntry]:
        """Have the artifacts that are new, and then the index; return those of others that are in the way.

        A tag is looked at just before it is written: where another push has put a file of the same name there, that is
        to be in the index as well.
        """
        documents, tags, before, now = index.documents, index.tags, seen.by_digest, index.by_digest
        namesakes = []
        for entry in index.entries:
            if entry.manifest not in documents:
                if entry.digest not in before or before[entry.digest].ref_name != entry.ref_name:
                    self._tag_again(entry)
                continue
            config = Digest.parse(json.loads(documents[entry.manifest])["config"]["digest"])
            if not self._has(config):
                self._upload(config, [documents[config]])
            self._artifacts.pop(entry.ref_name, None)
            other = self._artifact(entry.ref_name)
            if other is not None and other.digest not in now:
                namesakes.append(other)
                continue
            for tag in (tag for tag, one in tags.items() if one is entry):
                self._tag(tag, MANIFEST_TYPE, documents[entry.manifest], entry.manifest)
            ours.add(entry.ref_name)
        if not namesakes:
            try:
                self._tag(INDEX_TAG, INDEX_TYPE, index.encode(), None)
            except (RefusedResponse, SourceNotFound) as error:
                raise self._refused(index, error) from None
        return namesakes

    def _refused(self, index: ModelIndex, error: TransferError) -> TransferError:
        """Return the error of an index that was refused: most registries take none that names what they lack."""
        lost = [entry for entry in index.entries if self._manifest(str(entry.manifest)) is None]
        if not lost:
            return error
        names = ", ".join(entry.name or entry.title for entry in lost[:_MOST_TOLD])
        more = f" and {len(lost) - _MOST_TOLD} more" if len(lost) > _MOST_TOLD else ""
        remedy = (
            "Whoever has these pushes them with --check; or whoever keeps the mirror removes the tag "
            f"{INDEX_TAG}, and pushes again"
            if self._check
            else "Push again with --check, which brings back what it can"
        )
        reason = f"{error.reason}: it has lost {names}{more}, which its index names. {remedy}"
        return RefusedResponse(source=self.display, reason=reason)

    def _ask(self, path: str, **request: Unpack[_Request]) -> Reply:
        """Return the answer to a small request, which may be sent several times.

        The plain registry writes its files in place: who reads what another process writes at that moment is told that
        the registry has failed, or that some digest which it read there is none.
        """
        for attempt in range(1, _TRIES):
            try:
                reply = self._registry.ask(self.source, path, **request)
            except SourceUnavailable as error:
                if not error.reason.startswith("HTTP "):
                    raise
                passing = error
            else:
                if reply.status != 400 or "DIGEST_INVALID" not in said(reply):
                    return reply
                passing = SourceUnavailable(source=self.display, reason=said(reply))
            time.sleep(self._retry.delay_s(attempt, passing))
        return self._registry.ask(self.source, path, **request)

    def _tag_again(self, entry: IndexEntry) -> None:
        """Give an artifact that is there another tag: its own is not its alone any more."""
        reply = self._ask(f"manifests/{entry.manifest}", headers={"Accept": MANIFEST_TYPE}, limit=DOCUMENT_LIMIT)
        expect(reply, self.source, 200)
        self._tag(entry.ref_name, MANIFEST_TYPE, reply.body, entry.manifest)

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
        reply = self._ask(
            f"manifests/{tag}",
            method="PUT",
            headers={"Content-Type": media_type},
            body=data,
            writes=True,
        )
        expect(reply, self.source, 201)
        if digest is not None:
            compare(reply, digest, self.source)

    def _upload(self, digest: Digest, chunks: Iterable[bytes], kept: KeptUpload | None = None) -> None:
        self._uploader.upload(digest, chunks, kept)
