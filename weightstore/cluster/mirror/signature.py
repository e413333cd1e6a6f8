"""Signed indexes that travel with what they are about: which of two is to lie at a place, and what it covers there.

A signed index says of sources which digest they have. That is as true at one place as at another, so it is carried as
it is, and never made anew: the key stays where it is. What it may do to those who use the place is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from weightstore.errors import MissingDependency, SourceNotFound, TransferError, UntrustedIndex
from weightstore.records import timestamp
from weightstore.signing.document import SIGNATURE, SIGNED_INDEX, Statement
from weightstore.signing.signers import read_signers
from weightstore.signing.sshsig import NAMESPACE
from weightstore.signing.trusted import believed_in_hand, inside, read_documents

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from weightstore.client import Client
    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.mirror.place import Place
    from weightstore.digest import Digest
    from weightstore.signing.document import Believed, SignedIndex
    from weightstore.source import Source


@dataclass(frozen=True, slots=True)
class Coverage:
    """How what is signed and an index agree, in sources.

    Attributes:
        covered: of which both say the same digest.
        unsigned: that the index names, and of which nothing is signed.
        differing: of which something else is signed than the index says.
        absent: of which the digest is signed, and the index has no such blob.
    """

    covered: tuple[Source, ...]
    unsigned: tuple[Source, ...]
    differing: tuple[Source, ...]
    absent: tuple[Source, ...]

    @property
    def matches(self) -> bool:
        """Whether it says of each source of the index what the index says."""
        return not self.unsigned and not self.differing


def coverage(signed: SignedIndex, index: ModelIndex) -> Coverage:
    """Compare what is signed with what an index says. A source that several entries claim may be either's."""
    said, digests = signed.by_source, index.by_digest
    claims: dict[Source, set[Digest]] = {}
    for entry in index.entries:
        for source in entry.sources:
            claims.setdefault(source, set()).add(entry.digest)
    both = [source for source in claims if source in said]
    return Coverage(
        tuple(source for source in both if said[source].digest in claims[source]),
        tuple(source for source in index.by_source if source not in said),
        tuple(source for source in both if said[source].digest not in claims[source]),
        tuple(source for source, one in said.items() if source not in claims and one.digest not in digests),
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a signed index is to be carried to where another one may lie, and if not, why."""

    status: Literal["none", "carried", "present", "refused"]
    reason: str = ""


def decide(brought: Statement | None, there: Statement | None, index: ModelIndex, *, now: datetime) -> Decision:
    """Decide whether a signed index replaces what lies at a place, by the place's index as it is then.

    One that nobody would believe is not carried, nor one that is older than what users of the place have seen. The
    newer word of the same key counts, whatever it leaves out; another key's only where nothing that was vouched for
    loses its voucher.
    """
    if brought is None:
        return Decision("none")
    if there is not None and (there.document, there.signature) == (brought.document, brought.signature):
        return Decision("present")
    if brought.index.expires <= now:
        return Decision("refused", f"it expired at {timestamp(brought.index.expires)}")
    mine = coverage(brought.index, index)
    if mine.differing:
        return Decision("refused", f"it says another digest than the index there of {_some(mine.differing)}")
    if not mine.covered:
        return Decision("refused", "it says nothing of what is there")
    if there is None:
        return Decision("carried")
    if there.index.version >= brought.index.version:
        return Decision("refused", f"the one there is newer (version {there.index.version})")
    if there.key == brought.key or there.index.expires <= now:
        return Decision("carried")
    lost = [source for source in coverage(there.index, index).covered if source not in set(mine.covered)]
    if lost:
        by = f"the one there is by another key, {there.fingerprint}"
        return Decision("refused", f"{by}, and vouches for {_some(lost)}, which this one does not")
    return Decision("carried")


def _some(sources: Sequence[Source]) -> str:
    return str(sources[0]) if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more"


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of a signed index, and what lies at the place now.

    Attributes:
        decision: whether it was carried.
        lies: what lies there now; None where nothing does that belongs together.
        coverage: how that agrees with the index there; None without.
        damage: why what lies there is none, where something does.
    """

    decision: Decision
    lies: Statement | None = None
    coverage: Coverage | None = None
    damage: str = ""


def read_statement(source: Source, *, client: Client) -> Statement | None:
    """Return the signed index at a place; None where there is none. By whom it is is not asked.

    Raises:
        UntrustedIndex: the two files do not belong together.
        TransferError: it cannot be read.
        MissingDependency: cryptography is not installed.
    """
    transport = client.obtainer.transports().transport_for(source)
    documents = read_documents(source, transport=transport)
    if documents is None:
        return None
    place = inside(source, SIGNED_INDEX).display
    try:
        return Statement.read(*documents, place=place)
    except UntrustedIndex:
        again = read_documents(source, transport=transport)  # the files are replaced one after the other
        if again is None or again == documents:
            raise
        return Statement.read(*again, place=place)


def files_of(statement: Statement) -> Mapping[str, bytes]:
    """Return the files of a signed index by their names, in the order in which they are written."""
    return {SIGNED_INDEX: statement.document, SIGNATURE: statement.signature}


def carry(
    origin: Source,
    place: Place,
    index: ModelIndex,
    *,
    client: Client,
    now: datetime,
    has_to_be_believed: bool = False,
    dry_run: bool = False,
) -> Carried:
    """Bring the signed index of one place to another, if that is right, whose index is ``index`` by now.

    Who uses the place finds out by themselves whether to believe it. Where it ``has_to_be_believed``, this user does
    first, as far as the configuration names signers.

    Raises:
        TransferError, StoreError: it cannot be written.
        InvalidConfig: the file of signers cannot be used.
    """
    there, damage, is_known = _read_there(place, client)
    try:
        brought = read_statement(origin, client=client)
        if brought is not None and has_to_be_believed and client.config.allowed_signers is not None:
            _believed(origin, brought, client, now)
    except (UntrustedIndex, TransferError, MissingDependency) as error:
        decision = Decision("refused", getattr(error, "reason", "") or str(error))
    else:
        # One by a key that nobody is allowed to sign with is none that users could have seen.
        counts = there if there is not None and _may_sign(there, client) else None
        decision = decide(brought, counts, index, now=now)
        if decision.status == "carried" and not is_known:
            decision = Decision("refused", f"what lies there cannot be read: {damage}")
        if decision.status == "carried" and brought is not None:
            if not dry_run:
                place.write_beside(files_of(brought))
            there, damage = brought, ""
    return Carried(decision, there, coverage(there.index, index) if there is not None else None, damage)


def _read_there(place: Place, client: Client) -> tuple[Statement | None, str, bool]:
    """Return what lies at a place; why it is none that can be used; and whether that is known, or could not be read."""
    try:
        return read_statement(place.source, client=client), "", True
    except SourceNotFound:  # no bucket, no directory: it is about to be made
        return None, "", True
    except UntrustedIndex as error:
        return None, error.reason, True
    except (TransferError, MissingDependency) as error:
        return None, getattr(error, "reason", "") or str(error), False


@dataclass(frozen=True, slots=True)
class State:
    """What is signed at a place, as far as this user can tell.

    Attributes:
        statement: what lies there; None where it is damaged, or there is none.
        signer: whose signature it is, among those that this user allows; empty where nobody is asked about, or it is
            not believed.
        reason: why it is not believed; empty where it is, or where nobody was asked about.
        coverage: how it agrees with the place's index.
    """

    statement: Statement | None
    signer: str = ""
    reason: str = ""
    coverage: Coverage | None = None

    @property
    def is_signed(self) -> bool:
        """Whether something lies there, be it good or not."""
        return self.statement is not None or bool(self.reason)


def state_of(place: Place, index: ModelIndex, *, client: Client, now: datetime) -> State:
    """Find out what is signed at a place: by whom, until when, and whether its index says the same.

    Raises:
        InvalidConfig: the file of signers cannot be used.
    """
    statement, reason, _ = _read_there(place, client)
    if statement is None:
        return State(None, reason=reason)
    signer = ""
    if client.config.allowed_signers is not None:
        try:
            signer = _believed(place.source, statement, client, now).signer.name
        except UntrustedIndex as error:
            reason = error.reason
    elif statement.index.expires <= now:
        reason = f"it expired at {timestamp(statement.index.expires)}"
    return State(statement, signer, reason, coverage(statement.index, index))


def _may_sign(statement: Statement, client: Client) -> bool:
    """Tell whether a key is somebody's who may sign, as far as the configuration names any."""
    if client.config.allowed_signers is None:
        return True
    signers = read_signers(client.config.allowed_signers)
    return any(signer.key == statement.key and signer.may_sign(NAMESPACE) for signer in signers)


def _believed(source: Source, statement: Statement, client: Client, now: datetime) -> Believed:
    # Not read again: a mirror might give something else then than what is kept.
    allowed = client.config.allowed_signers
    return believed_in_hand(
        source,
        (statement.document, statement.signature),
        signers=read_signers(allowed) if allowed is not None else (),
        state=client.config.state,
        now=now,
    )
