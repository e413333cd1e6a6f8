"""The commands, given files on the Hub: fetched, locked to a commit, and found when the branch has moved on."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.servers.hub import HubServer
from weightstore.catalog.lockfile import Lockfile
from weightstore.client import Client
from weightstore.config import Config

MAIN = "hf://org/model@main/model.safetensors"
OLD, NEW = (random.Random(number).randbytes(300_000) for number in (1, 2))


@pytest.fixture
def hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that the environment names as Hugging Face's own clients want it."""
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blob(site: Site, data: bytes) -> Path:
    return site.home / "blobs" / "sha256" / digest(data)


def test_a_file_on_the_hub_is_a_source_to_every_command(site: Site, hub: HubServer, run: Run) -> None:
    hub.add("org/model", {"model.safetensors": OLD})
    short = "hf://org/model/model.safetensors"
    assert "1 fetched" in run("prefetch", short).stderr
    assert run("path", short).stdout.strip() == str(blob(site, OLD))
    assert run("path", MAIN, "--offline").stdout.strip() == str(blob(site, OLD))
    assert "has it, verified" in run("why", short).stdout
    assert MAIN in run("ls", "--json").stdout
    assert len(hub.requests) == 1
    run("rm", short, "--yes")
    assert not blob(site, OLD).exists()


def test_a_lockfile_has_the_commit(site: Site, hub: HubServer, run: Run, tmp_path: Path) -> None:
    commit = hub.add("org/model", {"model.safetensors": OLD, "config.json": b"{}"})
    run("lock", MAIN, "hf://org/model/config.json", site.url("A"))
    found = {entry.name: entry.commit for entry in Lockfile.read(tmp_path / "weights.lock").entries}
    assert found == {MAIN: commit, "hf://org/model@main/config.json": commit, site.url("A"): ""}


def test_what_is_stored_already_is_locked_with_its_commit_too(hub: HubServer, run: Run, tmp_path: Path) -> None:
    commit = hub.add("org/model", {"model.safetensors": OLD})
    run("prefetch", MAIN)
    hub.add("org/model", {"model.safetensors": NEW})
    pinned = f"hf://org/model@{commit}/model.safetensors"
    shown = json.loads(run("lock", "--json", "--offline", MAIN, pinned).stdout)
    assert [entry["commit"] for entry in shown["entries"]] == [commit, commit]
    assert {entry.commit for entry in Lockfile.read(tmp_path / "weights.lock").entries} == {commit}


def recorded(home: Path) -> set[str]:
    """The sources that a store has refs of."""
    return {json.loads(path.read_text())["source"] for path in (home / "refs").iterdir()}


@pytest.mark.parametrize("file", ["model.safetensors", "model.txt"], ids=["large", "small"])
def test_a_branch_that_moved_on_is_fetched_from_the_locked_commit(
    hub: HubServer, run: Run, tmp_path: Path, file: str
) -> None:
    commit = hub.add("org/model", {file: OLD})
    run("lock", f"hf://org/model/{file}")
    hub.add("org/model", {file: NEW})
    asked = len(hub.requests)
    elsewhere = tmp_path / "elsewhere"
    told = run("prefetch", "--locked", "weights.lock", "--home", elsewhere).stderr
    assert "has other content now" in told
    revisions = [request.path.split("/")[4] for request in hub.requests[asked:] if "/resolve/" in request.path]
    assert revisions == ["main", commit]
    assert (elsewhere / "blobs" / "sha256" / digest(OLD)).read_bytes() == OLD
    assert recorded(elsewhere) == {f"hf://org/model@{commit}/{file}"}


def test_a_branch_that_is_still_there_is_recorded_with_its_commit(hub: HubServer, run: Run, tmp_path: Path) -> None:
    commit = hub.add("org/model", {"model.safetensors": OLD})
    run("lock", MAIN)
    hub.add("org/model", {"other.txt": b"a later commit, and the same file"})
    elsewhere = tmp_path / "elsewhere"
    run("prefetch", "--locked", "weights.lock", "--home", elsewhere)
    assert recorded(elsewhere) >= {MAIN}
    assert f"hf://org/model@{commit}/model.safetensors" not in recorded(elsewhere)


