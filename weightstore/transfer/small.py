"""Small files that are needed whole, such as a mirror's index: never more of them than expected, nor for longer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from weightstore.errors import RefusedResponse
from weightstore.transfer.pace import Pace

if TYPE_CHECKING:
    from weightstore.source import Source
    from weightstore.transfer.transport import Body, Transport

SLOW_S = 30.0
LONGEST_S = 120.0
_READ_SIZE = 1 << 20


def read_small(
    transport: Transport, source: Source, limit: int, *, slow_s: float = SLOW_S, longest_s: float = LONGEST_S
) -> bytes:
    """Return the content of a small file.

    Args:
        transport: what reads the source.
        source: where the file is.
        limit: so many bytes it may have.
        slow_s: within so long it has to come at a useful pace.
        longest_s: so long it may take in all.

    Raises:
        RefusedResponse: it is larger, or takes longer.
        TransferError: it cannot be read.
    """
    body = transport.open(source)
    try:
        return read_whole(body, source, limit, slow_s=slow_s, longest_s=longest_s)
    finally:
        body.close()


def read_whole(body: Body, source: Source, limit: int, *, slow_s: float, longest_s: float = LONGEST_S) -> bytes:
    """Return all of an open body. It is not closed. Arguments and errors are those of :func:`read_small`."""
    too_large = RefusedResponse(source=source.display, reason=f"sends more than {limit} bytes")
    if body.answer.total is not None and body.answer.total > limit:
        raise too_large
    ends, pace = time.monotonic() + longest_s, Pace(source.display, slow_s)
    pieces, size = [], 0
    while data := body.read(_READ_SIZE):
        pieces.append(data)
        size += len(data)
        if size > limit:
            raise too_large
        if time.monotonic() > ends:
            raise RefusedResponse(source=source.display, reason=f"takes longer than {longest_s:.0f} s")
        pace.passed(len(data))
    return b"".join(pieces)
