"""huggingface_hub under the hook: the same paths in the same cache, from the store, verified, online and offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import weightstore
from tests.interop.conftest import NO_SOCKETS, Place
from tests.servers.hub import HubServer

REPO = "org/net"
FILES = {
    "config.json": b'{"layers": 2}',
    "model.safetensors": bytes(range(256)) * 64,
    "onnx/model.onnx": b"onnx" * 100,
}
DOWNLOAD = """
import json, sys
from functools import partial
from huggingface_hub import hf_hub_download
download = partial(hf_hub_download, library_name="timm")
print(json.dumps([download(REPO, name, **OPTIONS) for name in NAMES]))
"""
SNAPSHOT = """
import json
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download(REPO, **OPTIONS)))
"""

Program = Callable[..., Any]


@pytest.fixture
def hub(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub cache"))
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield server


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run a program that uses huggingface_hub, by itself or under the hook, and return what it printed."""

    def start(
        text: str,
        *names: str,
        repo: str = REPO,
        hooked: bool = True,
        offline: bool = False,
        sockets: bool = True,
        flags: tuple[str, ...] = (),
        code: int = 0,
        **options: Any,
    ) -> Any:
        head = f"REPO, NAMES, OPTIONS = {repo!r}, {list(names)!r}, {options!r}\n"
        path = tmp_path / "program.py"
        path.write_text(("" if sockets else NO_SOCKETS) + head + text)
        command = [sys.executable, str(path)]
        if hooked:
            way = ["--offline"] if offline else []
            command = [sys.executable, "-m", "weightstore", "run", *way, *flags, "--", *command]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if code == 0 else done.stderr

    return start


def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub cache" / "models--org--net"


def files_sent(hub: HubServer) -> int:
    """How many bodies of files the Hub and its CDN sent."""
    return sum(1 for one in [*hub.requests, *hub.cdn.requests] if one.method == "GET" and one.body_sent)


def layout(folder: Path) -> dict[str, str]:
    """What a cache of the Hub looks like to its readers: each name, and what it leads to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "trees" in path.parts or path.suffix == ".lock":
            continue
        if name.startswith("snapshots") and path.is_symlink():
            found[name] = f"{os.readlink(path)} {path.read_bytes()[:20]!r}"
        elif path.is_file():
            found[name] = repr(path.read_bytes()[:50])
    return found


def test_the_path_and_the_cache_are_those_of_the_library(
    program: Program, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add(REPO, FILES)
    hooked = program(DOWNLOAD, *FILES)
    mine = layout(cache(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other" / "hub cache"))
    plain = program(DOWNLOAD, *FILES, hooked=False)

    assert [Path(path).relative_to(tmp_path) for path in hooked] == [
        Path(path).relative_to(tmp_path / "other") for path in plain
    ]
    assert mine == layout(cache(tmp_path / "other"))
    assert [Path(path).read_bytes() for path in hooked] == list(FILES.values())
    assert commit in hooked[0]


def test_a_second_cache_costs_no_download(
    program: Program, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, FILES)
    program(DOWNLOAD, *FILES)
    asked = len(hub.requests) + len(hub.cdn.requests)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "second"))

    (path,) = program(DOWNLOAD, "model.safetensors")

    assert Path(path).read_bytes() == FILES["model.safetensors"]
    assert len(hub.requests) + len(hub.cdn.requests) == asked


def test_offline_no_socket_is_opened(
    program: Program, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add(REPO, FILES)
    program(DOWNLOAD, *FILES)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "second"))

    by_branch = program(DOWNLOAD, *FILES, offline=True, sockets=False)
    by_commit = program(DOWNLOAD, *FILES, offline=True, sockets=False, revision=commit)

    assert by_branch == by_commit
    assert [Path(path).read_bytes() for path in by_branch] == list(FILES.values())


def test_prefetched_files_are_found_offline(program: Program, hub: HubServer) -> None:
    hub.add(REPO, FILES)
    weightstore.Client().prefetch([f"hf://{REPO}/{name}" for name in FILES])

    paths = program(DOWNLOAD, *FILES, offline=True, sockets=False)

    assert [Path(path).read_bytes() for path in paths] == list(FILES.values())


def test_offline_what_is_missing_fails_in_the_librarys_way_and_says_what_to_run(
    program: Program, hub: HubServer
) -> None:
    text = """
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
try:
    hf_hub_download(REPO, "model.safetensors")
except EntryNotFoundError as error:
    print("found no entry, as timm expects")
    raise
