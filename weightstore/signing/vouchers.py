"""Which digest a source has by the signed indexes of the configured mirrors: asked of them, or remembered."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.digest import Pin
from weightstore.errors import InvalidInput, InvalidRecord, MissingDependency, UntrustedIndex, WeightStoreError
from weightstore.records import Wanted, timestamp
from weightstore.signing.claims import Claim, forget, recall, recall_all, remember
from weightstore.signing.names import called, matches
from weightstore.signing.signers import allowed, read_signers
from weightstore.signing.sshsig import NAMESPACE
from weightstore.signing.trusted import signed_index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from weightstore.config import Config
    from weightstore.digest import Digest
    from weightstore.signing.document import Believed, SignedEntry
    from weightstore.signing.signers import Signer
    from weightstore.source import Source
    from weightstore.transfer.health import Health
    from weightstore.transfer.transport import Transport

_OFFLINE = "not asked: offline"
_FRESH_S = 300.0  # so long a process goes by what it has read


@dataclass(frozen=True, slots=True)
class Word:
    """What one signed index says of some weights.

    Attributes:
        mirror: whose index it is; None for one that was read earlier, and is remembered.
        signer: who signed it; empty where that is not believed.
        expires: until when it counts; None likewise.
        claim: what it says, also where the caller's pin does not agree; None where it says nothing.
        agrees: whether the claim is something that the caller's pin and size allow.
        reason: why it is not to be had, or not believed; empty where there is none.
    """

    mirror: Source | None
    signer: str = ""
    expires: datetime | None = None
    claim: Claim | None = None
    agrees: bool = False
    reason: str = ""

    def told(self, wanted: Wanted) -> str:
        """Return what it says of some weights, in words."""
        if self.expires is None:
            return self.reason or "there is none"
        signed = f"signed by {self.signer}, valid until {timestamp(self.expires)}"
        if self.claim is None:
            return f"{signed}, says nothing of it"
        entry = self.claim.entry
        said = f"{signed}, says {entry.digest}"
        if self.agrees:
            return said
        size = f" of {wanted.exact_size} bytes" if wanted.exact_size is not None else ""
        return f"{said} of {entry.size} bytes, and wanted is {wanted.pin}{size}"


@dataclass(frozen=True, slots=True)
class _Heard:
    """What was read of a mirror."""

    mirror: Source
    believed: Believed | None
    entries: Mapping[Source, SignedEntry]
    reason: str = ""
    is_passed_over: bool = False


class Vouchers:
    """Those whom a user allows to say which digest a source has. Safe to use from many threads."""

    def __init__(
        self,
        config: Config,
        *,
        allowed_signers: Path,
        transport_for: Callable[[Source], Transport],
        health: Health,
        note: Callable[[str], None],
    ) -> None:
        """Nothing is read yet. A mirror whose index is not believed is noted, and says nothing."""
        mirrors = config.mirrors if "mirrors" in config.order else ()
        self._mirrors = [mirror for mirror in mirrors if mirror.scheme == "file" or not config.offline]
        self._not_asked = [mirror for mirror in mirrors if mirror not in self._mirrors]
        self._asks_origin = "origin" in config.order and not config.offline
        self._wants_pins = config.trust == "pinned"
        self._allowed_signers = allowed_signers
        self._state = config.state
        self._slow_s = config.read_timeout_s
        self._health = health
        self._transport_for = transport_for
        self._note = note
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._heard: list[_Heard] = []

    def remembered(self, wanted: Wanted, *, newest: Mapping[bytes, int] | None = None) -> Word | None:
        """Return what was once signed of some weights, while it is believed and agrees. Opens no socket.

        Not what a key says no more, whose ``newest`` known index is no older than that.

        Raises:
            InvalidConfig: the file of signers cannot be used.
        """
        for claim in self._recalled(wanted):
            if _is_over(claim, newest or {}) or not _agree(wanted, claim):
                continue
            signer = claim.signer(read_signers(self._allowed_signers), datetime.now(UTC))
            if signer is not None:
                return Word(None, signer.name, claim.expires, claim, agrees=True)
        return None

    def _recalled(self, wanted: Wanted) -> list[Claim]:
        found = []
        for source in wanted.sources:
            try:
                claim = recall(self._state, source)
            except InvalidRecord as damage:
                self._note(str(damage))
                continue
            if claim is not None:
                found.append(claim)
        return found

    def ask(self, wanted: Wanted, *, remembering: bool = True) -> Word | None:
        """Return what the mirrors' signed indexes say of some weights, the first that agrees, and remember it.

        Of two indexes of one key the newer one counts, be it of a mirror that lags behind, or remembered of one that is
        down. Where no mirror says anything, what is remembered counts, but for what a key has taken back by an index
        that was read just now and is no older.

        Raises:
            InvalidConfig: the file of signers cannot be used.
            MissingDependency: cryptography is not installed.
        """
        words, earlier = self._asked(wanted)
        said = [word.claim for word in words if word.agrees and word.claim is not None]
        newest = self._newest()
        if said:
            claim = max((one for one in said if one.key == said[0].key), key=lambda one: one.version)
            if earlier is not None and earlier.claim is not None and _follows(earlier.claim, claim):
                return earlier
            if remembering:
                remember(self._state, claim)
            return next(word for word in words if word.claim == claim)
        for claim in self._recalled(wanted):
            if _is_over(claim, newest) and remembering and _agree(wanted, claim):
                forget(self._state, claim.entry.source)
        return earlier

    def _asked(self, wanted: Wanted) -> tuple[list[Word], Word | None]:
        """Return what mirrors say of some weights, and what is remembered.

        Those that did not answer a moment ago are asked only where nobody else can tell the digest.
        """
        words = self.words(wanted)
        earlier = self.remembered(wanted, newest=self._newest())
        passed_over = [heard for heard in self._listen() if heard.is_passed_over]
        if not passed_over or any(word.agrees for word in words):
            return words, earlier
        is_told_by_origin = self._asks_origin and (wanted.pin.is_pinned or not self._wants_pins)
        if earlier is not None or is_told_by_origin:
            for heard in passed_over:
                self._note(
                    f"the signed index of mirror {heard.mirror} was {heard.reason}. To ask it all the same: "
                    "WEIGHTSTORE_ORDER=layers,mirrors"
                )
            return words, earlier
        self._listen(everybody=True)
        return self.words(wanted), self.remembered(wanted, newest=self._newest())

    def _newest(self) -> dict[bytes, int]:
        """Return the version of the newest index of each key that was read just now and has not expired."""
        now = datetime.now(UTC)
        newest: dict[bytes, int] = {}
        for one in self._listen():
            if one.believed is not None and now < one.believed.index.expires:
                key = one.believed.signer.key
                newest[key] = max(one.believed.index.version, newest.get(key, 0))
        return newest

    def words(self, wanted: Wanted) -> list[Word]:
        """Return what each mirror says of some weights, in the mirrors' order. Errors as for :meth:`ask`."""
        heard = self._listen()
        now = datetime.now(UTC)
        skipped = [Word(mirror, reason=_OFFLINE) for mirror in self._not_asked]
        return [*(_word(one, wanted, now) for one in heard), *skipped]

    def claims_of(self, digest: Digest) -> list[Claim]:
        """Return which sources the mirrors' signed indexes say to have a digest. Errors as for :meth:`ask`."""
        now = datetime.now(UTC)
        return [claim for heard in self._listen() for claim in _claims(heard, now) if claim.entry.digest == digest]

    def recalled_names(self, name: str) -> list[Claim]:
        """Return what is remembered under a weights name, whether it counts still or not. Opens no socket."""
        return [claim for claim in recall_all(self._state, note=self._note) if matches(name, claim.entry.name)]

    def signer_of(self, claim: Claim) -> Signer | None:
        """Return whose word a claim is, expired or not, while that key may sign."""
        return allowed(read_signers(self._allowed_signers), claim.key, datetime.now(UTC), namespace=NAMESPACE)

    def named(self, name: str) -> list[Claim]:
        """Return what a weights name means by the mirrors' signed indexes, or by what is remembered; and remember it.

        Mirrors come before memory and in their order, and of one key the newer index counts, as for :meth:`ask`. What a
        key has taken back by an index that was read just now does not.

        Raises:
            UnknownName: the name has no namespace, and several have it.
            InvalidConfig: the file of signers cannot be used.
        """
        found = self._called(name)
        if not found:
            self._listen(everybody=True)  # nobody else can tell it
            found = self._called(name)
        for claim in found:
            earlier = self._recalled(Wanted(claim.entry.name, claim.entry.source, Pin()))
            if not any(one == claim or _follows(one, claim) for one in earlier):
                remember(self._state, claim)
        return found

    def _called(self, name: str) -> list[Claim]:
        now = datetime.now(UTC)
        said = [claim for heard in self._listen() for claim in _claims(heard, now)]
        newest, signers = self._newest(), read_signers(self._allowed_signers)
        remembered = [
            claim
            for claim in self.recalled_names(name)
            if not _is_over(claim, newest) and claim.signer(signers, now) is not None
        ]
        return called(name, [*said, *remembered])

    def complaints(self) -> list[str]:
        """Return why mirrors say nothing: what is not believed or not to be had, and who was not asked."""
        heard = [f"mirror {one.mirror}: {one.reason}" for one in self._listen() if one.reason]
        return [*heard, *(f"mirror {mirror}: {_OFFLINE}" for mirror in self._not_asked)]

    def _listen(self, *, everybody: bool = False) -> list[_Heard]:
        """Return what the mirrors' indexes say; of those that did not answer a moment ago only for ``everybody``."""
        with self._lock:
            if self._read_at is None or time.monotonic() - self._read_at > _FRESH_S:
                signers = read_signers(self._allowed_signers)
                self._heard = [self._passed_over(mirror) or self._read(mirror, signers) for mirror in self._mirrors]
                self._read_at = time.monotonic()
            if everybody and any(one.is_passed_over for one in self._heard):
                signers = read_signers(self._allowed_signers)
                self._heard = [self._read(one.mirror, signers) if one.is_passed_over else one for one in self._heard]
            return self._heard

    def _passed_over(self, mirror: Source) -> _Heard | None:
        silent_s = self._health.silent_for_s(mirror)
        if silent_s is None:
            return None
        return _Heard(mirror, None, {}, f"not asked: it did not answer {silent_s:.0f} s ago", is_passed_over=True)

    def _read(self, mirror: Source, signers: Sequence[Signer]) -> _Heard:
        try:
            believed = signed_index(
                mirror,
                signers=signers,
                state=self._state,
                transport=self._transport_for(mirror),
                now=datetime.now(UTC),
                slow_s=self._slow_s,
            )
        except InvalidInput:
            raise  # ours to mend, and not the mirror's fault
        except WeightStoreError as error:
            if isinstance(error, MissingDependency) and error.extra == "sign":
                raise  # without it no signature can be verified
            if self._health.failed(mirror, error):
                self._note(f"what mirror {mirror} says of sources is passed over: {error}")
            what = "not believed" if isinstance(error, UntrustedIndex) else "cannot be read"
            return _Heard(mirror, None, {}, f"{what}: {getattr(error, 'reason', '') or error}")
        return _Heard(mirror, believed, believed.index.by_source if believed is not None else {})


