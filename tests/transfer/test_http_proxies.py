"""Proxies are taken from the environment, as requests reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.servers.hostile import HostileServer
from tests.servers.proxy import ForwardProxy
from tests.servers.tls import Certificates
from weightstore.client import Client
from weightstore.errors import AccessDenied, TransferError, WeightStoreError

MakeClient = Callable[..., Client]


@pytest.fixture
def proxy(server: HostileServer) -> Iterator[ForwardProxy]:
    """Knows a host that nobody else can resolve."""
    with ForwardProxy(routes={"weights.example": server.address}) as proxy:
        yield proxy


def test_http_goes_through_the_proxy(
    server: HostileServer, proxy: ForwardProxy, make_client: MakeClient, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    server.serve("/model.pth", data)
    assert make_client().path("http://weights.example/model.pth").read_bytes() == data
    assert [request.target for request in proxy.requests] == ["http://weights.example/model.pth"]


def test_https_goes_through_a_tunnel(
    certificates: Certificates, make_client: MakeClient, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostileServer(tls=certificates) as server, ForwardProxy(routes={"weights.example": server.address}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        server.serve("/model.pth", data)
        client = make_client(ca_bundle=certificates.ca)
        assert client.path("https://weights.example/model.pth").read_bytes() == data
        assert [request.method for request in proxy.requests] == ["CONNECT"]


def test_all_proxy_is_honoured(
    server: HostileServer, proxy: ForwardProxy, make_client: MakeClient, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    server.serve("/model.pth", data)
    assert make_client().path("http://weights.example/model.pth").read_bytes() == data


def test_no_proxy_names_hosts_that_are_asked_directly(
    server: HostileServer, proxy: ForwardProxy, make_client: MakeClient, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert make_client().path(server.serve("/model.pth", data)).read_bytes() == data
    assert proxy.requests == []


def test_no_proxy_with_a_port_concerns_that_port_alone(
    server: HostileServer, proxy: ForwardProxy, make_client: MakeClient, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", f"localhost:{server.port}")
    with HostileServer() as second:
        client = make_client()
        server.serve("/one.pth", data)
        second.serve("/two.pth", data)
        client.path(server.url("/one.pth", host="localhost"))
        assert proxy.requests == []
        client.path(second.url("/two.pth", host="localhost"))
        assert len(proxy.requests) == 1


def test_the_credentials_of_a_proxy_are_sent_to_it_alone(
    server: HostileServer, make_client: MakeClient, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(credentials=("me", "5ecret")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url_with_credentials)
        assert make_client().path(server.serve("/model.pth", data)).read_bytes() == data
    assert server.requests[0].headers["Proxy-Authorization"] is None


def test_a_proxy_that_wants_credentials_denies_access(
    server: HostileServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(credentials=("me", "5ecret")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(AccessDenied, match="407"):
            make_client(retries=3).path(server.serve("/model.pth", b"x"))
        assert len(proxy.requests) == 1


def test_a_refused_tunnel_is_a_clear_error(
    certificates: Certificates, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostileServer(tls=certificates) as server, ForwardProxy(credentials=("me", "5ecret")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(TransferError, match="proxy refused") as caught:
            make_client(ca_bundle=certificates.ca).path(server.serve("/model.pth", b"x"))
        assert "5ecret" not in str(caught.value)


def test_a_dead_proxy_is_a_clear_error_without_its_credentials(
    server: HostileServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(credentials=("me", "5ecret")) as proxy:
        url = proxy.url_with_credentials
    monkeypatch.setenv("HTTP_PROXY", url)
    with pytest.raises(WeightStoreError, match="no connection") as caught:
        make_client().path(server.serve("/model.pth", b"x"))
    assert "5ecret" not in str(caught.value)


def test_a_proxy_that_is_no_url_is_a_clear_error(
    server: HostileServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://")
    with pytest.raises(TransferError, match="cannot be asked for"):
        make_client(retries=3).path(server.serve("/model.pth", b"x"))
