"""The test servers do what they say. Asked with http.client and plain sockets, so that nothing hides in a library."""

import base64
import contextlib
import gzip
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour, Reply
from tests.servers.hostile import FIRST_DATE, HostileServer
from tests.servers.nginx import Nginx, find_nginx
from tests.servers.proxy import ForwardProxy
from tests.servers.tls import Certificates, make_certificates

DATA = random.Random(1).randbytes(300_000)
PATH = "/w/model-abcdef12.pth"
REPOSITORY = Path(__file__).resolve().parents[1]

needs_nginx = pytest.mark.skipif(find_nginx() is None, reason="there is no nginx on this machine")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"), more_names=("weights.example",))


def connect(url: str, *, ca: Path | None = None, timeout_s: float = 10) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)


def ask(connection: http.client.HTTPConnection, method: str, target: str, **headers: str) -> Answer:
    connection.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
    with connection.getresponse() as response:
        return Answer(response.status, response.headers, response.read())


def get(url: str, *, method: str = "GET", ca: Path | None = None, **headers: str) -> Answer:
    parts = urlsplit(url)
    with contextlib.closing(connect(url, ca=ca)) as connection:
        return ask(connection, method, f"{parts.path}{'?' * bool(parts.query)}{parts.query}", **headers)


def raw(server: HostileServer, request: bytes = b"") -> socket.socket:
    connection = socket.create_connection(server.address, timeout=10)
    connection.sendall(request or f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def receive(connection: socket.socket, size: int) -> bytes:
    """What arrives until `size` bytes are there."""
    data = b""
    while len(data) < size:
        data += connection.recv(1 << 16)
    return data


class TestGoodBehaviour:
    @pytest.mark.parametrize(
        ("asked", "status", "part", "content_range"),
        [
            ("bytes=0-0", 206, DATA[:1], "bytes 0-0/300000"),
            ("bytes=100-199", 206, DATA[100:200], "bytes 100-199/300000"),
            ("bytes=299990-", 206, DATA[-10:], "bytes 299990-299999/300000"),
            ("bytes=-7", 206, DATA[-7:], "bytes 299993-299999/300000"),
            ("bytes=299000-999999", 206, DATA[299000:], "bytes 299000-299999/300000"),
            ("bytes=300000-", 416, b"", "bytes */300000"),
            ("bytes=5-1", 200, DATA, None),
            ("bytes=0-1,5-6", 200, DATA, None),
            ("lines=0-1", 200, DATA, None),
        ],
    )
    def test_ranges_are_answered_as_rfc_9110_has_it(
        self, server: HostileServer, asked: str, status: int, part: bytes, content_range: str | None
    ) -> None:
        answer = get(server.serve(PATH, DATA), Range=asked)
        assert (answer.status, answer.body, answer.headers["Content-Range"]) == (status, part, content_range)
        assert answer.headers["Content-Length"] == str(len(part))
        assert [(request.range, request.status) for request in server.requests] == [(asked, status)]

    def test_head_tells_what_get_would_send(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA)
        answer = get(url, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert dict(answer.headers.items()) == dict(get(url).headers.items()) | {"Date": answer.headers["Date"]}
        assert answer.headers["Content-Length"] == "300000"
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Last-Modified"] == formatdate(FIRST_DATE, usegmt=True)
        assert answer.headers["ETag"].startswith('"')

    @pytest.mark.parametrize(
        ("etag", "if_range", "status"),
        [
            ('"a"', '"a"', 206),
            ('"a"', '"b"', 200),
            ('W/"a"', 'W/"a"', 200),
            ('"a"', formatdate(FIRST_DATE, usegmt=True), 206),
            ('"a"', formatdate(FIRST_DATE + 1, usegmt=True), 200),
            (None, '"a"', 200),
        ],
    )
    def test_if_range_guards_the_part(
        self, server: HostileServer, etag: str | None, if_range: str, status: int
    ) -> None:
        url = server.serve(PATH, DATA, etag=etag)
        answer = get(url, Range="bytes=10-19", If_Range=if_range)
        assert (answer.status, answer.body) == (status, DATA[10:20] if status == 206 else DATA)
        assert answer.headers["ETag"] == etag

    def test_a_connection_carries_many_requests(self, server: HostileServer) -> None:
        server.serve(PATH, DATA)
        with contextlib.closing(connect(server.url(PATH))) as connection:
            statuses = [ask(connection, method, PATH).status for method in ("GET", "HEAD", "POST", "GET")]
            statuses += [
                ask(connection, "GET", "/nothing").status,
                ask(connection, "GET", PATH, Range="bytes=9-").status,
            ]
        assert statuses == [200, 200, 405, 200, 404, 206]
        assert {request.connection_id for request in server.requests} == {1}
        assert server.connections == 1
        assert [request.body_bytes_sent for request in server.requests][:2] == [len(DATA), 0]

    def test_files_and_their_directories_are_served_as_they_are(self, server: HostileServer, tmp_path: Path) -> None:
        (tmp_path / "open" / "sub").mkdir(parents=True)
        file = tmp_path / "open" / "sub" / "a b.bin"
        file.write_bytes(DATA)
        (tmp_path / "secret").write_bytes(b"no")
        (tmp_path / "open" / "empty").touch()
        server.serve_directory(tmp_path / "open")
        assert get(server.serve("/other", file), Range="bytes=5-9").body == DATA[5:10]
        whole = get(server.url("/sub/a%20b.bin"))
        assert (whole.body, whole.headers["Last-Modified"]) == (DATA, formatdate(file.stat().st_mtime, usegmt=True))
        assert get(server.url("/empty")).body == b""
        assert get(server.url("/../secret")).status == 404
        assert get(server.url("/sub")).status == 404

    def test_a_query_belongs_to_the_path_only_where_it_was_served_with_one(self, server: HostileServer) -> None:
        server.serve("/a", b"plain")
        server.serve("/a?signed=1", b"signed")
        assert [get(server.url(path)).body for path in ("/a", "/a?signed=1", "/a?x")] == [b"plain", b"signed", b"plain"]

    def test_two_loopback_addresses_are_two_hosts(self) -> None:
        with HostileServer(host="127.0.0.2") as other, HostileServer() as server:
            assert get(other.serve("/a", b"other")).body == b"other"
            assert get(server.url("/a")).status == 404
            assert urlsplit(other.url("/a")).hostname == "127.0.0.2"
            assert server.requests[0].time >= other.requests[0].time

    def test_replaced_content_leaves_begun_answers_alone_and_changes_the_validators(
        self, server: HostileServer
    ) -> None:
        url = server.serve(PATH, DATA)
        hold = server.hold(PATH, after=1000)
        with ThreadPoolExecutor(1) as pool:
            old = pool.submit(get, url)
            hold.wait_until_reached()
            server.replace(PATH, DATA[::-1])
            server.release(PATH)
            new = get(url)
            assert (old.result().body, new.body) == (DATA, DATA[::-1])
        assert old.result().headers["ETag"] != new.headers["ETag"]
        assert new.headers["Last-Modified"] == formatdate(FIRST_DATE + 86_400, usegmt=True)
        server.replace(PATH, b"x", etag='"same"', last_modified=FIRST_DATE)
        assert get(url).headers["ETag"] == '"same"'


class TestBrokenBodies:
    def test_truncate_closes_in_good_order_and_only_so_many_times(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, does.truncate(after=1234, times=2))
        assert get(url, method="HEAD").status == 200
        for _ in range(2):
            with pytest.raises(http.client.IncompleteRead) as caught:
                get(url)
            assert caught.value.partial == DATA[:1234]
        assert get(url).body == DATA
        assert [request.body_bytes_sent for request in server.requests] == [0, 1234, 1234, len(DATA)]

    def test_reset_comes_after_the_bytes(self, server: HostileServer) -> None:
        server.serve(PATH, DATA, does.reset(after=1000))
        with raw(server) as connection:
            head, _, body = receive(connection, 1000).partition(b"\r\n\r\n")
            body += receive(connection, 1000 - len(body)) if len(body) < 1000 else b""
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        assert (head[:15], body) == (b"HTTP/1.1 200 OK", DATA[:1000])

    def test_a_length_too_long_ends_early_and_one_too_short_is_exceeded(self, server: HostileServer) -> None:
        with pytest.raises(http.client.IncompleteRead) as caught:
            get(server.serve("/long", DATA, does.declared_length(by=500)))
        assert (caught.value.partial, caught.value.expected) == (DATA, 500)
        server.serve(PATH, DATA, does.declared_length(10))
        with raw(server) as connection:
            head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
        assert b"Content-Length: 10\r\n" in head + b"\r\n"
        assert body == DATA

    def test_chunks_have_no_length_and_a_truncated_one_no_end(self, server: HostileServer) -> None:
        whole = get(server.serve("/whole", DATA, does.chunked()))
        assert (whole.body, whole.headers["Content-Length"]) == (DATA, None)
        with pytest.raises(http.client.IncompleteRead):
            get(server.serve("/cut", DATA, [does.chunked(), does.truncate(after=1000)]))
        assert [request.body_bytes_sent for request in server.requests] == [len(DATA), 1000]

    def test_a_body_ended_by_closing_hides_that_it_was_cut(self, server: HostileServer) -> None:
        whole = get(server.serve("/whole", DATA, does.close_delimited()))
        cut = get(server.serve("/cut", DATA, [does.close_delimited(), does.truncate(after=1000)]))
        assert (whole.body, cut.body, whole.headers["Content-Length"]) == (DATA, DATA[:1000], None)

    def test_gzip_comes_unasked_for(self, server: HostileServer) -> None:
        answer = get(server.serve(PATH, DATA, does.gzip_encoding()), Accept_Encoding="identity")
        assert answer.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(answer.body) == DATA

    def test_corrupt_changes_one_byte_and_nothing_in_the_head(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, does.corrupt(at=5000, times=2))
        bad, part, good = get(url), get(url, Range="bytes=5000-5001"), get(url)
        assert [at for at in range(len(DATA)) if bad.body[at] != DATA[at]] == [5000]
        assert (part.body, good.body) == (bad.body[5000:5002], DATA)
        assert bad.headers["ETag"] == good.headers["ETag"]

    @pytest.mark.parametrize("declared", [10 * 10**12, None])
    def test_an_endless_body_goes_on_until_the_client_leaves(self, server: HostileServer, declared: int | None) -> None:
        url = server.serve(PATH, DATA, does.endless_body(declared=declared))
        connection = connect(url)
        connection.request("GET", PATH, headers={"Range": "bytes=5-"})
        response = connection.getresponse()
        assert (response.status, response.getheader("Content-Length")) == (200, declared and str(declared))
        assert response.read(5_000_000) == bytes(5_000_000)
        response.close()
        connection.close()
        assert server.requests[0].body_bytes_sent >= 5_000_000

    def test_endless_headers_go_on_until_the_client_leaves(self, server: HostileServer) -> None:
        server.serve(PATH, DATA, does.endless_headers())
        with raw(server) as connection:
            head = receive(connection, 2_000_000)
        assert head.startswith(b"HTTP/1.1 200 OK\r\nX-Filler-0: x")
        assert b"\r\n\r\n" not in head
        assert server.requests[0].status is None

    def test_garbage_and_silence_are_no_http(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, [does.garbage_status_line(times=1), does.no_answer(times=1)])
        with pytest.raises(http.client.BadStatusLine):
            get(url)
        with pytest.raises(http.client.RemoteDisconnected):
            get(url)
        assert get(url).body == DATA


class TestRefusals:
    def test_a_script_of_statuses_is_followed_and_then_all_is_well(self, server: HostileServer) -> None:
        script = does.statuses(503, Reply(status=429, retry_after_s=7), 200, Reply(status=503, retry_date_s=30))
        url = server.serve(PATH, DATA, script)
        answers = [get(url) for _ in range(5)]
        assert [answer.status for answer in answers] == [503, 429, 200, 503, 200]
        assert answers[1].headers["Retry-After"] == "7"
        until = parsedate_to_datetime(answers[3].headers["Retry-After"]).timestamp() - time.time()
        assert 28 < until <= 31
        assert answers[4].body == DATA

    def test_refused_requests_do_not_use_up_what_comes_after(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, [does.truncate(after=5, times=1), does.status(500, times=1)])
        assert get(url).status == 500
        with pytest.raises(http.client.IncompleteRead):
            get(url)

    def test_behaviours_can_spare_some_requests_and_pick_others(self, server: HostileServer) -> None:
        headless = does.status(405).only(lambda request: request.method == "HEAD")
        url = server.serve(PATH, DATA, [headless, does.status(500, times=1).after_sparing(2)])
        assert [get(url).status for _ in range(4)] == [200, 200, 500, 200]
        assert get(url, method="HEAD").status == 405

    def test_redirects_make_chains_and_loops(self, server: HostileServer) -> None:
        server.serve("/b", behaviour=does.redirect("/a", status=307))
        url = server.serve("/a", behaviour=does.redirect(server.url("/b")))
        first, second = get(url), get(server.url("/b"))
        assert (first.status, first.headers["Location"]) == (302, server.url("/b"))
        assert (second.status, second.headers["Location"]) == (307, "/a")

    def test_basic_auth_wants_the_right_credentials(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, does.basic_auth("user", "secret"))
        right, wrong = (base64.b64encode(pair).decode() for pair in (b"user:secret", b"user:wrong"))
        assert get(url).headers["WWW-Authenticate"].startswith("Basic ")
        assert [get(url, Authorization=f"Basic {pair}").status for pair in (wrong, right)] == [401, 200]

    def test_connections_beyond_the_limit_are_refused_until_one_has_ended(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, does.connection_limit(2, reply=429))
        hold = server.hold(PATH, after=1)
        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(get, url) for _ in range(2)]
            while len(server.requests) < 2:
                time.sleep(0.001)
            assert get(url).status == 429
            assert get(url).status == 429
            hold.release()
            assert [future.result().body for future in held] == [DATA, DATA]
        assert [get(url).status for _ in range(50)] == [200] * 50
        assert server.peak_concurrency == 2


class TestLyingRanges:
    PART = "bytes=1000-1999"

    @pytest.mark.parametrize(
        ("behaviour", "status", "body", "content_range"),
        [
            (does.ignore_range(), 200, DATA, None),
            (does.refuse_ranges(), 416, b"", "bytes */300000"),
            (does.wrong_content_range(start_by=10), 206, DATA[1000:2000], "bytes 1010-2009/300000"),
            (does.wrong_content_range(total=77), 206, DATA[1000:2000], "bytes 1000-1999/77"),
            (does.wrong_content_range(total="*"), 206, DATA[1000:2000], "bytes 1000-1999/*"),
            (does.other_bytes_on_range(DATA[::-1]), 206, DATA[::-1][1000:2000], "bytes 1000-1999/300000"),
            (does.shifted_range(by=-500), 206, DATA[500:1500], "bytes 500-1499/300000"),
            (does.short_ranges(at_most=3), 206, DATA[1000:1003], "bytes 1000-1002/300000"),
        ],
        ids=str,
    )
    def test_parts_are_lied_about_and_the_whole_is_not(
        self, server: HostileServer, behaviour: Behaviour, status: int, body: bytes, content_range: str | None
    ) -> None:
        url = server.serve(PATH, DATA, behaviour)
        part, whole = get(url, Range=self.PART), get(url)
        assert (part.status, part.body, part.headers["Content-Range"]) == (status, body, content_range)
        assert (whole.status, whole.body) == (200, DATA)
        assert part.headers["ETag"] in {whole.headers["ETag"], None}

    def test_accept_ranges_can_be_left_out(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, does.no_accept_ranges())
        assert get(url, method="HEAD").headers["Accept-Ranges"] is None


class TestTime:
    @pytest.mark.parametrize(("bytes_per_s", "size"), [(200_000, 100_000), (20e6, 8_000_000), (50e6, 20_000_000)])
    def test_the_rate_of_a_connection_is_kept(self, server: HostileServer, bytes_per_s: float, size: int) -> None:
        url = server.serve(PATH, bytes(size), does.rate_cap(bytes_per_s))
        assert self.duration_s(url, url, about_s=size / bytes_per_s) == pytest.approx(size / bytes_per_s, rel=0.1)

    def test_a_link_is_shared_by_all_connections(self) -> None:
        with HostileServer(link_bytes_per_s=10e6) as server:
            url = server.serve(PATH, bytes(1_000_000))
            assert self.duration_s(url, url, url, about_s=0.3) == pytest.approx(0.3, rel=0.1)

    def test_a_dripping_body_comes_byte_by_byte(self, server: HostileServer) -> None:
        server.serve(PATH, b"x" * 30, does.drip(bytes_per_s=100))
        with raw(server) as connection:
            pieces: list[bytes] = []
            received, begun = b"", time.monotonic()
            while not received.endswith(b"x" * 30):
                pieces.append(connection.recv(1 << 16))
                received += pieces[-1]
        assert 0.28 < time.monotonic() - begun < 2
        assert len(pieces) > 10  # all 30, but for a client that was kept waiting

    def test_a_stall_comes_after_the_bytes_and_a_delay_before_the_head(self, server: HostileServer) -> None:
        server.serve(PATH, DATA, [does.delay(0.1), does.stall(after=1000, seconds=0.5)])
        begun = time.monotonic()
        with contextlib.closing(connect(server.url(PATH))) as connection:
            connection.request("GET", PATH)
            with connection.getresponse() as response:
                assert response.read(1000) == DATA[:1000]
                assert 0.1 <= time.monotonic() - begun < 0.6
                assert response.read() == DATA[1000:]
        assert 0.6 <= time.monotonic() - begun < 2

    def test_stopping_ends_stalls_holds_floods_and_idle_connections_without_a_trace(self) -> None:
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        server = HostileServer()
        server.start()
        server.serve("/stall", DATA, does.stall(after=0, seconds=3600))
        server.serve("/hold", DATA)
        server.hold("/hold", after=0)
        server.serve("/flood", DATA, does.endless_body())
        server.serve("/slow", DATA, does.drip(1))
        requests = [f"GET /{name} HTTP/1.1\r\n\r\n".encode() for name in ("stall", "hold", "flood", "slow")]
        connections = [raw(server, request) for request in [*requests, b"GET /h"]]
        while len(server.requests) < len(requests):
            time.sleep(0.001)
        begun = time.monotonic()
        server.stop()
        server.stop()
        assert time.monotonic() - begun < 5
        for connection in connections:
            connection.close()
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)
        with pytest.raises(ConnectionRefusedError):
            get(server.url("/stall"))

    def test_a_client_can_be_killed_in_the_middle_of_a_body(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, does.connection_limit(1))
        hold = server.hold(PATH, after=100_000)
        client = subprocess.Popen([sys.executable, "-c", f"import urllib.request as u; u.urlopen({url!r}).read()"])
        hold.wait_until_reached()
        client.kill()
        assert client.wait() == -signal.SIGKILL
        hold.release()
        while (answer := get(url)).status == 503:
            time.sleep(0.01)
        assert answer.body == DATA

    def test_a_held_connection_is_given_up_when_its_client_dies(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, does.connection_limit(1))
        hold = server.hold(PATH, after=1000)
        with raw(server):
            hold.wait_until_reached()
        while get(url, method="HEAD").status == 503:
            time.sleep(0.01)
        assert server.requests[0].body_bytes_sent == 1000

    @staticmethod
    def duration_s(*urls: str, about_s: float) -> float:
        """Of getting all these at the same time; again where it took longer than expected, which a busy machine may."""
        duration_s = float("inf")
        for _ in range(5):
            begun = time.monotonic()
            with ThreadPoolExecutor(len(urls)) as pool:
                for answer in pool.map(get, urls):
                    assert answer.status == 200
            duration_s = min(duration_s, time.monotonic() - begun)
            if duration_s <= 1.1 * about_s:
                break
        return duration_s


