"""When to try again is arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightstore.errors import SourceUnavailable
from weightstore.transfer.retry import RetryPolicy


def failure(retry_after_s: float | None = None) -> SourceUnavailable:
    return SourceUnavailable(source="https://example.org/x", reason="HTTP 503", retry_after_s=retry_after_s)


@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 0.5), (2, 1), (3, 2), (7, 30), (5000, 30)])
def test_the_longest_delay_doubles_up_to_the_cap(attempt: int, delay_s: float) -> None:
    assert RetryPolicy(random=lambda: 1.0).delay_s(attempt, failure()) == delay_s


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_the_delay_is_somewhere_below(attempt: int, jitter: float) -> None:
    assert 0 <= RetryPolicy(random=lambda: jitter).delay_s(attempt, failure()) <= 30


def test_what_the_server_asks_for_wins() -> None:
    assert RetryPolicy(random=lambda: 0.0).delay_s(1, failure(retry_after_s=17)) == 17


def test_a_wait_of_two_minutes_is_borne_and_no_longer_one() -> None:
    assert RetryPolicy().delay_s(1, failure(retry_after_s=120)) == 120
    with pytest.raises(SourceUnavailable, match="HTTP 503; it asks to come back in 121 seconds") as caught:
        RetryPolicy().delay_s(1, failure(retry_after_s=121))
    assert caught.value.retry_after_s == 121


def test_two_clients_do_not_come_back_at_once() -> None:
    delays = {RetryPolicy().delay_s(5, failure()) for _ in range(5)}
    assert len(delays) > 1
