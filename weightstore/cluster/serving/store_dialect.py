"""The store's own layout over HTTP: what any static web server would serve of it, and nothing else."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from aiohttp import web

from weightstore.cluster.serving.sending import send_blob
from weightstore.digest import Digest
from weightstore.records import StoreInfo
from weightstore.store.layout import OCI_LAYOUT, read_limited

if TYPE_CHECKING:
    from weightstore.cluster.serving.shelf import Shelf

_INDEX_LIMIT = 64 << 20


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
        blob = await self._shelf.open(digest)
        self._shelf.figures.blobs["miss" if blob is None else "hit"] += 1
        if blob is None:
            raise web.HTTPNotFound(text=f"{digest} is not here\n")
        return await send_blob(request, blob, etag=str(digest))

    async def _ref(self, request: web.Request) -> web.Response:
        ref = await self._shelf.call(functools.partial(self._shelf.ref_of_key, request.match_info["key"]))
        if ref is None:
            raise web.HTTPNotFound(text="there is no such ref\n")
        return _json(ref.encode())

    async def _store(self, _: web.Request) -> web.Response:
        return _json(StoreInfo(self._shelf.sharing).encode())

    async def _oci_layout(self, _: web.Request) -> web.Response:
        return _json(OCI_LAYOUT.encode())

    async def _index(self, _: web.Request) -> web.Response:
        data = await self._shelf.call(self._read_index)
        if data is None:
            raise web.HTTPNotFound(text="this store has no index.json\n")
        return _json(data)

    def _read_index(self) -> bytes | None:
        for layout in self._shelf.layouts():
            try:
                data = read_limited(layout.root / "index.json", _INDEX_LIMIT)
            except OSError:
                continue
            if len(data) <= _INDEX_LIMIT:
                return data
        return None


def _json(data: bytes) -> web.Response:
    return web.Response(body=data, content_type="application/json", headers={"Cache-Control": "no-cache"})
