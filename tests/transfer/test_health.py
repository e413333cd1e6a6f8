"""How mirrors fare: told of once, asked last, not asked at all, and asked anew after a while."""

from __future__ import annotations

from weightstore.digest import Digest
from weightstore.errors import DigestMismatch, SourceNotFound, SourceUnavailable
from weightstore.source import Source
from weightstore.transfer.health import Health
from weightstore.transfer.policy import Candidate, blob_in

MIRROR, OTHER = Source("https://a.example"), Source("https://b.example")
CUT = SourceUnavailable(source="a", reason="cut")
WRONG = DigestMismatch(source="a", expected="x", actual="y")
GONE = SourceNotFound(source="a", reason="404")
BLOB = Digest("0" * 64)
CANDIDATES = [
    Candidate("mirror", blob_in(MIRROR, BLOB), MIRROR),
    Candidate("mirror", blob_in(OTHER, BLOB), OTHER),
    Candidate("origin", Source("https://c.example/x")),
]


def test_a_mirror_is_told_of_once_in_whatever_way_it_fails() -> None:
    health = Health()
    assert [health.failed(MIRROR, error) for error in (WRONG, CUT, GONE)] == [True, False, False]
    assert health.failed(OTHER, GONE)


def test_what_is_told_as_an_error_does_not_count_as_told() -> None:
    health = Health()
    assert not health.failed(MIRROR, CUT, tell=False)
    assert health.failed(MIRROR, CUT)


def test_one_that_does_not_answer_is_asked_last_and_after_three_times_not_at_all() -> None:
    health = Health()
    assert health.ordered(CANDIDATES) == CANDIDATES
    health.failed(MIRROR, CUT)
    assert health.ordered(CANDIDATES) == [*CANDIDATES[1:], CANDIDATES[0]]
    assert health.why_not(MIRROR) is None
    health.served(MIRROR)
    assert health.ordered(CANDIDATES) == CANDIDATES
    for _ in range(3):
        health.failed(MIRROR, CUT)
    assert health.why_not(MIRROR) is CUT


def test_a_wrong_file_or_two_do_not_make_a_liar_and_missing_ones_never_do() -> None:
    health = Health()
    for error in (WRONG, WRONG, *[GONE] * 50):
        health.failed(MIRROR, error)
    health.served(MIRROR)
    assert not health.is_doubted(MIRROR)
    health.failed(MIRROR, WRONG)
    assert health.is_doubted(MIRROR)
    health.served(MIRROR)
    assert health.is_doubted(MIRROR), "one right answer makes no honest mirror"
    assert health.why_not(MIRROR) is None


def test_after_a_while_all_is_forgotten() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    for _ in range(3):
        health.failed(MIRROR, CUT)
    now[0] = 299.0
    assert health.why_not(MIRROR) is CUT
    now[0] = 301.0
    assert health.why_not(MIRROR) is None
    assert health.failed(MIRROR, CUT)
