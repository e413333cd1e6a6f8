"""What mirrors say of sources, as far as it is signed: read, verified, and compared with what was seen before."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord, RefusedResponse, SourceNotFound, UntrustedIndex
from weightstore.records import Fields, timestamp
from weightstore.signing.document import (
    DOCUMENT_LIMIT,
    SIGNATURE,
    SIGNED_INDEX,
    Believed,
    verified,
)
from weightstore.signing.sshsig import SIGNATURE_LIMIT
from weightstore.source import Source
from weightstore.store.layout import read_limited, write_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from weightstore.signing.signers import Signer
    from weightstore.transfer.transport import Transport

_READ_SIZE = 1 << 20
_LONGEST_S = 120.0  # for all of an index: a server that gives it byte by byte is passed over


@dataclass(frozen=True, slots=True)
class Seen:
    """The highest version of a mirror's signed index that this user has believed."""

    mirror: Source
    highest: int
    seen_at: datetime

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Seen:
        fields = Fields(data, what="record of a mirror", place=place)
        fields.take_version(1)
        seen = cls(fields.take_source("mirror"), fields.take("highest", int), fields.take_time("seen_at"))
        fields.done()
        if seen.highest < 1:
            raise fields.error("'highest' is not a version")
        return seen

    def encode(self) -> bytes:
        values = {
            "version": 1,
            "mirror": self.mirror.display,
            "highest": self.highest,
            "seen_at": timestamp(self.seen_at),
        }
        return (json.dumps(values) + "\n").encode()


def signed_index(
    mirror: Source,
    *,
    signers: Sequence[Signer],
    state: Path,
    transport: Transport,
    now: datetime,
    longest_s: float = _LONGEST_S,
) -> Believed | None:
    """Return a mirror's signed index, verified; None where the mirror has none.

    What is believed is remembered in the user's own state, so that an older one is refused from then on.

    Raises:
        UntrustedIndex: it is not to be believed.
        InvalidRecord: what was remembered is damaged.
        TransferError: the mirror cannot be read.
        MissingDependency: cryptography is not installed.
    """
    remembered = state / "mirrors" / f"{mirror.key}.json"
    highest = _highest(remembered, mirror)
    place = inside(mirror, SIGNED_INDEX).display

    def read() -> tuple[bytes, bytes] | None:
        return read_documents(mirror, transport=transport, longest_s=longest_s)

    documents = read()
    if documents is None:
        if highest:
            raise UntrustedIndex(place=place, reason="there is none, and there was one before: somebody took it away")
        return None
    try:
        believed = verified(*documents, signers=signers, now=now, highest=highest, place=place)
    except UntrustedIndex:
        again = read()  # the two files are replaced one after the other: this may have been that moment
        if again is None or again == documents:
            raise
        believed = verified(*again, signers=signers, now=now, highest=highest, place=place)
    if believed.index.version > highest:
        _remember(remembered, Seen(mirror, believed.index.version, now))
    return believed


def inside(base: Source, name: str) -> Source:
    """Return the source of a file in a mirror; the query of its URL stays at the end."""
    url, question, query = base.url.partition("?")
    return Source(f"{url.rstrip('/')}/{name}{question}{query}")


def read_documents(
    mirror: Source, *, transport: Transport, longest_s: float = _LONGEST_S
) -> tuple[bytes, bytes] | None:
    """Return a mirror's signed index and its signature as they lie there, unverified; None where it has not both.

    Raises:
        TransferError: the mirror cannot be read.
    """
    try:
        signature = _read(inside(mirror, SIGNATURE), SIGNATURE_LIMIT, transport, longest_s)
        return _read(inside(mirror, SIGNED_INDEX), DOCUMENT_LIMIT, transport, longest_s), signature
    except SourceNotFound:
        return None


def _read(source: Source, limit: int, transport: Transport, longest_s: float) -> bytes:
    ends = time.monotonic() + longest_s
    body = transport.open(source)
    try:
        pieces, size = [], 0
        while data := body.read(_READ_SIZE):
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise RefusedResponse(source=source.display, reason=f"sends more than {limit} bytes")
            if time.monotonic() > ends:
                raise RefusedResponse(source=source.display, reason=f"takes longer than {longest_s:.0f} s")
        return b"".join(pieces)
    finally:
        body.close()


def _highest(path: Path, mirror: Source) -> int:
    try:
        seen = Seen.parse(read_limited(path), place=str(path))
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise InvalidRecord(place=str(path), reason=f"cannot be read: {error.strerror}") from None
    if seen.mirror != mirror:
        raise InvalidRecord(place=str(path), reason="speaks of another mirror than its name says")
    return seen.highest


def _remember(path: Path, seen: Seen) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_record(path, seen.encode(), mode=0o600, durable=True)
    except OSError:
        pass  # a home directory that cannot be written to: then expiry alone bounds what can be replayed
