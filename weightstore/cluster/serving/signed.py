"""What was signed of what is served: files as they lie in a store, which change while they are served."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from aiohttp import web

from weightstore.cluster.oms import OMS_LIMIT, OMS_SIGNATURE
from weightstore.cluster.serving.sending import send_document
from weightstore.signing.document import DOCUMENT_LIMIT, SIGNATURE, SIGNED_INDEX
from weightstore.signing.sshsig import SIGNATURE_LIMIT
from weightstore.store.layout import read_limited

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.cluster.serving.shelf import Shelf


def signed_files(shelf: Shelf) -> dict[str, bytes]:
    """Return the signed index and its signature of the first store that has both; empty where none has.

    Where several stores are served, what one of them signed is of a part of what there is: as true as before.
    """
    for layout in shelf.layouts():
        files = {
            SIGNED_INDEX: _read(layout.root / SIGNED_INDEX, DOCUMENT_LIMIT),
            SIGNATURE: _read(layout.root / SIGNATURE, SIGNATURE_LIMIT),
        }
        if all(files.values()):
            return files
    return {}


class Signed:
    """Answers for ``/signed-index.json``, its signature, and ``/model.sig``."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"/{SIGNED_INDEX}", functools.partial(self._file, SIGNED_INDEX)),
            web.get(f"/{SIGNATURE}", functools.partial(self._file, SIGNATURE)),
            web.get(f"/{OMS_SIGNATURE}", self._oms),
        ]

    async def _file(self, name: str, request: web.Request) -> web.Response:
        files = await self._shelf.call(functools.partial(signed_files, self._shelf))
        return _answer(request, files.get(name, b""), "application/json" if name == SIGNED_INDEX else "text/plain")

    async def _oms(self, request: web.Request) -> web.Response:
        """Answer with the signature over the files of the one store that is served: of several it would be of none."""
        layouts = self._shelf.layouts()
        path = layouts[0].root / OMS_SIGNATURE if len(layouts) == 1 else None
        data = await self._shelf.call(lambda: _read(path, OMS_LIMIT)) if path is not None else b""
        return _answer(request, data, "application/json")


def _answer(request: web.Request, data: bytes, kind: str) -> web.Response:
    """Answer with what may be another thing next time: a cache keeps it, and asks whether it still is that."""
    if not data:
        raise web.HTTPNotFound(text="nothing is signed here\n", headers={"Cache-Control": "no-cache"})
    return send_document(request, data, kind)


def _read(path: Path, limit: int) -> bytes:
    try:
        data = read_limited(path, limit)
    except OSError:
        return b""
    return data if len(data) <= limit else b""