def _claims(heard: _Heard, now: datetime) -> list[Claim]:
    """Return all that an index says which has not expired."""
    believed = heard.believed
    if believed is None or believed.index.expires <= now:
        return []
    key, version = believed.signer.key, believed.index.version
    return [Claim(entry, believed.index.expires, key, version) for entry in heard.entries.values()]


def _word(heard: _Heard, wanted: Wanted, now: datetime) -> Word:
    believed = heard.believed
    if believed is None:
        return Word(heard.mirror, reason=heard.reason)
    expires = believed.index.expires
    if expires <= now:
        return Word(heard.mirror, reason=f"not believed: it expired at {timestamp(expires)}")
    said = [heard.entries[source] for source in wanted.sources if source in heard.entries]
    claims = [Claim(entry, expires, believed.signer.key, believed.index.version) for entry in said]
    agreeing = next((claim for claim in claims if _agree(wanted, claim)), None)
    claim = agreeing or (claims[0] if claims else None)
    return Word(heard.mirror, believed.signer.name, expires, claim, agrees=agreeing is not None)


def _agree(wanted: Wanted, claim: Claim) -> bool:
    """Tell whether what was signed is something that the caller's pin and size allow."""
    return wanted.pin.matches(claim.entry.digest) and wanted.exact_size in {None, claim.entry.size}


def _is_over(claim: Claim, newest: Mapping[bytes, int]) -> bool:
    """Tell whether a key has signed an index that is no older than what is remembered of it."""
    return claim.key in newest and claim.version <= newest[claim.key]


def _follows(claim: Claim, other: Claim) -> bool:
    return claim.key == other.key and claim.version > other.version
