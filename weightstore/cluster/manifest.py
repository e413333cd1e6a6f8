"""A checkpoint's manifest, read where nothing else tells of it: what remains when other tools have copied an index."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from weightstore.cluster.index import (
    ALIASES,
    ARTIFACT_TYPE,
    DIGEST,
    INDEX_TYPE,
    LICENCES,
    MANIFEST_TYPE,
    NAME,
    REF_NAME,
    SIZE,
    SOURCES,
    TITLE,
    WEIGHT_TYPE,
    parse_index,
)
from weightstore.records import Fields
from weightstore.store.image import DOCUMENT_LIMIT

if TYPE_CHECKING:
    from weightstore.cluster.index import IndexEntry


def parse_manifest(data: bytes, *, place: str) -> tuple[IndexEntry, ...]:
    """Return the weights of a manifest of the ModelPack specification; none of any other manifest.

    Raises:
        InvalidRecord: it is damaged.
    """
    fields = Fields(data, what="manifest", place=place, limit=DOCUMENT_LIMIT)
    if fields.values.get("artifactType") != ARTIFACT_TYPE:
        return ()
    manifest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    told = fields.take("annotations", dict) if "annotations" in fields.values else {}
    descriptors = []
    for layer in fields.take_each("layers"):
        if layer.take("mediaType", str) != WEIGHT_TYPE:
            continue
        digest = layer.take_digest("digest")
        own = layer.take("annotations", dict) if "annotations" in layer.values else {}
        annotations = {key: told[key] for key in (NAME, ALIASES, SOURCES, LICENCES) if key in told}
        annotations |= {
            TITLE: own.get(TITLE) or told.get(TITLE) or digest.hex,
            REF_NAME: digest.hex,
            DIGEST: str(digest),
            SIZE: str(layer.take_size("size")),
        }
        descriptors.append(
            {"mediaType": MANIFEST_TYPE, "digest": manifest, "size": len(data), "annotations": annotations}
        )
    # As the index would have told it, so that there is one strict reader.
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": descriptors}
    return parse_index(json.dumps(index).encode(), place=place).entries
