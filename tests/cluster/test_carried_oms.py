"""OMS signatures that travel: carried to where they hold, told of where they do not; model-signing is the judge."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cli.conftest import Run, Site
from tests.cluster.test_mirror import ALL
from tests.cluster.test_oms import library, write_key

pytestmark = pytest.mark.skipif(importlib.util.find_spec("model_signing") is None, reason="needs model-signing")


@pytest.fixture
def signed(site: Site, run: Run, tmp_path: Path) -> None:
    """A store of all weights whose files are signed."""
    write_key(tmp_path / "key", ec.generate_private_key(ec.SECP256R1()))
    run("prefetch", *ALL)
    run("mirror", "index")
    run("mirror", "sign", site.home, "--oms", "--key", tmp_path / "key.pem")


@pytest.mark.usefixtures("signed")
def test_a_push_of_the_very_same_files_carries_it_and_the_library_verifies_it_there(run: Run, tmp_path: Path) -> None:
    report = json.loads(run("mirror", "push", "mirror", "--all", "--json").stdout)
    assert report["oms"] == {"status": "carried", "matches": True}
    mirror = tmp_path / "mirror"
    run("mirror", "verify", mirror, "--oms", "--key", tmp_path / "key.pub")
    verified = library(
        "verify", "key", mirror, "--public_key", tmp_path / "key.pub", "--signature", mirror / "model.sig"
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads(run("mirror", "push", "mirror", "--all", "--json").stdout)["oms"]["status"] == "present"
    assert json.loads(run("mirror", "status", "mirror", "--json").stdout)["oms"] == {"matches": True}


@pytest.mark.usefixtures("signed")
def test_a_push_that_makes_it_false_says_so_and_so_does_status(site: Site, run: Run) -> None:
    run("mirror", "push", "mirror", "--all")
    run("prefetch", site.server.serve("/late.pth", b"late" * 5000))
    told = run("mirror", "push", "mirror", "--all")
    assert "its model.sig is over other files than lie there now" in told.stderr
    assert json.loads(run("mirror", "status", "mirror", "--json").stdout)["oms"] == {"matches": False}
    assert "its model.sig is over other files" in run("mirror", "status", "mirror").stderr


@pytest.mark.usefixtures("signed")
def test_it_is_not_carried_to_other_files(run: Run, tmp_path: Path) -> None:
    told = run("mirror", "push", "mirror", "Small_Weights.A")
    assert "model.sig is not carried" in told.stderr
    assert not (tmp_path / "mirror/model.sig").exists()
    assert json.loads(run("mirror", "status", "mirror", "--json").stdout)["oms"] is None


@pytest.mark.usefixtures("signed")
def test_a_bucket_has_it_too(run: Run, bucket: str) -> None:
    assert json.loads(run("mirror", "push", bucket, "--all", "--json").stdout)["oms"]["status"] == "carried"
    assert json.loads(run("mirror", "status", bucket, "--json").stdout)["oms"] == {"matches": True}


@pytest.mark.usefixtures("signed")
def test_what_is_no_signature_is_over_nothing(site: Site, run: Run, tmp_path: Path) -> None:
    (site.home / "model.sig").unlink()
    (site.home / "model.sig").write_bytes(b'{"dsseEnvelope": [1]}')
    assert json.loads(run("mirror", "push", "mirror", "--all", "--json").stdout)["oms"]["status"] == "refused"
    assert not (tmp_path / "mirror/model.sig").exists()
