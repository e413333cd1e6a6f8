"""The Hub's endpoints, judged by the real huggingface_hub, in a process of its own with HF_ENDPOINT set."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys

import pytest
import requests

from tests.cluster.serving.conftest import put, record
from tests.servers.hub import HubServer
from weightstore.client import Client
from weightstore.config import Config
from weightstore.source import Source

WEIGHTS = random.Random(3).randbytes(200_000)
SETTINGS = b'{"hidden": 8}'
REPO = "ada/tiny"
A, B = "a" * 40, "b" * 40


def _git_name(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _add(shared, file: str, data: bytes, *, revision: str = "main", commit: str = A, repo: str = REPO):
    etag = hashlib.sha256(data).hexdigest() if file.endswith(".safetensors") else _git_name(data)
    return record(shared, f"hf://{repo}@{revision}/{file}", data, commit=commit, etag=etag)


def judge(url: str, tmp_path, code: str, **environ: str) -> dict:
    """Run code with the real client; it prints one JSON value."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json, huggingface_hub as hub\n{code}"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def tiny(shared):
    _add(shared, "model.safetensors", WEIGHTS)
    _add(shared, "config.json", SETTINGS)
    _add(shared, "onnx/model.safetensors", WEIGHTS[:1000])
    return shared


def test_the_real_client_downloads_a_file_a_snapshot_and_its_information(start, tiny, tmp_path):
    code = f"""
path = hub.hf_hub_download({REPO!r}, "model.safetensors")
folder = hub.snapshot_download({REPO!r})
info = hub.model_info({REPO!r}, files_metadata=True)
tree = [one.path for one in hub.list_repo_tree({REPO!r}, recursive=True)]
print(json.dumps([path, folder, info.sha, {{one.rfilename: [one.size, one.blob_id, one.lfs and one.lfs.sha256]
    for one in info.siblings}}, tree, hub.file_exists({REPO!r}, "none.bin"),
    [one.target_commit for one in hub.list_repo_refs({REPO!r}).branches]]))
"""
    path, folder, sha, siblings, tree, exists, branches = judge(start().url, tmp_path, code)
    assert (sha, exists, branches) == (A, False, [A])
    assert path == f"{folder}/model.safetensors"
    assert folder.endswith(f"/snapshots/{A}")
    for name, data in {
        "model.safetensors": WEIGHTS,
        "config.json": SETTINGS,
        "onnx/model.safetensors": WEIGHTS[:1000],
    }.items():
        with open(f"{folder}/{name}", "rb") as file:
            assert file.read() == data
    assert os.path.basename(os.path.realpath(path)) == hashlib.sha256(WEIGHTS).hexdigest()
    assert siblings["config.json"] == [len(SETTINGS), _git_name(SETTINGS), None]
    assert siblings["model.safetensors"][2] == hashlib.sha256(WEIGHTS).hexdigest()
    assert sorted(tree) == ["config.json", "model.safetensors", "onnx", "onnx/model.safetensors"]


def test_what_is_not_here_is_told_as_the_hub_tells_it(start, tiny, tmp_path):
    code = f"""
found = []
for ask in (
    lambda: hub.hf_hub_download({REPO!r}, "none.bin"),
    lambda: hub.hf_hub_download({REPO!r}, "config.json", revision="v9"),
    lambda: hub.hf_hub_download("ada/other", "config.json"),
    lambda: hub.model_info("ada/other"),
):
    try:
        ask()
    except Exception as error:
        found.append(type(error).__name__)
print(json.dumps(found))
"""
    assert judge(start().url, tmp_path, code) == [
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
        "RepositoryNotFoundError",
        "RepositoryNotFoundError",
    ]


def test_what_else_the_real_client_asks_of_models_is_answered(start, tiny, shared, tmp_path):
    _add(shared, "config.json", SETTINGS, repo="bob/other")
    code = f"""
api = hub.HfApi()
infos = api.get_paths_info({REPO!r}, ["config.json", "onnx", "none"])
print(json.dumps([
    [one.path for one in infos],
    [one.commit_id for one in api.list_repo_commits({REPO!r})],
    [one.id for one in api.list_models()],
    [one.id for one in api.list_models(search="TIN")],
    [one.id for one in api.list_models(author="bob", limit=5)],
    [one.id for one in api.list_models(filter="text-classification")],
    hub.HfFileSystem().exists("{REPO}/config.json"),
]))
"""
    assert judge(start().url, tmp_path, code) == [
        ["config.json", "onnx"],
        [A],
        [REPO, "bob/other"],
        [REPO],
        ["bob/other"],
        [],
        True,
    ]