class TestTls:
    def test_a_valid_certificate_serves_all_loopback_names(self, certificates: Certificates) -> None:
        for host in ("127.0.0.1", "127.0.0.2"):
            with HostileServer(host=host, tls=certificates) as server:
                server.serve(PATH, DATA)
                assert get(server.url(PATH), ca=certificates.ca).body == DATA
                if host == "127.0.0.1":
                    assert get(server.url(PATH, host="localhost"), ca=certificates.ca).body == DATA

    @pytest.mark.parametrize(
        ("which", "complaint"),
        [("expired", "has expired"), ("wrong_host", "not valid for"), ("untrusted", "unable to get local issuer")],
    )
    def test_bad_certificates_are_bad_for_their_own_reason(
        self, certificates: Certificates, which: str, complaint: str
    ) -> None:
        with HostileServer(tls=getattr(certificates, which)) as server:
            with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
                get(server.serve(PATH, DATA), ca=certificates.ca)
            assert (server.requests, server.connections) == ([], 1)

    def test_bodies_are_cut_below_tls_too(self, certificates: Certificates) -> None:
        with HostileServer(tls=certificates) as server:
            with pytest.raises(http.client.IncompleteRead) as caught:
                get(server.serve("/cut", DATA, does.truncate(after=1000)), ca=certificates.ca)
            assert caught.value.partial == DATA[:1000]
            # Python's ssl tells of an RST as of an end without close_notify.
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                get(server.serve("/reset", DATA, does.reset(after=1000)), ca=certificates.ca)
            server.serve("/hold", DATA)
            server.hold("/hold", after=1000)
            with ThreadPoolExecutor(1) as pool:
                held = pool.submit(get, server.url("/hold"), ca=certificates.ca)
                while len(server.requests) < 3:
                    time.sleep(0.001)
                server.stop()
                with pytest.raises((http.client.IncompleteRead, OSError)):
                    held.result()


