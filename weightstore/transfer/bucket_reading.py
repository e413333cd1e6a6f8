"""Objects of buckets read within bounds: never more bytes than were asked for, nor for longer than is useful.

obstore knows one time-out, for a request and all of its answer. As large as large pieces over slow networks need, it
would have us wait for minutes for a server that drips or says nothing. Its asynchronous calls can be given up.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from weightstore.errors import RefusedResponse, SourceUnavailable
from weightstore.transfer.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")
# So much has to come within the time that no byte may stay out. Smaller steps cost more than they tell.
_STEP = 64 << 10
# Objects a request, and at most: a listing that leads to itself has no end.
_PAGE = 1000
_MOST_OBJECTS = 5_000_000


class Loop:
    """An event loop in a thread of its own, for callers in any thread, which may have loops themselves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what a coroutine returns; who is interrupted meanwhile gives it up."""
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="weightstore-bucket", daemon=True).start()
            return self._loop


async def read_size(obstore: Any, store: Any, key: str, *, place: str, answer_s: float) -> int:
    """Return an object's size in bytes, which has to come within ``answer_s`` seconds.

    Raises:
        SourceUnavailable: it does not. What obstore raises comes through.
    """
    try:
        found = await asyncio.wait_for(obstore.head_async(store, key), answer_s)
    except TimeoutError:
        raise SourceUnavailable(source=place, reason="timed out") from None
    return int(found["size"])


async def read_sizes(
    obstore: Any, store: Any, prefix: str, *, place: str, answer_s: float, most: int = _MOST_OBJECTS
) -> dict[str, int]:
    """Return the sizes of all objects below a prefix, by key; each page has to come within ``answer_s`` seconds.

    Raises:
        SourceUnavailable: it does not.
        RefusedResponse: there is no end of it. What obstore raises comes through.
    """
    found: dict[str, int] = {}
    seen = 0
    pages = aiter(obstore.list(store, prefix=prefix, chunk_size=_PAGE))
    try:
        while (page := await asyncio.wait_for(anext(pages, None), answer_s)) is not None:
            seen += len(page)
            if seen > most:
                raise RefusedResponse(source=place, reason=f"lists more than {most} objects")
            found |= {str(one["path"]): int(one["size"]) for one in page}
    except TimeoutError:
        raise SourceUnavailable(source=place, reason="timed out") from None
    return found


async def read_range(
    obstore: Any, store: Any, key: str, start: int, end: int, *, place: str, answer_s: float, slow_s: float
) -> bytes:
    """Return a range of an object, which begins to come within ``answer_s`` and goes on at a useful pace.

    Raises:
        SourceUnavailable: it does not.
        RefusedResponse: another range comes, or more than was asked for. What obstore raises comes through.
    """
    wrong = RefusedResponse(source=place, reason="sent another range than was asked for")
    pace, data = Pace(place, slow_s), bytearray()
    try:
        found = await asyncio.wait_for(obstore.get_async(store, key, options={"range": (start, end)}), answer_s)
        if tuple(found.range) != (start, end):
            raise wrong
        stream = aiter(found.stream(min_chunk_size=_STEP))
        while (piece := await asyncio.wait_for(anext(stream, None), slow_s)) is not None:
            data += piece
            if len(data) > end - start:
                raise wrong
            pace.passed(len(piece))
    except TimeoutError:
        raise SourceUnavailable(source=place, reason="timed out") from None
    return bytes(data)
