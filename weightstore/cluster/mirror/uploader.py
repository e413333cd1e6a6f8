"""One blob on its way to a registry: in pieces, on the same way after a cut, and anew where the registry lost it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.cluster.mirror.place import Chunks
from weightstore.errors import (
    AccessDenied,
    Cancelled,
    DigestMismatch,
    RefusedResponse,
    SourceNotFound,
    SourceUnavailable,
    TransferError,
)
from weightstore.records import MAX_SIZE
from weightstore.transfer.registry import expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightstore.cluster.mirror.uploads import KeptUpload
    from weightstore.digest import Digest
    from weightstore.source import Source
    from weightstore.transfer.http import Reply
    from weightstore.transfer.registry import Registry
    from weightstore.transfer.retry import RetryPolicy

# So much is held in memory for each upload, and sent again where a connection breaks.
PIECE = 16 << 20


@dataclass(slots=True)
class _Upload:
    """An upload under way: where it goes on, and how many bytes the registry has of it.

    ``is_doubtful`` says that it was broken off at some time: that the registry may not know it any more.
    """

    place: str
    arrived: int = 0
    is_doubtful: bool = False


class Uploader:
    """Brings blobs to a repository. ``has`` tells whether it has one."""

    def __init__(
        self, source: Source, registry: Registry, *, mount_from: str, retry: RetryPolicy, has: Callable[[Digest], bool]
    ) -> None:
        self._source = source
        self._registry = registry
        self._mount_from = mount_from
        self._retry = retry
        self._has = has

    def upload(self, digest: Digest, chunks: Iterable[bytes], kept: KeptUpload | None = None) -> None:
        """Bring a blob there, in pieces. The registry itself compares the digest before it takes the whole.

        An upload that the registry has lost, as some do whenever a connection breaks, is begun anew.
        """
        upload = self._kept(kept, chunks) or self._begun(digest)
        attempt = 0
        while upload is not None:
            try:
                self._send(upload, digest, _since(chunks, upload.arrived), kept)
            except (SourceNotFound, RefusedResponse) as error:
                attempt += 1
                if not upload.is_doubtful or attempt > self._retry.attempts:
                    self._take_back(upload, kept)
                    raise
                unavailable = SourceUnavailable(source=self._source.display, reason=error.reason)
                time.sleep(self._retry.delay_s(attempt, unavailable))
                upload = self._begun(digest)
            except (SourceUnavailable, AccessDenied, Cancelled, KeyboardInterrupt):
                if kept is None or not kept.location:  # else the next push goes on with it
                    self._take_back(upload, kept)
                raise
            except BaseException:
                self._take_back(upload, kept)
                raise
            else:
                break
        if kept is not None:
            kept.discard()

    def _kept(self, kept: KeptUpload | None, chunks: Iterable[bytes]) -> _Upload | None:
        """Return the upload that an earlier push left, or None where the registry does not have it any more."""
        if kept is None or not kept.location or not isinstance(chunks, Chunks):
            return None
        upload = _Upload(kept.location, is_doubtful=True)
        try:
            self._look(upload)
        except TransferError:
            return None
        return upload if upload.arrived <= chunks.size else None

    def _begun(self, digest: Digest) -> _Upload | None:
        """Return a new upload, or None where the registry has the blob in the repository that it may be taken from."""
        mount = f"?mount={digest}&from={self._mount_from}" if self._mount_from else ""
        started = self._registry.ask(
            self._source, f"blobs/uploads/{mount}", method="POST", body=b"", writes=True, mounts=self._mount_from
        )
        expect(started, self._source, 202, 201)
        if started.status == 202:
            return _Upload(_location(started, self._source))
        compare(started, digest, self._source)
        return None

    def _take_back(self, upload: _Upload, kept: KeptUpload | None) -> None:
        with contextlib.suppress(TransferError):  # else the registry forgets it by itself, later
            self._registry.ask(self._source, upload.place, method="DELETE", writes=True)
        if kept is not None:
            kept.discard()

    def _send(self, upload: _Upload, digest: Digest, chunks: Iterable[bytes], kept: KeptUpload | None) -> None:
        if kept is not None:
            kept.keep(upload.place)
        for piece, is_last in _pieces(chunks):
            if is_last:
                self._finish(upload, digest, piece)
                return
            self._patch(upload, piece)
            if kept is not None:
                kept.keep(upload.place)

    def _patch(self, upload: _Upload, piece: bytes) -> None:
        """Send a piece, and again what of it did not arrive."""
        begin, attempt, is_sure = upload.arrived, 0, True
        while upload.arrived < begin + len(piece) or not is_sure:
            rest = piece[upload.arrived - begin :]
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{upload.arrived}-{upload.arrived + len(rest) - 1}",
            }
            try:
                if not is_sure:
                    self._look(upload)
                    if not begin <= upload.arrived <= begin + len(piece):
                        raise RefusedResponse(source=self._source.display, reason="has lost a part of an upload")
                    is_sure = True
                    continue
                reply = self._registry.ask(
                    self._source, upload.place, method="PATCH", headers=headers, body=rest, writes=True
                )
            except SourceUnavailable as error:
                attempt += 1
                if attempt > self._retry.attempts:
                    raise
                upload.is_doubtful, is_sure = True, False
                time.sleep(self._retry.delay_s(attempt, error))
                continue
            expect(reply, self._source, 202)
            upload.place, upload.arrived = _location(reply, self._source), upload.arrived + len(rest)

    def _look(self, upload: _Upload) -> None:
        """Ask where an upload goes on, and how many bytes of it the registry has."""
        reply = self._registry.ask(self._source, upload.place, writes=True)
        expect(reply, self._source, 204)
        first, dash, last = reply.field("Range").removeprefix("bytes=").partition("-")
        if first != "0" or not dash or not last.isascii() or not last.isdigit() or len(last) > len(str(MAX_SIZE)):
            raise RefusedResponse(source=self._source.display, reason="does not say how much of an upload it has")
        upload.place = reply.field("Location") or upload.place
        upload.arrived = int(last) + 1 if int(last) else 0  # of one byte and of none registries say the same

    def _finish(self, upload: _Upload, digest: Digest, last: bytes) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        if upload.arrived and last:
            self._patch(upload, last)
            last = b""
        try:
            reply = self._registry.ask(
                self._source,
                f"{upload.place}{'&' if '?' in upload.place else '?'}digest={digest}",
                method="PUT",
                headers=headers,
                body=last,
                writes=True,
            )
        except SourceUnavailable:
            if self._has(digest):  # only its answer was lost
                return
            raise
        expect(reply, self._source, 201)
        compare(reply, digest, self._source)


def compare(reply: Reply, digest: Digest, source: Source) -> None:
    """Make sure that a registry took what was meant.

    Raises:
        DigestMismatch: it says another digest.
    """
    told = reply.field("Docker-Content-Digest")
    if told and told != str(digest):
        raise DigestMismatch(source=source.display, expected=str(digest), actual=told[:100])


def _since(chunks: Iterable[bytes], offset: int) -> Iterable[bytes]:
    return chunks.since(offset) if isinstance(chunks, Chunks) else chunks


def _pieces(chunks: Iterable[bytes]) -> Iterable[tuple[bytes, bool]]:
    """Yield chunks joined to pieces, each with whether it is the last."""
    held = bytearray()
    for chunk in chunks:
        if len(held) >= PIECE:
            yield bytes(held), False
            held.clear()
        held += chunk
    yield bytes(held), True


def _location(reply: Reply, source: Source) -> str:
    place = reply.field("Location")
    if not place:
        raise RefusedResponse(source=source.display, reason="does not say where an upload goes")
    return place
