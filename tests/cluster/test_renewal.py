"""An index written anew: nothing that others pushed is lost, and what is no weights is not counted as such."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from weightstore.cluster.index import IndexEntry, ModelIndex, parse_index

ALL = ("Small_Weights.*", "Other_Weights.C")


def index_in(root: Path) -> ModelIndex:
    return parse_index((root / "index.json").read_bytes(), place="index.json")


def by_name(root: Path) -> dict[str, IndexEntry]:
    return {entry.name or entry.title: entry for entry in index_in(root).entries}


def page_in(root: Path) -> str:
    return (root / "index.html").read_text().replace("<wbr>", "")


@pytest.fixture
def mirror(site: Site, run: Run, tmp_path: Path) -> Path:
    """A mirror of three weights with names, and of a local file, which no source is published of."""
    run("prefetch", *ALL)
    (tmp_path / "local.pth").write_bytes(random.Random("local").randbytes(40_000))
    run("prefetch", tmp_path / "local.pth")
    run("mirror", "push", "mirror", "--all")
    return tmp_path / "mirror"


@pytest.fixture
def without_catalogs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEIGHTSTORE_CATALOGS")


def test_names_and_files_without_a_source_stay_where_no_catalog_knows_them(
    site: Site, run: Run, mirror: Path, without_catalogs: None
) -> None:
    before = index_in(mirror)
    assert set(by_name(mirror)) == {"toys/Small_Weights.A", "toys/Small_Weights.B", "toys/Other_Weights.C", "local.pth"}
    run("--home", mirror, "mirror", "index")
    assert index_in(mirror).entries == before.entries
    page = page_in(mirror)
    assert "Small_Weights.A" in page
    assert "local.pth" in page
    assert "unnamed" not in page


def test_a_push_by_somebody_without_the_catalog_takes_no_name_away(
    site: Site, run: Run, mirror: Path, without_catalogs: None
) -> None:
    run("mirror", "push", mirror, "--all")
    assert "toys/Small_Weights.A" in by_name(mirror)


def test_what_a_catalog_learns_is_told_and_a_name_that_changed_changes(
    site: Site, run: Run, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = json.loads(site.catalog.read_text())
    catalog["namespace"] = "games"
    catalog["enums"]["Small_Weights"]["entries"]["A"]["licence"] = "MIT"
    site.catalog.write_text(json.dumps(catalog))
    run("--home", mirror, "mirror", "index")
    entry = by_name(mirror)["games/Small_Weights.A"]
    assert (entry.licence, entry.ref_name) == ("MIT", "games-Small_Weights.A")
    monkeypatch.delenv("WEIGHTSTORE_CATALOGS")
    run("--home", mirror, "mirror", "index")
    assert by_name(mirror)["games/Small_Weights.A"] == entry


def test_what_has_gone_from_the_store_goes_from_the_index(site: Site, run: Run, mirror: Path) -> None:
    (mirror / "blobs/sha256" / site.digest("A")).unlink()
    run("--home", mirror, "mirror", "index")
    assert set(by_name(mirror)) == {"toys/Small_Weights.B", "toys/Other_Weights.C", "local.pth"}


def test_a_source_that_has_other_content_now_is_no_longer_told_of_the_old(site: Site, run: Run, mirror: Path) -> None:
    for name in ("one.pth", "two.pth"):
        (mirror.parent / name).write_bytes(name.encode() * 5000)
    url = site.server.url("/moving.pth")
    site.server.serve("/moving.pth", (mirror.parent / "one.pth").read_bytes())
    run("--home", mirror, "prefetch", url)
    run("--home", mirror, "mirror", "index")
    old = by_name(mirror)["moving.pth"]
    for path in (mirror / "refs").iterdir():
        if json.loads(path.read_bytes())["source"] == url:
            path.unlink()
    site.server.serve("/moving.pth", (mirror.parent / "two.pth").read_bytes())
    run("--home", mirror, "prefetch", url)
    run("--home", mirror, "mirror", "index")
    telling = [entry for entry in index_in(mirror).entries if url in map(str, entry.sources)]
    assert [entry.digest == old.digest for entry in telling] == [False]
    assert old.digest in index_in(mirror).by_digest  # the blob is there, and keeps its tag
    assert index_in(mirror).by_digest[old.digest].ref_name == "moving.pth"


@pytest.mark.needs("skopeo")
def test_artifacts_of_other_tools_stay(site: Site, run: Run, mirror: Path, tmp_path: Path) -> None:
    """And the page calls them what they say that they are."""
    other = tmp_path / "other"
    (tmp_path / "theirs.pth").write_bytes(b"theirs" * 9000)
    run("--home", other, "prefetch", tmp_path / "theirs.pth")
    run("--home", other, "mirror", "index")
    copy = ["skopeo", "copy", "--insecure-policy", f"oci:{other}:theirs.pth", f"oci:{mirror}:theirs"]
    subprocess.run(copy, check=True, capture_output=True, timeout=60)
    before = json.loads((mirror / "index.json").read_bytes())["manifests"]
    theirs = [one for one in before if one["annotations"]["org.opencontainers.image.ref.name"] == "theirs"]
    run("--home", mirror, "mirror", "index")
    after = json.loads((mirror / "index.json").read_bytes())["manifests"]
    assert len(theirs) == 1
    assert theirs[0] in after
    assert len(after) == 5
    assert "theirs.pth" in page_in(mirror)
    assert "unnamed" not in page_in(mirror)
    assert len(json.loads(run("--home", mirror, "have").stdout)["blobs"]) == 5


def test_a_manifest_that_has_gone_is_made_again_without_a_catalog(
    site: Site, run: Run, mirror: Path, without_catalogs: None
) -> None:
    entry = by_name(mirror)["local.pth"]
    (mirror / "blobs/sha256" / entry.manifest.hex).unlink()
    run("--home", mirror, "mirror", "index")
    again = by_name(mirror)["local.pth"]
    assert (again.digest, again.ref_name) == (entry.digest, "local.pth")
    assert (mirror / "blobs/sha256" / again.manifest.hex).exists()


def test_a_damaged_index_is_told_and_written_anew(site: Site, run: Run, mirror: Path) -> None:
    (mirror / "index.json").chmod(0o644)
    (mirror / "index.json").write_text("{")
    assert "written anew" in run("--home", mirror, "mirror", "index").stderr
    assert "toys/Small_Weights.A" in by_name(mirror)


def test_an_index_that_changed_leaves_nothing_that_counts_as_weights(site: Site, run: Run, mirror: Path) -> None:
    catalog = json.loads(site.catalog.read_text())
    catalog["namespace"] = "games"
    site.catalog.write_text(json.dumps(catalog))
    run("--home", mirror, "mirror", "index")
    there = os.listdir(mirror / "blobs/sha256")
    assert len(there) > 4 + 2 * 4  # the manifests and configs of the first index are there yet
    weights = {str(entry.digest) for entry in index_in(mirror).entries}
    assert {one["digest"] for one in json.loads(run("--home", mirror, "ls", "--json").stdout)["blobs"]} == weights
    assert {one["digest"] for one in json.loads(run("--home", mirror, "have").stdout)["blobs"]} == weights
    told = run("--home", mirror, "bundle", "create", "--all", "out.tar").stderr
    assert "4 files" in told  # the local file, too, which has a name in the index
    assert "left out" not in told
    (mirror / "index.json").unlink()
    assert len(json.loads(run("--home", mirror, "have").stdout)["blobs"]) == 4


def test_a_checkpoint_that_looks_like_a_manifest_is_weights_if_a_source_is_recorded(
    site: Site, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "odd.json").write_text(
        '{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {}}'
    )
    run("prefetch", tmp_path / "odd.json")
    assert len(json.loads(run("have").stdout)["blobs"]) == 1
    assert len(json.loads(run("ls", "--json").stdout)["blobs"]) == 1


def test_a_push_renews_the_page_of_a_directory_and_only_when_something_changed(
    site: Site, run: Run, mirror: Path, tmp_path: Path
) -> None:
    (tmp_path / "later.pth").write_bytes(b"later" * 9000)
    run("prefetch", tmp_path / "later.pth")
    assert "later.pth" not in page_in(mirror)
    run("mirror", "push", mirror, "--all")
    assert "later.pth" in page_in(mirror)
    assert "acc@1" in page_in(mirror)
    before = (mirror / "index.html").stat()
    run("mirror", "push", mirror, "--all")
    assert (mirror / "index.html").stat().st_ino == before.st_ino


def test_a_name_given_once_stays_when_another_file_of_that_name_comes(site: Site, run: Run, mirror: Path) -> None:
    (mirror.parent / "d").mkdir()
    other = mirror.parent / "d/local.pth"
    other.write_bytes(b"other" * 9000)
    run("prefetch", other)
    run("mirror", "push", mirror, "--all")
    tags = sorted(entry.ref_name for entry in index_in(mirror).entries if entry.title == "local.pth")
    assert tags[0] == "local.pth"
    assert tags[1].startswith("local.pth-")
    run("--home", mirror, "mirror", "index")
    assert sorted(entry.ref_name for entry in index_in(mirror).entries if entry.title == "local.pth") == tags


def test_a_file_cannot_take_the_tag_of_the_index(site: Site, run: Run, tmp_path: Path) -> None:
    for name in ("weightstore-index", "weightstore-signed"):
        (tmp_path / name).write_bytes(name.encode() * 5000)
        run("prefetch", tmp_path / name)
    run("mirror", "push", "mirror", "--all")
    assert not {"weightstore-index", "weightstore-signed"} & {
        one.ref_name for one in index_in(tmp_path / "mirror").entries
    }


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("mirror", "index")])
def test_a_mistyped_home_is_told_and_nothing_is_made_there(
    site: Site, run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = run("--home", tmp_path / "typo", *command, code=8)
    assert f"weightstore init {tmp_path / 'typo'}" in done.stderr
    assert not (tmp_path / "typo").exists()
