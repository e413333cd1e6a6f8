"""The OCI distribution API, as far as it reads: a store is one repository, ``weights``, with a tag for each checkpoint.

Manifests and configs are those of ``weightstore mirror index``, made from what is here now; layers are the blobs
themselves.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from typing import TYPE_CHECKING, NoReturn

from aiohttp import web

from weightstore.cluster.index import INDEX_TYPE, MANIFEST_TYPE, index_of
from weightstore.cluster.serving.sending import IMMUTABLE, send_blob
from weightstore.digest import Digest
from weightstore.errors import InvalidDigest
from weightstore.store.blobs import list_blobs

if TYPE_CHECKING:
    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.serving.shelf import Shelf
    from weightstore.records import Ref

REPOSITORY = "weights"
INDEX_TAG = "weightstore-index"
"""Where mirrors in registries keep their index. No tag of weights, and not listed as one."""
_API = {"Docker-Distribution-API-Version": "registry/2.0"}
_NAME = "{name:[a-z0-9]+(?:[._/-]+[a-z0-9]+)*}"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def index_of_shelf(shelf: Shelf) -> ModelIndex:
    """Return the index of all layers, as they are now. Reads no blob."""
    return shelf.kept("index", functools.partial(_made, shelf))


def _made(shelf: Shelf) -> ModelIndex:
    sizes: dict[Digest, int] = {}
    for layout in shelf.layouts():
        sizes = {digest: found.st_size for digest, found in list_blobs(layout).items()} | sizes
    refs: dict[Digest, list[Ref]] = {}
    for ref in shelf.refs():
        refs.setdefault(ref.digest, []).append(ref)
    return index_of(sizes, refs, shelf.client.catalogs.all())


class RegistryDialect:
    """Answers what skopeo, oras and container tools ask under ``/v2/``."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v2/", self._version),
            web.get(f"/v2/{_NAME}/tags/list", self._tags),
            web.get(f"/v2/{_NAME}/manifests/{{reference:[^/]+}}", self._manifest),
            web.get(f"/v2/{_NAME}/blobs/{{digest:[^/]+}}", self._blob),
        ]

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({}, headers=_API)

    async def _tags(self, request: web.Request) -> web.Response:
        """Answer with tags in order; ``n`` and ``last`` ask for some of them."""
        index = await self._index(request)
        last, limit = request.query.get("last", ""), request.query.get("n", "")
        tags = sorted(tag for tag in index.tags if tag > last)
        headers = dict(_API)
        if limit.isascii() and limit.isdigit() and len(limit) < 9 and int(limit) < len(tags):
            tags = tags[: int(limit)]
            if tags:
                headers["Link"] = f'</v2/{REPOSITORY}/tags/list?n={limit}&last={tags[-1]}>; rel="next"'
        return web.json_response({"name": REPOSITORY, "tags": tags}, headers=headers)

    async def _manifest(self, request: web.Request) -> web.Response:
        index = await self._index(request)
        reference = request.match_info["reference"]
        whole = index.encode()
        of_whole = Digest(hashlib.sha256(whole).hexdigest())
        if reference in {INDEX_TAG, str(of_whole)}:
            return _document(request, of_whole, whole, INDEX_TYPE)
        if _TAG.fullmatch(reference):
            entry = index.tags.get(reference)
            digest = entry.manifest if entry is not None else None
        else:
            asked = _digest(reference)
            digest = asked if any(entry.manifest == asked for entry in index.entries) else None
        if digest is None:
            _refuse("MANIFEST_UNKNOWN", "there are no such weights")
        return _document(request, digest, index.documents[digest], MANIFEST_TYPE)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        index = await self._index(request)
        digest = _digest(request.match_info["digest"])
        if digest in index.documents:
            return _document(request, digest, index.documents[digest], "application/octet-stream")
        blob = await self._shelf.open(digest)
        self._shelf.figures.blobs["miss" if blob is None else "hit"] += 1
        if blob is None:
            _refuse("BLOB_UNKNOWN", "there is no such blob")
        headers = {**_API, "Docker-Content-Digest": str(digest)}
        return await send_blob(request, blob, etag=str(digest), headers=headers)

    async def _index(self, request: web.Request) -> ModelIndex:
        if request.match_info["name"] != REPOSITORY:
            _refuse("NAME_UNKNOWN", f"the one repository is {REPOSITORY}")
        return await self._shelf.call(functools.partial(index_of_shelf, self._shelf))


def _document(request: web.Request, digest: Digest, data: bytes, kind: str) -> web.Response:
    headers = {**_API, "Docker-Content-Digest": str(digest), "ETag": f'"{digest}"', "Content-Type": kind}
    if "sha256:" in request.path:
        headers["Cache-Control"] = IMMUTABLE
    return web.Response(body=data, headers=headers)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest:
        _refuse("DIGEST_INVALID", "a digest is sha256: and 64 hexadecimal digits", status=400)


def _refuse(code: str, message: str, *, status: int = 404) -> NoReturn:
    text = json.dumps({"errors": [{"code": code, "message": message}]})
    kind = web.HTTPNotFound if status == 404 else web.HTTPBadRequest
    raise kind(text=text, content_type="application/json", headers=_API)
