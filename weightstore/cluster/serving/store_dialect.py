"""The store's own layout over HTTP: what any static web server would serve of it, and nothing else."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from aiohttp import web

from weightstore.cluster.serving.contents import index_of_shelf
from weightstore.cluster.serving.sending import IMMUTABLE, send_blob, send_document
from weightstore.digest import Digest
from weightstore.records import StoreInfo
from weightstore.store.layout import OCI_LAYOUT

if TYPE_CHECKING:
    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.serving.shelf import Shelf


class StoreDialect:
    """Answers for ``/blobs/sha256/…``, ``/refs/…``, ``/store.json``, ``/oci-layout`` and ``/index.json``."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/blobs/sha256/{hex:[0-9a-f]{64}}", self._blob, name="blob"),
            web.get("/refs/{key:[0-9a-f]{64}}.json", self._ref),
            web.get("/store.json", self._store),
            web.get("/oci-layout", self._oci_layout),
            web.get("/index.json", self._index),
        ]

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        digest = Digest(request.match_info["hex"])
        blob = await self._shelf.open_held(digest)
        if blob is None:
            document = (await self._shelf.call(self._make_index)).documents.get(digest)
            if document is not None:
                headers = {"ETag": f'"{digest}"', "Cache-Control": IMMUTABLE}
                return web.Response(body=document, headers=headers)
            blob = await self._shelf.open(digest)
        if blob is None:
            self._shelf.figures.blobs["miss"] += 1
            raise web.HTTPNotFound(text=f"{digest} is not here\n")
        self._shelf.figures.blobs["hit"] += 1
        return await send_blob(request, blob, etag=str(digest))

    async def _ref(self, request: web.Request) -> web.Response:
        ref = await self._shelf.call(functools.partial(self._shelf.ref_of_key, request.match_info["key"]))
        if ref is None:
            raise web.HTTPNotFound(text="there is no such ref\n")
        return _json(request, ref.encode())

    async def _store(self, request: web.Request) -> web.Response:
        return _json(request, StoreInfo(self._shelf.sharing).encode())

    async def _oci_layout(self, request: web.Request) -> web.Response:
        return _json(request, OCI_LAYOUT)

    async def _index(self, request: web.Request) -> web.Response:
        return _json(request, (await self._shelf.call(self._make_index)).encode())

    def _make_index(self) -> ModelIndex:
        return index_of_shelf(self._shelf)


def _json(request: web.Request, data: bytes) -> web.Response:
    return send_document(request, data, "application/json")