class TestProxy:
    def test_absolute_requests_are_forwarded_and_noted(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA)
        with ForwardProxy() as proxy, contextlib.closing(connect(proxy.url)) as connection:
            answer = ask(connection, "GET", url, Range="bytes=5-9")
            assert (answer.status, answer.body) == (206, DATA[5:10])
            assert [(seen.method, seen.target, seen.status) for seen in proxy.requests] == [("GET", url, None)]
        assert server.requests[0].path == PATH

    def test_only_the_proxy_knows_its_routes(self, certificates: Certificates) -> None:
        with HostileServer(tls=certificates) as server:
            server.serve(PATH, DATA)
            with ForwardProxy(routes={"weights.example:443": server.address}) as proxy:
                parts = urlsplit(proxy.url)
                context = ssl.create_default_context(cafile=certificates.ca)
                connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context)
                connection.set_tunnel("weights.example", 443)
                with contextlib.closing(connection):
                    assert ask(connection, "GET", PATH).body == DATA
                assert [(seen.method, seen.target, seen.status) for seen in proxy.requests] == [
                    ("CONNECT", "weights.example:443", 200)
                ]

    def test_nothing_leaves_the_machine(self) -> None:
        with ForwardProxy() as proxy, contextlib.closing(connect(proxy.url)) as connection:
            assert ask(connection, "GET", "http://weights.example/a").status == 502
            assert ask(connection, "CONNECT", "93.184.215.14:443").status == 502
            assert ask(connection, "GET", "/a").status == 400

    def test_a_proxy_can_want_credentials(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA)
        with ForwardProxy(credentials=("user", "secret")) as proxy:
            with contextlib.closing(connect(proxy.url)) as connection:
                assert ask(connection, "GET", url).headers["Proxy-Authenticate"].startswith("Basic ")
                right = base64.b64encode(b"user:secret").decode()
                assert ask(connection, "GET", url, Proxy_Authorization=f"Basic {right}").body == DATA
            assert [seen.status for seen in proxy.requests] == [407, None]
            assert urlsplit(proxy.url_with_credentials).password == "secret"
        assert server.requests[0].headers["Proxy-Authorization"] is None

    def test_a_proxy_stops_though_its_origin_stalls(self, server: HostileServer) -> None:
        url = server.serve(PATH, DATA, does.stall(after=1000, seconds=3600))
        with ForwardProxy() as proxy, contextlib.closing(connect(proxy.url)) as connection:
            connection.request("GET", url)
            with connection.getresponse() as response:
                assert response.read(1000) == DATA[:1000]
                begun = time.monotonic()
                proxy.__exit__(None, None, None)
                assert time.monotonic() - begun < 5


