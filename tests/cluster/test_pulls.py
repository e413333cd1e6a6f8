"""``mirror pull``: whom it believes, what it records and leaves out, and that a dry run tells what the run does."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.images import skopeo
from tests.cluster.test_mirror import ALL, blobs_in, index_in, pushed  # noqa: F401
from tests.servers import behaviours as does
from tests.servers.hostile import HostileServer
from tests.servers.hub import HubServer
from weightstore.cluster.index import MANIFEST_TYPE, ModelIndex, make_entry, model_index, write_index
from weightstore.digest import Digest
from weightstore.source import Source
from weightstore.store.layout import create_layout, open_layout
from weightstore.store.receipts import Receipts
from weightstore.store.refs import list_refs

LOCAL = random.Random("local").randbytes(40_000)


@pytest.fixture
def mirror(pushed: Path) -> Path:  # noqa: F811
    """A mirror of all weights, and a store that is empty."""
    return pushed


@pytest.fixture
def web(mirror: Path) -> Iterator[HostileServer]:
    with HostileServer(host="127.0.0.2") as web:
        web.serve_directory(mirror)
        yield web


@pytest.fixture
def sign(run: Run, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the mirror signed by somebody whom the user allows to."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], cwd=tmp_path, check=True)
    kind, key, *_ = (tmp_path / "key.pub").read_text().split()
    (tmp_path / "signers").write_text(f"ada@example.org {kind} {key}\n")
    run("mirror", "sign", mirror, "--key", tmp_path / "key")
    monkeypatch.setenv("WEIGHTSTORE_ALLOWED_SIGNERS", str(tmp_path / "signers"))


def recorded(root: Path) -> dict[str, str]:
    """Which sources a store knows, and by whose word."""
    layout = open_layout(root)
    assert layout is not None
    return {str(ref.source): ref.via for ref in list_refs(layout)}  # type: ignore[union-attr]  # none is damaged


def indexed(root: Path, sources: dict[str, tuple[str, ...]], data: dict[str, bytes]) -> None:
    """Make a mirror that has some contents, each from some sources."""
    layout = create_layout(root)
    entries, documents = [], {}
    for name, content in data.items():
        digest = Digest(hashlib.sha256(content).hexdigest())
        layout.blob(digest).write_bytes(content)
        entry, made = make_entry(digest, len(content), sources=[Source(one) for one in sources[name]])
        entries.append(entry)
        documents |= made
    write_index(layout, model_index(entries, documents=documents), receipts=Receipts(root.parent / "keepers"))


# -- whom a pull believes ---------------------------------------------------------------------------------------------


@pytest.mark.needs("ssh-keygen")
@pytest.mark.usefixtures("sign")
@pytest.mark.parametrize("place", ["directory", "web"])
def test_a_pull_believes_what_an_allowed_signer_signed(
    site: Site, run: Run, mirror: Path, web: HostileServer, place: str
) -> None:
    site.server.stop()
    source = mirror if place == "directory" else web.url("/")
    told = run("mirror", "pull", source, "Small_Weights.A").stderr
    assert "1 fetched" in told
    assert "--trust-mirror" not in told
    assert recorded(site.home)[site.url("A")] == "signed"
    run("mirror", "pull", source, "--all")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}
    shutil.rmtree(site.state)
    assert run("path", "Other_Weights.C", "--offline").stdout.strip() == str(site.blob("C"))


@pytest.mark.needs("ssh-keygen")
@pytest.mark.usefixtures("sign")
def test_a_signature_that_is_not_believed_makes_a_pull_leave_out_what_it_would_have_told(
    site: Site, run: Run, mirror: Path, tmp_path: Path
) -> None:
    (tmp_path / "signers").write_text("# nobody\n")
    told = run("mirror", "pull", mirror, "--all", code=4).stderr
    assert "nobody in allowed_signers has the key" in told
    assert "and 2 more: its digest is not known here" in told


def test_what_is_not_known_is_left_out_with_all_ways_to_know_it(run: Run, mirror: Path) -> None:
    told = run("mirror", "pull", mirror, "Small_Weights.*", code=4).stderr
    for way in ("--locked", "allowed_signers", "--trust-mirror"):
        assert way in told
    assert told.count("not pulled") == 1
    assert "and 1 more" in told


def test_everything_that_leaves_something_out_is_no_success(run: Run, mirror: Path) -> None:
    done = json.loads(run("mirror", "pull", mirror, "--all", "--json", code=4).stdout)
    assert (done["fetched"], len(done["skipped"]), done["exit_code"]) == (0, 3, 4)
    run("mirror", "pull", mirror, "--all", "--trust-mirror")
    assert json.loads(run("mirror", "pull", mirror, "--all", "--json").stdout)["skipped"] == []


# -- what is recorded of what came ------------------------------------------------------------------------------------


def test_a_blob_is_found_by_every_source_that_a_trusted_mirror_tells(site: Site, run: Run, tmp_path: Path) -> None:
    data = {"one": b"1" * 20_000, "other": b"2" * 20_000}
    digest = hashlib.sha256(data["one"]).hexdigest()
    pinned, lying = f"https://o/a-{digest[:8]}.pth", "https://o/a-00000000.pth"
    indexed(tmp_path / "m", {"one": ("https://o/a.pth", "https://o/b.pth", pinned, lying), "other": ()}, data)
    run("mirror", "pull", tmp_path / "m", "--all", "--trust-mirror")
    assert {source: via for source, via in recorded(site.home).items() if "https" in source} == {
        "https://o/a.pth": "adopted",
        "https://o/b.pth": "adopted",
        pinned: "adopted",
    }
    for source in ("https://o/a.pth", "https://o/b.pth", pinned):
        assert run("path", source, "--offline").stdout.strip() == str(site.home / "blobs/sha256" / digest)


def test_what_is_recorded_already_is_not_contradicted_by_what_a_mirror_tells_besides(
    site: Site, run: Run, tmp_path: Path
) -> None:
    run("prefetch", site.url("A"))
    data = {"one": b"1" * 20_000}
    url = site.server.serve("/plain.pth", b"what the origin has")
    run("prefetch", url)
    indexed(tmp_path / "m", {"one": ("https://o/a.pth", url)}, data)
    run("mirror", "pull", tmp_path / "m", "https://o/a.pth", "--trust-mirror")
    assert recorded(site.home)[url] == "origin"
    assert Path(run("path", url).stdout.strip()).read_bytes() == b"what the origin has"


def test_a_file_of_the_hub_keeps_its_revision_and_its_commit(
    site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        commit = hub.add("org/model", {"model.safetensors": LOCAL})
        run("prefetch", "hf://org/model/model.safetensors")
    run("mirror", "push", "m", "--all")
    shutil.rmtree(site.home)
    run("mirror", "pull", "m", "--all", "--trust-mirror")
    layout = open_layout(site.home)
    assert layout is not None
    refs = {str(ref.source): ref.commit for ref in list_refs(layout)}  # type: ignore[union-attr]  # none is damaged
    assert refs["hf://org/model@main/model.safetensors"] == commit
    assert refs[f"hf://org/model@{commit}/model.safetensors"] == commit


# -- names that no catalog knows --------------------------------------------------------------------------------------


@pytest.fixture
def local(site: Site, run: Run, tmp_path: Path) -> str:
    """A mirror ``m`` with a file that came from a path of somebody's machine; return its digest."""
    (tmp_path / "local-only.pth").write_bytes(LOCAL)
    run("prefetch", "./local-only.pth", "Small_Weights.A")
    run("mirror", "push", "m", "--all")
    shutil.rmtree(site.home)
    (tmp_path / "local-only.pth").unlink()
    return hashlib.sha256(LOCAL).hexdigest()


