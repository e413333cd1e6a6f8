"""The front page, as people see it who open the address in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from weightstore.cluster.page import page_of

if TYPE_CHECKING:
    from weightstore.cluster.serving.shelf import Shelf


class Front:
    """Answers for ``/`` and ``/index.html``."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/", self._page), web.get("/index.html", self._page)]

    def _made(self) -> str:
        return page_of(self._shelf.client, is_served=True)

    async def _page(self, _: web.Request) -> web.Response:
        text = await self._shelf.call(lambda: self._shelf.kept("page", self._made))
        headers = {"Cache-Control": "no-cache", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)
