"""The OCI distribution API, as far as it reads: a store is one repository, ``weights``, with a tag for each checkpoint.

Manifests and configs are those of ``weightstore mirror index``, made from what is here now or lying in the store;
layers are the blobs themselves.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, NoReturn

from aiohttp import web

from weightstore.cluster.index import INDEX_TYPE, MANIFEST_TYPE, REF_NAME
from weightstore.cluster.serving.contents import index_of_shelf
from weightstore.cluster.serving.sending import IMMUTABLE, send_blob
from weightstore.cluster.serving.signed import signed_files
from weightstore.digest import Digest
from weightstore.errors import InvalidDigest
from weightstore.store.image import DOCUMENT_LIMIT
from weightstore.transfer.attached import ATTACHED_TAG, make_attached

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.serving.shelf import Shelf

REPOSITORY = "weights"
INDEX_TAG = "weightstore-index"
"""Where mirrors in registries keep their index. No tag of weights, and not listed as one."""
_API = {"Docker-Distribution-API-Version": "registry/2.0"}
_NAME = "{name:[a-z0-9]+(?:[._/-]+[a-z0-9]+)*}"
_MEDIA_TYPE = re.compile(r"[a-z]+/[A-Za-z0-9.+-]{1,100}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class RegistryDialect:
    """Answers what skopeo, oras and container tools ask under ``/v2/``."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v2/", self._version),
            web.get("/v2/_catalog", self._catalog),
            web.get(f"/v2/{_NAME}/tags/list", self._tags),
            web.get(f"/v2/{_NAME}/manifests/{{reference:[^/]+}}", self._manifest),
            web.get(f"/v2/{_NAME}/blobs/{{digest:[^/]+}}", self._blob),
        ]

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({}, headers=_API)

    async def _catalog(self, request: web.Request) -> web.Response:
        """Answer with the repositories, as Docker's registries do; the OCI's specification leaves it open."""
        repositories, headers = _page(request, [REPOSITORY])
        return web.json_response({"repositories": repositories}, headers=headers)

    async def _tags(self, request: web.Request) -> web.Response:
        index = await self._index(request)
        tags, headers = _page(request, _tags(index))
        return web.json_response({"name": REPOSITORY, "tags": tags}, headers=headers)

    async def _manifest(self, request: web.Request) -> web.Response:
        index = await self._index(request)
        reference = request.match_info["reference"]
        whole = index.encode()
        of_whole = _digest_of(whole)
        if reference in {INDEX_TAG, str(of_whole)}:
            return _document(request, of_whole, whole, INDEX_TYPE)
        attached, _ = await self._attached()
        if attached and reference in {ATTACHED_TAG, str(_digest_of(attached))}:
            return _document(request, _digest_of(attached), attached, MANIFEST_TYPE)
        named = _tags(index)
        asked = named.get(reference) if _TAG.fullmatch(reference) else _digest(reference)
        kind = _kinds(index).get(asked) if asked is not None else None
        data = await self._document(index, asked) if asked is not None and kind is not None else None
        if asked is None or kind is None or data is None:
            _refuse("MANIFEST_UNKNOWN", "there are no such weights")
        return _document(request, asked, data, kind)

    async def _document(self, index: ModelIndex, digest: Digest) -> bytes | None:
        """Return a manifest: made just now, or as it lies in the store."""
        if digest in index.documents:
            return index.documents[digest]
        blob = await self._shelf.open_held(digest)
        if blob is None:
            return None
        with blob:
            return os.pread(blob.fd, DOCUMENT_LIMIT, 0) if blob.size <= DOCUMENT_LIMIT else None

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        index = await self._index(request)
        digest = _digest(request.match_info["digest"])
        if digest in index.documents:
            return _document(request, digest, index.documents[digest], "application/octet-stream")
        blob = await self._shelf.open_held(digest)
        if blob is None:
            _, attached = await self._attached()
            if digest in attached:
                return _document(request, digest, attached[digest], "application/octet-stream")
            blob = await self._shelf.open(digest)
        self._shelf.figures.blobs["miss" if blob is None else "hit"] += 1
        if blob is None:
            _refuse("BLOB_UNKNOWN", "there is no such blob")
        headers = {**_API, "Docker-Content-Digest": str(digest)}
        return await send_blob(request, blob, etag=str(digest), headers=headers)

    async def _attached(self) -> tuple[bytes, Mapping[Digest, bytes]]:
        """Return the artifact that holds what was signed: its manifest, empty where nothing was, and its blobs."""
        files = await self._shelf.call(functools.partial(signed_files, self._shelf))
        return make_attached(files) if files else (b"", {})

    async def _index(self, request: web.Request) -> ModelIndex:
        if request.match_info["name"] != REPOSITORY:
            _refuse("NAME_UNKNOWN", f"the one repository is {REPOSITORY}")
        return await self._shelf.call(functools.partial(index_of_shelf, self._shelf))


def _page(request: web.Request, names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return names in order, of which ``n`` and ``last`` ask for some, and the fields to answer with."""
    last, limit = request.query.get("last", ""), request.query.get("n", "")
    page, headers = sorted(name for name in names if name > last), dict(_API)
    if limit.isascii() and limit.isdigit() and len(limit) < 9 and int(limit) < len(page):
        page = page[: int(limit)]
        if page:
            headers["Link"] = f'<{request.path}?n={limit}&last={page[-1]}>; rel="next"'
    return page, headers


def _tags(index: ModelIndex) -> dict[str, Digest]:
    """Return the manifests by tag: ours, and under other tags those that other tools put there."""
    ours = {tag: entry.manifest for tag, entry in index.tags.items()}
    others = {}
    for one in index.foreign:
        names = one.get("annotations")
        tag = names.get(REF_NAME) if isinstance(names, dict) else None
        if isinstance(tag, str) and _TAG.fullmatch(tag) is not None:
            others[tag] = Digest.parse(one["digest"])
    return {**others, **ours}


def _kinds(index: ModelIndex) -> dict[Digest, str]:
    """Return the media types of all manifests."""
    others = {Digest.parse(one["digest"]): str(one["mediaType"]) for one in index.foreign}
    known = {digest: kind for digest, kind in others.items() if _MEDIA_TYPE.fullmatch(kind)}
    return {**known, **{entry.manifest: MANIFEST_TYPE for entry in index.entries}}


def _document(request: web.Request, digest: Digest, data: bytes, kind: str) -> web.Response:
    headers = {**_API, "Docker-Content-Digest": str(digest), "ETag": f'"{digest}"', "Content-Type": kind}
    if "sha256:" in request.path:
        headers["Cache-Control"] = IMMUTABLE
    return web.Response(body=data, headers=headers)


def _digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest:
        _refuse("DIGEST_INVALID", "a digest is sha256: and 64 hexadecimal digits", status=400)


def _refuse(code: str, message: str, *, status: int = 404) -> NoReturn:
    text = json.dumps({"errors": [{"code": code, "message": message}]})
    kind = web.HTTPNotFound if status == 404 else web.HTTPBadRequest
    raise kind(text=text, content_type="application/json", headers=_API)
