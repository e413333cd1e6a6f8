"""Answers that are errors, late, garbage or contradictory: a clear error or a right result, each time."""

from __future__ import annotations

import hashlib
import time

import pytest

from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour, Reply
from tests.servers.hostile import HostileServer
from tests.servers.wire import Pacer
from tests.transfer.conftest import Fetch
from weightstore.digest import Pin
from weightstore.errors import (
    AccessDenied,
    NoSpace,
    RefusedResponse,
    SizeMismatch,
    SourceNotFound,
    SourceUnavailable,
    TransferError,
)
from weightstore.source import Source
from weightstore.transfer.download import Limits
from weightstore.transfer.http import HttpTransport


def pin_of(data: bytes) -> Pin:
    return Pin(hashlib.sha256(data).hexdigest())


@pytest.fixture
def hasty(fetch: Fetch) -> Fetch:
    """Waits a fifth of a second for the next bytes."""
    fetch.transport = HttpTransport(
        connect_timeout_s=1, read_timeout_s=0.2, pool_size=4, user_agent="test", trust_env=False
    )
    return fetch


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_not_asked_for_again(server: HostileServer, fetch: Fetch, status: int) -> None:
    with pytest.raises(SourceNotFound, match=f"HTTP {status}"):
        fetch(server.serve("/x", behaviour=does.status(status)))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 407, 451])
def test_denied_access_is_not_asked_for_again(server: HostileServer, fetch: Fetch, status: int) -> None:
    with pytest.raises(AccessDenied, match=f"HTTP {status}"):
        fetch(server.serve("/x", behaviour=does.status(status)))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [204, 300, 304, 400, 418, 501])
def test_other_answers_are_refused(server: HostileServer, fetch: Fetch, status: int) -> None:
    with pytest.raises(RefusedResponse, match=f"HTTP {status}"):
        fetch(server.serve("/x", behaviour=does.status(status)))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_what_may_pass_is_tried_again(server: HostileServer, fetch: Fetch, data: bytes, status: int) -> None:
    assert fetch(server.serve("/x", data, does.statuses(status, status))) == data
    assert [request.status for request in server.requests] == [status, status, 200]


def test_what_does_not_pass_is_given_up_after_the_retries(server: HostileServer, fetch: Fetch) -> None:
    with pytest.raises(SourceUnavailable, match="HTTP 503"):
        fetch(server.serve("/x", behaviour=does.status(503)), retries=2)
    assert len(server.requests) == 3
    assert len(fetch.meter.notes) == 2
    assert fetch.parts() == []


def test_retry_after_in_seconds_is_obeyed(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.statuses(Reply(status=429, retry_after_s=1)))
    assert fetch(url) == data
    first, second = server.requests
    assert 0.9 < second.time - first.time < 3


def test_retry_after_as_a_date_is_obeyed(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.statuses(Reply(status=503, retry_date_s=0.2)))
    assert fetch(url) == data
    first, second = server.requests
    assert 0.1 < second.time - first.time < 3


def test_a_server_that_asks_for_hours_is_given_up_at_once(server: HostileServer, fetch: Fetch) -> None:
    url = server.serve("/x", behaviour=does.status(Reply(status=429, retry_after_s=7200)))
    with pytest.raises(TransferError, match=r"HTTP 429.*7200 seconds"):
        fetch(url)
    assert len(server.requests) == 1