def test_a_lockfile_brings_from_a_mirror_what_the_hub_has_no_more(
    site: Site, hub: HubServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", {"model.safetensors": OLD})
    run("lock", MAIN)
    hub.rename("org/model", "org/gone")
    hub.require_token("org/gone", "hf_other")
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", str(site.home))
    elsewhere = tmp_path / "elsewhere"
    told = run("prefetch", "--locked", "weights.lock", "--home", elsewhere).stderr
    assert "from mirror" in told
    assert run("path", MAIN, "--offline", "--home", elsewhere, code=4).stdout == "", "a mirror's word is none"


def test_a_catalog_may_name_files_on_the_hub(site: Site, hub: HubServer, run: Run) -> None:
    commit = hub.add("org/model", {"model.safetensors": OLD, "b.safetensors": NEW})
    hub.add("org/copy", {"b.safetensors": NEW})
    catalog = json.loads(site.catalog.read_text())
    entries = catalog["enums"]["Small_Weights"]["entries"]
    entries["A"] |= {"source": "hf://org/model/model.safetensors", "pin": digest(OLD), "size": len(OLD)}
    entries["B"] |= {
        "source": "hf://org/gone@v1/b.safetensors",
        "alternatives": ["hf://org/copy@main/b.safetensors"],
        "pin": digest(NEW)[:8],
        "size": len(NEW),
    }
    site.catalog.write_text(json.dumps(catalog))
    assert run("path", "--fetch", "small:A").stdout.strip() == str(blob(site, OLD))
    assert run("path", "--fetch", "small:B").stdout.strip() == str(blob(site, NEW))
    assert MAIN in run("show", "small:A").stdout
    before = len(hub.requests)
    assert run("path", MAIN).stdout.strip() == str(blob(site, OLD)), "the catalog knows the URL, and its pin"
    assert len(hub.requests) == before
    run("lock", "small:A")
    assert Lockfile.read(Path("weights.lock")).entries[0].commit == commit
    assert "agrees" in run("lock", "--check").stderr


def test_refusals_of_the_hub_end_the_command_with_what_to_do(hub: HubServer, run: Run) -> None:
    hub.add("org/model", {"model.safetensors": OLD})
    hub.require_token("org/model", "hf_right", gated=True)
    told = run("prefetch", MAIN, code=6).stderr
    assert f"Ask for access at {hub.url}/org/model" in told
    assert "hf auth login" in told


def test_the_token_of_the_environment_opens_what_is_gated(
    hub: HubServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", {"model.safetensors": OLD})
    hub.require_token("org/model", "hf_right", gated=True)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    result = run("prefetch", MAIN)
    assert "1 fetched" in result.stderr
    for shown in (run("config"), run("config", "--json"), run("doctor"), run("doctor", "--json"), result):
        assert "hf_right" not in shown.stdout + shown.stderr


def test_the_configuration_shows_the_endpoint_and_whose_word_it_is(hub: HubServer, run: Run) -> None:
    assert json.loads(run("config", "hub_endpoint", "--json").stdout) == {
        "name": "hub_endpoint",
        "value": f"{hub.url}/",
        "from": "HF_ENDPOINT",
    }
    assert "HF_ENDPOINT" in run("config").stdout


def test_the_doctor_tells_which_hub_and_where_a_token_is_from(
    hub: HubServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"{hub.url}, not logged in" in run("doctor").stdout
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert f"{hub.url}, logged in by HF_TOKEN" in run("doctor").stdout
    monkeypatch.setenv("HF_TOKEN", "two words")
    assert "HF_TOKEN holds no token" in run("doctor").stdout


def test_the_doctor_asks_a_mirror_on_the_hub(hub: HubServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("site/weights", {"mirror/store.json": b'{"layout": 1, "sharing": "world"}'})
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", "hf://site/weights@main/mirror")
    assert "answers in" in run("doctor").stdout
    assert hub.requests[-1].status == 200
    sent = len(hub.requests)
    run("doctor", "--offline")
    assert len(hub.requests) == sent


def test_state_dicts_load_from_the_hub(site: Site, hub: HubServer, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    from weightstore import load_state_dict

    weights = {"w": torch.arange(12.0).reshape(3, 4)}
    hub.add("org/model", {"model.safetensors": safetensors.save(weights)})
    client = Client(Config.load())
    assert torch.equal(load_state_dict(MAIN, client=client)["w"], weights["w"])
