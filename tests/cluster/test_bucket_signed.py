"""A signed mirror that somebody copied into a bucket."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.test_mirror import ALL, blobs_in
from tests.servers.clouds import Cloud


@pytest.mark.needs("ssh-keygen")
def test_a_signed_mirror_in_a_bucket_is_believed(
    site: Site, run: Run, there: Cloud, place: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "keeper", "-f", key], check=True)
    signers = tmp_path / "signers"
    signers.write_text(f'keeper namespaces="weightstore-index" {key.with_suffix(".pub").read_text()}')
    run("prefetch", *ALL)
    run("mirror", "index")
    run("mirror", "sign", site.home, "--key", key)
    files = [*site.home.glob("blobs/sha256/*"), *site.home.glob("*.json*"), site.home / "oci-layout"]
    there.put({f"{prefix}/{file.relative_to(site.home)}": file.read_bytes() for file in files})
    shutil.rmtree(site.home)
    shutil.rmtree(site.state)
    site.server.stop()
    monkeypatch.setenv("WEIGHTSTORE_ALLOWED_SIGNERS", str(signers))
    assert json.loads(run("mirror", "verify", place, "--json").stdout)["signer"] == "keeper"
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    run("prefetch", *ALL)
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}

    there.put({f"{prefix}/signed-index.json": b"{}"})
    assert "not believed" in run("mirror", "verify", place, code=5).stderr


@pytest.mark.needs("ssh-keygen")
def test_a_lockfile_that_the_keeper_gives_is_enough_to_sign_a_bucket(
    site: Site, run: Run, there: Cloud, place: str, prefix: str, tmp_path: Path
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    url = site.server.serve("/plain.pth", b"plain" * 5000)
    run("lock", "-o", "plain.lock", url)
    run("mirror", "push", place, "--all")
    shutil.rmtree(site.home)
    sign = ("mirror", "sign", place, "--key", tmp_path / "key")
    assert "--locked" in run(*sign, code=2).stderr
    assert json.loads(run(*sign, "--locked", "plain.lock", "--json").stdout)["entries"] == 1
    assert [one["source"] for one in json.loads(there.get(prefix)["signed-index.json"])["entries"]] == [url]
    other = site.server.serve("/plain.pth", b"other" * 5000)
    run("prefetch", other)
    told = run(*sign, "--locked", "plain.lock", code=2).stderr
    assert "and the lockfile says" in told


def test_what_lies_in_a_bucket_is_a_store_when_it_is_copied(
    site: Site, run: Run, there: Cloud, place: str, prefix: str, tmp_path: Path
) -> None:
    run("prefetch", *ALL)
    run("mirror", "push", place, "--all")
    copy = tmp_path / "copy"
    for name, content in there.get(prefix).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    run("--home", copy, "verify")
    assert blobs_in(copy) == {site.digest(member) for member in "ABC"}