@needs_nginx
class TestNginx:
    def test_files_are_served_over_both_schemes_and_logged(self, tmp_path: Path, certificates: Certificates) -> None:
        (tmp_path / "a.bin").write_bytes(DATA)
        with Nginx(tmp_path, tls=certificates) as nginx:
            with contextlib.closing(connect(nginx.url("/"))) as connection:
                assert ask(connection, "GET", "/a.bin").body == DATA
                assert ask(connection, "GET", "/a.bin", Range="bytes=5-9").body == DATA[5:10]
            assert get(nginx.url("/a.bin", scheme="https"), ca=certificates.ca).body == DATA
            rows = nginx.log(at_least=3)
            assert [(row.method, row.uri, row.status, row.range, row.body_bytes_sent) for row in rows] == [
                ("GET", "/a.bin", 200, None, len(DATA)),
                ("GET", "/a.bin", 206, "bytes=5-9", 5),
                ("GET", "/a.bin", 200, None, len(DATA)),
            ]
            assert rows[0].connection_id == rows[1].connection_id != rows[2].connection_id
            pid = nginx.pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(ConnectionRefusedError):
            get(nginx.url("/a.bin"))

    def test_the_log_is_complete_when_the_answer_is(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(DATA)
        with Nginx(tmp_path) as nginx:
            for count in range(1, 30):
                get(nginx.url("/a.bin"))
                assert len(nginx.log()) == count

    def test_the_capped_location_keeps_its_rate(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(bytes(2_000_000))
        with Nginx(tmp_path, capped_bytes_per_s=1_000_000, workers=2) as nginx:
            begun = time.monotonic()
            assert len(get(nginx.url("/a.bin", capped=True)).body) == 2_000_000
            assert 0.9 < time.monotonic() - begun < 10  # nginx counts in whole seconds, and lets the first go
            assert nginx.log(at_least=1)[0].uri == "/capped/a.bin"


def test_the_server_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    root, port_file, log = tmp_path / "root", tmp_path / "port", tmp_path / "log"
    root.mkdir()
    (root / "a.bin").write_bytes(DATA)
    command = [sys.executable, "-W", "error", "-m", "tests.servers.hostile"]
    process = subprocess.Popen(
        [*command, "--root", root, "--port-file", port_file, "--log", log], cwd=REPOSITORY, stderr=subprocess.PIPE
    )
    while not port_file.exists():
        assert process.poll() is None
        time.sleep(0.005)
    url = f"http://127.0.0.1:{port_file.read_text().strip()}/a.bin"
    assert get(url, Range="bytes=0-9").body == DATA[:10]
    process.terminate()
    _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (0, b"")
    (row,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (row["method"], row["path"], row["range"], row["status"]) == ("GET", "/a.bin", "bytes=0-9", 206)
    assert (row["body_bytes_sent"], row["connection_id"]) == (10, 1)
