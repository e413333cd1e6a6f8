"""``weightstore mirror verify``: whether what a mirror's keeper signed is to be believed."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.servers.hostile import HostileServer
from weightstore.client import Client
from weightstore.cluster.index import build_index, write_index
from weightstore.store.layout import open_layout

pytestmark = pytest.mark.needs("ssh-keygen")


@pytest.fixture
def mirror(site, run, tmp_path, monkeypatch):
    run("prefetch", "small", "other")
    client = Client()
    layout = open_layout(site.home)
    write_index(layout, build_index(layout, client.catalogs.all()), receipts=client.receipts)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], cwd=tmp_path, check=True)
    kind, key, *_ = (tmp_path / "key.pub").read_text().split()
    (tmp_path / "signers").write_text(f"ada@example.org {kind} {key}\n")
    monkeypatch.setenv("WEIGHTSTORE_ALLOWED_SIGNERS", str(tmp_path / "signers"))
    return site.home


def test_version_signer_expiry_and_entries_are_told_with_and_without_json(mirror, run, tmp_path):
    signed = json.loads(run("mirror", "sign", mirror, "--key", tmp_path / "key", "--json").stdout)
    report = json.loads(run("mirror", "verify", mirror, "--json").stdout)
    assert report == {
        "mirror": f"file://{mirror}",
        "version": signed["version"],
        "expires": signed["expires"],
        "signer": "ada@example.org",
        "entries": 2,
    }
    said = run("mirror", "verify", mirror).stderr
    assert f": 2 sources by ada@example.org, version {signed['version']}, until " in said


def test_a_mirror_on_a_web_server_is_verified_unless_offline(mirror, run, tmp_path):
    run("mirror", "sign", mirror, "--key", tmp_path / "key")
    with HostileServer() as server:
        server.serve_directory(mirror)
        assert "2 sources by ada@example.org" in run("mirror", "verify", server.url("")).stderr
        before = len(server.requests)
        run("mirror", "verify", server.url(""), "--offline", code=2)
        assert len(server.requests) == before


def test_one_that_is_not_signed_or_by_nobody_who_may_exits_with_5(mirror, run, tmp_path):
    assert "it is not signed" in run("mirror", "verify", mirror, code=5).stderr
    run("mirror", "sign", mirror, "--key", tmp_path / "key")
    (tmp_path / "signers").write_text("# nobody\n")
    assert "nobody in allowed_signers has the key" in run("mirror", "verify", mirror, code=5).stderr


def test_without_allowed_signers_nobody_is_believed(mirror, run, monkeypatch):
    monkeypatch.delenv("WEIGHTSTORE_ALLOWED_SIGNERS")
    assert "WEIGHTSTORE_ALLOWED_SIGNERS" in run("mirror", "verify", mirror, code=2).stderr


def test_options_that_belong_to_oms_are_refused_without_it(mirror, run):
    assert "for --oms" in run("mirror", "verify", mirror, "--key", "key", code=2).stderr
    assert "needs --key" in run("mirror", "verify", mirror, "--oms", code=2).stderr
    url = "https://weights.example.org"
    assert "not a URL" in run("mirror", "verify", url, "--oms", "--key", "key", code=2).stderr
