"""What is to travel between a store and a mirror: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weightstore.digest import Digest, Pin
from weightstore.hub import is_commit
from weightstore.records import Ref, Wanted
from weightstore.transfer.policy import blob_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime

    from weightstore.cluster.index import IndexEntry, ModelIndex
    from weightstore.cluster.mirror.place import Outgoing
    from weightstore.source import Source


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What a push will do: ``missing`` blobs travel, ``present`` ones are in the mirror already.

    ``damaged`` are those of the missing that are in the mirror with other content.
    """

    missing: tuple[Outgoing, ...]
    present: tuple[Outgoing, ...]
    damaged: frozenset[Digest] = frozenset()

    @property
    def bytes_to_push(self) -> int:
        return sum(blob.size for blob in self.missing)


def plan_push(
    held: Iterable[Outgoing], there: Collection[Digest], damaged: Collection[Digest] = frozenset()
) -> PushPlan:
    """Decide what travels to a mirror that has some digests, some of them ``damaged``.

    One blob under several names travels once.
    """
    blobs = tuple({blob.digest: blob for blob in held}.values())
    good = set(there) - set(damaged)
    return PushPlan(
        tuple(blob for blob in blobs if blob.digest not in good),
        tuple(blob for blob in blobs if blob.digest in good),
        frozenset(damaged),
    )


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is not pulled, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """Which digest a source has by the word of a mirror that the user trusts, or of whoever has the Ed25519 ``key``.

    ``commit`` is what the revision of a file on the Hub meant, as far as the mirror tells.
    """

    source: Source
    digest: Digest
    size: int
    commit: str = ""
    key: str = ""

    def ref(self, now: datetime) -> Ref:
        """Return what is recorded of it once the blob is here, as this user's own decision."""
        return Ref(
            self.source, self.digest, self.size, now, "signed" if self.key else "adopted", self.commit, key=self.key
        )


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull will ask for, each by its full digest. ``told`` are sources whose digest somebody has to be believed.

    Of a blob that comes all of them are recorded, also those that nobody asked for: it is found by each of its names.
    ``offered`` are the entries of the mirror's index, where its word counts.
    """

    wanted: tuple[Wanted, ...]
    skipped: tuple[Skipped, ...]
    told: tuple[Told, ...] = ()
    offered: tuple[IndexEntry, ...] = ()


_UNKNOWN = (
    "its digest is not known here, and the mirror's word is not enough. Give a lockfile with --locked, name who may "
    "sign for the mirror in allowed_signers, or believe this mirror with --trust-mirror"
)
NAMELESS = (
    "no source of it is known, so that nothing but the mirror's word tells what it is. Ask for it by its digest, "
    "sha256:<64 hex>, or believe this mirror with --trust-mirror"
)


def plan_pull(
    wanted: Iterable[Wanted],
    index: ModelIndex | None,
    *,
    known: Callable[[Wanted], Digest | None],
    trusted: bool,
    room: int | None = None,
) -> PullPlan:
    """Decide what of some weights is asked of a mirror.

    ``known`` tells the digest that they have as far as this machine knows. Where it does not, the mirror's index is
    believed if it is ``trusted`` and the pin agrees. Without an ``index`` only what is known here can be asked for. A
    size beyond ``room``, in bytes, is not believed: asked for it is all the same, and the others come in any case.
    """
    by_source, by_digest = (index.by_source, index.by_digest) if index is not None else ({}, {})
    asked: dict[tuple[Source, Digest], Wanted] = {}
    skipped: list[Skipped] = []
    for one in wanted:
        digest = known(one)
        entry = by_digest.get(digest) if digest is not None else _entry_of(one, by_source)
        if digest is None:
            if entry is None:
                reason = "the mirror's index does not have it" if index is not None else _UNKNOWN
                skipped.append(Skipped(one.name, reason))
                continue
            if not one.pin.matches(entry.digest):
                reason = f"the mirror has {entry.digest} for it, and the pin is {one.pin}"
                skipped.append(Skipped(one.name, reason))
                continue
            if not trusted:
                skipped.append(Skipped(one.name, _UNKNOWN))
                continue
            digest = entry.digest
        size = one.size
        if entry is not None and not one.size_is_exact:
            size = entry.size if room is None or entry.size <= room else None
        asked.setdefault((one.source, digest), replace(one, pin=Pin.of(digest), size=size))
    return PullPlan(tuple(asked.values()), tuple(skipped))


def _entry_of(wanted: Wanted, by_source: dict[Source, IndexEntry]) -> IndexEntry | None:
    return next((by_source[source] for source in wanted.sources if source in by_source), None)


def told_by(index: ModelIndex, digests: Collection[Digest], *, pin_of: Callable[[Source], Pin]) -> tuple[Told, ...]:
    """Return all that a mirror tells of the sources of some blobs, as far as the pins of these allow it."""
    by_digest: dict[Digest, list[Source]] = {}
    for source, entry in index.by_source.items():
        if entry.digest in digests and pin_of(source).matches(entry.digest):
            by_digest.setdefault(entry.digest, []).append(source)
    sizes = {entry.digest: entry.size for entry in index.entries}
    return tuple(
        Told(source, digest, sizes[digest], commit_of(source, sources))
        for digest, sources in by_digest.items()
        for source in sources
    )


def commit_of(source: Source, others: Iterable[Source]) -> str:
    """Return the commit that a file's revision on the Hub meant: the one at which the same file is told as well."""
    asked = source.hub_file
    if asked is None or asked.is_commit:
        return asked.revision if asked is not None else ""
    same = {found.revision for other in others if (found := other.hub_file) and found.at(asked.revision) == asked}
    commits = {revision for revision in same if is_commit(revision)}
    return commits.pop() if len(commits) == 1 else ""


def wanted_of(entry: IndexEntry, mirror: Source) -> Wanted:
    """Return what an index's entry offers. Its digest is the mirror's word: the pin is that of the source's name.

    One without a source can be asked for by its digest alone, which is all that it claims.
    """
    if not entry.sources:
        return replace(wanted_of_digest(entry.digest, mirror), name=entry.name or entry.title, size=entry.size)
    # One that its own name contradicts says nothing against the others.
    sources = tuple(source for source in entry.sources if source.pin.matches(entry.digest)) or entry.sources
    return Wanted(
        entry.name or sources[0].display,
        sources[0],
        sources[0].pin,
        entry.size,
        alternatives=sources[1:],
        qualified_name=entry.name,
    )


def wanted_of_digest(digest: Digest, mirror: Source) -> Wanted:
    """Return what asks a mirror for a blob by its digest. That the mirror has it is recorded of no source."""
    return Wanted(str(digest), blob_in(mirror, digest), Pin.of(digest), is_recorded=False)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a store and a mirror have: ``here`` only, ``there`` only, and ``both``."""

    here: tuple[Outgoing, ...]
    there: tuple[IndexEntry, ...]
    both: tuple[Outgoing, ...]


def compare(held: Iterable[Outgoing], there: Collection[Digest], index: ModelIndex) -> Difference:
    """Return what is missing on which side. ``there`` are those of the held blobs that the mirror was seen to have."""
    blobs = tuple({blob.digest: blob for blob in held}.values())
    mine = {blob.digest for blob in blobs}
    return Difference(
        tuple(blob for blob in blobs if blob.digest not in there),
        tuple(entry for entry in index.entries if entry.digest not in mine),
        tuple(blob for blob in blobs if blob.digest in there),
    )