@pytest.fixture
def web_of_m(local: str, tmp_path: Path) -> Iterator[HostileServer]:
    with HostileServer(host="127.0.0.2") as web:
        web.serve_directory(tmp_path / "m")
        yield web


def test_a_file_without_a_source_comes_with_everything_of_a_trusted_mirror(site: Site, run: Run, local: str) -> None:
    told = run("mirror", "pull", "m", "--all", code=4).stderr
    assert "not pulled: local-only.pth: no source of it is known" in told
    assert "sha256:<64 hex>" in told
    assert "fetched   local-only.pth" in run("mirror", "pull", "m", "--all", "--trust-mirror").stderr
    assert blobs_in(site.home) == {local, site.digest("A")}
    assert "local-only.pth" not in run("mirror", "pull", "m", "Small_Weights.A", "--trust-mirror").stderr


def test_a_digest_is_a_name_and_needs_no_trust(site: Site, run: Run, local: str) -> None:
    assert "1 fetched" in run("mirror", "pull", "m", f"sha256:{local}").stderr
    assert blobs_in(site.home) == {local}
    told = run("mirror", "pull", "m", f"sha256:{'0' * 64}", code=6).stderr
    assert "mirror push" in told
    assert "weightstore prefetch" not in told  # there is no origin that could be asked
    assert "a SHA-256" in run("mirror", "pull", "m", "sha256:0123", code=2).stderr


