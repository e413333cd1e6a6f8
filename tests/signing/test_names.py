"""What a weights name means by what was signed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from weightstore.digest import Digest
from weightstore.errors import UnknownName
from weightstore.signing.claims import Claim
from weightstore.signing.document import SignedEntry
from weightstore.signing.names import called, matches
from weightstore.source import Source

ADA, BOB = b"a" * 32, b"b" * 32


def claim(name: str, path: str = "x", *, key: bytes = ADA, version: int = 1) -> Claim:
    entry = SignedEntry(Source(f"https://o.example/{path}"), Digest("0" * 64), 3, name)
    return Claim(entry, datetime(2030, 1, 1, tzinfo=UTC), key, version)


def test_a_name_is_meant_whole_and_exactly_with_its_namespace_or_without() -> None:
    one = claim("lab/Tiny_Weights.V1")
    for name in ("lab/Tiny_Weights.V1", "Tiny_Weights.V1"):
        assert called(name, [one]) == [one]
    for name in ("lab/Tiny_Weights", "tiny_weights.v1", "other/Tiny_Weights.V1", "Tiny_Weights.V", "V1", "lab/tiny"):
        assert called(name, [one]) == []


@pytest.mark.parametrize(
    "signed", ["", "model.pth", "lab/", "lab/tiny", "a b/Tiny_Weights.V1", "lab/X.\x1b[2J", "/X.V1"]
)
def test_what_has_not_the_form_of_a_weights_name_is_none(signed: str) -> None:
    assert not matches(signed, signed)


def test_what_is_in_several_namespaces_is_not_guessed() -> None:
    claims = [claim("lab/Tiny_Weights.V1"), claim("home/Tiny_Weights.V1", "y")]
    with pytest.raises(UnknownName, match=r"Say which: home/Tiny_Weights\.V1, lab/Tiny_Weights\.V1"):
        called("Tiny_Weights.V1", claims)
    assert called("home/Tiny_Weights.V1", claims) == claims[1:]


def test_whoever_comes_first_decides_by_their_newest_index() -> None:
    lagging, newer = claim("lab/X.V1", "old", version=3), claim("lab/X.V1", "new", version=4)
    others = claim("lab/X.V1", "theirs", key=BOB, version=9)
    assert called("lab/X.V1", [lagging, others, newer]) == [newer]
    assert called("lab/X.V1", [others, lagging, newer]) == [others]


def test_each_file_of_a_name_is_told_once() -> None:
    claims = [claim("lab/X.V1", "1"), claim("lab/X.V1", "2"), claim("lab/X.V1", "1")]
    assert [one.entry.source.file_name for one in called("lab/X.V1", claims)] == ["1", "2"]
