"""``mirror``: push, pull and status with directories and web servers, and mirrors that lie."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.servers import behaviours as does
from tests.servers.apache import Apache
from tests.servers.hostile import HostileServer
from tests.servers.nginx import Nginx
from weightstore.cluster.index import ModelIndex, parse_index

ALL = ("Small_Weights.*", "Other_Weights.C")


def index_in(root: Path) -> ModelIndex:
    return parse_index((root / "index.json").read_bytes(), place="index.json")


def blobs_in(root: Path) -> set[str]:
    """The digests of what a store has, its manifests and configs left out."""
    return {path.name for path in (root / "blobs/sha256").iterdir() if path.stat().st_size > 10_000}


@pytest.fixture
def pushed(site: Site, run: Run, tmp_path: Path) -> Path:
    """A mirror of all weights, with a lockfile of them beside it, and a store that is empty again."""
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", "mirror", "--all")
    shutil.rmtree(site.home)
    shutil.rmtree(site.state)
    return tmp_path / "mirror"


def test_a_push_brings_what_is_missing_and_nothing_else(site: Site, run: Run, tmp_path: Path) -> None:
    run("prefetch", "Small_Weights.*")
    assert "2 pushed, 0 there already" in run("mirror", "push", "mirror", "Small_Weights.A", "Small_Weights.B").stderr
    run("prefetch", "Other_Weights.C")
    done = json.loads(run("mirror", "push", "mirror", "--all", "--json").stdout)
    assert [one["name"] for one in done["blobs"] if one["status"] == "pushed"] == ["Other_Weights.C"]
    assert done["pushed_bytes"] == len(site.data("C"))
    assert blobs_in(tmp_path / "mirror") == {site.digest(member) for member in "ABC"}
    assert {entry.name for entry in index_in(tmp_path / "mirror").entries} == {
        "toys/Small_Weights.A",
        "toys/Small_Weights.B",
        "toys/Other_Weights.C",
    }


def test_the_index_has_a_page_for_people(site: Site, run: Run) -> None:
    run("prefetch", *ALL)
    run("mirror", "index")
    page = (site.home / "index.html").read_text()
    for member in "ABC":
        assert site.digest(member) in page
    run("gc", "--grace", "0s", "-q")
    assert (site.home / "index.html").read_text() == page


def test_a_second_push_changes_nothing(site: Site, run: Run, tmp_path: Path) -> None:
    run("prefetch", *ALL)
    run("mirror", "push", "mirror", "--all")

    def seen() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in (tmp_path / "mirror").rglob("*")
            if path.is_file()
        }

    before = seen()
    assert "0 pushed, 3 there already" in run("mirror", "push", "mirror", "--all").stderr
    assert seen() == before


def test_a_pushed_directory_is_a_store_for_others(site: Site, run: Run, pushed: Path) -> None:
    for name, mode in (("", 0o2755), ("blobs/sha256", 0o3775), ("index.json", 0o444)):
        assert (pushed / name).stat().st_mode & 0o7777 == mode
    os.environ["WEIGHTSTORE_LAYERS"] = str(pushed)
    try:
        assert run("path", "Small_Weights.A", "--offline").stdout.strip() == str(
            pushed / "blobs/sha256" / site.digest("A")
        )
    finally:
        del os.environ["WEIGHTSTORE_LAYERS"]
    assert len(json.loads(run("--home", pushed, "ls", "--json").stdout)["blobs"]) == 3
    run("--home", pushed, "verify")
    assert json.loads(run("--home", pushed, "gc", "--grace", "0s", "--json").stdout)["removals"] == []


def test_what_others_pushed_stays_in_the_index(site: Site, run: Run, pushed: Path) -> None:
    run("prefetch", "Small_Weights.A")
    run("mirror", "push", pushed, "--all")
    assert len(index_in(pushed).entries) == 3


def test_indexing_again_gives_the_same_bytes(site: Site, run: Run, pushed: Path) -> None:
    before = (pushed / "index.json").read_bytes()
    run("--home", pushed, "mirror", "index")
    assert (pushed / "index.json").read_bytes() == before


def test_a_dry_run_of_push_writes_nothing(site: Site, run: Run, tmp_path: Path) -> None:
    run("prefetch", "Small_Weights.A")
    plan = json.loads(run("mirror", "push", "mirror", "--all", "--dry-run", "--json").stdout)
    assert plan["bytes_to_push"] == len(site.data("A"))
    assert not (tmp_path / "mirror").exists()


def test_what_is_not_stored_is_not_pushed(site: Site, run: Run) -> None:
    assert "weightstore prefetch" in run("mirror", "push", "mirror", "Small_Weights.A", code=4).stderr


def test_a_damaged_blob_is_not_pushed_and_the_others_are(site: Site, run: Run, tmp_path: Path) -> None:
    run("prefetch", *ALL)
    found = site.blob("A").stat()
    site.blob("A").chmod(0o644)
    with site.blob("A").open("r+b") as file:  # a change that the receipt cannot see is found by hashing on the way
        file.write(b"\0\0\0\0")
    site.blob("A").chmod(0o444)
    os.utime(site.blob("A"), ns=(found.st_atime_ns, found.st_mtime_ns))
    run("mirror", "push", "mirror", "--all", code=8)
    assert blobs_in(tmp_path / "mirror") == {site.digest("B"), site.digest("C")}
    assert len(index_in(tmp_path / "mirror").entries) == 2
    assert list((tmp_path / "mirror/tmp").iterdir()) == []


def test_a_directory_of_other_things_is_refused(site: Site, run: Run, tmp_path: Path) -> None:
    run("prefetch", "Small_Weights.A")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").touch()
    assert "holds other things" in run("mirror", "push", "photos", "--all", code=8).stderr
    assert os.listdir(tmp_path / "photos") == ["cat.png"]


def test_a_web_server_cannot_be_pushed_to(site: Site, run: Run) -> None:
    run("prefetch", "Small_Weights.A")
    assert "Push to the directory that it serves" in run("mirror", "push", site.server.url("/"), "--all", code=2).stderr


@pytest.mark.needs("nginx")
def test_a_pull_from_nginx_with_the_origin_off(site: Site, run: Run, pushed: Path) -> None:
    site.server.stop()
    with Nginx(pushed) as nginx:
        done = json.loads(run("mirror", "pull", nginx.url("/"), "--locked", "weights.lock", "--json").stdout)
        assert done["fetched"] == 3
        asked = {row.uri.rpartition("/")[2] for row in nginx.log()}
    assert asked == {*(one["digest"].removeprefix("sha256:") for one in done["items"]), "signed-index.json.sig"}
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}
    assert run("path", "Small_Weights.A", "--offline").stdout.strip() == str(site.blob("A"))


@pytest.mark.needs("apache2", "curl")
def test_a_pull_from_apache_with_the_origin_off(site: Site, run: Run, pushed: Path) -> None:
    site.server.stop()
    with tempfile.TemporaryDirectory(prefix="www-") as www:
        Path(www).chmod(0o755)  # Apache gives up root's rights
        shutil.copytree(pushed, Path(www) / "weights")
        with Apache(Path(www)) as apache:
            url = apache.url("/weights")
            assert "3 only in the mirror" in run("mirror", "status", url).stderr
            done = json.loads(run("mirror", "pull", url, "--locked", "weights.lock", "--json").stdout)
            assert done["fetched"] == 3
            (part,) = [one for one in done["items"] if one["digest"].endswith(site.digest("A"))]
            blob = f"{url}/blobs/sha256/{part['digest'].removeprefix('sha256:')}"
            end = subprocess.run(["curl", "-sf", "-r", "100-", blob], capture_output=True, check=True, timeout=20)
            assert end.stdout == site.data("A")[100:]
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


def test_a_pull_from_a_directory_with_the_origin_off_and_offline(site: Site, run: Run, pushed: Path) -> None:
    site.server.stop()
    run("mirror", "pull", "mirror", "--locked", "weights.lock", "--offline")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}
    assert "0 fetched, 3 present" in run("mirror", "pull", "mirror", "--locked", "weights.lock").stderr


def test_the_word_of_a_mirror_is_not_enough_unless_it_is_trusted(site: Site, run: Run, pushed: Path) -> None:
    refused = run("mirror", "pull", "mirror", "Small_Weights.A", code=4)
    assert "its digest is not known here" in refused.stderr
    assert "--trust-mirror" in refused.stderr
    everything = run("mirror", "pull", "mirror", "--all", code=4)
    assert "and 2 more" in everything.stderr
    assert not site.home.exists() or blobs_in(site.home) == set()
    run("mirror", "pull", "mirror", "--all", "--trust-mirror")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}
    site.server.stop()
    assert run("path", site.url("A"), "--offline").stdout.strip() == str(site.blob("A"))


def test_a_configuration_that_wants_pins_forbids_to_trust_a_mirror(
    run: Run, pushed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTSTORE_TRUST", "pinned")
    assert "forbids --trust-mirror" in run("mirror", "pull", pushed, "--all", "--trust-mirror", code=2).stderr


def test_a_trusted_mirror_cannot_go_against_a_pin(site: Site, run: Run, pushed: Path) -> None:
    text = (pushed / "index.json").read_text()
    digest, other = site.digest("A"), site.digest("B")
    swapped = text.replace(digest, "X").replace(other, digest).replace("X", other)
    (pushed / "index.json").chmod(0o644)
    (pushed / "index.json").write_text(swapped)
    refused = run("mirror", "pull", "mirror", "Small_Weights.A", "--trust-mirror", code=4)
    assert "and the pin is" in refused.stderr


def test_a_dry_run_of_pull_says_what_would_come(site: Site, run: Run, pushed: Path) -> None:
    plan = json.loads(run("mirror", "pull", "mirror", "--locked", "weights.lock", "-n", "--json").stdout)
    assert [item["status"] for item in plan["items"]] == ["missing"] * 3
    assert plan["skipped"] == []
    assert not site.home.exists()


@pytest.mark.parametrize(
    "behaviour",
    [does.corrupt(1000), does.truncate(20_000), does.declared_length(10), does.endless_body(), does.status(503)],
    ids=str,
)
def test_a_mirror_that_lies_gets_nothing_published_and_the_next_source_is_asked(
    site: Site, run: Run, pushed: Path, behaviour: does.Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTSTORE_RETRIES", "0")
    with HostileServer(host="127.0.0.2") as liar:
        liar.serve(f"/blobs/sha256/{site.digest('A')}", site.data("A"), behaviour)
        one = f"{site.url('A')}#sha256={site.digest('A')}"
        run("mirror", "pull", liar.url("/"), one, code=6)
        assert not (site.home / "blobs/sha256").exists() or blobs_in(site.home) == set()
        monkeypatch.setenv("WEIGHTSTORE_MIRRORS", f"{liar.url('/')} {pushed}")
        told = run("prefetch", one).stderr
    assert told.count("mirror passed over") == 1
    assert site.blob("A").read_bytes() == site.data("A")


def test_a_pull_goes_on_after_a_cut_since_there_is_nobody_else_to_ask(site: Site, run: Run, pushed: Path) -> None:
    with HostileServer(host="127.0.0.2") as shaky:
        shaky.serve(f"/blobs/sha256/{site.digest('A')}", site.data("A"), does.truncate(20_000, times=1))
        run("mirror", "pull", shaky.url("/"), f"{site.url('A')}#sha256={site.digest('A')}")
        asked = [request.range for request in shaky.requests if "blobs" in request.path]
        assert asked == [None, "bytes=20000-"]
    assert site.blob("A").read_bytes() == site.data("A")


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"schemaVersion": 2, "manifests": [{"annotations": {"dev.weightstore.digest": "x"}}]}']
)
def test_a_mirror_whose_index_lies_is_told_and_by_digest_it_still_serves(
    site: Site, run: Run, pushed: Path, content: bytes
) -> None:
    (pushed / "index.json").chmod(0o644)
    (pushed / "index.json").write_bytes(content)
    with HostileServer(host="127.0.0.2") as web:
        web.serve_directory(pushed)
        assert "index.json" in run("mirror", "pull", web.url("/"), "--all", code=8).stderr
        assert "index.json" in run("mirror", "status", web.url("/"), code=8).stderr
        run("mirror", "pull", web.url("/"), "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


def test_an_index_without_end_is_not_read_to_its_end(site: Site, run: Run) -> None:
    with HostileServer(host="127.0.0.2") as web:
        web.serve("/index.json", b"{", does.endless_body())
        assert "more than" in run("mirror", "pull", web.url("/"), "--all", code=6).stderr


def test_status_tells_what_is_missing_on_which_side(site: Site, run: Run, tmp_path: Path) -> None:
    run("prefetch", "Small_Weights.*")
    run("mirror", "push", "mirror", "--all")
    run("rm", "-y", "Small_Weights.A")
    run("prefetch", "Other_Weights.C")
    found = json.loads(run("mirror", "status", "mirror", "--json").stdout)
    assert [one["name"] for one in found["here_only"]] == ["Other_Weights.C"]
    assert [one["name"] for one in found["mirror_only"]] == ["toys/Small_Weights.A"]
    assert found["both"] == 1
    assert found["missing_in_mirror_bytes"] == len(site.data("C"))
    assert found["missing_here_bytes"] == len(site.data("A"))
    assert "1 on both sides" in run("mirror", "status", "mirror").stderr


def test_status_of_a_web_server_asks_for_its_index_and_its_signature(site: Site, run: Run, pushed: Path) -> None:
    with HostileServer(host="127.0.0.2") as web:
        web.serve_directory(pushed)
        assert json.loads(run("mirror", "status", web.url("/"), "--json").stdout)["entries"] == 3
        assert [request.path for request in web.requests] == ["/index.json", "/signed-index.json.sig"]


def test_a_server_without_an_index_is_told_how_to_get_one(site: Site, run: Run) -> None:
    assert "weightstore --home DIR mirror index" in run("mirror", "status", site.server.url("/"), code=6).stderr


def test_an_interrupted_push_leaves_no_half_blob_and_goes_on(site: Site, run: Run, spawn, tmp_path: Path) -> None:
    run("prefetch", *ALL)
    code = (
        "import signal, sys, os, weightstore.cluster.mirror.place as place\n"
        "from weightstore.cli import main\n"
        "read = os.pread\n"
        "def slow(*arguments):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return read(*arguments)\n"
        "class Slow: pread = staticmethod(slow)\n"
        "place.os = Slow\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "mirror", "push", "mirror", "--all", "-j1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 130, done.stderr
    assert not (tmp_path / "mirror/index.json").exists()
    run("mirror", "push", "mirror", "--all")
    assert blobs_in(tmp_path / "mirror") == {site.digest(member) for member in "ABC"}


@pytest.mark.needs("skopeo")
def test_skopeo_copies_a_mirror_unchanged(site: Site, run: Run, pushed: Path, tmp_path: Path) -> None:
    entry = index_in(pushed).entries[0]
    subprocess.run(
        ["skopeo", "copy", "--insecure-policy", f"oci:{pushed}:{entry.ref_name}", f"oci:{tmp_path}/copy:x"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert (tmp_path / "copy/blobs/sha256" / entry.digest.hex).read_bytes() == (
        pushed / "blobs/sha256" / entry.digest.hex
    ).read_bytes()
    assert (tmp_path / "copy/blobs/sha256" / entry.manifest.hex).exists()