"""
    told = program(text, offline=True, sockets=False, code=1)

    assert "LocalEntryNotFoundError" in told
    assert f"weightstore prefetch 'hf://{REPO}@main/model.safetensors'" in told


def test_a_file_that_the_repository_lacks_fails_in_the_librarys_way(program: Program, hub: HubServer) -> None:
    hub.add(REPO, FILES)
    assert "RemoteEntryNotFoundError" in program(DOWNLOAD, "absent.bin", code=1)


def test_a_snapshot_is_whole_online_and_offline(
    program: Program, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add(REPO, FILES)
    online = program(SNAPSHOT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "second"))
    offline = program(SNAPSHOT, offline=True, sockets=False)

    for folder in (online, offline):
        assert Path(folder).name == commit
        for name, data in FILES.items():
            assert (Path(folder) / name).read_bytes() == data
    assert (tmp_path / "second" / "models--org--net" / "refs" / "main").read_text() == commit


def test_a_snapshot_offline_has_what_the_patterns_allow(
    program: Program, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, FILES)
    program(SNAPSHOT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "second"))

    folder = Path(program(SNAPSHOT, offline=True, allow_patterns=["*.json"]))

    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_a_wrong_file_in_the_cache_is_put_aside(program: Program, hub: HubServer, tmp_path: Path) -> None:
    hub.add(REPO, FILES)
    for path in program(DOWNLOAD, *FILES, hooked=False):
        real = Path(path).resolve()
        real.write_bytes(b"somebody else's")

    paths = program(DOWNLOAD, *FILES)

    assert [Path(path).read_bytes() for path in paths] == list(FILES.values())
    assert len(list((cache(tmp_path) / "blobs").glob("*.wrong-*"))) == len(FILES)


def test_a_right_file_in_the_cache_is_used_where_it_lies(
    program: Program, hub: HubServer, place: Place, tmp_path: Path
) -> None:
    hub.add(REPO, FILES)
    program(DOWNLOAD, *FILES, hooked=False)
    asked = len(hub.requests)

    program(DOWNLOAD, *FILES, flags=("--record", str(tmp_path / "weights.lock")))

    assert len(hub.requests) == asked
    assert not place.store.exists()
    entries = weightstore.Lockfile.read(tmp_path / "weights.lock").entries
    assert {entry.source.hub_file.file: entry.size for entry in entries if entry.source.hub_file} == {
        name: len(data) for name, data in FILES.items()
    }


def test_a_branch_that_moved_on_is_what_the_lockfile_says(
    program: Program, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = hub.add(REPO, FILES)
    program(DOWNLOAD, "model.safetensors", flags=("--record", str(tmp_path / "weights.lock")))
    (entry,) = weightstore.Lockfile.read(tmp_path / "weights.lock").entries
    assert (entry.source.display, entry.commit) == (f"hf://{REPO}@main/model.safetensors", old)
    hub.add(REPO, {"model.safetensors": b"newer"})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "second"))
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "compute"))
    client = weightstore.Client()
    assert not client.prefetch(lockfile=weightstore.Lockfile.read(tmp_path / "weights.lock")).failures

    locked = ("--locked", str(tmp_path / "weights.lock"))
    (path,) = program(DOWNLOAD, "model.safetensors", offline=True, sockets=False, flags=locked)

    assert Path(path).read_bytes() == FILES["model.safetensors"]
    assert old in path


def test_a_recorded_snapshot_locks_the_branch_and_its_commit(
    program: Program, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add(REPO, FILES)
    program(SNAPSHOT, flags=("--record", str(tmp_path / "weights.lock")))
    lockfile = weightstore.Lockfile.read(tmp_path / "weights.lock")
    assert [(entry.source.display, entry.commit) for entry in lockfile.entries] == [
        (f"hf://{REPO}@main/{name}", commit) for name in sorted(FILES)
    ]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "second"))
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "compute"))
    weightstore.Client().prefetch(lockfile=lockfile)

    locked = ("--locked", str(tmp_path / "weights.lock"))
    folder = Path(program(SNAPSHOT, offline=True, sockets=False, flags=locked))

    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(FILES)


@pytest.mark.parametrize(
    "options",
    [{"repo_type": "dataset"}, {"local_dir": "here"}, {"force_download": True}],
    ids=["a dataset", "a local directory", "a forced download"],
)
def test_other_requests_go_their_way(
    program: Program, hub: HubServer, place: Place, tmp_path: Path, options: dict[str, Any]
) -> None:
    hub.add(REPO, FILES)
    if "local_dir" in options:
        options = {"local_dir": str(tmp_path / "here")}
    if options.get("repo_type") == "dataset":
        assert "NotFound" in program(DOWNLOAD, "config.json", code=1, **options)  # there are no datasets here
    else:
        (path,) = program(DOWNLOAD, "config.json", **options)
        assert Path(path).read_bytes() == FILES["config.json"]
    assert not place.store.exists()


def test_a_calls_own_token_is_the_librarys_to_use(
    program: Program, hub: HubServer, place: Place, tmp_path: Path
) -> None:
    hub.add(REPO, FILES)
    hub.require_token(REPO, "hf_secret")
    lockfile = tmp_path / "weights.lock"
    (path,) = program(DOWNLOAD, "config.json", token="hf_secret", flags=("--record", str(lockfile)))

    assert Path(path).read_bytes() == FILES["config.json"]
    assert not place.store.exists()
    assert [entry.size for entry in weightstore.Lockfile.read(lockfile).entries] == [len(FILES["config.json"])]
    assert "hf_secret" not in lockfile.read_text()


def test_timm_builds_a_model_from_the_store_offline(
    program: Program, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
import json, timm, torch
torch.manual_seed(1)
model = timm.create_model("test_resnet.r160_in1k", pretrained=True)
print(json.dumps(round(sum(float(value.double().sum()) for value in model.state_dict().values()), 3)))
"""
    import torch
    from safetensors.torch import save

    timm = pytest.importorskip("timm")
    state = {
        name: torch.rand_like(value.float()).to(value.dtype)
        for name, value in timm.create_model("test_resnet").state_dict().items()
    }
    hub.add("timm/test_resnet.r160_in1k", {"model.safetensors": save(state)})
    expected = round(sum(float(value.double().sum()) for value in state.values()), 3)

    assert program(text) == expected
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "second"))
    assert program(text, offline=True, sockets=False) == expected
