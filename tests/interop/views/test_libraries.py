"""Unmodified libraries find weights in views, where no socket can be opened. They are the judges."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

import weightstore
from tests.interop.views.conftest import digest_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def saved(state: object) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_the_sockets_are_closed(offline):
    code = """
import urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:9")
except AssertionError as error:
    print(error)
"""
    assert offline(code) == "a socket was opened\n"


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_torch_hub_loads_from_a_view(shelf, offline, tmp_path, link):
    import torch

    url = "https://weights.example/models/small-1.0.pth?download=1"
    shelf.put(url, saved({"weight": torch.arange(3.0)}))
    shelf.view("torch-hub", tmp_path / "hub", link=link)
    code = f"""
import torch
print(torch.hub.load_state_dict_from_url({url!r}, check_hash=True)["weight"].sum().item())
"""
    assert offline(code, TORCH_HOME=tmp_path / "hub") == "3.0\n"


def test_torchvision_builds_its_model_from_a_view(shelf, offline, tmp_path):
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    model = squeezenet1_1(weights=None)
    data = saved(model.state_dict())
    url = SqueezeNet1_1_Weights.DEFAULT.url
    # A catalog that stands in for the built-in one, whose pin is that of the real checkpoint.
    document = json.loads((Path(weightstore.__file__).parent / "catalog/torchvision.json").read_text())
    about = document["enums"]["SqueezeNet1_1_Weights"]
    about["entries"]["IMAGENET1K_V1"]["pin"] = digest_of(data).hex
    (tmp_path / "catalog.json").write_text(json.dumps(document))
    shelf.config = shelf.config.but(catalogs=(tmp_path / "catalog.json",))
    shelf.put(url, data)
    shelf.view("torch-hub", tmp_path / "hub")
    code = """
from torchvision.models import squeezenet1_1
model = squeezenet1_1(weights="IMAGENET1K_V1")
print(sum(value.double().sum().item() for value in model.state_dict().values()))
"""
    total = sum(value.double().sum().item() for value in model.state_dict().values())
    assert float(offline(code, TORCH_HOME=tmp_path / "hub")) == pytest.approx(total)


def test_what_a_catalog_contradicts_is_not_in_a_view(shelf, tmp_path):
    shelf.put("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth", b"not it")
    assert shelf.view("torch-hub", tmp_path / "hub").manifest.placements == ()


def test_facenets_place_leads_to_the_same_files(shelf, tmp_path):
    shelf.put("https://weights.example/20180402-114759-vggface2.pt", b"face")
    shelf.view("torch-hub", tmp_path / "hub")
    assert (tmp_path / "hub/checkpoints/20180402-114759-vggface2.pt").read_bytes() == b"face"


@pytest.fixture
def hub_view(shelf, tmp_path):
    """A view of two files of one repository, one of them in a folder, fetched from a branch and by a commit."""
    config = json.dumps({"hidden": 4}).encode()
    shelf.put("hf://org/tiny@main/config.json", config, commit=COMMIT, etag=git_id(config))
    shelf.put("hf://org/tiny@main/onnx/w.bin", b"weights", commit=COMMIT)
    shelf.put("hf://gpt2@refs%2Fpr%2F1/w.bin", b"weights", commit="f" * 40)
    shelf.put(f"hf://org/tiny@{COMMIT}/by-commit.bin", b"more")
    shelf.view("huggingface", tmp_path / "hf")
    return tmp_path / "hf"


@pytest.mark.parametrize(
    ("call", "content"),
    [
        ("hf_hub_download('org/tiny', 'config.json')", '{"hidden": 4}'),
        ("hf_hub_download('org/tiny', 'onnx/w.bin', revision='main')", "weights"),
        (f"hf_hub_download('org/tiny', 'by-commit.bin', revision='{COMMIT}')", "more"),
        ("hf_hub_download('gpt2', 'w.bin', revision='refs/pr/1')", "weights"),
        ("snapshot_download('org/tiny') + '/onnx/w.bin'", "weights"),
        ("snapshot_download('org/tiny', local_files_only=True) + '/config.json'", '{"hidden": 4}'),
        ("try_to_load_from_cache('org/tiny', 'config.json')", '{"hidden": 4}'),
    ],
)
def test_huggingface_hub_finds_files_in_a_view(hub_view, offline, call, content):
    code = f"""
from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
print(open({call}).read(), end="")
"""
    assert offline(code, HF_HUB_CACHE=hub_view, HF_HUB_OFFLINE="1") == content


def test_huggingface_hub_counts_a_view_without_a_warning(hub_view, offline):
    code = f"""
from huggingface_hub import scan_cache_dir
found = scan_cache_dir({str(hub_view)!r})
assert not found.warnings, found.warnings
for repo in sorted(found.repos, key=lambda repo: repo.repo_id):
    print(repo.repo_id, repo.nb_files, sorted(repo.refs))
"""
    assert offline(code).splitlines() == ["gpt2 1 ['refs/pr/1']", "org/tiny 3 ['main']"]


def test_timm_builds_its_model_from_a_view_of_the_hub(shelf, offline, tmp_path):
    import timm
    from safetensors.torch import save

    model = timm.create_model("test_resnet", pretrained=False)
    total = sum(value.double().sum().item() for value in model.state_dict().values())
    source = f"hf://{model.pretrained_cfg['hf_hub_id']}@main/model.safetensors"
    shelf.put(source, save(model.state_dict()), commit=COMMIT)
    shelf.view("huggingface", tmp_path / "hf")
    code = """
import timm
model = timm.create_model("test_resnet", pretrained=True)
print(sum(value.double().sum().item() for value in model.state_dict().values()))
"""
    assert float(offline(code, HF_HUB_CACHE=tmp_path / "hf", HF_HUB_OFFLINE="1")) == pytest.approx(total)


def test_iopath_finds_urls_in_a_view(shelf, offline, tmp_path):
    pytest.importorskip("iopath")  # in CI it is there
    urls = ["https://dl.example/detectron2/1/model_final.pkl", "https://dl.example/a/b.pkl?v=2"]
    for number, url in enumerate(urls):
        shelf.put(url, b"weights %d" % number)
    shelf.view("fvcore", tmp_path / "fv")
    code = f"""
from iopath.common.file_io import HTTPURLHandler, PathManager
paths = PathManager()
paths.register_handler(HTTPURLHandler())
for url in {urls!r}:
    print(open(paths.get_local_path(url)).read())
"""
    assert offline(code, FVCORE_CACHE=tmp_path / "fv").split("\n")[:2] == ["weights 0", "weights 1"]
    shelf.view("fvcore", tmp_path / "fv")  # iopath has left its lock files there
