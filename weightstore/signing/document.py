"""``signed-index.json``: which digest each source has, by the word of whoever signed it, until it expires.

A value. That the signature is good, and by somebody who may, is found out by :func:`verified`; that nothing newer was
seen from the same mirror, by :mod:`weightstore.signing.trusted`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord, UntrustedIndex
from weightstore.records import Fields, timestamp
from weightstore.signing.sshsig import NAMESPACE, BadSignature, Signature, fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weightstore.digest import Digest
    from weightstore.signing.signers import Signer
    from weightstore.source import Source

SIGNED_INDEX = "signed-index.json"
SIGNATURE = "signed-index.json.sig"
DOCUMENT_LIMIT = 64 << 20
LAST_VERSION = 1 << 53  # what every JSON reader holds exactly


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """One source, the digest and size in bytes that it is said to have, and a weights name where there is one."""

    source: Source
    digest: Digest
    size: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class SignedIndex:
    """What is signed. ``version`` grows with each one that a mirror publishes; after ``expires`` it counts no more."""

    version: int
    expires: datetime
    entries: tuple[SignedEntry, ...]

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> SignedIndex:
        """Read the document, strictly; :meth:`encode` is the inverse.

        Raises:
            InvalidRecord: with the field that is wrong.
        """
        fields = Fields(data, what="signed index", place=place, limit=DOCUMENT_LIMIT)
        if (form := fields.take("format", int)) != 1:
            raise fields.error(f"format {form}; this weightstore reads format 1")
        version, expires = fields.take("version", int), fields.take_time("expires")
        if not 0 < version <= LAST_VERSION:
            raise fields.error("'version' is not a positive number")
        entries = []
        for one in fields.take_each("entries"):
            entries.append(
                SignedEntry(
                    one.take_source("source"),
                    one.take_digest("digest"),
                    one.take_size("size_bytes"),
                    one.take("name", str),
                )
            )
            one.done()
        fields.done()
        if len({entry.source for entry in entries}) != len(entries):
            raise fields.error("a source is in it twice")
        return cls(version, expires, tuple(entries))

    def encode(self) -> bytes:
        entries = [
            {
                "source": entry.source.display,
                "digest": str(entry.digest),
                "size_bytes": entry.size,
                "name": entry.name,
            }
            for entry in sorted(self.entries, key=lambda entry: entry.source.display)
        ]
        document = {"format": 1, "version": self.version, "expires": timestamp(self.expires), "entries": entries}
        return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()

    @property
    def by_source(self) -> dict[Source, SignedEntry]:
        return {entry.source: entry for entry in self.entries}


@dataclass(frozen=True, slots=True)
class Statement:
    """A signed index as it travels: both files, what they say, and the Ed25519 key whose signature is of it.

    Whether that is anybody's key who may say such things is not asked: see :func:`verified`.
    """

    document: bytes
    signature: bytes
    index: SignedIndex
    key: bytes

    @classmethod
    def read(cls, document: bytes, signature: bytes, *, place: str) -> Statement:
        """Return both files together. Nothing of the document is parsed before its signature holds.

        Raises:
            UntrustedIndex: they do not belong together, or are damaged.
            MissingDependency: cryptography is not installed.
        """
        try:
            parsed = _parsed(signature)
            parsed.verify(document)
            return cls(document, signature, SignedIndex.parse(document, place=place), parsed.key)
        except BadSignature as error:
            raise UntrustedIndex(place=place, reason=str(error)) from None
        except InvalidRecord as error:
            raise UntrustedIndex(place=place, reason=error.reason) from None

    @property
    def fingerprint(self) -> str:
        """The key as ``ssh-keygen -l`` shows it."""
        return fingerprint(self.key)


@dataclass(frozen=True, slots=True)
class Believed:
    """A signed index that was verified, and who signed it."""

    index: SignedIndex
    signer: Signer


def verified(
    document: bytes, signature: bytes, *, signers: Sequence[Signer], now: datetime, highest: int, place: str
) -> Believed:
    """Return a signed index, if all is right with it. Nothing of the document is parsed before its signature holds.

    ``highest`` is the highest version that was seen from there; 0 where none was.

    Raises:
        UntrustedIndex: with the reason.
        MissingDependency: cryptography is not installed.
    """

    def refused(reason: str) -> UntrustedIndex:
        return UntrustedIndex(place=place, reason=reason)

    try:
        parsed = _parsed(signature)
        mine = [signer for signer in signers if signer.key == parsed.key]
        if not mine:
            raise BadSignature(f"nobody in allowed_signers has the key {parsed.fingerprint} that signed it")
        mine = [signer for signer in mine if signer.may_sign(NAMESPACE)]
        if not mine:
            raise BadSignature(f"the key {parsed.fingerprint} may not sign for {NAMESPACE!r}")
        mine = [signer for signer in mine if signer.is_valid(now)]
        if not mine:
            raise BadSignature(f"the key {parsed.fingerprint} is not valid now")
        parsed.verify(document)
        index = SignedIndex.parse(document, place=place)
    except BadSignature as error:
        raise refused(str(error)) from None
    except InvalidRecord as error:
        raise refused(error.reason) from None
    if index.expires <= now:
        raise refused(f"it expired at {timestamp(index.expires)}")
    if index.version < highest:
        raise refused(f"its version is {index.version}, and {highest} was seen before: somebody serves an old one")
    return Believed(index, mine[0])


def _parsed(signature: bytes) -> Signature:
    parsed = Signature.parse(signature)
    if parsed.namespace != NAMESPACE:
        raise BadSignature(f"it is signed for {parsed.namespace[:60]!r}, and not for {NAMESPACE!r}")
    return parsed
