"""Lists of tags, which some registries give in pages."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from weightstore.cluster.mirror.registry import InRegistry
from weightstore.errors import InvalidRecord, RefusedResponse
from weightstore.source import Source
from weightstore.transfer.http import HttpTransport
from weightstore.transfer.logins import Logins
from weightstore.transfer.registry import Registry
from weightstore.transfer.retry import RetryPolicy


class PagingRegistry(http.server.ThreadingHTTPServer):
    """Answers with ``pages`` by target, each a status, a body and a Link; with 404 for whatever else."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, tuple[int, bytes, str]] = {}
        self.failures = 0
        self.asked: list[str] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: PagingRegistry

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, body, link = self.server.pages.get(self.path, (404, b"", ""))
        if self.path == "/v2/":
            status = 200
        elif self.server.failures:
            self.server.failures -= 1
            status, body = 500, b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if link:
            self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[PagingRegistry]:
    with PagingRegistry() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def place(server: PagingRegistry) -> Iterator[InRegistry]:
    http = HttpTransport(connect_timeout_s=5, read_timeout_s=5, pool_size=2, user_agent="test")
    source = Source(f"oci://127.0.0.1:{server.server_port}/w")
    yield InRegistry(source, Registry(http, logins=Logins([])), retry=RetryPolicy(base_s=0.01))
    http.close()


def tags(*names: str) -> bytes:
    return json.dumps({"name": "w", "tags": list(names)}).encode()


def test_pages_are_followed_to_the_last(server: PagingRegistry, place: InRegistry) -> None:
    server.pages["/v2/w/tags/list"] = (200, tags("a", "b"), '</v2/w/tags/list?last=b&n=2>; rel="next"')
    server.pages["/v2/w/tags/list?last=b&n=2"] = (200, tags("c"), "")
    assert place._tags() == ["a", "b", "c"]


def test_a_list_without_end_is_left_after_a_while(server: PagingRegistry, place: InRegistry) -> None:
    server.pages["/v2/w/tags/list"] = (200, tags("a"), '</v2/w/tags/list>; rel="next"')
    assert len(place._tags()) < 1000


@pytest.mark.parametrize("body", [b'{"name": "w", "tags": null}', b'{"name": "w"}'])
def test_no_tags_are_none(server: PagingRegistry, place: InRegistry, body: bytes) -> None:
    server.pages["/v2/w/tags/list"] = (200, body, "")
    assert place._tags() == []


def test_a_registry_that_tells_no_tags_is_one_without_any(place: InRegistry) -> None:
    assert place._tags() == []


def test_a_list_that_goes_on_elsewhere_is_not_followed(server: PagingRegistry, place: InRegistry) -> None:
    server.pages["/v2/w/tags/list"] = (200, tags("a"), '<https://evil.example.org/tags>; rel="next"')
    with pytest.raises(RefusedResponse):
        place._tags()


def test_a_list_that_goes_on_at_no_url_is_refused(server: PagingRegistry, place: InRegistry) -> None:
    server.pages["/v2/w/tags/list"] = (200, tags("a"), '<https://[x>; rel="next"')
    with pytest.raises(RefusedResponse, match="not a URL"):
        place._tags()


def test_what_cannot_be_a_tag_is_left_out(server: PagingRegistry, place: InRegistry) -> None:
    body = json.dumps({"name": "w", "tags": ["a", "../manifests", 7, "b c", "x" * 200, None]}).encode()
    server.pages["/v2/w/tags/list"] = (200, body, "")
    assert place._tags() == ["a"]


def test_a_list_that_is_none_is_an_error(server: PagingRegistry, place: InRegistry) -> None:
    server.pages["/v2/w/tags/list"] = (200, b"<html>", "")
    with pytest.raises(InvalidRecord):
        place._tags()


def test_a_failure_that_passes_is_asked_again(server: PagingRegistry, place: InRegistry) -> None:
    server.pages["/v2/w/tags/list"] = (200, tags("a"), "")
    server.failures = 2
    assert place._tags() == ["a"]
    assert server.asked.count("/v2/w/tags/list") == 3
