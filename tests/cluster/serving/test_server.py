"""The server around the dialects: who may ask, what is noted, TLS, start and end."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.cluster.serving.conftest import put, record
from tests.servers.tls import make_certificates
from weightstore.cli import cli
from weightstore.client import Client
from weightstore.cluster.serving.server import Serving, make_app, read_token, serve
from weightstore.errors import InvalidConfig, StoreError

DATA = random.Random(5).randbytes(100_000)


def test_without_the_token_nothing_is_told_but_that_the_server_lives(start, shared):
    digest = put(shared, DATA)
    url = start(token="s3cret", has_metrics=True).url
    for path in ("/", f"/blobs/sha256/{digest.hex}", "/v2/", "/metrics", "/nothing", "/api/models/a/b"):
        answer = requests.get(f"{url}{path}")
        assert (answer.status_code, answer.text) == (401, "a token is needed\n")
        assert "Basic" in answer.headers["WWW-Authenticate"]
    assert requests.get(f"{url}/healthz").text == "ok\n"


@pytest.mark.parametrize("field", ["Bearer wrong", "Bearer ", "Basic !!", "Basic OnM=", "s3cret", "Digest s3cret", "é"])
def test_a_wrong_token_is_refused(start, field):
    url = start(token="s3cret").url
    assert requests.get(url, headers={"Authorization": field.encode()}).status_code == 401


def test_a_token_is_shown_as_a_bearers_or_as_a_password(start, shared):
    digest = put(shared, DATA)
    url = f"{start(token='s3cret').url}/blobs/sha256/{digest.hex}"
    assert requests.get(url, headers={"Authorization": "Bearer s3cret"}).content == DATA
    assert requests.get(url, auth=("anybody", "s3cret")).content == DATA


def test_behind_a_token_no_shared_cache_keeps_anything(start, shared):
    digest = put(shared, DATA)
    record(shared, "https://example.org/b.pth", DATA[1:])
    for settings, word in (({}, "public"), ({"token": "s3cret"}, "private")):
        url = start(**settings).url
        manifest = requests.get(f"{url}/v2/weights/manifests/b.pth", auth=("", "s3cret"))
        for path in (
            f"/blobs/sha256/{digest.hex}",
            f"/v2/weights/manifests/{manifest.headers['Docker-Content-Digest']}",
        ):
            answer = requests.get(f"{url}{path}", auth=("", "s3cret"))
            assert answer.headers["Cache-Control"] == f"{word}, max-age=31536000, immutable"


def test_a_mirrors_url_carries_the_token(start, shared, config):
    digest = put(shared, DATA)
    mirror = start(token="s3cret").url.replace("//", "//me:s3cret@")
    from weightstore.source import Source

    client = Client(config.but(mirrors=(Source(mirror),), order=("layers", "mirrors")))
    assert client.path("https://nowhere.example/a.pth", sha256=digest.hex).read_bytes() == DATA


def test_the_log_tells_each_request_and_no_credential(start, shared):
    digest = put(shared, DATA)
    served = start(token="s3cret")
    path = f"/blobs/sha256/{digest.hex}"
    requests.get(f"{served.url}{path}?token=hidden", auth=("ada", "s3cret"), headers={"Range": "bytes=1-10"})
    requests.get(f"{served.url}/a%0Ab", auth=("ada", "s3cret"))
    first, second = served.log
    assert re.fullmatch(rf"\d{{4}}-\S+Z 127\.0\.0\.1 GET {path} 206 10 \d+\.\d+", first)
    assert "\n" not in second
    assert not any(secret in first + second for secret in ("s3cret", "hidden", "ada"))


@pytest.mark.parametrize(
    "line",
    [
        b"GET /\xff HTTP/1.1",
        b"GET /a\x00b HTTP/1.1",
        b"nonsense",
        b"GET * HTTP/1.1",
        b"\x16\x03\x01",
        b"GET /%zz HTTP/1.1",
    ],
)
def test_what_is_no_request_is_refused_without_a_traceback(start, line, caplog):
    host, port = start().url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(1000).split()[1] in {b"400", b"404"}
    assert "Traceback" not in caplog.text


def test_metrics_count_requests_bytes_hits_and_misses(start, shared):
    digest = put(shared, DATA)
    url = start(has_metrics=True).url
    requests.get(f"{url}/blobs/sha256/{digest.hex}")
    requests.get(f"{url}/blobs/sha256/{digest.hex}", headers={"Range": "bytes=0-9"})
    requests.get(f"{url}/blobs/sha256/{'0' * 64}")
    text = requests.get(f"{url}/metrics").text
    assert 'weightstore_blobs_total{answer="hit"} 2' in text
    assert 'weightstore_blobs_total{answer="miss"} 1' in text
    assert f"weightstore_sent_bytes_total {len(DATA) + 10}" in text
    assert 'weightstore_requests_total{dialect="store",method="GET",status="206"} 1' in text
    assert requests.get(f"{start().url}/metrics").status_code == 404


def test_tls_serves_the_same(start, shared, tmp_path):
    digest = put(shared, DATA)
    certificates = make_certificates(tmp_path)
    served = start(certificate=certificates.valid.chain, key=certificates.valid.key)
    assert served.url.startswith("https://")
    url = f"{served.url}/blobs/sha256/{digest.hex}"
    assert requests.get(url, verify=str(certificates.ca)).content == DATA
    assert requests.get(url, verify=str(certificates.ca), headers={"Range": "bytes=7-"}).content == DATA[7:]
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url)


def test_a_certificate_that_is_none_is_a_wrong_setting(start, tmp_path):
    (tmp_path / "c.pem").write_text("nothing")
    with pytest.raises(InvalidConfig, match="no certificate"):
        start(certificate=tmp_path / "c.pem", key=tmp_path / "c.pem")


def test_a_port_in_use_is_told_with_what_to_do(shared_config):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        serving = Serving(port=taken.getsockname()[1])
        app = make_app(Client(shared_config), serving)
        with pytest.raises(StoreError, match="--port"):
            asyncio.run(serve(app, serving, started=print))


def test_a_token_file_is_one_line(tmp_path):
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    assert read_token(path) == "s3cret"
    for bad in ("", "\n", "two words", "two\nlines", "snowman ☃"):
        path.write_text(bad)
        with pytest.raises(InvalidConfig) as caught:
            read_token(path)
        assert "snowman" not in str(caught.value)


def test_only_loopback_is_closed_by_itself():
    assert not Serving().is_open
    assert not Serving("::1").is_open
    assert not Serving("localhost").is_open
    assert Serving("0.0.0.0").is_open
    assert Serving("weights.example.org").is_open
    assert not Serving("0.0.0.0", token="s3cret").is_open


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal_and_lets_a_download_end(shared, tmp_path, monkeypatch, number):
    data = bytes(30 << 20)  # more than the buffers between the two hold
    ref = record(shared, "https://example.org/a.pth", data)
    monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("WEIGHTSTORE_CONFIG", "/nonexistent")
    command = [sys.executable, "-m", "weightstore", "--home", str(shared.root), "serve", "--port", "0", "--access-log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stderr.readline().split()[-1]
        with requests.get(f"{url}/blobs/sha256/{ref.digest.hex}", stream=True, timeout=30) as answer:
            start = answer.raw.read(1000)
            process.send_signal(number)
            while _is_listening(url):
                time.sleep(0.02)
            assert len(start + answer.raw.read()) == len(data)
        assert process.wait(timeout=20) == 0
        assert " 200 31457280 " in process.stdout.read()
        assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_clients_and_files(shared, tmp_path, monkeypatch):
    data = random.Random(7).randbytes(1 << 20) * 24
    ref = record(shared, "https://example.org/a.pth", data)
    monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / "state"))
    command = [sys.executable, "-m", "weightstore", "--home", str(shared.root), "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        url = process.stderr.readline().split()[-1]

        def fetch(_: int) -> str:
            hasher = hashlib.sha256()
            with requests.get(f"{url}/blobs/sha256/{ref.digest.hex}", stream=True, timeout=60) as answer:
                for piece in answer.iter_content(1 << 16):
                    hasher.update(piece)
            return hasher.hexdigest()

        assert fetch(0) == ref.digest.hex
        before = _peak_bytes(process.pid)
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(fetch, range(16))) == {ref.digest.hex}
        grown = _peak_bytes(process.pid) - before
        process.terminate()
    assert grown < len(data)  # of sixteen times as much that was sent


def _peak_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024


def _is_listening(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_an_open_address_without_a_token_is_warned_of(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / "state"))
    command = [
        sys.executable,
        "-m",
        "weightstore",
        "--home",
        str(shared.root),
        "serve",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline().startswith("warning: everyone who reaches 0.0.0.0")
        assert process.stderr.readline().startswith("serving ")
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_a_token_that_others_can_read_is_warned_of(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / "state"))
    token = tmp_path / "token"
    token.write_text("s3cret")
    command = [sys.executable, "-m", "weightstore", "--home", str(shared.root), "serve", "--token-file", str(token)]
    for mode, host, expected in (
        (0o644, "0.0.0.0", ["over plain HTTP the token can be read", "every user of this machine can read the token"]),
        (0o600, "127.0.0.1", []),
    ):
        token.chmod(mode)
        with subprocess.Popen([*command, "--host", host, "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
            for warning in expected:
                assert process.stderr.readline().startswith(f"warning: {warning}")
            assert process.stderr.readline().startswith("serving ")
            process.terminate()
            assert process.wait(timeout=20) == 0


def test_a_certificate_needs_its_key():
    from click.testing import CliRunner

    result = CliRunner().invoke(cli, ["serve", "--tls-cert", "c.pem"])
    assert result.exit_code == 2
    assert "go together" in result.output
