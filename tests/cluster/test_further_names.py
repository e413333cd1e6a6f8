"""One blob that a catalog knows under several names: each of them is a way to it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.servers.registry import DockerRegistry
from weightstore.cluster.index import ModelIndex, make_entry, model_index, parse_index
from weightstore.cluster.merging import merged
from weightstore.digest import Digest
from weightstore.source import Source

A, B = Source("https://a.example.org/x.pth"), Source("https://b.example.org/x.pth")
BOTH = {"toys-Small_Weights.A", "toys-Small_Weights.TWIN"}


def said(*sources: Source, name: str = "", aliases: tuple[str, ...] = ()) -> ModelIndex:
    entry, documents = make_entry(Digest("1" * 64), 5, sources=sources, name=name, aliases=aliases)
    return model_index([entry], documents=documents)


@pytest.fixture
def twins(site: Site, run: Run) -> None:
    """A store whose one blob is Small_Weights.A and Small_Weights.TWIN."""
    catalog = json.loads(site.catalog.read_text())
    entries = catalog["enums"]["Small_Weights"]["entries"]
    entries["TWIN"] = entries["A"]
    site.catalog.write_text(json.dumps(catalog))
    run("prefetch", "Small_Weights.A")


def tags_of(directory: Path) -> list[str]:
    told = json.loads((directory / "index.json").read_bytes())["manifests"]
    return sorted(one["annotations"]["org.opencontainers.image.ref.name"] for one in told)


def test_every_name_is_in_the_index_and_on_the_page(site: Site, run: Run, twins: None) -> None:
    run("mirror", "index")
    index = parse_index((site.home / "index.json").read_bytes(), place="x")
    (entry,) = index.entries
    assert {entry.name, *entry.aliases} == {"toys/Small_Weights.A", "toys/Small_Weights.TWIN"}
    assert index.foreign == ()
    assert set(tags_of(site.home)) == BOTH
    assert index.encode() == (site.home / "index.json").read_bytes()
    page = (site.home / "index.html").read_text().replace("<wbr>", "")
    assert "also Small_Weights.TWIN" in page
    run("mirror", "index")
    assert index.encode() == (site.home / "index.json").read_bytes()


@pytest.fixture
def copies(site: Site, run: Run) -> tuple[str, str]:
    """A store whose one blob came from the source of Small_Weights.A, which has a licence, and from a copy of it."""
    copy = site.server.url("/a-copy.pth")  # before the other in any order of sources
    site.server.serve("/a-copy.pth", site.data("A"))
    catalog = json.loads(site.catalog.read_text())
    entries = catalog["enums"]["Small_Weights"]["entries"]
    entries["A"]["licence"] = "MIT"
    entries["ACOPY"] = {"source": copy}
    site.catalog.write_text(json.dumps(catalog))
    run("prefetch", "Small_Weights.ACOPY", "Small_Weights.A")
    return site.url("A"), copy


def test_the_name_that_says_most_of_a_blob_leads_and_the_licence_is_its(
    site: Site, run: Run, copies: tuple[str, str], tmp_path: Path
) -> None:
    original, _ = copies
    run("mirror", "index")
    run("mirror", "push", "m", "Small_Weights.ACOPY")
    for root in (site.home, tmp_path / "m"):
        (entry,) = parse_index((root / "index.json").read_bytes(), place="x").entries
        assert (entry.name, entry.aliases) == ("toys/Small_Weights.A", ("toys/Small_Weights.ACOPY",))
        assert entry.licence == "MIT"
        assert entry.title == original.rpartition("/")[2]
        config = json.loads((root / "blobs/sha256" / entry.manifest.hex).read_bytes())["config"]["digest"]
        told = json.loads((root / "blobs" / config.replace(":", "/")).read_bytes())["descriptor"]
        assert (told["sourceURL"], told["licenses"]) == (original, ["MIT"])
    shutil.rmtree(site.home)
    assert "fetched   Small_Weights.A  " in run("mirror", "pull", "m", "--all", "--trust-mirror").stderr
    run("mirror", "index")
    page = (site.home / "index.html").read_text().replace("<wbr>", "")
    assert '<span class="name">Small_Weights.A</span>' in page
    assert f"<small>{original}</small>" in page
    (one,) = json.loads(run("ls", "--json").stdout)["blobs"]
    assert one["names"] == ["Small_Weights.A", "Small_Weights.ACOPY"]


@pytest.mark.needs("ssh-keygen")
def test_each_source_is_signed_under_its_own_name(
    site: Site, run: Run, copies: tuple[str, str], tmp_path: Path
) -> None:
    run("mirror", "push", "m", "Small_Weights.A")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], cwd=tmp_path, check=True)
    run("mirror", "sign", "m", "--key", tmp_path / "key")
    signed = json.loads((tmp_path / "m/signed-index.json").read_bytes())["entries"]
    names = {one["source"]: one["name"] for one in signed}
    assert names == dict(zip(copies, ("toys/Small_Weights.A", "toys/Small_Weights.ACOPY"), strict=True))


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("tag", sorted(BOTH))
def test_skopeo_finds_it_by_either(site: Site, run: Run, twins: None, tmp_path: Path, tag: str) -> None:
    run("mirror", "index")
    command = ["skopeo", "copy", "--insecure-policy", f"oci:{site.home}:{tag}", f"oci:{tmp_path}/copy:x"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "copy/blobs/sha256" / site.digest("A")).read_bytes() == site.data("A")


@pytest.mark.needs("docker-registry", "skopeo")
def test_a_registry_has_a_tag_for_each_name_and_tags_stay(site: Site, run: Run, twins: None, tmp_path: Path) -> None:
    def tags() -> set[str]:
        command = ["skopeo", "list-tags", "--tls-verify=false", f"docker://{registry.address}/site/w"]
        done = subprocess.run(command, check=True, capture_output=True, timeout=60)
        return set(json.loads(done.stdout)["Tags"]) - {"weightstore-index"}

    (tmp_path / "d").mkdir()
    for number, path in enumerate((tmp_path / "m.pth", tmp_path / "d/m.pth")):
        path.write_bytes(bytes([number]) * 20_000)
    with DockerRegistry() as registry:
        place = f"oci://{registry.address}/site/w"
        run("prefetch", tmp_path / "m.pth")
        run("mirror", "push", place, "--all")
        assert tags() == {*BOTH, "m.pth"}
        run("prefetch", tmp_path / "d/m.pth")
        run("mirror", "push", place, "--all")
        (later,) = tags() - {*BOTH, "m.pth"}
        assert later.startswith("m.pth-")
        shutil.rmtree(site.home)
        run("mirror", "pull", place, "Small_Weights.TWIN", "--trust-mirror")
    assert site.blob("A").read_bytes() == site.data("A")


def test_a_bundle_tells_every_name(site: Site, run: Run, twins: None) -> None:
    run("bundle", "create", "Small_Weights.A", "out.tar")
    (one,) = json.loads(run("bundle", "show", "out.tar", "--json").stdout)["weights"]
    assert {one["name"], *one["aliases"]} == {"toys/Small_Weights.A", "toys/Small_Weights.TWIN"}
    assert "Small_Weights.TWIN" in run("bundle", "show", "out.tar").stdout


def test_who_knows_one_source_of_two_adds_a_name_and_takes_none_away() -> None:
    (entry,) = merged(said(A, name="one/X.A"), said(B, name="two/X.B")).entries
    assert (entry.name, entry.aliases, entry.ref_name) == ("one/X.A", ("two/X.B",), "one-X.A")
    assert entry.sources == (A, B)


def test_who_knows_all_sources_may_rename() -> None:
    (entry,) = merged(said(A, name="one/X.A"), said(A, B, name="two/X.B")).entries
    assert (entry.name, entry.aliases) == ("two/X.B", ())


def test_who_knows_no_name_takes_none_away() -> None:
    old = said(A, name="one/X.A", aliases=("one/X.B",))
    assert merged(old, said(A)).encode() == old.encode()
    (entry,) = merged(old, said(A, B)).entries
    assert (entry.name, entry.aliases, entry.sources) == ("one/X.A", ("one/X.B",), (A, B))


def test_a_further_name_that_another_has_as_its_own_is_no_tag() -> None:
    entry, _ = make_entry(Digest("1" * 64), 5, sources=[A], name="n/X.A", aliases=["n/Y.B", "weightstore-index"])
    other, _ = make_entry(Digest("2" * 64), 5, sources=[B], name="n/Y.B")
    index = model_index([entry, other])
    assert {tag: one.digest for tag, one in index.tags.items()} == {"n-X.A": entry.digest, "n-Y.B": other.digest}
    assert parse_index(index.encode(), place="x").entries == index.entries
