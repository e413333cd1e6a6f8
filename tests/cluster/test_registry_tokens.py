"""Tokens: gotten from where the registry says, for the least that is needed, and given to nobody else."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from weightstore.errors import AccessDenied, RefusedResponse, SourceUnavailable
from weightstore.source import Source
from weightstore.transfer.http import HttpTransport
from weightstore.transfer.logins import Logins
from weightstore.transfer.registry import Registry


class TokenRegistry(http.server.ThreadingHTTPServer):
    """A registry of one empty repository, and its token service, which knows ada with the password secret."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.realm = f"http://127.0.0.1:{self.server_port}/token"
        self.scopes: list[list[str]] = []
        self.expires_in = 300
        self.answer: bytes | None = None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: TokenRegistry

    def do_GET(self) -> None:
        server, given = self.server, self.headers.get("Authorization", "")
        parts = urlsplit(self.path)
        if parts.path == "/token":
            server.scopes.append(parse_qs(parts.query)["scope"])
            if given != "Basic " + base64.b64encode(b"ada:secret").decode():
                return self.reply(401)
            body = {"token": f"t{len(server.scopes)}", "expires_in": server.expires_in}
            return self.reply(200, server.answer or json.dumps(body).encode())
        if given != f"Bearer t{len(server.scopes)}":
            return self.reply(401, fields={"WWW-Authenticate": f'Bearer realm="{server.realm}",service="site"'})
        return self.reply(404)

    def reply(self, status: int, body: bytes = b"", fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(fields or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[TokenRegistry]:
    with TokenRegistry() as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        yield service
        service.shutdown()


@pytest.fixture
def registry(service: TokenRegistry, tmp_path: Path) -> Iterator[Registry]:
    auth = base64.b64encode(b"ada:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {f"127.0.0.1:{service.server_port}": {"auth": auth}}}))
    http = HttpTransport(connect_timeout_s=5, read_timeout_s=5, pool_size=2, user_agent="test")
    yield Registry(http, logins=Logins([tmp_path / "config.json"]))
    http.close()


@pytest.fixture
def place(service: TokenRegistry) -> Source:
    return Source(f"oci://127.0.0.1:{service.server_port}/group/weights")


def test_one_token_serves_many_requests_and_says_what_for(
    registry: Registry, service: TokenRegistry, place: Source
) -> None:
    assert [registry.ask(place, "manifests/x").status for _ in range(3)] == [404] * 3
    assert service.scopes == [["repository:group/weights:pull"]]


def test_writing_and_mounting_ask_for_more(registry: Registry, service: TokenRegistry, place: Source) -> None:
    assert registry.ask(place, "manifests/x", writes=True, mounts="group/other").status == 404
    assert service.scopes == [["repository:group/weights:pull,push", "repository:group/other:pull"]]


def test_a_token_is_renewed_before_its_end(registry: Registry, service: TokenRegistry, place: Source) -> None:
    service.expires_in = 5
    assert [registry.ask(place, "manifests/x").status for _ in range(2)] == [404, 404]
    assert len(service.scopes) == 2


def test_wrong_credentials_are_told_without_repeating_them(
    registry: Registry, service: TokenRegistry, place: Source
) -> None:
    with pytest.raises(AccessDenied, match="docker login") as refused:
        registry.ask(Source(place.url.replace("//", "//eve:hunter2@")), "manifests/x")
    assert "hunter2" not in str(refused.value)


def test_credentials_go_to_no_service_without_tls(registry: Registry, service: TokenRegistry, place: Source) -> None:
    service.realm = "http://tokens.example.org/token"
    with pytest.raises(RefusedResponse, match="does not speak TLS"):
        registry.ask(place, "manifests/x")


@pytest.mark.parametrize("realm", ["https://[x", "https://[x]y/", "https://host:99999/token", "https://host:x/"])
def test_a_token_service_whose_address_cannot_be_read_is_refused(
    registry: Registry, service: TokenRegistry, place: Source, realm: str
) -> None:
    service.realm = realm
    with pytest.raises(RefusedResponse, match="not a URL"):
        registry.ask(place, "manifests/x")


def test_an_upload_that_goes_on_at_no_url_is_refused(registry: Registry, place: Source) -> None:
    with pytest.raises(RefusedResponse, match="not a URL"):
        registry.ask(place, "https://[x", method="PUT")


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"token": ""}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": 1}',
        b'{"token": "t", "expires_in": 1' + b"0" * 400 + b"}",
        b'{"token": "t", "expires_in": NaN}',
    ],
)
def test_an_answer_that_is_no_token_is_refused(
    registry: Registry, service: TokenRegistry, place: Source, answer: bytes
) -> None:
    service.answer = answer
    with pytest.raises(RefusedResponse, match="no token"):
        registry.ask(place, "manifests/x")


def test_a_registry_that_does_not_answer_is_waited_for_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = Source(f"oci://127.0.0.1:{silent.getsockname()[1]}/group/weights")
        quick = Registry(
            HttpTransport(connect_timeout_s=0.3, read_timeout_s=0.3, pool_size=2, user_agent="test"),
            logins=Logins([]),
        )
        with pytest.raises(SourceUnavailable):
            quick.ask(place, "manifests/x")
        silent.settimeout(5)
        silent.accept()[0].close()
        with pytest.raises(SourceUnavailable):
            quick.ask(place, "manifests/y")
        silent.settimeout(0.05)
        with pytest.raises(TimeoutError):
            silent.accept()
        quick.http.close()