def test_what_had_come_is_kept_when_a_server_asks_for_hours(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    asks = does.status(Reply(status=429, retry_after_s=7200), times=1).after_sparing(1)
    url = server.serve("/x", data, [asks, does.truncate(400_000, times=1)])
    with pytest.raises(TransferError, match="7200 seconds"):
        fetch(url)
    assert fetch(url) == data
    assert [request.status for request in server.requests] == [200, 429, 206]


@pytest.mark.parametrize("text", ["soon", "-5", "1.5", "Mon, 99 Foo 2024 99:99:99 GMT", ""])
def test_a_retry_after_that_is_none_is_ignored(server: HostileServer, fetch: Fetch, data: bytes, text: str) -> None:
    url = server.serve("/x", data, does.statuses(Reply(status=503, headers={"Retry-After": text})))
    assert fetch(url) == data


def test_a_server_that_does_not_answer_times_out(server: HostileServer, hasty: Fetch) -> None:
    with pytest.raises(SourceUnavailable, match="timed out"):
        hasty(server.serve("/x", b"x", does.delay(30)), retries=0)


def test_a_stall_is_a_cut_and_resumed(server: HostileServer, hasty: Fetch, data: bytes) -> None:
    url = server.serve("/x", data, does.stall(500_000, 30, times=1))
    assert hasty(url) == data
    assert [request.status for request in server.requests] == [200, 206]
    assert "timed out" in hasty.meter.notes[0]


def test_a_drip_is_not_borne_for_ever(server: HostileServer, fetch: Fetch) -> None:
    url = server.serve("/x", bytes(100_000), does.drip(300))
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="bytes came in"):
        fetch(url, retries=1, limits=Limits(slow_s=0.2))
    assert time.monotonic() - began < 5


def test_a_drip_after_a_fast_beginning_is_not_borne_for_ever(server: HostileServer, hasty: Fetch, data: bytes) -> None:
    """Each byte comes within the time-out, and a large block of them never does."""
    url = server.serve("/x", data * 4, Behaviour("slows_down", does.Stage.SEND, slow_down, lambda _: True, times=1))
    began = time.monotonic()
    assert hasty(url, limits=Limits(slow_s=0.2)) == data * 4
    assert time.monotonic() - began < 5
    assert [request.status for request in server.requests] == [200, 206]


def slow_down(exchange: does.Exchange) -> None:
    class Late(Pacer):
        def delay_s(self, size: int) -> float:
            return 0.0 if exchange.sent < 2_000_000 else 0.1

    exchange.pacers.append(Late(1.0, piece=50))


def test_a_slow_but_steady_source_is_borne(server: HostileServer, fetch: Fetch) -> None:
    content = bytes(6000)
    url = server.serve("/x", content, does.drip(10_000))
    assert fetch(url, retries=0, limits=Limits(slow_s=0.1)) == content


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (does.garbage_status_line(), "not HTTP"),
        (does.endless_headers(), "not HTTP"),
        (does.no_answer(), "without an answer"),
        (does.garbage_status_line(b"HTTP/1.1 abc\r\n"), "not HTTP"),
        (does.garbage_status_line(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n"), "not HTTP"),
    ],
    ids=["garbage", "endless headers", "nothing", "no status", "long line"],
)
def test_what_is_not_http_is_an_error_that_may_pass(
    server: HostileServer, fetch: Fetch, behaviour: Behaviour, reason: str
) -> None:
    with pytest.raises(SourceUnavailable, match=reason):
        fetch(server.serve("/x", b"x", behaviour), retries=1)
    assert len(server.requests) == 2


