"""Redirects are followed by hand: bounded, never down to http, and without the first host's credentials."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour, Reply, status
from tests.servers.hostile import HostileServer
from tests.servers.tls import Certificates
from tests.transfer.conftest import Fetch
from weightstore.digest import Pin
from weightstore.errors import RefusedResponse, SourceNotFound
from weightstore.transfer.http import HttpTransport


@pytest.fixture
def https(certificates: Certificates) -> Iterator[HostileServer]:
    with HostileServer(tls=certificates) as server:
        yield server


@pytest.fixture
def trusting(fetch: Fetch, certificates: Certificates) -> Iterator[Fetch]:
    """Trusts the test's own CA."""
    plain = fetch.transport
    fetch.transport = HttpTransport(
        connect_timeout_s=5,
        read_timeout_s=5,
        pool_size=4,
        user_agent="test",
        ca_bundle=str(certificates.ca),
        trust_env=False,
    )
    yield fetch
    fetch.transport.close()
    fetch.transport = plain


def located(location: str) -> Behaviour:
    return status(Reply(status=302, headers={"Location": location}))


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_followed(server: HostileServer, fetch: Fetch, data: bytes, code: int) -> None:
    server.serve("/there", data)
    url = server.serve("/here", behaviour=does.redirect(server.url("/there"), status=code))
    assert fetch(url) == data


def test_a_relative_redirect_is_followed(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    server.serve("/a/there", data)
    url = server.serve("/a/b/here", behaviour=does.redirect("../there"))
    assert fetch(url) == data


def test_a_redirect_without_a_scheme_is_followed(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    server.serve("/there", data)
    url = server.serve("/here", behaviour=does.redirect(server.url("/there").removeprefix("http:")))
    assert fetch(url) == data


def test_a_fragment_and_blanks_in_the_location_do_no_harm(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    server.serve("/the%20re", data)
    url = server.serve("/here", behaviour=located("/the re#part"))
    assert fetch(url) == data


def test_a_location_in_utf_8_is_followed(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    server.serve("/poids-%C3%A9t%C3%A9", data)
    url = server.serve("/here", behaviour=located("/poids-été".encode().decode("latin-1")))
    assert fetch(url) == data


def test_ten_redirects_are_followed(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    server.serve("/10", data)
    for number in range(10):
        server.serve(f"/{number}", behaviour=does.redirect(f"/{number + 1}"))
    assert fetch(server.url("/0")) == data


def test_more_than_ten_redirects_are_refused(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    server.serve("/11", data)
    for number in range(11):
        server.serve(f"/{number}", behaviour=does.redirect(f"/{number + 1}"))
    with pytest.raises(RefusedResponse, match="more than 10 redirects"):
        fetch(server.url("/0"))


def test_a_loop_ends_with_an_error_and_is_not_tried_again(server: HostileServer, fetch: Fetch) -> None:
    server.serve("/b", behaviour=does.redirect("/a"))
    url = server.serve("/a", behaviour=does.redirect("/b"))
    with pytest.raises(RefusedResponse, match="redirects"):
        fetch(url)
    assert len(server.requests) == 11


def test_a_redirect_to_an_error_is_that_error(server: HostileServer, fetch: Fetch) -> None:
    url = server.serve("/here", behaviour=does.redirect("/nothing"))
    with pytest.raises(SourceNotFound, match="404"):
        fetch(url)


def test_the_body_of_a_redirect_is_not_read(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    """Session.send() of requests reads it into memory even when told not to follow."""
    server.serve("/there", data)
    reply = Reply(status=302, headers={"Location": "/there"}, body=bytes(64 << 20))
    assert fetch(server.serve("/here", behaviour=status(reply))) == data
    assert server.requests[0].body_bytes_sent < 32 << 20


def test_a_redirect_without_a_location_is_refused(server: HostileServer, fetch: Fetch) -> None:
    with pytest.raises(RefusedResponse, match="HTTP 302"):
        fetch(server.serve("/here", behaviour=status(302)))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "javascript:1"])
def test_a_redirect_to_another_scheme_is_refused(server: HostileServer, fetch: Fetch, target: str) -> None:
    with pytest.raises(RefusedResponse, match="not http or https"):
        fetch(server.serve("/here", behaviour=does.redirect(target)))


@pytest.mark.parametrize(
    "target",
    ["http://[::1", "http://h:99999/", "http://h:x/", "//[", "http://h:0/", "http://h/" + "x" * 9000],
)
def test_a_location_that_is_no_url_is_refused(server: HostileServer, fetch: Fetch, target: str) -> None:
    with pytest.raises(RefusedResponse, match="not a URL"):
        fetch(server.serve("/here", behaviour=located(target)))


def test_https_is_never_left_for_http(
    https: HostileServer, server: HostileServer, trusting: Fetch, data: bytes
) -> None:
    server.serve("/there", data)
    url = https.serve("/here", behaviour=does.redirect(server.url("/there")))
    with pytest.raises(RefusedResponse, match="from https to http"):
        trusting(url)
    assert server.requests == []


def test_http_may_be_left_for_https(https: HostileServer, server: HostileServer, trusting: Fetch, data: bytes) -> None:
    https.serve("/there", data)
    assert trusting(server.serve("/here", behaviour=does.redirect(https.url("/there")))) == data


def test_credentials_do_not_travel_to_another_host(
    server: HostileServer, other_host: HostileServer, fetch: Fetch, data: bytes
) -> None:
    other_host.serve("/there", data)
    url = server.serve("/here", behaviour=does.redirect(other_host.url("/there")))
    assert fetch(url.replace("http://", "http://user:word@")) == data
    assert server.requests[0].headers["Authorization"] is not None
    assert other_host.requests[0].headers["Authorization"] is None


def test_credentials_do_not_travel_to_another_port_of_the_host(
    server: HostileServer, fetch: Fetch, data: bytes
) -> None:
    with HostileServer() as neighbour:
        neighbour.serve("/there", data)
        url = server.serve("/here", behaviour=does.redirect(neighbour.url("/there")))
        fetch(url.replace("http://", "http://user:word@"))
        assert neighbour.requests[0].headers["Authorization"] is None


def test_credentials_go_along_on_the_same_host(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    server.serve("/there", data, does.basic_auth("user", "word"))
    url = server.serve("/here", behaviour=does.redirect("/there"))
    assert fetch(url.replace("http://", "http://user:word@")) == data


def test_credentials_in_a_location_are_not_used(
    server: HostileServer, other_host: HostileServer, fetch: Fetch, data: bytes
) -> None:
    other_host.serve("/there", data)
    target = other_host.url("/there").replace("http://", "http://mallory:word@")
    assert fetch(server.serve("/here", behaviour=does.redirect(target))) == data
    assert other_host.requests[0].headers["Authorization"] is None


def test_a_cookie_is_never_sent_back(server: HostileServer, fetch: Fetch, data: bytes) -> None:
    server.serve("/there", data)
    reply = Reply(status=302, headers={"Location": "/there", "Set-Cookie": "session=1; Path=/"})
    url = server.serve("/here", behaviour=status(reply))
    fetch(url)
    fetch(url)
    assert all(request.headers["Cookie"] is None for request in server.requests)


def test_the_range_is_asked_of_where_the_redirect_leads(
    server: HostileServer, other_host: HostileServer, fetch: Fetch, data: bytes
) -> None:
    other_host.serve("/there", data, does.truncate(400_000, times=1))
    url = server.serve("/here", behaviour=does.redirect(other_host.url("/there")))
    assert fetch(url, Pin(hashlib.sha256(data).hexdigest())) == data
    assert [request.status for request in other_host.requests] == [200, 206]
