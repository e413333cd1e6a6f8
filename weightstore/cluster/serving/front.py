"""The front page, as people see it who open the address in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from weightstore.cluster.page import page_of
from weightstore.cluster.serving.sending import send_document

if TYPE_CHECKING:
    from weightstore.cluster.serving.shelf import Shelf


class Front:
    """Answers for ``/`` and ``/index.html``."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/", self._page), web.get("/index.html", self._page)]

    async def _page(self, request: web.Request) -> web.Response:
        text = await self._shelf.call(lambda: self._shelf.kept("page", lambda: page_of(self._shelf.client)))
        headers = {"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
        return send_document(request, text.encode(), "text/html; charset=utf-8", headers=headers)