def test_repositories_of_other_kinds_are_told_not_to_be_here(start, tiny, tmp_path):
    code = f"""
found = []
for ask in (
    lambda: hub.hf_hub_download({REPO!r}, "config.json", repo_type="dataset"),
    lambda: hub.snapshot_download({REPO!r}, repo_type="dataset"),
    lambda: hub.hf_hub_download({REPO!r}, "app.py", repo_type="space"),
):
    try:
        ask()
    except Exception as error:
        found.append(type(error).__name__)
print(json.dumps(found))
"""
    assert judge(start().url, tmp_path, code) == ["RepositoryNotFoundError"] * 3


def test_what_a_commit_was_seen_to_have_a_branch_that_meant_it_has_as_well(start, shared):
    _add(shared, "config.json", SETTINGS)
    _add(shared, "model.safetensors", WEIGHTS, revision=A)
    url = start().url
    assert requests.get(f"{url}/{REPO}/resolve/main/model.safetensors").content == WEIGHTS
    siblings = requests.get(f"{url}/api/models/{REPO}").json()["siblings"]
    assert [one["rfilename"] for one in siblings] == ["config.json", "model.safetensors"]


def test_files_seen_at_several_commits_make_a_snapshot_of_their_own(start, shared, tmp_path):
    _add(shared, "model.safetensors", WEIGHTS, commit=A)
    _add(shared, "config.json", SETTINGS, commit=B)
    url = start().url
    code = (
        f"import os\nfolder = hub.snapshot_download({REPO!r})\nprint(json.dumps([folder, sorted(os.listdir(folder))]))"
    )
    folder, files = judge(url, tmp_path, code)
    assert files == ["config.json", "model.safetensors"]
    assert os.path.basename(folder) not in {A, B}
    # No commit is said to have what it was not seen to have.
    assert requests.head(f"{url}/{REPO}/resolve/{A}/config.json").status_code == 404
    assert requests.head(f"{url}/{REPO}/resolve/{B}/config.json").status_code == 200
    assert requests.head(f"{url}/{REPO}/resolve/main/config.json").headers["X-Repo-Commit"] == B


def test_a_revision_with_a_slash_and_a_repository_without_an_organisation(start, shared):
    _add(shared, "config.json", SETTINGS, revision="refs%2Fpr%2F1", repo="gpt2")
    url = start().url
    assert requests.get(f"{url}/gpt2/resolve/refs%2Fpr%2F1/config.json").content == SETTINGS
    assert requests.get(f"{url}/api/models/gpt2/revision/refs%2Fpr%2F1").json()["sha"] == A


def test_a_damaged_or_removed_file_is_no_entry(start, tiny):
    url = start().url
    digest = put(tiny, WEIGHTS)
    path = tiny.blob(digest)
    path.chmod(0o644)
    path.write_bytes(b"?" * len(WEIGHTS))
    answer = requests.get(f"{url}/{REPO}/resolve/main/model.safetensors")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")
    siblings = requests.get(f"{url}/api/models/{REPO}").json()["siblings"]
    assert [one["rfilename"] for one in siblings] == ["config.json", "onnx/model.safetensors"]


def test_a_client_that_shows_its_token_is_served(start, tiny, tmp_path):
    code = f'print(json.dumps(hub.hf_hub_download({REPO!r}, "config.json")))'
    url = start(token="hf_secret").url
    assert requests.get(f"{url}/api/models/{REPO}").status_code == 401
    with open(judge(url, tmp_path, code, HF_TOKEN="hf_secret"), "rb") as file:
        assert file.read() == SETTINGS


def test_what_came_from_a_hub_is_given_on_as_that_hub_gave_it(start, shared, shared_config, tmp_path):
    with HubServer() as hub:
        commit = hub.add(REPO, {"model.safetensors": WEIGHTS, "config.json": SETTINGS})
        origin = Client(shared_config.but(hub_endpoint=Source(hub.url)))
        for name in ("model.safetensors", "config.json"):
            origin.path(f"hf://{REPO}@main/{name}")
        theirs = requests.get(f"{hub.url}/api/models/{REPO}?blobs=true").json()
    served = start()
    ours = requests.get(f"{served.url}/api/models/{REPO}?blobs=true").json()
    assert (ours["sha"], ours["id"]) == (commit, theirs["id"])
    assert sorted(ours["siblings"], key=str) == sorted(theirs["siblings"], key=str)
    # And to weightstore itself, whose transport is another client of the Hub.
    user = Client(Config(home=tmp_path / "u", state=tmp_path / "us", hub_endpoint=Source(served.url)))
    assert user.path(f"hf://{REPO}@main/model.safetensors").read_bytes() == WEIGHTS
    assert user.path(f"hf://{REPO}@{commit}/config.json").read_bytes() == SETTINGS
