"""Which sources are asked for a blob, in which order, and why some are not: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from weightstore.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightstore.config import Step
    from weightstore.digest import Digest
    from weightstore.records import Wanted


@dataclass(frozen=True, slots=True)
class Candidate:
    """One source to ask. A mirror is asked by digest and never trusted; the origin is where the source points.

    ``mirror`` is the mirror that the source is a blob of.
    """

    kind: Literal["mirror", "origin"]
    source: Source
    mirror: Source | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """The candidates in order, and what was left out with the reason."""

    candidates: tuple[Candidate, ...]
    skipped: tuple[str, ...] = ()


def route(
    wanted: Wanted,
    *,
    digest: Digest | None,
    mirrors: Sequence[Source],
    order: Sequence[Step],
    recorded: Source | None = None,
) -> Route:
    """Decide whom to ask for a blob.

    ``digest`` is the full digest where it is known, by pin or by an earlier ref. Without it mirrors are skipped: a
    mirror is not trusted, and a prefix of a few digits can be forged. ``recorded`` is a source that a ref knows to have
    it, and is asked after those that are wanted.
    """
    candidates: list[Candidate] = []
    skipped: list[str] = []
    for step in order:
        if step == "mirrors":
            if digest is not None:
                candidates += [Candidate("mirror", blob_in(mirror, digest), mirror) for mirror in mirrors]
            else:
                known = f"only {wanted.pin}" if wanted.pin.is_pinned else "nothing of it"
                skipped += [f"mirror {mirror}: needs the full digest, and {known} is known" for mirror in mirrors]
        elif step == "origin":
            sources = wanted.sources if recorded is None else (*wanted.sources, recorded)
            candidates += [Candidate("origin", source) for source in sources]
    if "origin" not in order:
        skipped.append(f"origin {wanted.source}: left out by the configured order")
    return Route(tuple(dict.fromkeys(candidates)), tuple(skipped))


def blob_in(mirror: Source, digest: Digest) -> Source:
    """Return the source of a blob in a mirror, which is laid out like a store."""
    base, question, query = mirror.url.partition("?")
    return Source(f"{base.rstrip('/')}/blobs/sha256/{digest.hex}{question}{query}")
