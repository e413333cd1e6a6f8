"""The Hub of the tests is one to the real client: what `huggingface_hub` asks for, it gets."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.hub import HubServer

huggingface_hub = pytest.importorskip("huggingface_hub")

SMALL = b'{"architecture": "resnet18"}\n'
LARGE = bytes(range(256)) * 1000
FILES = {"config.json": SMALL, "model.safetensors": LARGE, "onnx/model.onnx": b"onnx" * 10}


@pytest.fixture(params=["as the Hub", "as a mirror"])
def hub(request: pytest.FixtureRequest) -> Iterator[HubServer]:
    with HubServer(direct=request.param == "as a mirror") as hub:
        yield hub


def download(hub: HubServer, cache: Path, file: str, *, revision: str | None = None, token: str | None = None) -> Path:
    path = huggingface_hub.hf_hub_download(
        "org/model", file, revision=revision, endpoint=hub.url, cache_dir=cache, token=token or False
    )
    return Path(path)


def test_one_small_and_one_large_file_come_with_the_environment_s_endpoint(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    program = (
        "from huggingface_hub import hf_hub_download\n"
        "print(hf_hub_download('org/model', 'config.json'))\n"
        "print(hf_hub_download('org/model', 'model.safetensors'))\n"
    )
    environ = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    small, large = map(Path, done.stdout.split())
    assert (small.read_bytes(), large.read_bytes()) == (SMALL, LARGE)
    assert hub.cdn.requests


def test_a_file_lies_in_the_client_s_cache_by_its_etag_under_its_commit(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.add("org/model", FILES)
    for file, data in FILES.items():
        path = download(hub, tmp_path, file)
        assert path.parts[-2 - file.count("/")] == commit
        assert path.read_bytes() == data
    blobs = {path.name for path in (tmp_path / "models--org--model" / "blobs").iterdir()}
    assert {len(name) for name in blobs} == {40, 64}


def test_a_snapshot_brings_every_file_of_a_branch(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    commit = hub.add("org/model", {"more.txt": b"more"})
    path = Path(huggingface_hub.snapshot_download("org/model", endpoint=hub.url, cache_dir=tmp_path, token=False))
    assert path.name == commit
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert found == {**FILES, "more.txt": b"more"}


def test_a_branch_that_moved_gives_the_new_file_and_the_commit_the_old(hub: HubServer, tmp_path: Path) -> None:
    old = hub.add("org/model", {"model.safetensors": b"old"})
    hub.add("org/model", {"model.safetensors": b"new"})
    assert download(hub, tmp_path, "model.safetensors").read_bytes() == b"new"
    assert download(hub, tmp_path, "model.safetensors", revision=old).read_bytes() == b"old"
    hub.point("org/model", "main", old)
    assert download(hub, tmp_path, "model.safetensors").read_bytes() == b"old"


def test_a_renamed_repository_is_found_by_its_old_name(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    hub.rename("org/model", "team/model")
    assert download(hub, tmp_path, "model.safetensors").read_bytes() == LARGE


def test_what_is_not_there_is_told_apart(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    with pytest.raises(huggingface_hub.errors.RemoteEntryNotFoundError):
        download(hub, tmp_path, "missing.bin")
    with pytest.raises(huggingface_hub.errors.RevisionNotFoundError):
        download(hub, tmp_path, "config.json", revision="v9")
    with pytest.raises(huggingface_hub.errors.RepositoryNotFoundError):
        huggingface_hub.hf_hub_download("org/none", "x", endpoint=hub.url, cache_dir=tmp_path, token=False)


def test_a_private_repository_does_not_exist_for_others(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    hub.require_token("org/model", "hf_right")
    hub.admit("hf_other")
    for token in (None, "hf_other"):
        with pytest.raises(huggingface_hub.errors.RepositoryNotFoundError):
            download(hub, tmp_path, "model.safetensors", token=token)
    assert download(hub, tmp_path, "model.safetensors", token="hf_right").read_bytes() == LARGE
    assert not any("Authorization" in request.headers for request in hub.cdn.requests)


def test_a_gated_repository_is_seen_and_not_given(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    hub.require_token("org/model", "hf_right", gated=True)
    hub.admit("hf_other")
    for token in (None, "hf_other"):
        with pytest.raises(huggingface_hub.errors.GatedRepoError):
            download(hub, tmp_path, "model.safetensors", token=token)
    api = huggingface_hub.HfApi(endpoint=hub.url, token=False)
    assert api.model_info("org/model").gated == "auto"
    assert download(hub, tmp_path, "model.safetensors", token="hf_right").read_bytes() == LARGE


def test_the_api_tells_files_sizes_and_branches(hub: HubServer) -> None:
    hub.add("org/model", FILES)
    commit = hub.add("org/model", {"config.json": b"{}"}, revision="next")
    api = huggingface_hub.HfApi(endpoint=hub.url, token=False)
    info = api.model_info("org/model", files_metadata=True)
    sizes = {file.rfilename: (file.size, file.lfs is not None) for file in info.siblings}
    assert sizes == {
        "config.json": (len(SMALL), False),
        "model.safetensors": (len(LARGE), True),
        "onnx/model.onnx": (40, True),
    }
    branches = {branch.name: branch.target_commit for branch in api.list_repo_refs("org/model").branches}
    assert branches == {"main": info.sha, "next": commit}
    assert {entry.path for entry in api.list_repo_tree("org/model")} == {"config.json", "model.safetensors", "onnx"}
