"""The server: dialects under one roof, who may ask, what is noted of each request, start and end."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import signal
import ssl
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from weightstore.cluster.oms import OMS_SIGNATURE
from weightstore.cluster.serving.figures import CONTENT_TYPE, SENT
from weightstore.cluster.serving.front import Front
from weightstore.cluster.serving.hub_dialect import HubDialect
from weightstore.cluster.serving.pulling import Puller
from weightstore.cluster.serving.registry_dialect import RegistryDialect
from weightstore.cluster.serving.shelf import Shelf
from weightstore.cluster.serving.signed import Signed
from weightstore.cluster.serving.store_dialect import StoreDialect
from weightstore.errors import InvalidConfig, StoreError
from weightstore.signing.document import SIGNATURE, SIGNED_INDEX

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aiohttp.typedefs import Handler, Middleware

    from weightstore.client import Client


# Who downloads when the server is told to end has so long; what is cut off then is resumed by any client of ours.
_GRACE_S = 10.0
_TOKEN_LIMIT = 4096
_STORE = {"blobs", "refs", "store.json", "oci-layout", "index.json", SIGNED_INDEX, SIGNATURE, OMS_SIGNATURE}


@dataclass(frozen=True, slots=True)
class Serving:
    """How a store is served. ``token`` is what clients have to show; empty if nothing."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    certificate: Path | None = None
    key: Path | None = None
    has_metrics: bool = False
    pulls_through: bool = False

    @property
    def is_open(self) -> bool:
        """Whether machines other than this one may reach it without a token."""
        return not self.token and not is_loopback(self.host)

    @property
    def shows_token(self) -> bool:
        """Whether the token passes between machines for everyone on the way to read."""
        return bool(self.token) and self.certificate is None and not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: Path) -> str:
    """Return the token in a file, without the line's end.

    Raises:
        InvalidConfig: it cannot be read, is empty, or not a line of visible ASCII. The content is not shown.
    """
    try:
        with path.open("rb") as file:
            token = file.read(_TOKEN_LIMIT + 1).decode("ascii", "replace").strip()
    except OSError as error:
        raise InvalidConfig(f"{path}: {error.strerror}") from None
    if not token or len(token) > _TOKEN_LIMIT or any(not "!" <= char <= "~" for char in token):
        raise InvalidConfig(f"{path}: holds no token: one line of letters, digits and signs, without blanks")
    return token


def is_readable_by_all(path: Path) -> bool:
    """Tell whether any user of this machine may read a file."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def make_app(client: Client, serving: Serving, *, log: Callable[[str], None] | None = None) -> web.Application:
    """Return the application, to be run by :func:`serve`. ``log`` is called with a line for each request."""
    shelf = Shelf(client)
    puller = shelf.puller = Puller(shelf) if serving.pulls_through else None
    watch = _Watch(shelf, log)
    app = web.Application(middlewares=[watch.middleware, _guard(serving.token)])

    async def stop_pulling(_: web.Application) -> None:
        if puller is not None:
            puller.close()

    async def close(_: web.Application) -> None:
        shelf.close()

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})

    async def figures(_: web.Request) -> web.Response:
        return web.Response(
            text=shelf.figures.text(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
        )

    app.on_shutdown.append(stop_pulling)
    app.on_cleanup.append(close)
    app.on_response_prepare.append(_sign)
    if serving.token:
        app.on_response_prepare.append(_keep_private)
    app.add_routes([web.get("/healthz", healthy)])
    if serving.has_metrics:
        app.add_routes([web.get("/metrics", figures)])
    app.add_routes(Front(shelf).routes())
    app.add_routes(StoreDialect(shelf).routes())
    app.add_routes(Signed(shelf).routes())
    app.add_routes(RegistryDialect(shelf).routes())
    app.add_routes(HubDialect(shelf).routes())
    return app


async def serve(
    app: web.Application, serving: Serving, *, started: Callable[[str], None], stop: asyncio.Event | None = None
) -> None:
    """Serve until ``stop``, or without one until SIGTERM or SIGINT; then end, when downloads had some seconds to end.

    ``started`` is called with the address, once connections are accepted. A second signal ends at once.

    Raises:
        StoreError: the address cannot be used.
        InvalidConfig: the certificate cannot be used.
    """
    context = _tls(serving)
    logger = logging.getLogger("weightstore.serve")
    logger.addFilter(_is_our_fault)
    runner = web.AppRunner(app, access_log=None, logger=logger, shutdown_timeout=_GRACE_S, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, serving.host, serving.port, ssl_context=context, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            raise StoreError(
                place=f"{serving.host}:{serving.port}",
                reason=f"cannot be listened on: {error.strerror or error}. Choose another with --port",
            ) from None
        if stop is None:
            stop = _stopped_by_signals()
        port = runner.addresses[0][1]
        host = f"[{serving.host}]" if ":" in serving.host else serving.host
        started(f"{'https' if context else 'http'}://{host}:{port}")
        await stop.wait()
    finally:
        await runner.cleanup()


def _is_our_fault(record: logging.LogRecord) -> bool:
    """Tell whether something is worth a traceback: not what is no HTTP at all, nor a client that left."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError | ConnectionError)


