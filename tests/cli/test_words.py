"""What signed indexes say, as ``why`` and ``prefetch --dry-run`` tell it: the same that a fetch then does."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.servers.hostile import HostileServer

PLAIN = b"plain" * 5000
pytestmark = pytest.mark.needs("ssh-keygen")


@pytest.fixture
def mirror(site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A signed mirror, seen from a machine where nothing is known of what it has, and whose origin is off."""
    site.server.serve("/plain.pth", PLAIN)
    run("prefetch", "Small_Weights.B", site.server.url("/plain.pth"))
    run("mirror", "push", "mirror", "--all")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], cwd=tmp_path, check=True)
    kind, key, *_ = (tmp_path / "key.pub").read_text().split()
    (tmp_path / "signers").write_text(f"ada@example.org {kind} {key}\n")
    run("mirror", "sign", tmp_path / "mirror", "--key", tmp_path / "key", "--expires", "2d")
    shutil.rmtree(site.home)
    shutil.rmtree(site.state)
    site.server.stop()
    monkeypatch.setenv("WEIGHTSTORE_ALLOWED_SIGNERS", str(tmp_path / "signers"))
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


def until(mirror: Path) -> str:
    return str(json.loads((mirror / "signed-index.json").read_bytes())["expires"])


def test_why_tells_whose_word_until_when_and_what(site: Site, run: Run, mirror: Path) -> None:
    told = json.loads(run("why", "small", "--json").stdout)
    assert (told["digest"], told["known_by"]) == (f"sha256:{site.digest('B')}", "signature")
    assert told["signed"] == {"mirror": f"file://{mirror}", "signer": "ada@example.org", "expires": until(mirror)}
    said = f"signed by ada@example.org, valid until {until(mirror)}, says sha256:{site.digest('B')}"
    assert {"place": f"signed index of mirror file://{mirror}", "answer": said} in told["steps"]
    assert told["steps"][-2]["place"] == f"mirror file://{mirror}/blobs/sha256/{site.digest('B')}"
    assert said in run("why", "small").stdout
    assert not (site.state / "signed").exists()  # to tell is not to take it at its word


def test_why_says_so_where_a_signed_index_says_nothing(run: Run, mirror: Path) -> None:
    told = json.loads(run("why", "Small_Weights.A", "--json").stdout)
    assert (told["digest"], told["known_by"], told["signed"]) == (None, "nothing", None)
    answer = f"signed by ada@example.org, valid until {until(mirror)}, says nothing of it"
    assert told["steps"][0] == {"place": f"signed index of mirror file://{mirror}", "answer": answer}


def test_why_says_why_a_signed_index_is_not_believed(run: Run, mirror: Path) -> None:
    (mirror.parent / "signers").write_text("# nobody\n")
    (step, *_) = json.loads(run("why", "small", "--json").stdout)["steps"]
    assert step["answer"].startswith("not believed: nobody in allowed_signers has the key SHA256:")
    (mirror / "signed-index.json.sig").unlink()
    (step, *_) = json.loads(run("why", "small", "--json").stdout)["steps"]
    assert step["answer"] == "there is none"


