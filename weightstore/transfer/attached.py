"""Small files that lie beside a mirror's index, where the mirror is in a registry: one artifact under a tag.

A registry has manifests and blobs, and no files. The files are the artifact's layers, with their names as titles, so
that ``oras pull`` writes them; and since a tag is replaced in one step, they always belong together.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from weightstore.digest import Digest
from weightstore.errors import InvalidRecord, RefusedResponse, SourceNotFound
from weightstore.records import Fields
from weightstore.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

ATTACHED_TAG = "weightstore-signed"
ATTACHED_TYPE = "application/vnd.weightstore.signed-index.v1"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST_LIMIT = 1 << 20
EMPTY = b"{}"  # the config of what has none (image specification, 1.1)
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_TITLE = "org.opencontainers.image.title"
_FILE = re.compile(r"(?P<repository>.+)/(?P<name>[a-z-]+\.json(?:\.sig)?)")


def attached_file(source: Source) -> tuple[Source, str] | None:
    """Return the repository and the name, where an ``oci`` source names a file of a mirror; None where it does not."""
    url, question, query = source.url.partition("?")
    match = _FILE.fullmatch(url)
    return (Source(f"{match['repository']}{question}{query}"), match["name"]) if match else None


def make_attached(files: Mapping[str, bytes]) -> tuple[bytes, dict[Digest, bytes]]:
    """Return the manifest of an artifact that holds some files, and the blobs that it names."""
    blobs = {_digest_of(data): data for data in (EMPTY, *files.values())}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ATTACHED_TYPE,
        "config": {"mediaType": _EMPTY_TYPE, "digest": str(_digest_of(EMPTY)), "size": len(EMPTY)},
        "layers": [
            {
                "mediaType": "application/json" if name.endswith(".json") else "application/octet-stream",
                "digest": str(_digest_of(data)),
                "size": len(data),
                "annotations": {_TITLE: name},
            }
            for name, data in files.items()
        ],
    }
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode(), blobs


def digest_of_attached(manifest: bytes, name: str, *, source: Source) -> Digest:
    """Return the digest of one file of such an artifact, by the manifest's word.

    Raises:
        SourceNotFound: it has no file of that name.
        RefusedResponse: it is no such manifest.
    """
    if len(manifest) > MANIFEST_LIMIT:
        raise RefusedResponse(source=source.display, reason=f"its manifest has more than {MANIFEST_LIMIT} bytes")
    try:
        fields = Fields(manifest, what="manifest", place=source.display, limit=MANIFEST_LIMIT)
        if fields.values.get("artifactType") != ATTACHED_TYPE:
            raise fields.error(f"'artifactType' is not {ATTACHED_TYPE}")
        for layer in fields.take_each("layers"):
            digest, told = layer.take_digest("digest"), layer.take("annotations", dict)
            if told.get(_TITLE) == name:
                return digest
    except InvalidRecord as error:
        raise RefusedResponse(source=source.display, reason=f"tag {ATTACHED_TAG}: {error.reason}") from None
    raise SourceNotFound(source=source.display, reason=f"tag {ATTACHED_TAG} has no such file")


def _digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())