@pytest.mark.parametrize("name", ["local-only.pth", "local-*.pth"])
def test_a_file_is_pulled_by_what_a_trusted_mirror_calls_it(site: Site, run: Run, local: str, name: str) -> None:
    refused = run("mirror", "pull", "m", name, code=3).stderr
    assert "--trust-mirror" in refused
    run("mirror", "pull", "m", name, "--trust-mirror")
    assert blobs_in(site.home) == {local}
    assert "no catalog knows" in run("mirror", "pull", "m", "nothing.pth", "--trust-mirror", code=3).stderr


@pytest.mark.parametrize("name", ["local-only.pth", "--all", "/somewhere/else/local-only.pth"])
def test_a_file_without_a_source_keeps_its_name_and_gets_no_source(
    site: Site, run: Run, local: str, tmp_path: Path, name: str
) -> None:
    """However often it is pushed on and pulled; and it is listed, and gc keeps it."""
    run("mirror", "pull", "m", name, "--trust-mirror")
    assert not any("blobs" in source for source in recorded(site.home))
    assert "local-only.pth" in run("ls").stdout
    titles = {one["digest"]: one["title"] for one in json.loads(run("ls", "--json").stdout)["blobs"]}
    assert titles[f"sha256:{local}"] == "local-only.pth"
    run("gc", "--grace", "0s")
    assert local in blobs_in(site.home)
    for way in ("--all", "local-only.pth", f"sha256:{local}"):
        shutil.rmtree("n", ignore_errors=True)
        run("mirror", "push", "n", way)
    assert "no catalog knows" in run("mirror", "push", "n", "other.pth", code=3).stderr
    shutil.rmtree(site.home)
    run("mirror", "pull", "n", "local-only.pth", "--trust-mirror")
    assert blobs_in(site.home) == {local}
    (entry,) = index_in(site.home).entries
    assert (entry.title, entry.ref_name, entry.sources) == ("local-only.pth", "local-only.pth", ())
    assert "local-only.pth" in run("--home", "n", "ls").stdout


def test_a_file_that_was_pulled_by_its_digest_gets_no_source_and_is_kept(
    site: Site, run: Run, local: str, web_of_m: HostileServer
) -> None:
    run("prefetch", "Small_Weights.B")
    run("mirror", "pull", web_of_m.url("/"), f"sha256:{local}")
    assert list(recorded(site.home)) == [site.url("B")]
    run("gc", "--grace", "0s")
    assert blobs_in(site.home) == {local, site.digest("B")}
    assert {entry.title for entry in index_in(site.home).entries} == {local, site.url("B").rpartition("/")[2]}
    run("mirror", "pull", web_of_m.url("/"), "local-only.pth", "--trust-mirror")
    assert "local-only.pth" in run("ls").stdout
    run("mirror", "pull", web_of_m.url("/"), f"sha256:{local}")
    assert "local-only.pth" in run("ls").stdout


def test_what_came_without_a_source_is_told_where_the_index_cannot_be_written(site: Site, run: Run, local: str) -> None:
    run("init", site.home)
    (site.home / "index.json").mkdir()
    told = run("mirror", "pull", "m", "local-only.pth", "--trust-mirror").stderr
    assert "by its digest only" in told
    assert blobs_in(site.home) == {local}


def test_of_two_files_of_one_name_none_is_guessed(site: Site, run: Run, tmp_path: Path) -> None:
    data = {"one": b"1" * 20_000, "other": b"2" * 20_000}
    indexed(tmp_path / "m", {"one": ("https://o/a/w.pth",), "other": ("https://o/b/w.pth",)}, data)
    told = run("mirror", "pull", "m", "w.pth", "--trust-mirror", code=2).stderr
    for content in data.values():
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" in told


# -- sources that only a lockfile knows ------------------------------------------------------------------------------


