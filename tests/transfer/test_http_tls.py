"""Certificates are checked, against the bundle that the site names; one that fails is refused once and clearly."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import behaviours as does
from tests.servers.hostile import HostileServer
from tests.servers.tls import Certificates
from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import RefusedResponse, SourceUnavailable, TransferError

MakeClient = Callable[..., Client]


def test_the_configured_bundle_is_trusted(certificates: Certificates, make_client: MakeClient, data: bytes) -> None:
    with HostileServer(tls=certificates) as server:
        url = server.serve("/model.pth", data)
        assert make_client(ca_bundle=certificates.ca).path(url).read_bytes() == data


def test_requests_ca_bundle_is_trusted(
    certificates: Certificates, make_client: MakeClient, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    with HostileServer(tls=certificates) as server:
        assert make_client().path(server.serve("/model.pth", data)).read_bytes() == data


def test_ssl_cert_file_is_trusted(
    certificates: Certificates, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "home"))
    with HostileServer(tls=certificates) as server:
        assert Client(Config.from_environ(os.environ)).path(server.serve("/model.pth", data)).read_bytes() == data


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("expired", "expired"), ("wrong_host", "(?i)mismatch|not valid for"), ("untrusted", "certificate verify failed")],
)
def test_a_bad_certificate_is_refused_once_and_clearly(
    certificates: Certificates, make_client: MakeClient, kind: str, reason: str
) -> None:
    with HostileServer(tls=getattr(certificates, kind)) as server:
        url = server.serve("/model.pth", b"x")
        with pytest.raises(RefusedResponse, match=reason) as caught:
            make_client(ca_bundle=certificates.ca, retries=3).path(url)
        assert "WEIGHTSTORE_CA_BUNDLE" in str(caught.value)
        assert server.connections == 1
        assert server.requests == []


def test_a_bundle_that_does_not_exist_is_refused_by_name(
    certificates: Certificates, make_client: MakeClient, tmp_path: Path
) -> None:
    with HostileServer(tls=certificates) as server, pytest.raises(RefusedResponse, match=r"missing\.pem"):
        make_client(ca_bundle=tmp_path / "missing.pem", retries=3).path(server.serve("/model.pth", b"x"))


def test_a_bundle_without_certificates_is_refused(
    certificates: Certificates, make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").write_text("not a certificate\n")
    with HostileServer(tls=certificates) as server, pytest.raises(TransferError, match=r"(?i)certificate"):
        make_client(ca_bundle=tmp_path / "empty.pem").path(server.serve("/model.pth", b"x"))


def test_an_end_in_the_handshake_is_no_question_of_trust_and_may_pass(
    server: HostileServer, make_client: MakeClient
) -> None:
    url = server.serve("/model.pth", b"x").replace("http://", "https://")  # a server that speaks no TLS hangs up
    with pytest.raises(SourceUnavailable) as caught:
        make_client().path(url)
    assert "certificate" not in str(caught.value), "there was none to distrust"


def test_a_connection_cut_in_tls_may_pass(certificates: Certificates, make_client: MakeClient, data: bytes) -> None:
    with HostileServer(tls=certificates) as server:
        url = server.serve("/model.pth", data, does.reset(300_000, times=1))
        client = make_client(ca_bundle=certificates.ca, retries=1)
        assert client.path(url).read_bytes() == data
        assert [request.status for request in server.requests] == [200, 206]
