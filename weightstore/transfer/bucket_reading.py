"""Objects of buckets read within bounds: never more bytes than were asked for, nor for longer than is useful.

What comes is looked at as it comes: obstore's time-outs alone would have us wait for minutes for a server that drips.
Its asynchronous calls could be given up, and are not used: now and then their threads outlive the interpreter by a
moment, and abort the process after its work is done.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

from weightstore.errors import RefusedResponse, SourceUnavailable
from weightstore.transfer.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Objects a request, and at most: a listing that leads to itself has no end.
_PAGE = 1000
_MOST_OBJECTS = 5_000_000


def read_sizes(
    obstore: Any, store: Any, prefix: str, *, place: str, answer_s: float, most: int = _MOST_OBJECTS
) -> dict[str, int]:
    """Return the sizes of all objects below a prefix, by key; so many as come in one step within ``answer_s`` seconds.

    Raises:
        SourceUnavailable: they do not.
        RefusedResponse: there is no end of it. What obstore raises comes through.
    """
    found: dict[str, int] = {}
    seen = 0
    for page in _paced(iter(obstore.list(store, prefix=prefix, chunk_size=_PAGE)), place, answer_s):
        seen += len(page)
        if seen > most:
            raise RefusedResponse(source=place, reason=f"lists more than {most} objects")
        found |= {str(one["path"]): int(one["size"]) for one in page}
    return found


def _paced(pages: Iterator[Any], place: str, answer_s: float) -> Iterator[Any]:
    """Pass on what comes within time: pages that are empty and lead on and on are never seen outside of obstore."""
    came: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    enough = threading.Event()

    def bring() -> None:
        try:
            for page in pages:
                came.put((page, None))
                if enough.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised where the pages are used
            came.put((None, error))
        else:
            came.put((None, None))

    threading.Thread(target=bring, name="weightstore-list", daemon=True).start()
    try:
        while True:
            try:
                page, error = came.get(timeout=answer_s)
            except queue.Empty:
                raise SourceUnavailable(source=place, reason="timed out", is_silent=True) from None
            if error is not None:
                raise error
            if page is None:
                return
            yield page
    finally:
        enough.set()


def read_range(obstore: Any, store: Any, key: str, start: int, end: int, *, place: str, slow_s: float) -> bytes:
    """Return a range of an object, which comes at a useful pace.

    Raises:
        SourceUnavailable: it does not.
        RefusedResponse: another range comes, or more than was asked for. What obstore raises comes through.
    """
    found = obstore.get(store, key, options={"range": (start, end)})
    if tuple(found.range) != (start, end):
        raise _another_range(place)
    return _received(found, end - start, place=place, slow_s=slow_s)


def read_whole(
    obstore: Any, store: Any, key: str, limit: int, *, place: str, slow_s: float
) -> tuple[bytes, Mapping[str, Any]]:
    """Return a small object, and what is told of it. Errors as for :func:`read_range`.

    Raises:
        RefusedResponse: it has more than ``limit`` bytes.
    """
    found = obstore.get(store, key)
    size = int(found.meta["size"])
    if size > limit:
        raise RefusedResponse(source=place, reason=f"has more than {limit} bytes")
    return _received(found, size, place=place, slow_s=slow_s), found.meta


def _received(found: Any, size: int, *, place: str, slow_s: float) -> bytes:
    pace, data = Pace(place, slow_s), bytearray()
    for piece in found.stream(min_chunk_size=1):  # what has arrived
        data += piece
        if len(data) > size:
            raise _another_range(place)
        pace.passed(len(piece))
    return bytes(data)


def _another_range(place: str) -> RefusedResponse:
    return RefusedResponse(source=place, reason="sent another range than was asked for")
