"""What mirrors say of sources, as far as it is signed: read, verified, and compared with what was seen before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord, SourceNotFound, UntrustedIndex
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
from weightstore.transfer.small import LONGEST_S, SLOW_S, read_small

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from weightstore.signing.signers import Signer
    from weightstore.transfer.transport import Transport


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
    slow_s: float = SLOW_S,
    longest_s: float = LONGEST_S,
) -> Believed | None:
    """Return a mirror's signed index, verified; None where the mirror has none.

    What is believed is remembered in the user's own state, so that an older one is refused from then on. Each of its
    files has to come at a useful pace within ``slow_s`` seconds, and whole within ``longest_s``.

    Raises:
        UntrustedIndex: it is not to be believed.
        InvalidRecord: what was remembered is damaged.
        TransferError: the mirror cannot be read.
        MissingDependency: cryptography is not installed.
    """
    highest = _highest(_path(state, mirror), mirror)
    place = inside(mirror, SIGNED_INDEX).display

    def read() -> tuple[bytes, bytes] | None:
        return read_documents(mirror, transport=transport, slow_s=slow_s, longest_s=longest_s)

    documents = read()
    if documents is None:
        if highest:
            raise UntrustedIndex(place=place, reason="there is none, and there was one before: somebody took it away")
        return None
    try:
        return believed_in_hand(mirror, documents, signers=signers, state=state, now=now)
    except UntrustedIndex:
        again = read()  # the two files are replaced one after the other: this may have been that moment
        if again is None or again == documents:
            raise
        return believed_in_hand(mirror, again, signers=signers, state=state, now=now)


def believed_in_hand(
    mirror: Source, documents: tuple[bytes, bytes], *, signers: Sequence[Signer], state: Path, now: datetime
) -> Believed:
    """Return what a mirror's signed index and its signature say that were read already, verified and remembered.

    Raises:
        UntrustedIndex: it is not to be believed.
        InvalidRecord: what was remembered is damaged.
        MissingDependency: cryptography is not installed.
    """
    remembered = _path(state, mirror)
    highest = _highest(remembered, mirror)
    place = inside(mirror, SIGNED_INDEX).display
    believed = verified(*documents, signers=signers, now=now, highest=highest, place=place)
    if believed.index.version > highest:
        _remember(remembered, Seen(mirror, believed.index.version, now))
    return believed


def inside(base: Source, name: str) -> Source:
    """Return the source of a file in a mirror; the query of its URL stays at the end."""
    url, question, query = base.url.partition("?")
    return Source(f"{url.rstrip('/')}/{name}{question}{query}")


def read_documents(
    mirror: Source, *, transport: Transport, slow_s: float = SLOW_S, longest_s: float = LONGEST_S
) -> tuple[bytes, bytes] | None:
    """Return a mirror's signed index and its signature as they lie there, unverified; None where it has not both.

    Raises:
        TransferError: the mirror cannot be read.
    """

    def read(name: str, limit: int) -> bytes:
        return read_small(transport, inside(mirror, name), limit, slow_s=slow_s, longest_s=longest_s)

    try:
        signature = read(SIGNATURE, SIGNATURE_LIMIT)
        return read(SIGNED_INDEX, DOCUMENT_LIMIT), signature
    except SourceNotFound:
        return None


def _path(state: Path, mirror: Source) -> Path:
    return state / "mirrors" / f"{mirror.key}.json"


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
