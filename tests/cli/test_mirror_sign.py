"""``weightstore mirror sign``: what it prints and writes, and that ssh-keygen agrees."""

from __future__ import annotations

import json
import subprocess

import pytest
from click.testing import CliRunner

from weightstore.cli.mirror_sign import command
from weightstore.cli.settings import Settings
from weightstore.client import Client
from weightstore.cluster.index import build_index, write_index
from weightstore.errors import InvalidInput
from weightstore.store.layout import open_layout

pytestmark = pytest.mark.needs("ssh-keygen")


@pytest.fixture
def mirror(site, run, tmp_path):
    run("prefetch", "small", "other")
    client = Client()
    layout = open_layout(site.home)
    write_index(layout, build_index(layout, client.catalogs.all()), receipts=client.receipts)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], cwd=tmp_path, check=True)
    kind, key, *_ = (tmp_path / "key.pub").read_text().split()
    (tmp_path / "signers").write_text(f'ada@example.org namespaces="weightstore-index" {kind} {key}\n')
    return site.home


def sign(*arguments):
    result = CliRunner().invoke(command, [str(one) for one in arguments], obj=Settings())
    if result.exception is not None:
        raise result.exception
    return result


def test_what_is_signed_is_verified_by_ssh_keygen_and_believed(site, mirror, run, tmp_path, monkeypatch):
    result = sign(mirror, "--key", tmp_path / "key", "--expires", "2d")
    assert result.stderr.startswith(f"{mirror}/signed-index.json: 2 sources, until ")
    verify = ["ssh-keygen", "-Y", "verify", "-f", "signers", "-I", "ada@example.org", "-n", "weightstore-index", "-s"]
    document = (mirror / "signed-index.json").read_bytes()
    subprocess.run([*verify, mirror / "signed-index.json.sig"], input=document, cwd=tmp_path, check=True)
    before = len(site.server.requests)
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "users"))
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", str(mirror))
    monkeypatch.setenv("WEIGHTSTORE_ALLOWED_SIGNERS", str(tmp_path / "signers"))
    monkeypatch.setenv("WEIGHTSTORE_ORDER", "layers,mirrors")
    run("prefetch", "small")  # of which the catalog knows eight digits
    assert (tmp_path / "users/blobs/sha256" / site.digest("B")).exists()
    assert len(site.server.requests) == before


def test_doctor_tells_what_each_mirror_has_of_signatures(mirror, run, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "users"))
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", str(mirror))
    monkeypatch.setenv("WEIGHTSTORE_ALLOWED_SIGNERS", str(tmp_path / "signers"))

    def told():
        findings = json.loads(run("doctor", "--json", "--offline").stdout)["findings"]
        return [(one["level"], one["found"]) for one in findings if one["what"] == "signature"]

    assert told() == [("note", f"file://{mirror}: not signed")]
    sign(mirror, "--key", tmp_path / "key")
    ((level, found),) = told()
    assert level == "ok"
    assert ": 2 sources by ada@example.org, until " in found
    (tmp_path / "signers").write_text("# nobody\n")
    ((level, found),) = told()
    assert level == "warn"
    assert "nobody in allowed_signers has the key SHA256:" in found


def test_json_says_what_was_signed(mirror, tmp_path):
    report = json.loads(sign(mirror, "--key", tmp_path / "key", "--json").stdout)
    assert set(report) == {"path", "version", "expires", "key", "entries", "left_out"}
    assert report["entries"] == 2
    assert report["key"].startswith("SHA256:")


def test_a_key_of_an_agent_signs_by_its_public_half(mirror, tmp_path, monkeypatch):
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    values = dict(part.split("=", 1) for part in agent.replace("\n", "").split(";") if "=" in part)
    monkeypatch.setenv("SSH_AUTH_SOCK", values["SSH_AUTH_SOCK"])
    monkeypatch.setenv("SSH_AGENT_PID", values["SSH_AGENT_PID"])
    try:
        subprocess.run(["ssh-add", "-q", "key"], cwd=tmp_path, check=True)
        (tmp_path / "key").unlink()
        assert sign(mirror, "--key", tmp_path / "key.pub").exit_code == 0
    finally:
        subprocess.run(["ssh-agent", "-k"], check=True, capture_output=True)


def test_a_key_that_is_none_is_told_and_nothing_is_written(mirror, tmp_path):
    (tmp_path / "none").write_text("hello")
    (tmp_path / "none").chmod(0o600)
    with pytest.raises(InvalidInput, match="ssh-keygen could not sign"):
        sign(mirror, "--key", tmp_path / "none")
    assert not list(mirror.glob("signed*"))
