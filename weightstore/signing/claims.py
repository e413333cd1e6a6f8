"""What somebody signed of one source, remembered in the user's own state until it expires.

So that a mirror need not be asked again for what it has told, offline too. Once the blob is here, it is a ref of the
store, and no longer bound to the index's expiry.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord
from weightstore.records import Fields, Ref, timestamp
from weightstore.signing.document import LAST_VERSION, SignedEntry
from weightstore.signing.signers import allowed
from weightstore.signing.sshsig import NAMESPACE
from weightstore.store.layout import read_limited, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from weightstore.signing.signers import Signer
    from weightstore.source import Source

_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Claim:
    """One entry of a signed index, until when it is believed, the Ed25519 key that signed it, and the index's version.

    What was remembered before versions were has 0, which is older than any.
    """

    entry: SignedEntry
    expires: datetime
    key: bytes
    version: int = 0

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Claim:
        fields = Fields(data, what="record of what was signed", place=place)
        fields.take_version(1)
        entry = SignedEntry(
            fields.take_source("source"),
            fields.take_digest("digest"),
            fields.take_size("size_bytes"),
            fields.take("name", str),
        )
        expires, key = fields.take_time("expires"), fields.take("key", str)
        version = fields.take("index_version", int) if "index_version" in fields.values else 0
        fields.done()
        if not _KEY.fullmatch(key):
            raise fields.error("'key' is not an Ed25519 key")
        if not 0 <= version <= LAST_VERSION:
            raise fields.error("'index_version' is not that of an index")
        return cls(entry, expires, bytes.fromhex(key), version)

    def encode(self) -> bytes:
        entry = self.entry
        values = {
            "version": 1,
            "source": entry.source.display,
            "digest": str(entry.digest),
            "size_bytes": entry.size,
            "name": entry.name,
            "expires": timestamp(self.expires),
            "key": self.key.hex(),
            "index_version": self.version,
        }
        return (json.dumps(values, ensure_ascii=False) + "\n").encode()

    def ref(self, now: datetime) -> Ref:
        """Return what is recorded of its source once the blob is here, at ``now``, when it is believed."""
        entry = self.entry
        return Ref(entry.source, entry.digest, entry.size, now, "signed", key=self.key.hex())

    def signer(self, signers: Sequence[Signer], now: datetime) -> Signer | None:
        """Return whose word it is, if it counts now: it has not expired, and its key is still one that may sign."""
        return allowed(signers, self.key, now, namespace=NAMESPACE) if now < self.expires else None


def remember(state: Path, claim: Claim) -> None:
    """Keep a claim. Where the state cannot be written, the mirror is asked again next time."""
    path = _path(state, claim.entry.source)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_record(path, claim.encode(), mode=0o600)
    except OSError:
        pass


def recall(state: Path, source: Source) -> Claim | None:
    """Return what is remembered of a source, or None where nothing is; whether it is believed is the caller's to ask.

    Raises:
        InvalidRecord: it is damaged, or speaks of another source than its name says.
    """
    path = _path(state, source)
    try:
        data = read_limited(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidRecord(place=str(path), reason=f"cannot be read: {error.strerror}") from None
    claim = Claim.parse(data, place=str(path))
    if claim.entry.source != source:
        raise InvalidRecord(place=str(path), reason="speaks of another source than its name says")
    return claim


def recall_all(state: Path, *, note: Callable[[str], None]) -> list[Claim]:
    """Return all that is remembered, the newest index's first; what is damaged is noted and left out."""
    try:
        paths = sorted((state / "signed").glob("*.json"))
    except OSError:
        return []
    found = []
    for path in paths:
        try:
            claim = Claim.parse(read_limited(path), place=str(path))
        except InvalidRecord as damage:
            note(str(damage))
            continue
        except OSError:
            continue  # forgotten by another process just now, or not ours to read
        if _path(state, claim.entry.source) == path:
            found.append(claim)
    return sorted(found, key=lambda claim: claim.version, reverse=True)


def forget(state: Path, source: Source) -> None:
    """Keep nothing of a source any more. Where the state cannot be written, the mirrors are asked again next time."""
    with contextlib.suppress(OSError):
        _path(state, source).unlink()


def _path(state: Path, source: Source) -> Path:
    return state / "signed" / f"{source.key}.json"
