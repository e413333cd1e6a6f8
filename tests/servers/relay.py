"""A reverse proxy in front of a real server: it counts what it is asked, and fails when told to.

    with Relay("http://127.0.0.1:9000") as relay:
        relay.fault = lambda asked: Cut(after=100) if "Range" in asked.headers else None

aiohttp's server and client, in a thread of their own.
"""

import asyncio
import contextlib
import io
import threading
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.servers.tls import Certificate, server_context

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came. ``target`` is path and query, percent-encoded as they were; ``headers`` ignore case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Given:
    """An answer that does not come from the server behind."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Cut:
    """The server's own answer, but the connection breaks after so many bytes of the body."""

    after: int


@dataclass(frozen=True, slots=True)
class Late:
    """The server's own answer, so many seconds later, or when the relay stops."""

    seconds: float


Fault = Callable[[Asked], Given | Cut | Late | None]


class Relay:
    """Passes requests to ``upstream`` and its answers back, the `Host` header included."""

    def __init__(self, upstream: str, *, certificate: Certificate | None = None) -> None:
        self.upstream = upstream
        self._certificate = certificate
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._asked: list[Asked] = []
        self._session: aiohttp.ClientSession | None = None
        self.port = 0
        self.connections = 0
        self.fault: Fault | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(timeout=20)
        if not self.port:
            raise RuntimeError("the relay did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=20)

    @property
    def url(self) -> str:
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self.port}"

    def requests(self) -> list[Asked]:
        """All requests so far, in order of arrival."""
        return list(self._asked)

    async def answer(self, asked: Asked) -> Given | None:
        """Return an answer of our own, or None for the server's. For servers that lack something."""
        del asked
        return None

    async def forward(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Given:
        """Ask the server behind."""
        if self._session is None:
            raise AssertionError
        url = URL(self.upstream + target, encoded=True)
        passed = [(name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP]
        async with self._session.request(
            method, url, headers=CIMultiDict(passed), data=io.BytesIO(body) if body else None, allow_redirects=False
        ) as response:
            kept = CIMultiDict(
                (name, value)
                for name, value in response.headers.items()
                if name.lower() not in _HOP_BY_HOP or (method == "HEAD" and name.lower() == "content-length")
            )
            return Given(response.status, kept, await response.read())

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()
            self._started.set()

    async def _serve(self) -> None:
        async with AsyncExitStack() as cleanup:
            self._session = await cleanup.enter_async_context(
                aiohttp.ClientSession(
                    auto_decompress=False,
                    skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
                )
            )
            runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0)
            await runner.setup()
            cleanup.push_async_callback(runner.cleanup)
            context = server_context(self._certificate) if self._certificate else None
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            self.port = runner.addresses[0][1]
            self._started.set()
            await self._stop.wait()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = Asked(request.method, request.raw_path, request.headers, await request.content.read())
        self._asked.append(asked)
        fault = self.fault(asked) if self.fault else None
        if isinstance(fault, Late):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), fault.seconds)
        given = fault if isinstance(fault, Given) else await self._well_given(asked)
        if isinstance(fault, Cut):
            return await _cut_short(request, given, fault.after)
        return web.Response(status=given.status, headers=CIMultiDict(given.headers), body=given.body or None)

    async def _well_given(self, asked: Asked) -> Given:
        return await self.answer(asked) or await self.forward(asked.method, asked.target, asked.headers, asked.body)


async def _cut_short(request: web.BaseRequest, given: Given, after: int) -> web.StreamResponse:
    response = web.StreamResponse(status=given.status, headers=CIMultiDict(given.headers))
    response.content_length = len(given.body)
    await response.prepare(request)
    await response.write(given.body[:after])
    if request.transport is not None:
        request.transport.close()
    return response
