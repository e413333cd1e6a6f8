"""The store's own layout over HTTP: what any static web server would serve of it, and nothing else."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from aiohttp import web

from weightstore.cluster.serving.registry_dialect import index_of_shelf
from weightstore.cluster.serving.sending import IMMUTABLE, send_blob
from weightstore.digest import Digest
from weightstore.records import StoreInfo
from weightstore.store.image import INDEX_LIMIT, INDEX_NAME
from weightstore.store.layout import OCI_LAYOUT, read_limited

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
        return _json(ref.encode())

    async def _store(self, _: web.Request) -> web.Response:
        return _json(StoreInfo(self._shelf.sharing).encode())

    async def _oci_layout(self, _: web.Request) -> web.Response:
        return _json(OCI_LAYOUT)

    async def _index(self, _: web.Request) -> web.Response:
        return _json(await self._shelf.call(self._read_index))

    def _read_index(self) -> bytes:
        """Return the index that the one store has; of several layers, and where there is none, the one of today."""
        layouts = self._shelf.layouts()
        if len(layouts) == 1:
            try:
                data = read_limited(layouts[0].root / INDEX_NAME, INDEX_LIMIT)
            except OSError:
                data = b""
            if 0 < len(data) <= INDEX_LIMIT:
                return data
        return self._make_index().encode()

    def _make_index(self) -> ModelIndex:
        return index_of_shelf(self._shelf)


def _json(data: bytes) -> web.Response:
    return web.Response(body=data, content_type="application/json", headers={"Cache-Control": "no-cache"})
