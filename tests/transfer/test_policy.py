"""Who is asked, in which order, and why others are not: a pure decision."""

from __future__ import annotations

import itertools

import pytest

from weightstore.config import Step
from weightstore.digest import Digest, Pin
from weightstore.records import Wanted
from weightstore.source import Source
from weightstore.transfer.policy import blob_in, route

DIGEST = Digest("ab" * 32)
ORIGIN = Source("https://origin.example/x.pth")
OTHER = Source("https://other.example/x.pth")
MIRRORS = (Source("https://one.example/m/"), Source("file:///two"))


def wanted(pin: Pin, *alternatives: Source) -> Wanted:
    return Wanted("x", ORIGIN, pin, alternatives=alternatives)


def asked(order: tuple[Step, ...], digest: Digest | None = DIGEST) -> list[str]:
    chosen = route(wanted(Pin()), digest=digest, mirrors=MIRRORS, order=order)
    return [candidate.kind for candidate in chosen.candidates]


def test_mirrors_come_before_the_origin_by_default() -> None:
    assert asked(("layers", "mirrors", "origin")) == ["mirror", "mirror", "origin"]


def test_the_order_is_configuration() -> None:
    assert asked(("origin", "mirrors")) == ["origin", "mirror", "mirror"]
    assert asked(("mirrors",)) == ["mirror", "mirror"]
    assert asked(("layers",)) == []


def test_mirrors_are_asked_by_digest() -> None:
    chosen = route(wanted(Pin()), digest=DIGEST, mirrors=MIRRORS, order=("mirrors",))
    assert [candidate.source.url for candidate in chosen.candidates] == [
        f"https://one.example/m/blobs/sha256/{DIGEST.hex}",
        f"file:///two/blobs/sha256/{DIGEST.hex}",
    ]


def test_without_the_full_digest_mirrors_are_skipped_with_the_reason() -> None:
    chosen = route(wanted(Pin("abababab")), digest=None, mirrors=MIRRORS, order=("mirrors", "origin"))
    assert [candidate.source for candidate in chosen.candidates] == [ORIGIN]
    assert len(chosen.skipped) == 2
    assert all("needs the full digest, and only sha256:abababab is known" in reason for reason in chosen.skipped)
    unpinned = route(wanted(Pin()), digest=None, mirrors=MIRRORS, order=("mirrors", "origin"))
    assert all("needs the full digest, and nothing of it is known" in reason for reason in unpinned.skipped)


def test_an_origin_that_the_order_leaves_out_is_named() -> None:
    chosen = route(wanted(Pin()), digest=DIGEST, mirrors=(), order=("layers", "mirrors"))
    assert chosen.candidates == ()
    assert chosen.skipped == (f"origin {ORIGIN}: left out by the configured order",)


def test_alternatives_follow_the_source() -> None:
    chosen = route(wanted(Pin(), OTHER), digest=None, mirrors=(), order=("origin",))
    assert [candidate.source for candidate in chosen.candidates] == [ORIGIN, OTHER]


@pytest.mark.parametrize(
    ("mirror", "blob"),
    [
        ("https://m.example", "https://m.example/blobs/sha256/"),
        ("https://m.example/", "https://m.example/blobs/sha256/"),
        ("https://m.example/a//", "https://m.example/a/blobs/sha256/"),
        ("file:///", "file:///blobs/sha256/"),
    ],
)
def test_a_mirror_is_laid_out_like_a_store(mirror: str, blob: str) -> None:
    assert blob_in(Source(mirror), DIGEST) == Source(blob + DIGEST.hex)


def test_the_query_of_a_mirror_goes_to_the_end() -> None:
    assert (
        blob_in(Source("https://m.example/a?b=c"), DIGEST).url == f"https://m.example/a/blobs/sha256/{DIGEST.hex}?b=c"
    )


def test_every_order_asks_each_place_once() -> None:
    steps: tuple[Step, ...] = ("layers", "mirrors", "origin")
    for order in itertools.permutations(steps):
        assert sorted(asked(order)) == ["mirror", "mirror", "origin"]