def test_why_says_that_a_mirror_does_not_answer(run: Run, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HostileServer() as web:
        gone = web.url("/")
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", f"{gone} {mirror}")
    told = json.loads(run("why", "small", "--json").stdout)
    assert told["steps"][0] == {"place": f"signed index of mirror {gone}", "answer": "cannot be read: no connection"}
    assert told["signed"]["mirror"] == f"file://{mirror}"


def test_why_says_that_the_pin_does_not_agree(site: Site, run: Run, mirror: Path) -> None:
    forged = json.loads(site.catalog.read_text())
    forged["enums"]["Small_Weights"]["entries"]["B"]["pin"] = "0" * 8
    site.catalog.write_text(json.dumps(forged))
    (step, *_) = json.loads(run("why", "small", "--json").stdout)["steps"]
    assert (
        f"says sha256:{site.digest('B')} of {len(site.data('B'))} bytes, and wanted is sha256:00000000"
        in step["answer"]
    )


def test_why_remembers_offline_what_a_fetch_believed_and_asks_nobody(
    site: Site,
    run: Run,
    mirror: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with HostileServer() as web:
        web.serve_directory(mirror)
        monkeypatch.setenv("WEIGHTSTORE_MIRRORS", web.url("/"))
        (step, *_) = json.loads(run("why", "small", "--offline", "--json").stdout)["steps"]
        assert step == {"place": f"signed index of mirror {web.url('/')}", "answer": "not asked: offline"}
        assert not web.requests
        assert json.loads(run("why", "small", "--json").stdout)["known_by"] == "signature"
        assert {request.path for request in web.requests} == {"/signed-index.json", "/signed-index.json.sig"}
        plain, digest = site.server.url("/plain.pth"), hashlib.sha256(PLAIN).hexdigest()
        run("prefetch", plain)
        asked = len(web.requests)
        told = json.loads(run("why", plain, "--offline", "--json").stdout)
        assert told["known_by"] == "ref"  # what came by a signature is recorded, and outlives the index
        assert told["path"] == str(site.home / "blobs/sha256" / digest)
        assert told["signed"] is None
        assert len(web.requests) == asked
        (ref,) = [path for path in (site.home / "refs").iterdir() if plain in path.read_text()]
        ref.unlink()  # as in a store that this user cannot write to
        told = json.loads(run("why", plain, "--offline", "--json").stdout)
        assert told["steps"][0]["place"] == "signed index read earlier"
        assert told["steps"][0]["answer"].endswith(f"says sha256:{digest}")
        assert told["signed"] == {"mirror": None, "signer": "ada@example.org", "expires": until(mirror)}


def test_a_dry_run_plans_what_the_fetch_then_does(site: Site, run: Run, mirror: Path) -> None:
    (item,) = json.loads(run("prefetch", "small", "--dry-run", "--json").stdout)["items"]
    assert (item["digest"], item["known_by"]) == (f"sha256:{site.digest('B')}", "signature")
    assert item["signed"] == {"mirror": f"file://{mirror}", "signer": "ada@example.org", "expires": until(mirror)}
    assert f"file://{mirror}/blobs/sha256/{site.digest('B')}" in item["sources"]
    assert "by the signed index of mirror" in run("prefetch", "small", "--dry-run").stderr
    assert not (site.home / "blobs").exists()
    assert not (site.state / "signed").exists()


def test_a_dry_run_offline_asks_no_mirror_on_the_network(
    run: Run,
    mirror: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with HostileServer() as web:
        web.serve_directory(mirror)
        monkeypatch.setenv("WEIGHTSTORE_MIRRORS", web.url("/"))
        (item,) = json.loads(run("prefetch", "small", "--dry-run", "--offline", "--json", code=4).stdout)["items"]
        assert (item["digest"], item["known_by"], item["signed"]) == (None, "nothing", None)
        assert not web.requests
        (item,) = json.loads(run("prefetch", "small", "--dry-run", "--json").stdout)["items"]
        assert item["signed"]["mirror"] == web.url("/")


@pytest.fixture
def taken_back(site: Site, run: Run, mirror: Path) -> str:
    """A URL whose weights came by a signature, of a key that has been taken back."""
    run("prefetch", "small", site.server.url("/plain.pth"))
    shutil.rmtree(site.state)
    (mirror.parent / "signers").write_text("# nobody\n")
    return site.server.url("/plain.pth")


def test_rm_removes_what_was_signed_by_a_key_that_was_taken_back(site: Site, run: Run, taken_back: str) -> None:
    assert taken_back in run("ls").stdout
    assert "removed" in run("rm", "-y", taken_back, "small").stderr
    assert run("ls").stdout == ""
    assert "forgotten" in run("rm", "-y", "--forget", taken_back).stderr


def test_a_view_tells_what_is_here_and_does_not_count(site: Site, run: Run, taken_back: str) -> None:
    told = run("view", "torch-hub", "v").stderr
    assert "0 names" in told
    assert "which your allowed_signers does not allow" in told
    assert "and 1 more" in told
    refused = run("view", "torch-hub", "w", taken_back, code=4).stderr
    assert f"sha256:{hashlib.sha256(PLAIN).hexdigest()} is here" in refused
    assert "which your allowed_signers does not allow" in refused