@pytest.fixture
def locked_only(site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that has a blob from a mirror, and a lockfile that knows its source, of which nothing was pinned."""
    monkeypatch.delenv("WEIGHTSTORE_CATALOGS")
    url = site.server.serve("/plain.pth", LOCAL)
    run("lock", "-o", "plain.lock", url)
    run("mirror", "push", "m", "--all")
    shutil.rmtree(site.home)
    shutil.rmtree(site.state)
    site.server.stop()
    run("mirror", "pull", "m", "--locked", "plain.lock")
    assert recorded(site.home) == {url: "mirror"}
    return url


def sources_of(root: Path) -> list[str]:
    return [str(source) for entry in index_in(root).entries for source in entry.sources]


def test_a_keeper_takes_a_lockfiles_word_by_naming_it(site: Site, run: Run, locked_only: str, tmp_path: Path) -> None:
    run("mirror", "push", "without", "--all")
    assert sources_of(tmp_path / "without") == []
    run("mirror", "push", "with", "--locked", "plain.lock")
    assert sources_of(tmp_path / "with") == [locked_only]
    assert recorded(tmp_path / "with") == {locked_only: "adopted"}
    run("mirror", "index")
    assert sources_of(site.home) == []
    run("mirror", "index", "--locked", "plain.lock")
    assert sources_of(site.home) == [locked_only]
    run("mirror", "index")
    assert sources_of(site.home) == [locked_only]


@pytest.mark.needs("ssh-keygen")
def test_what_a_lockfile_says_is_signed_when_the_keeper_gives_it(
    site: Site, run: Run, locked_only: str, tmp_path: Path
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], cwd=tmp_path, check=True)
    run("mirror", "index")
    sign = ("mirror", "sign", site.home, "--key", tmp_path / "key")
    refused = json.loads(run(*sign, "--json").stdout)
    assert refused["entries"] == 0
    assert "--locked" in refused["left_out"][0]["reason"]
    told = json.loads(run(*sign, "--locked", "plain.lock", "--json").stdout)
    assert "mirror index" in told["left_out"][0]["reason"]  # the index is what is signed
    run("mirror", "index")
    done = json.loads(run(*sign, "--json").stdout)
    assert (done["entries"], done["left_out"]) == (1, [])
    run("mirror", "sign", site.home, "--oms", "--locked", "plain.lock", "--key", tmp_path / "key", code=2)


def test_a_lockfile_contradicts_nothing_that_the_store_has_seen_of_the_origin(
    site: Site, run: Run, tmp_path: Path
) -> None:
    url = site.server.serve("/plain.pth", LOCAL)
    other = site.server.serve("/other.pth", LOCAL[::-1])
    run("prefetch", url, other)
    run("lock", "-o", "plain.lock", url)
    digests = [hashlib.sha256(data).hexdigest() for data in (LOCAL, LOCAL[::-1])]
    wrong = (tmp_path / "plain.lock").read_text().replace(digests[0], digests[1])
    (tmp_path / "wrong.lock").write_text(wrong)
    for what in (("mirror", "index"), ("mirror", "push", "m")):
        told = run(*what, "--locked", "wrong.lock").stderr
        assert f"{url} is recorded as sha256:{digests[0]}, and the lockfile says sha256:{digests[1]}" in told
    assert recorded(site.home) == {url: "origin", other: "origin"}
    assert sources_of(tmp_path / "m") == [other]


# -- dry runs ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_that_would_leave_everything_out_says_so_as_the_run_does(run: Run, mirror: Path) -> None:
    for what in ("Small_Weights.A", "--all"):
        told = run("mirror", "pull", mirror, what, "--dry-run", code=4).stderr
        assert "not pulled" in told
        assert "all of it is here" not in told


@pytest.mark.parametrize("place", ["directory", "web"])
def test_a_dry_run_asks_the_mirror_what_it_has(
    site: Site, run: Run, mirror: Path, web: HostileServer, place: str
) -> None:
    (mirror / "blobs/sha256" / site.digest("B")).unlink()  # the index names it still
    source = mirror if place == "directory" else web.url("/")
    web.serve_directory(mirror)
    what = ("mirror", "pull", source, "--locked", "weights.lock")
    told = run(*what, "--dry-run", code=6).stderr
    assert "2 files to fetch" in told
    assert "the mirror does not have toys/Small_Weights.B" in told
    plan = json.loads(run(*what, "--dry-run", "--json", code=6).stdout)
    assert plan["lacking"] == ["toys/Small_Weights.B"]
    assert len(plan["items"]) == 2
    assert not site.home.exists()
    done = run(*what, code=6).stderr
    assert "2 fetched, 0 present, 1 failed" in done


def test_a_dry_run_of_prefetch_ends_as_the_run_would(
    site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what, code in (
        (("small", "--offline"), 4),
        (("./gone.pth",), 6),
        (("small",), 0),
    ):
        run("prefetch", *what, "--dry-run", code=code)
        if code:
            run("prefetch", *what, code=code)
    (tmp_path / "nothing").mkdir()
    with monkeypatch.context() as only_mirrors:
        only_mirrors.setenv("WEIGHTSTORE_ORDER", "layers,mirrors")
        only_mirrors.setenv("WEIGHTSTORE_MIRRORS", str(tmp_path / "nothing"))
        pinned = f"{site.url('A')}#sha256={site.digest('A')}"
        run("prefetch", pinned, "--dry-run", code=6)
        run("prefetch", pinned, code=6)
        run("prefetch", "small", "--dry-run", code=4)
        run("prefetch", "small", code=4)
    monkeypatch.setenv("WEIGHTSTORE_TRUST", "pinned")
    site.server.serve("/plain.pth", b"plain")
    run("prefetch", site.server.url("/plain.pth"), "--dry-run", code=9)
    run("prefetch", site.server.url("/plain.pth"), code=9)


@pytest.mark.parametrize("what", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_place_that_cannot_take_a_push_is_told_of_once(
    site: Site, run: Run, tmp_path: Path, what: tuple[str, ...]
) -> None:
    run("prefetch", *ALL)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").touch()
    (tmp_path / "file").touch()
    for place, why in (("photos", "holds other things"), ("file", "directory"), ("file/below", "directory")):
        told = run("mirror", "push", place, "--all", *what, code=8).stderr
        assert told.count("error") == 1, told
        assert why in told


# -- what other tools wrote -------------------------------------------------------------------------------------------


@pytest.fixture
def layouts(site: Site, mirror: Path, tmp_path: Path) -> dict[str, Path]:
    """Image layouts as skopeo writes them: of one artifact, and of an index with all of them."""
    names = [entry.ref_name for entry in index_in(mirror).entries]
    for name in names:
        skopeo(f"oci:{mirror}:{name}", f"oci:{tmp_path}/plain:{name}")
    # As a registry gives it that has our index under a tag: an index in an index.
    shutil.copytree(tmp_path / "plain", tmp_path / "nested")
    inner = (mirror / "index.json").read_bytes()
    digest = hashlib.sha256(inner).hexdigest()
    (tmp_path / "nested/blobs/sha256" / digest).write_bytes(inner)
    media_type = "application/vnd.oci.image.index.v1+json"
    descriptor = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(inner)}
    outer = {"schemaVersion": 2, "mediaType": media_type, "manifests": [descriptor]}
    (tmp_path / "nested/index.json").write_text(json.dumps(outer))
    return {"plain": tmp_path / "plain", "nested": tmp_path / "nested"}


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("kind", ["plain", "nested"])
@pytest.mark.parametrize("place", ["directory", "web"])
def test_a_layout_that_skopeo_wrote_is_a_mirror(
    site: Site, run: Run, layouts: dict[str, Path], kind: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = layouts[kind]
    assert not (root / "store.json").exists()
    with HostileServer(host="127.0.0.3") as web:
        web.serve_directory(root)
        source = root if place == "directory" else web.url("/")
        found = json.loads(run("mirror", "status", source, "--json").stdout)
        assert {one["name"] for one in found["mirror_only"]} == {
            "toys/Small_Weights.A",
            "toys/Small_Weights.B",
            "toys/Other_Weights.C",
        }
        site.server.stop()
        run("mirror", "pull", source, "--all", "--trust-mirror")
        assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}
        assert run("path", "Small_Weights.A", "--offline").stdout.strip() == str(site.blob("A"))
        assert json.loads(run("mirror", "status", source, "--json").stdout)["both"] == 3
        monkeypatch.setenv("WEIGHTSTORE_MIRRORS", str(source))
        findings = json.loads(run("doctor", "--json").stdout)["findings"]
        assert [one["level"] for one in findings if one["area"] == "mirrors"] == ["ok"]


@pytest.mark.needs("skopeo")
def test_a_manifest_of_a_layout_that_is_damaged_is_left_out_and_told(
    site: Site, run: Run, layouts: dict[str, Path]
) -> None:
    root = layouts["plain"]
    index = json.loads((root / "index.json").read_text())
    damaged, gone, _ = (root / "blobs" / one["digest"].replace(":", "/") for one in index["manifests"])
    damaged.write_bytes(damaged.read_bytes().replace(b"toys", b"boys"))
    gone.unlink()
    told = run("mirror", "pull", root, "--all", "--trust-mirror").stderr
    assert told.count("left out") == 2
    assert "1 fetched" in told


def test_indexes_in_indexes_are_read_to_some_depth_and_no_further(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "deep"
    (root / "blobs/sha256").mkdir(parents=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    media_type = "application/vnd.oci.image.index.v1+json"
    inner: list[dict[str, object]] = []
    for _ in range(30):
        document = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": inner}).encode()
        digest = hashlib.sha256(document).hexdigest()
        (root / "blobs/sha256" / digest).write_bytes(document)
        inner = [{"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(document)}]
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": inner}))
    told = run("mirror", "status", root).stderr
    assert "deeper than anybody needs them" in told
    assert "0 on both sides" in told


# -- what is told -----------------------------------------------------------------------------------------------------


def test_what_a_mirror_lacks_altogether_is_told_once(site: Site, run: Run, mirror: Path) -> None:
    with HostileServer(host="127.0.0.3") as empty:
        for options in ((), ("--quiet",)):
            told = run("mirror", "pull", empty.url("/"), "--locked", "weights.lock", *options, code=6).stderr
            assert told.count("error:") == 2, told
            assert re.search(r"2 more failed in the same way as toys/\S+: toys/", told)


@pytest.fixture
def tried_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTSTORE_RETRIES", "0")


@pytest.mark.usefixtures("tried_once")
def test_what_failed_is_counted_by_its_kind(run: Run) -> None:
    kinds: dict[str, str] = {}
    with HostileServer(host="127.0.0.3") as liar:
        for number in range(4):
            data = bytes([number]) * 5000
            name = f"sha256:{hashlib.sha256(data).hexdigest()}"
            kinds[name] = "cut" if number < 2 else "wrong"
            liar.serve(f"/blobs/sha256/{name[7:]}", b"x" * 5000, does.truncate(1000) if number < 2 else ())
        told = run("mirror", "pull", liar.url(""), *kinds, "--jobs", "1", code=6).stderr
    counted = re.findall(r"1 more failed in the same way as (\S+): (\S+)", told)
    assert sorted(kinds[first] for first, _ in counted) == ["cut", "wrong"]
    assert all(kinds[first] == kinds[other] for first, other in counted)


@pytest.mark.usefixtures("tried_once")
def test_a_file_that_a_mirror_was_not_asked_for_any_more_is_no_cut_file(run: Run) -> None:
    names = [f"sha256:{hashlib.sha256(bytes([number])).hexdigest()}" for number in range(8)]
    with HostileServer(host="127.0.0.3") as liar:
        for number, name in enumerate(names):
            cut = does.truncate(1000) if number < 4 else ()
            liar.serve(f"/blobs/sha256/{name[7:]}", b"x" * 5000, cut)
        told = run("mirror", "pull", liar.url(""), *names, "--jobs", "1", code=6).stderr
        asked = {request.path for request in liar.requests}
    not_asked = [name for name in names if f"/blobs/sha256/{name[7:]}" not in asked]
    assert "was not asked for it" in told
    (last,) = [line for line in told.splitlines() if f"{len(not_asked) - 1} more failed in the same way" in line][-1:]
    assert all(name in last for name in not_asked)


@pytest.mark.parametrize(
    ("place", "remedy"),
    [("nowhere", "weightstore mirror push "), ("http", "weightstore --home DIR mirror index")],
)
def test_a_place_without_a_mirror_is_told_how_to_get_one(site: Site, run: Run, place: str, remedy: str) -> None:
    address = site.server.url("/nothing") if place == "http" else place
    for verb in (("status", address), ("pull", address, "--all")):
        assert remedy in run("mirror", *verb, code=6).stderr


def test_an_index_that_is_foreign_to_us_and_no_model_is_passed_by(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "image"
    (root / "blobs/sha256").mkdir(parents=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "layers": []}).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    (root / "blobs/sha256" / digest).write_bytes(manifest)
    foreign = {"mediaType": MANIFEST_TYPE, "digest": f"sha256:{digest}", "size": len(manifest)}
    (root / "index.json").write_bytes(ModelIndex(foreign=(foreign,)).encode())
    assert "0 only in the mirror" in run("mirror", "status", root).stderr
