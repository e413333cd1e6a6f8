"""What a file's content may be held against, and what follows: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from weightstore.digest import Digest, Pin, pin_in_file_name
from weightstore.interop.views.layouts import torch_hub_name
from weightstore.source import Source, parse_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightstore.catalog.entries import Catalog
    from weightstore.catalog.lockfile import Lockfile
    from weightstore.interop.adopting.caches import Candidate
    from weightstore.records import Ref

# OpenAI's checkpoints of CLIP: https://github.com/openai/CLIP, clip/clip.py. Their URLs contain their digests.
_CLIP = "https://openaipublic.azureedge.net/clip/models"
_CLIP_FILES = {
    "RN50.pt": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101.pt": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4.pt": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    "RN50x16.pt": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64.pt": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    "ViT-B-32.pt": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B-16.pt": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L-14.pt": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "ViT-L-14-336px.pt": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
}

Answer: TypeAlias = Literal["proven", "refuted", "unproven"]


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody's word that files of one name have a digest. ``by`` says whose, as in "… says".

    A claim about content alone, and not about a name, proves and never refutes.
    """

    by: str
    pin: Pin
    source: Source | None = None
    is_about_name: bool = True


def _clip_claim(name: str) -> Claim:
    pin = Pin(_CLIP_FILES[name])
    return Claim("OpenAI's URL", pin, Source(f"{_CLIP}/{pin.hex}/{name}"), is_about_name=False)


@dataclass(frozen=True, slots=True)
class Known:
    """All claims, by the file name that they speak of, and by digest."""

    by_name: Mapping[str, tuple[Claim, ...]]
    by_digest: Mapping[Digest, tuple[Claim, ...]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be thought of a file: ``by`` proved it, or ``reason`` says why it is left.

    ``sources`` are where the same content comes from.
    """

    answer: Answer
    by: str = ""
    reason: str = ""
    sources: tuple[Source, ...] = ()


def gather_claims(catalogs: Iterable[Catalog], refs: Iterable[Ref], lockfiles: Mapping[str, Lockfile]) -> Known:
    """Return what catalogs, the store's own refs and lockfiles claim. ``lockfiles`` are by what to call them."""
    named: dict[str, list[Claim]] = {}
    digests: dict[Digest, list[Claim]] = {}

    def add(claim: Claim) -> None:
        if claim.source is not None and claim.source.scheme in {"https", "http"} and claim.is_about_name:
            named.setdefault(torch_hub_name(claim.source), []).append(claim)
        if (digest := claim.pin.digest) is not None:
            digests.setdefault(digest, []).append(claim)

    for name in _CLIP_FILES:
        add(_clip_claim(name))  # of content alone: others have files called RN50.pt as well
    for catalog in catalogs:
        for entry in catalog.entries():
            add(Claim(f"the catalog ({entry.name})", entry.pin, entry.source))
            for source in entry.alternatives:
                add(Claim(f"the catalog ({entry.name})", entry.pin, source))
            for source, pin in map(parse_source, entry.shards):
                add(Claim(f"the catalog ({entry.name})", pin, source))
    for ref in refs:
        add(Claim("an earlier download", Pin.of(ref.digest), ref.source))
    for place, lockfile in lockfiles.items():
        for locked in lockfile.entries:
            add(Claim(place, Pin.of(locked.digest), locked.source))
    return Known(
        {name: tuple(claims) for name, claims in named.items()},
        {digest: tuple(claims) for digest, claims in digests.items()},
    )


def judge(candidate: Candidate, *, digest: Digest, git_id: str, known: Known, folder: str = "") -> Verdict:
    """Return what is to be thought of a file with this content.

    Args:
        candidate: the file.
        digest: of its content.
        git_id: what git calls its content, where the Hub's cache calls it so; else empty.
        known: all claims.
        folder: what the cache's directory is called.
    """
    if candidate.etag:
        return _judge_of_hub(candidate, digest=digest, git_id=git_id)
    name = candidate.name
    own = Claim("its name", pin_in_file_name(name))
    clip = (_clip_claim(name),) if folder == "clip" and name in _CLIP_FILES else ()
    claims = [claim for claim in (own, *clip, *known.by_name.get(name, ())) if claim.pin.is_pinned]
    claims += known.by_digest.get(digest, ())
    proofs = [claim for claim in claims if claim.pin.matches(digest)]
    if proofs:
        strongest = max(proofs, key=lambda claim: len(claim.pin.hex))
        # Eight digits can be forged in minutes. Who knows all of the digits that they stand for knows better.
        for claim in claims:
            if claim.pin.hex.startswith(strongest.pin.hex) and not claim.pin.matches(digest):
                return Verdict("refuted", reason=f"{claim.by} says {claim.pin}, and its content is {digest}")
        sources = dict.fromkeys(claim.source for claim in proofs if claim.source is not None)
        return Verdict("proven", by=strongest.by, sources=tuple(sources))
    if claims:
        return Verdict("refuted", reason=f"{claims[0].by} says {claims[0].pin}, and its content is {digest}")
    return Verdict("unproven", reason="nothing to verify it by: no digest in its name, and no catalog knows it")


def _judge_of_hub(candidate: Candidate, *, digest: Digest, git_id: str) -> Verdict:
    actual = digest.hex if len(candidate.etag) == 64 else git_id
    if actual != candidate.etag:
        return Verdict("refuted", reason=f"the Hub's name for it is {candidate.etag}, and its content is {actual}")
    return Verdict("proven", by="the Hub", sources=tuple(dict.fromkeys(one.source for one in candidate.hub_names)))