def test_a_garbled_answer_once_does_no_harm(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    assert fetch(server.serve("/x", data, does.garbage_status_line(times=1))) == data


def test_escape_sequences_of_a_server_do_not_reach_the_terminal(server: HostileServer, fetch: Fetch) -> None:
    line = b"HTTP/1.1 404 \x1b[2Jgone\x07\r\nContent-Length: 0\r\n"
    with pytest.raises(SourceNotFound) as caught:
        fetch(server.serve("/x", b"x", does.garbage_status_line(line)))
    assert str(caught.value).isprintable()


def test_no_encoding_is_asked_for(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    fetch(server.serve("/x", data))
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_a_body_encoded_all_the_same_is_refused(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    with pytest.raises(RefusedResponse, match="gzip"):
        fetch(server.serve("/x", data, does.gzip_encoding()), pin_of(data))
    assert fetch.parts() == []


def test_a_longer_declared_length_than_body_is_an_error(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    with pytest.raises(TransferError):
        fetch(server.serve("/x", data, does.declared_length(by=10)), pin_of(data))


def test_a_longer_declared_length_once_is_a_cut(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    assert fetch(server.serve("/x", data, does.declared_length(by=10, times=1))) == data


@pytest.mark.parametrize("length", ["7, 9", "-5", "seven", "0x10", "9" * 40, "9" * 5000, "¹"])
def test_a_length_that_is_none_is_an_error(server: HostileServer, fetch: Fetch, length: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n".encode("latin-1")
    with pytest.raises(TransferError):
        fetch(server.serve("/x", b"x", does.garbage_status_line(head)), retries=0)
    assert fetch.parts() == []


def test_two_lengths_that_disagree_are_an_error(server: HostileServer, fetch: Fetch) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 9\r\n"
    with pytest.raises(TransferError):
        fetch(server.serve("/x", b"x", does.garbage_status_line(head)), retries=0)


def test_ten_terabytes_declared_are_no_space_before_a_byte_is_written(server: HostileServer, fetch: Fetch) -> None:
    with pytest.raises(NoSpace):
        fetch(server.serve("/x", behaviour=does.endless_body()))
    assert fetch.meter.received == 0
    assert fetch.parts() == []


def test_ten_terabytes_declared_are_too_many_for_max_size(server: HostileServer, fetch: Fetch) -> None:
    with pytest.raises(RefusedResponse, match="max_size"):
        fetch(server.serve("/x", behaviour=does.endless_body()), limits=Limits(max_size=1 << 30))


def test_an_endless_body_ends_at_max_size(server: HostileServer, fetch: Fetch) -> None:
    with pytest.raises(RefusedResponse, match="max_size"):
        fetch(server.serve("/x", behaviour=does.endless_body(declared=None)), limits=Limits(max_size=3 << 20))
    assert fetch.meter.received < 8 << 20
    assert fetch.parts() == []


def test_an_endless_body_ends_at_the_exact_size(server: HostileServer, fetch: Fetch) -> None:
    with pytest.raises(SizeMismatch):
        fetch(server.serve("/x", behaviour=does.endless_body(declared=None)), limits=Limits(exact_size=1 << 20))
    assert fetch.meter.received < 4 << 20
    assert fetch.parts() == []


def test_an_answer_to_a_range_that_was_not_asked_for_is_refused(server: HostileServer, fetch: Fetch) -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/10\r\n"
    with pytest.raises(RefusedResponse, match="was not asked for"):
        fetch(server.serve("/x", b"x", does.garbage_status_line(head)))


def test_a_range_of_another_length_than_its_body_is_refused(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    lie = does.declared_length(by=-1).only(lambda request: request.range is not None)
    assert fetch(server.serve("/x", data, [lie, does.truncate(400_000, times=1)])) == data
    assert [request.status for request in server.requests] == [200, 206, 200]


def test_the_connection_is_used_again_for_the_next_file(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    for number in range(3):
        fetch(server.serve(f"/{number}", data))
    assert server.connections == 1


def test_a_host_that_has_no_address_is_named_as_such(fetch: Fetch) -> None:
    with pytest.raises(SourceUnavailable, match="cannot be resolved"):
        fetch("http://nowhere.invalid/x", retries=0)


def test_a_host_that_cannot_be_encoded_is_refused(fetch: Fetch) -> None:
    with pytest.raises(TransferError):
        fetch("http://" + "a" * 70 + ".example/x", retries=0)


def test_reading_a_body_that_was_closed_is_an_error_that_may_pass(
    server: HostileServer, fetch: Fetch, data: bytes
) -> None:
    body = fetch.transport.open(Source(server.serve("/x", data)))
    body.read(10)
    body.close()
    with pytest.raises(SourceUnavailable):
        body.read(10)
