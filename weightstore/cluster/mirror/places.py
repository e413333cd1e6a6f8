"""Which kind of mirror an address means: the one place that knows all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.cluster.mirror.directory import Directory
from weightstore.cluster.mirror.web import Web
from weightstore.errors import InvalidInput
from weightstore.source import Source, is_path

if TYPE_CHECKING:
    from weightstore.client import Client
    from weightstore.cluster.mirror.place import Place


def open_place(address: str, *, client: Client, writable: bool = False) -> Place:
    """Return the mirror at an address: a path, or a URL. Opens no connection yet.

    Raises:
        InvalidInput: it is neither, or of a kind that cannot be a mirror, or cannot be written and is to be.
        MissingDependency: it needs a package that is not installed.
    """
    if "://" not in address:
        if not address:
            raise InvalidInput("a mirror is a directory or a URL, and this is empty")
        return Directory(Path(address if is_path(address) else f"./{address}"), client.receipts)
    source = Source.parse(address)
    if source.scheme == "file":
        return Directory(source.path, client.receipts)
    if client.config.offline:
        raise InvalidInput(f"{source}: offline mode forbids to ask it. A mirror in a directory needs no network")
    transports = client.obtainer.transports()
    if source.scheme in {"http", "https"}:
        web = Web(source, transports.transport_for(source))
        if writable:
            raise web.read_only()
        return web
    raise InvalidInput(f"{source}: a mirror is a directory, or an https:// or http:// address")