def _stopped_by_signals() -> asyncio.Event:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    return stop


def _tls(serving: Serving) -> ssl.SSLContext | None:
    if serving.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(serving.certificate, serving.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(f"{serving.certificate}: no certificate and key to serve with ({error})") from None
    return context


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "weightstore"
    response.headers["X-Content-Type-Options"] = "nosniff"


async def _keep_private(_: web.Request, response: web.StreamResponse) -> None:
    """Have shared caches keep nothing for those who show no token (RFC 9111, 3.5)."""
    field = response.headers.get("Cache-Control", "")
    if field.startswith("public"):
        response.headers["Cache-Control"] = field.replace("public", "private", 1)


def _guard(token: str) -> Middleware:
    """Return what lets requests pass that show the token: as a bearer's, or as the password of any user."""
    expected = token.encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if expected and request.path != "/healthz":
            shown = _shown(request.headers.get("Authorization", ""))
            if not hmac.compare_digest(shown, expected):
                raise web.HTTPUnauthorized(
                    text="a token is needed\n", headers={"WWW-Authenticate": 'Basic realm="weightstore"'}
                )
        return await handler(request)

    return guard


def _shown(field: str) -> bytes:
    scheme, _, value = field.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("utf-8", "replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


class _Watch:
    """Counts requests, and logs them without what may be a credential: no query, no header."""

    def __init__(self, shelf: Shelf, log: Callable[[str], None] | None) -> None:
        self._shelf = shelf
        self._log = log

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            figures = self._shelf.figures
            began = time.perf_counter()
            figures.in_flight += 1
            SENT.set(0)  # a connection's requests are one task's
            status = 499  # nginx's number for a client that left
            try:
                response = await handler(request)
                status = response.status
            except web.HTTPException as answer:
                status = answer.status
                raise
            except ConnectionError:
                raise
            except Exception:
                status = 500
                raise
            finally:
                figures.in_flight -= 1
                sent = SENT.get()
                figures.bytes_sent += sent
                method = request.method if request.method in {"GET", "HEAD"} else "other"
                figures.requests[_dialect(request), method, status] += 1
                if self._log is not None:
                    took = time.perf_counter() - began
                    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                    path = request.rel_url.raw_path
                    self._log(f"{moment} {request.remote} {request.method} {path} {status} {sent} {took:.3f}")
            return response

        return watch


def _dialect(request: web.Request) -> str:
    steps = request.path.split("/")
    if steps[1:2] == ["v2"]:
        return "registry"
    if steps[1:3] == ["api", "models"] or "resolve" in steps[2:4]:
        return "hub"
    return "store" if steps[1] in _STORE else "other"
