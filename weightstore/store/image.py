"""A store as an OCI image layout: which blobs are manifests and configs, and no weights."""

from __future__ import annotations

import json
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
_DOCUMENTS = frozenset({_MANIFEST, "application/vnd.oci.image.index.v1+json"})


def is_image_layout(root: Path) -> bool:
    """Tell whether a directory is an OCI image layout, whoever made it."""
    return (root / "oci-layout").is_file() and (root / INDEX_NAME).is_file() and (root / "blobs" / "sha256").is_dir()


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


def image_documents(layout: Layout) -> frozenset[Digest]:
    """Return the digests of all manifests, and of their configs, that index.json names; none where there is none.

    Raises:
        InvalidRecord: index.json cannot be read as one.
    """
    data = read_index_file(layout)
    if data is None:
        return frozenset()
    place = str(layout.root / INDEX_NAME)
    found: set[Digest] = set()
    for descriptor in _descriptors(_object(data, place).get("manifests"), place):
        if descriptor.get("mediaType") != _MANIFEST:
            continue
        manifest = _digest(descriptor, place)
        found.add(manifest)
        config = _config_of(layout, manifest)
        if config is not None:
            found.add(config)
    return frozenset(found)


def _config_of(layout: Layout, manifest: Digest) -> Digest | None:
    """Return the digest of a manifest's config; None where the manifest is not here, or is none."""
    path = layout.blob(manifest)
    try:
        data = read_limited(path, DOCUMENT_LIMIT)
        return _digest(_object(data, str(path)).get("config"), str(path)) if len(data) <= DOCUMENT_LIMIT else None
    except (OSError, InvalidRecord):
        return None


def _object(data: bytes, place: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(place=place, reason=f"not JSON ({error})") from None
    if not isinstance(document, dict):
        raise InvalidRecord(place=place, reason="not a JSON object")
    return document


def _descriptors(value: object, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidRecord(place=place, reason="'manifests' is not a list of objects")
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
