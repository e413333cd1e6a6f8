"""Header fields come from strangers: whatever they hold, they are read or refused, and nothing else is raised."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weightstore.errors import RefusedResponse, TransferError
from weightstore.records import MAX_SIZE
from weightstore.source import Source
from weightstore.transfer import answers, http

SOURCE = Source("https://example.org/x")
# What http.client hands out: bytes of the wire read as Latin-1, without line ends.
TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=100)
DATES = st.from_regex(
    r"[A-Z][a-z]{2}, -?[0-9]{1,3} (Jan|Feb|Dec|Foo) [0-9]{1,6} [0-9]{2}:[0-9]{2}:[0-9]{2} ([+-][0-9]{1,9}|GMT|UT)",
    fullmatch=True,
)


@given(text=st.one_of(TEXT, DATES))
@example("Mon, 01 Jan 0001 00:00:00 -0000")
@example("Mon, 01 Jan 0001 00:00:00 +2300")
@example("Fri, 31 Dec 9999 23:59:59 -2300")
@example("Fri, 31 Dec 9999 23:59:59 -9999999999")
@example("1" * 11)
@example(" ")
def test_retry_after_is_seconds_or_nothing(text: str) -> None:
    seconds = answers._retry_after(text)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("17", 17), (" 5 ", 5), ("", None), ("1e3", None), ("²", None)]
)
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    assert answers._retry_after(text) == seconds


def test_retry_after_as_a_date_is_counted_from_now() -> None:
    seconds = answers._retry_after(formatdate(time.time() + 100, usegmt=True))
    assert seconds is not None
    assert 95 < seconds <= 100


def test_retry_after_in_the_past_is_now() -> None:
    assert answers._retry_after(formatdate(0, usegmt=True)) == 0


@given(
    text=st.one_of(
        TEXT,
        st.builds(
            "bytes {}-{}/{}".format,
            st.integers(0, 9) | st.integers(0),
            st.integers(0, 9) | st.integers(0),
            st.integers(0, 9) | st.integers(0) | st.just("*"),
        ),
    )
)
def test_a_content_range_is_possible_or_refused(text: str) -> None:
    try:
        first, end, total = answers._content_range(SOURCE, text)
    except RefusedResponse:
        return
    assert 0 <= first < end <= (end if total is None else total)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("bytes 0-0/1", (0, 1, 1)), ("bytes 5-9/10", (5, 10, 10)), ("bytes 5-9/*", (5, 10, None))],
)
def test_a_content_range_is_read(text: str, parsed: tuple[int, int, int | None]) -> None:
    assert answers._content_range(SOURCE, text) == parsed


@pytest.mark.parametrize("text", ["", "bytes */10", "bytes 5-4/10", "bytes 5-10/10", "items 0-1/2", "bytes 0-1/2x"])
def test_a_content_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RefusedResponse):
        answers._content_range(SOURCE, text)


@given(text=st.one_of(st.none(), TEXT, st.integers().map(str), st.integers(0, 99).map(lambda n: f"{n}, {n}")))
@example("9" * 5000)
@example("١")
def test_a_length_is_sane_or_refused(text: str | None) -> None:
    try:
        length = answers._length(SOURCE, text)
    except RefusedResponse:
        return
    assert length is None if text is None else length is not None and 0 <= length <= MAX_SIZE


def test_the_same_length_twice_is_that_length() -> None:
    assert answers._length(SOURCE, "7, 7") == 7


@given(etag=TEXT, modified=TEXT)
def test_a_validator_can_be_sent_back(etag: str, modified: str) -> None:
    validator = answers._validator({"ETag": etag, "Last-Modified": modified})
    assert validator.if_range.isprintable()
    assert validator.if_range.isascii()


@pytest.mark.parametrize("etag", ['W/"weak"', "unquoted", '"a"b"', '"' + "x" * 2000 + '"', '"\x80"', ""])
def test_an_etag_that_is_not_strong_is_no_validator(etag: str) -> None:
    assert not answers._validator({"ETag": etag})


def test_a_date_stands_in_for_a_weak_etag() -> None:
    validator = answers._validator({"ETag": 'W/"weak"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"})
    assert validator.if_range == "Mon, 01 Jan 2024 00:00:00 GMT"


@given(location=st.one_of(TEXT, st.builds("{}{}".format, st.sampled_from(["http://", "https://", "//", "/"]), TEXT)))
@example("http://[")
@example("//[::1")
@example("https://h/%")
@example("https://\xe2\x84\x80/")
def test_a_location_leads_to_a_source_or_is_refused(location: str) -> None:
    try:
        target = http._redirected(SOURCE, SOURCE.url, location)
    except TransferError:
        return
    assert Source(target).scheme == "https"
    assert "@" not in target.partition("://")[2].partition("/")[0]
