"""Sending a blob: the very descriptor that was verified, by sendfile unless it is encrypted, whole or in one range."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
from typing import TYPE_CHECKING

from aiohttp import web

from weightstore.cluster.serving.figures import SENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.store.blobs import OpenBlob

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")
# What is encrypted is read in pieces of so many bytes: asyncio's own sendfile does it in 16 KiB.
_PIECE = 256 << 10
IMMUTABLE = "public, max-age=31536000, immutable"


def send_document(
    request: web.Request, body: bytes, kind: str, *, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with something small that may be another thing next time: a cache keeps it, and asks whether it still is.

    Its ETag is its digest, and ``If-None-Match`` is honoured.
    """
    etag = f"sha256:{hashlib.sha256(body).hexdigest()}"
    response = web.Response(body=body, headers={"Content-Type": kind, "Cache-Control": "no-cache", **(headers or {})})
    response.headers["ETag"] = f'"{etag}"'
    known = request.headers.get("If-None-Match")
    return response if known is None or not _names(known, etag, weakly=True) else _bare(response, 304)


async def send_blob(
    request: web.Request, blob: OpenBlob, *, etag: str, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Answer with a blob, and close it. ``etag`` is without quotes, and strong: it names the content.

    One range is honoured, several are not (RFC 9110, 14.2, lets us answer with the whole). ``If-None-Match``,
    ``If-Match`` and ``If-Range`` are compared with the ETag; dates say nothing about what is named by its content.
    """
    with blob:
        size = blob.size
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "ETag": f'"{etag}"',
                "Accept-Ranges": "bytes",
                "Cache-Control": IMMUTABLE,
                **(headers or {}),
            }
        )
        asked = request.headers
        if "If-Match" in asked and not _names(asked["If-Match"], etag, weakly=False):
            return _bare(response, 412)
        if "If-None-Match" in asked and _names(asked["If-None-Match"], etag, weakly=True):
            return _bare(response, 304)
        span = _range(asked.get("Range", ""), size)
        if span is not None and asked.get("If-Range", f'"{etag}"').strip() != f'"{etag}"':
            span = None
        if span is not None and not span:
            response.headers["Content-Range"] = f"bytes */{size}"
            return _bare(response, 416)
        if span is not None:
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
        span = range(size) if span is None else span
        response.content_length = len(span)
        await response.prepare(request)
        if request.method != "HEAD" and span:
            if request.secure:
                await _send_encrypted(response, blob, span)
            else:
                await _send(request, blob, span)
        await response.write_eof()
        return response


async def _send(request: web.Request, blob: OpenBlob, span: range) -> None:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client left")
    with io.FileIO(blob.fd, "rb", closefd=False) as file:
        try:
            # The kernel copies from the page cache to the socket.
            sent = await asyncio.get_running_loop().sendfile(transport, file, span.start, len(span))
        except RuntimeError:
            if not transport.is_closing():
                raise
            raise ConnectionResetError("the client left") from None
        finally:
            # sendfile leaves the position behind what was sent, whether it came to its end or not.
            SENT.set(max(0, os.lseek(blob.fd, 0, os.SEEK_CUR) - span.start))
    if sent != len(span):  # somebody shortened the file meanwhile: the next answer must not pass for its end
        transport.abort()
        raise ConnectionResetError("the file is shorter than it was")


async def _send_encrypted(response: web.StreamResponse, blob: OpenBlob, span: range) -> None:
    loop = asyncio.get_running_loop()
    position = span.start
    while position < span.stop:
        piece = await loop.run_in_executor(None, os.pread, blob.fd, min(_PIECE, span.stop - position), position)
        if not piece:
            raise ConnectionResetError("the file is shorter than it was")
        await response.write(piece)
        position += len(piece)
        SENT.set(position - span.start)


def _bare(response: web.StreamResponse, status: int) -> web.Response:
    kept = {name: value for name, value in response.headers.items() if name != "Content-Type"}
    return web.Response(status=status, headers=kept)


def _names(field: str, etag: str, *, weakly: bool) -> bool:
    """Tell whether a list of ETags, or ``*``, names this one."""
    given = [one.strip() for one in field.split(",")]
    if weakly:
        given = [one.removeprefix("W/") for one in given]
    return "*" in given or f'"{etag}"' in given


def _range(field: str, size: int) -> range | None:
    """Return the offsets that are asked for: an empty range where there are none such, None for the whole."""
    match = _RANGE.fullmatch(field.strip())
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return range(max(0, size - int(suffix)), size) if int(suffix) else range(0)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)
