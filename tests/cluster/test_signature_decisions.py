"""Which of two signed indexes is to lie at a place: pure decisions, one rule a test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from weightstore.cluster.index import ModelIndex, make_entry, model_index
from weightstore.cluster.mirror.signature import coverage, decide
from weightstore.digest import Digest
from weightstore.signing.document import SignedEntry, SignedIndex, Statement
from weightstore.source import Source

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ADA, BOB = b"a" * 32, b"b" * 32
DIGESTS = {name: Digest(name * 64) for name in "abcd"}


def source(name: str) -> Source:
    return Source(f"https://example.org/{name}.pth")


def index_of(*names: str, **claims: str) -> ModelIndex:
    """An index of sources that have the digests of their names, and of further ``source=digests``."""
    sources: dict[str, list[Source]] = {name: [source(name)] for name in names}
    for name, digests in claims.items():
        for digest in digests:
            sources.setdefault(digest, []).append(source(name))
    return model_index(make_entry(DIGESTS[name], 5, sources=mine)[0] for name, mine in sources.items())


def statement(
    *names: str, version: int = 5, key: bytes = ADA, expires: datetime = NOW + timedelta(days=1), **claims: str
) -> Statement:
    said = {name: name for name in names} | claims
    entries = tuple(SignedEntry(source(name), DIGESTS[digest], 5) for name, digest in said.items())
    index = SignedIndex(version, expires, entries)
    return Statement(index.encode(), key, index, key)


def decided(brought: Statement | None, there: Statement | None, index: ModelIndex) -> tuple[str, str]:
    found = decide(brought, there, index, now=NOW)
    return found.status, found.reason


def test_the_first_one_is_carried_and_the_same_one_is_present() -> None:
    one = statement("a", "b")
    assert decided(one, None, index_of("a", "b")) == ("carried", "")
    assert decided(one, one, index_of("a", "b")) == ("present", "")
    assert decided(None, one, index_of("a", "b")) == ("none", "")


def test_one_that_has_expired_is_not_carried() -> None:
    status, reason = decided(statement("a", expires=NOW), None, index_of("a"))
    assert status == "refused"
    assert "it expired at 2026-06-01T12:00:00Z" in reason


def test_one_that_says_nothing_of_what_is_there_is_not_carried() -> None:
    assert decided(statement("a"), None, index_of("b")) == ("refused", "it says nothing of what is there")


def test_one_that_contradicts_the_index_is_not_carried() -> None:
    status, reason = decided(statement("b", a="c"), None, index_of("a", "b", "c"))
    assert status == "refused"
    assert "another digest than the index there" in reason


def test_of_a_source_that_changed_either_digest_is_there() -> None:
    assert decided(statement(a="b"), None, index_of(a="ab")) == ("carried", "")


def test_an_older_one_never_replaces_a_newer_whoever_signed_it() -> None:
    for key in (ADA, BOB):
        for version in (4, 5):
            there = statement("a", "b", version=5, key=key)
            status, reason = decided(statement("a", version=version), there, index_of("a", "b"))
            assert (status, reason) == ("refused", "the one there is newer (version 5)")


def test_an_expired_one_is_still_what_users_have_seen() -> None:
    there = statement("a", version=6, expires=NOW)
    assert decided(statement("a", version=5), there, index_of("a"))[0] == "refused"
    assert decided(statement("a", version=7, key=BOB), there, index_of("a"))[0] == "carried"


def test_the_same_keys_newer_word_counts_even_where_it_takes_back() -> None:
    assert decided(statement("a", version=6), statement("a", "b"), index_of("a", "b")) == ("carried", "")


def test_another_keys_word_must_not_take_a_voucher_away() -> None:
    there = statement("a", "b", key=BOB)
    status, reason = decided(statement("a", "c", version=6), there, index_of("a", "b", "c"))
    assert status == "refused"
    assert "by another key, SHA256:" in reason
    assert "vouches for https://example.org/b.pth, which this one does not" in reason
    assert decided(statement("a", "b", "c", version=6), there, index_of("a", "b", "c")) == ("carried", "")
    # What is no longer there needs no voucher.
    assert decided(statement("a", "c", version=6), there, index_of("a", "c")) == ("carried", "")


def test_coverage_counts_each_source_once() -> None:
    found = coverage(statement("a", "d", b="c").index, index_of("a", "b", "c"))
    assert found.covered == (source("a"),)
    assert found.differing == (source("b"),)
    assert found.unsigned == (source("c"),)
    assert found.absent == (source("d"),)
    assert not found.matches


def test_what_several_entries_claim_cannot_be_signed_and_is_not_missed() -> None:
    found = coverage(statement("b").index, index_of("b", a="ac"))
    assert found.matches
    assert found.unsigned == ()
