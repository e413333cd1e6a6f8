"""A store as an OCI image layout: which blobs are manifests and configs, and no weights."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightstore.digest import Digest
from weightstore.errors import InvalidDigest, InvalidRecord
from weightstore.store.layout import read_limited

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from weightstore.store.layout import Layout

INDEX_NAME = "index.json"
INDEX_LIMIT = 64 << 20
DOCUMENT_LIMIT = 4 << 20  # what registries take for a manifest
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCUMENTS = frozenset({_MANIFEST, _INDEX})
_WEIGHTS_OF = "dev.weightstore.digest"  # the annotation of our own entries
_TITLE = "org.opencontainers.image.title"
_FILE_NAME = re.compile(r"[A-Za-z0-9._+@-]{1,255}")


def is_image_layout(root: Path) -> bool:
    """Tell whether a directory is an OCI image layout, whoever made it."""
    return (root / "oci-layout").is_file() and (root / INDEX_NAME).is_file() and (root / "blobs" / "sha256").is_dir()


def is_of_another_tool(root: Path) -> bool:
    """Tell whether a directory is an OCI image layout that another tool wrote, as skopeo does, and no store."""
    return not (root / "store.json").exists() and is_image_layout(root)


def read_index_file(layout: Layout) -> bytes | None:
    """Return the bytes of index.json, or None where the store has none.

    Raises:
        InvalidRecord: it cannot be read, or is far too large.
    """
    path = layout.root / INDEX_NAME
    try:
        data = read_limited(path, INDEX_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidRecord(place=str(path), reason=f"cannot be read: {error.strerror}") from None
    if len(data) > INDEX_LIMIT:
        raise InvalidRecord(place=str(path), reason=f"larger than {INDEX_LIMIT} bytes")
    return data


@dataclass(frozen=True, slots=True)
class NamedByIndex:
    """The digests that index.json names: ``documents`` are manifests, configs and indexes, ``content`` all else."""

    documents: frozenset[Digest] = frozenset()
    content: frozenset[Digest] = frozenset()


def image_documents(layout: Layout) -> frozenset[Digest]:
    """Return the digests of all manifests, and of their configs, that index.json names; none where there is none.

    Raises:
        InvalidRecord: index.json cannot be read as one.
    """
    return named_by_index(layout).documents


def named_by_index(layout: Layout) -> NamedByIndex:
    """Return what index.json names, by itself and by the manifests and indexes that it names; nothing where it is not.

    Each document is read once, so that indexes that name each other come to an end.

    Raises:
        InvalidRecord: index.json cannot be read as one.
    """
    data = read_index_file(layout)
    if data is None:
        return NamedByIndex()
    place = str(layout.root / INDEX_NAME)
    documents: set[Digest] = set()
    content: set[Digest] = set()
    left = _descriptors(_object(data, place), "manifests", place)
    while left:
        descriptor = left.pop()
        digest, kind = _digest(descriptor, place), descriptor.get("mediaType")
        annotations = descriptor.get("annotations")
        if isinstance(annotations, dict) and _WEIGHTS_OF in annotations:
            content.add(_digest({"digest": annotations[_WEIGHTS_OF]}, place))
        if kind not in _DOCUMENTS:
            content.add(digest)
        elif digest not in documents:
            documents.add(digest)
            named = _document_of(layout, digest)
            with contextlib.suppress(InvalidRecord):
                if kind == _INDEX:
                    inner = _descriptors(named, "manifests", place)
                    left += [one for one in inner if _is_named(one)]
                else:
                    documents |= _digests_in([named.get("config")])
                    content |= _digests_in(_descriptors(named, "layers", place))
    return NamedByIndex(frozenset(documents), frozenset(content - documents))


def titles_by_index(layout: Layout) -> dict[Digest, str]:
    """Return the file names that index.json gives weights; of an index that cannot be read, none.

    They are all that is known of a file that came without a source.
    """
    try:
        data = read_index_file(layout)
        place = str(layout.root / INDEX_NAME)
        descriptors = _descriptors(_object(data, place), "manifests", place) if data is not None else []
    except InvalidRecord:
        return {}
    found: dict[Digest, str] = {}
    for one in descriptors:
        annotations = one.get("annotations")
        told = annotations if isinstance(annotations, dict) else {}
        digest, title = {"digest": told.get(_WEIGHTS_OF)}, told.get(_TITLE)
        if _is_named(digest) and isinstance(title, str) and _FILE_NAME.fullmatch(title):
            found.setdefault(_digest(digest, ""), title)
    return found


def _digests_in(descriptors: Iterable[object]) -> set[Digest]:
    """Return the digests of descriptors; of one that is none, nothing."""
    return {_digest(one, "") for one in descriptors if _is_named(one)}


def _is_named(descriptor: object) -> bool:
    try:
        _digest(descriptor, "")
    except InvalidRecord:
        return False
    return True


def _document_of(layout: Layout, digest: Digest) -> dict[str, Any]:
    """Return a manifest or an index; an empty one where it is not here, or is none."""
    path = layout.blob(digest)
    try:
        data = read_limited(path, DOCUMENT_LIMIT)
        return _object(data, str(path)) if len(data) <= DOCUMENT_LIMIT else {}
    except (OSError, InvalidRecord):
        return {}


def _config_of(layout: Layout, manifest: Digest) -> Digest | None:
    """Return the digest of a manifest's config; None where the manifest is not here, or is none."""
    return next(iter(_digests_in([_document_of(layout, manifest).get("config")])), None)


def _object(data: bytes, place: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(place=place, reason=f"not JSON ({error})") from None
    if not isinstance(document, dict):
        raise InvalidRecord(place=place, reason="not a JSON object")
    return document


def _descriptors(document: Mapping[str, Any], key: str, place: str) -> list[dict[str, Any]]:
    value = document.get(key)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidRecord(place=place, reason=f"{key!r} is not a list of objects")
    return value


def _digest(descriptor: object, place: str) -> Digest:
    text = descriptor.get("digest") if isinstance(descriptor, dict) else None
    try:
        return Digest.parse(text if isinstance(text, str) else "")
    except InvalidDigest as error:
        raise InvalidRecord(place=place, reason=str(error)) from None


def documents_in(layout: Layout, sizes: Mapping[Digest, int], *, weights: Iterable[Digest] = ()) -> frozenset[Digest]:
    """Return which of a store's blobs, given with their sizes, are manifests and configs and no weights.

    That are those that index.json names, and those that an earlier one named: they stay until gc takes them, and only
    their content tells. What is known to be ``weights``, since a source is recorded of it, is not looked into. Of an
    index that cannot be read, nothing is believed.
    """
    try:
        found = set(image_documents(layout))
    except InvalidRecord:
        found = set()
    unknown = {digest for digest, size in sizes.items() if 0 < size <= DOCUMENT_LIMIT} - found - set(weights)
    for digest in unknown:
        path = layout.blob(digest)
        try:
            document = _object(_json_of(path), str(path))
        except (OSError, InvalidRecord):
            continue
        if document.get("schemaVersion") == 2 and document.get("mediaType") in _DOCUMENTS:
            found.add(digest)
            config = _config_of(layout, digest)
            if config in unknown:
                found.add(config)
        elif isinstance(document.get("modelfs"), dict) and isinstance(document.get("descriptor"), dict):
            found.add(digest)  # a config of ours, whose manifest is gone
    return frozenset(found)


def _json_of(path: Path) -> bytes:
    """Return the bytes of what may be a JSON object: of a checkpoint no more than a little is read."""
    if read_limited(path, 0) != b"{":
        return b""
    return read_limited(path, DOCUMENT_LIMIT)
