"""How buckets are reached: through the site's proxy, by the site's CA, and not at all where that is wanted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.conftest import AZURE, GCS, S3
from tests.cluster.test_mirror import ALL, blobs_in
from tests.servers.clouds import NOBODY, Cloud, cloud
from tests.servers.proxy import ForwardProxy
from tests.servers.tls import Certificates, make_certificates

HOSTS = ("s3.us-east-1.amazonaws.com", "storage.googleapis.com", "devstoreaccount1.blob.core.windows.net")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"), more_names=HOSTS)


@pytest.fixture(scope="module", params=[S3, GCS, AZURE])
def vendors(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    """A cloud whose certificate has its vendor's name."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with cloud(request.param, tmp_path_factory.mktemp(request.param), certificate=certificates.valid) as started:
        yield started


@pytest.fixture
def proxy(vendors: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForwardProxy]:
    """The site's proxy, the only one here who knows where the vendor is; this user's credentials, and no endpoint."""
    with ForwardProxy(
        credentials=("ada", "hunter2"), routes={f"{vendors.host}:443": ("127.0.0.1", vendors.relay.port)}
    ) as proxy:
        for name, value in {**NOBODY, **vendors.credentials, "HTTPS_PROXY": proxy.url_with_credentials}.items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "WEIGHTSTORE_CA_BUNDLE"])
def test_a_bucket_is_reached_through_a_proxy_by_the_sites_ca(
    site: Site,
    run: Run,
    vendors: Cloud,
    proxy: ForwardProxy,
    prefix: str,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, str(certificates.ca))
    place = f"{vendors.scheme}://weights/{prefix}"
    run("lock", "-o", "weights.lock", *ALL)
    assert "3 pushed" in run("mirror", "push", place, "--all").stderr
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", place, "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}
    assert {(request.method, request.target) for request in proxy.requests} == {("CONNECT", f"{vendors.host}:443")}


def test_a_certificate_that_nobody_here_trusts_is_told(
    site: Site, run: Run, vendors: Cloud, proxy: ForwardProxy, prefix: str
) -> None:
    told = run("mirror", "status", f"{vendors.scheme}://weights/{prefix}", code=6).stderr
    assert "its certificate is not trusted" in told
    assert "WEIGHTSTORE_CA_BUNDLE" in told
    assert "hunter2" not in told


def test_a_proxy_that_wants_a_password_is_told_without_one(
    site: Site, run: Run, vendors: Cloud, proxy: ForwardProxy, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url_with_credentials.replace("hunter2", "hunter3"))
    told = run("mirror", "status", f"{vendors.scheme}://weights/{prefix}", code=6).stderr
    assert "the proxy wants user and password" in told
    assert "hunter3" not in told
    assert {request.status for request in proxy.requests} == {407}


def test_a_directory_of_certificates_is_refused_for_buckets(
    site: Site, run: Run, there: Cloud, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTSTORE_CA_BUNDLE", str(tmp_path))
    told = run("mirror", "status", place, code=2).stderr
    assert "one PEM file" in told


def test_offline_no_bucket_is_asked(
    site: Site, run: Run, there: Cloud, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", place, "--all")
    run("rm", "Small_Weights.A", "--yes")
    before = len(there.relay.requests())
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    run("--offline", "prefetch", "--locked", "weights.lock", code=4)
    run("--offline", "path", "Small_Weights.B")
    for verb in ("push", "pull", "status", "verify"):
        run("--offline", "mirror", verb, place, *(["--all"] if verb == "push" else []), code=2)
    assert len(there.relay.requests()) == before


@pytest.mark.needs("strace")
def test_offline_opens_no_socket_though_a_bucket_is_a_mirror(
    site: Site, run: Run, there: Cloud, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """obstore's sockets are none of Python's: the kernel is asked."""
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", place, "--all")
    run("rm", "Small_Weights.A", "--yes")
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)

    def sockets(*arguments: str, code: int) -> list[str]:
        trace = tmp_path / "trace"
        command = ["strace", "-f", "-qq", "-e", "trace=socket,connect", "-o", trace]
        done = subprocess.run(
            [*command, sys.executable, "-m", "weightstore", *arguments],
            env=dict(os.environ),
            check=False,
            capture_output=True,
        )
        assert done.returncode == code, done.stderr
        return re.findall(r"socket\(AF_INET6?\b|connect\(.*AF_INET", trace.read_text())

    for arguments in (("prefetch", "--locked", "weights.lock"), ("path", "Small_Weights.A")):
        assert sockets("--offline", *arguments, code=4) == []
    assert sockets("--offline", "mirror", "status", place, code=2) == []
    assert sockets("mirror", "status", place, code=0) != []
