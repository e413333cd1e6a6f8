"""``urllib.request``, answered from the store where it asks for weights: ``urlopen``, ``urlretrieve``, any opener.

What several libraries download their checkpoints with. The answer is the one that a server would give for the whole
file; other requests (with a body, a range, or credentials) go their way.
"""

from __future__ import annotations

import http.client
import io
import os
from typing import TYPE_CHECKING, Any
from urllib.request import Request

from weightstore.interop.hook.session import TransferFailed
from weightstore.transfer.progress import Silent

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable

    from weightstore.interop.hook.session import Session
    from weightstore.store.blobs import OpenBlob

# With one of these the answer is not simply the file.
_TELLING = frozenset({"range", "if-range", "authorization", "if-none-match", "if-modified-since", "cookie"})


def open_url(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Return the response to a request, as ``OpenerDirector.open`` does.

    What cannot be fetched by us goes its way: the program may have a proxy, a certificate or a cookie for it, and if
    not it gets the error that it knows.
    """
    asked = given.arguments["fullurl"]
    request = asked if isinstance(asked, Request) else None
    url = asked if isinstance(asked, str) else request.full_url if request is not None else ""
    is_plain = url.lower().startswith(("http:", "https:")) and _is_plain(given, request)
    source = session.serves(url) if is_plain else None
    if source is None:
        if session.forbids(url):
            raise session.forbidden(url)
        return original(*given.args, **given.kwargs)
    wanted, located = session.look(source)
    if located.hit is not None:
        blob = located.hit.blob
    else:
        try:
            blob = session.obtain(wanted, meter=Silent())
        except TransferFailed as error:
            if session.is_offline:
                raise
            session.note(f"{error}. It is left to the program to fetch it, and not verified")
            return original(*given.args, **given.kwargs)
    with blob:
        session.record(wanted, blob.digest, blob.size)
        return _response(url, blob)


def _is_plain(given: inspect.BoundArguments, request: Request | None) -> bool:
    """Tell whether nothing but the file is asked for."""
    opener = given.arguments["self"]
    headers = {str(name).lower() for name, _ in getattr(opener, "addheaders", ())}
    if given.arguments.get("data") is not None:
        return False
    if request is not None:
        headers |= {name.lower() for name, _ in request.header_items()}
        if request.data is not None or request.get_method() != "GET":
            return False
    return not _TELLING & headers


def _response(url: str, blob: OpenBlob) -> http.client.HTTPResponse:
    """Return what http.client makes of a server's answer with the file, so that it has everything that one has."""
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
        f'Content-Length: {blob.size}\r\nETag: "{blob.digest}"\r\nAccept-Ranges: none\r\n\r\n'
    )
    response = http.client.HTTPResponse(_Connection(head.encode(), blob.detach()), method="GET")  # type: ignore[arg-type]
    response.begin()
    response.url = url
    response.msg = response.reason  # type: ignore[assignment]  # as urllib.request does it
    return response


class _Connection:
    """What a response reads from: a head, and then a file."""

    def __init__(self, head: bytes, fd: int) -> None:
        self._answer = _Answer(head, fd)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - the socket's signature
        return io.BufferedReader(self._answer, 1 << 16)


class _Answer(io.RawIOBase):
    """Closed when it is dropped, without the warning of a file: programs leave responses to the collector."""

    def __init__(self, head: bytes, fd: int) -> None:
        self._head = head
        self._fd = fd

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            count = min(len(buffer), len(self._head))
            buffer[:count], self._head = self._head[:count], self._head[count:]
            return count
        return os.readv(self._fd, [buffer])

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()
