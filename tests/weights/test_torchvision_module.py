"""``weightstore.torchvision``: builders with their deprecated forms, and the catalog of another TorchVision."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

torchvision = pytest.importorskip("torchvision", reason="compares with the installed TorchVision")

import weightstore  # noqa: E402 - only where TorchVision is
from weightstore.errors import NotPresent  # noqa: E402
from weightstore.weights import upstream  # noqa: E402

DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEIGHTSTORE_OFFLINE", "1")
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "store"))


def wanted_by(build: Any, *args: Any, **config: Any) -> str:
    """Return the name of the weights that a call asks the store for."""
    with pytest.raises(NotPresent) as refused:
        build(*args, **config)
    return refused.value.name


def test_a_builder_has_a_signature_that_names_its_enum() -> None:
    build = weightstore.torchvision.resnet18
    assert list(inspect.signature(build).parameters) == ["weights", "progress", "config"]
    assert weightstore.get_model_weights(build) is weightstore.torchvision.ResNet18_Weights
    assert build.__name__ == "resnet18"


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("builder", "args", "config", "meant"),
    [
        ("resnet50", (True,), {}, "ResNet50_Weights.IMAGENET1K_V1"),
        ("resnet50", (), {"pretrained": True}, "ResNet50_Weights.IMAGENET1K_V1"),
        ("resnet50", (), {"weights": True}, "ResNet50_Weights.IMAGENET1K_V1"),
        ("quantized_resnet50", (), {"pretrained": True}, "ResNet50_Weights.IMAGENET1K_V1"),
        (
            "quantized_resnet50",
            (),
            {"pretrained": True, "quantize": True},
            "ResNet50_QuantizedWeights.IMAGENET1K_FBGEMM_V1",
        ),
        (
            "keypointrcnn_resnet50_fpn",
            (),
            {"pretrained": "legacy", "weights_backbone": None},
            "KeypointRCNN_ResNet50_FPN_Weights.COCO_LEGACY",
        ),
        (DETECTOR, (), {"pretrained_backbone": True}, "MobileNet_V3_Large_Weights.IMAGENET1K_V1"),
    ],
)
def test_deprecated_forms_mean_what_they_mean_to_torchvision(
    builder: str, args: tuple[Any, ...], config: dict[str, Any], meant: str
) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert wanted_by(getattr(weightstore.torchvision, builder), *args, **config) == meant
        if not args:
            assert wanted_by(lambda **rest: weightstore.get_model(builder, **rest), **config) == meant
    assert {one.filename for one in told} == {__file__}


@pytest.mark.usefixtures("offline")
def test_a_backbones_weights_are_those_that_were_given() -> None:
    chosen = weightstore.torchvision.MobileNet_V3_Large_Weights.IMAGENET1K_V2  # and the legacy default is V1
    build = getattr(weightstore.torchvision, DETECTOR)
    assert wanted_by(build, weights=None, weights_backbone=chosen) == str(chosen)
    assert wanted_by(weightstore.get_model, DETECTOR, weights_backbone=chosen) == str(chosen)


def test_a_builder_without_legacy_weights_says_so() -> None:
    with pytest.raises(ValueError, match="No weights available for model vit_h_14"):
        weightstore.torchvision.vit_h_14(pretrained=True)


def test_a_line_warns_once_although_the_filters_change_in_between() -> None:
    code = """
import warnings
from weightstore.weights.legacy import handle_legacy_interface
@handle_legacy_interface(weights=("pretrained", None))
def build(*, weights=None):
    return weights
for _ in range(3):
    build(pretrained=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
build(pretrained=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.partition(" ")[0] for line in done.stderr.splitlines() if "UserWarning" in line] == [
        *["<string>:8:"] * 2,
        *["<string>:11:"] * 2,
    ]


def test_a_filter_that_asks_for_every_warning_gets_every_one() -> None:
    @weightstore.handle_legacy_interface(weights=("pretrained", None))
    def build(*, weights: Any = None) -> Any:
        return weights

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            build(pretrained=False)
    assert len(told) == 4


# -- another TorchVision -----------------------------------------------------------------------------------------------

NAMES_WEIGHTS = """
import sys
import weightstore
from weightstore.weights import upstream
member = weightstore.get_weight("ResNet50_Weights.DEFAULT")
said = member, upstream.document()["generated_from"], member.transforms, len(member.meta.categories)
print(*said, "torch" in sys.modules)
"""


@pytest.fixture
def other_version(tmp_path: Path) -> Path:
    """The installed TorchVision, as one that calls itself 0.21.0."""
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    for file in Path(torchvision.__file__).parent.iterdir():
        if file.name not in {"version.py", "__pycache__"}:
            (package / file.name).symlink_to(file)
    (package / "version.py").write_text("__version__ = '0.21.0+cpu'\ngit_version = ''\ncuda = None\n")
    return package


def name_weights(package: Path, tmp_path: Path, before: str = "") -> str:
    paths = [str(package.parent), str(Path(weightstore.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "WEIGHTSTORE_STATE": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", before + NAMES_WEIGHTS],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SAID = "ResNet50_Weights.IMAGENET1K_V2 torchvision 0.21.0 ImageClassification(crop_size=224, resize_size=232) 1000"


def test_the_catalog_of_another_version_is_made_once_and_then_read_without_torch(
    other_version: Path, tmp_path: Path
) -> None:
    assert name_weights(other_version, tmp_path) == f"{SAID} True"
    assert name_weights(other_version, tmp_path) == f"{SAID} False"
    (kept,) = (tmp_path / "state" / "catalogs").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text())["generated_from"] == "torchvision 0.21.0"


def test_a_kept_catalog_that_is_damaged_is_made_anew(other_version: Path, tmp_path: Path) -> None:
    kept = tmp_path / "state" / "catalogs" / "torchvision-0.21.0.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"schema": 1, "namespace": "torchvision", "enums": {"ResNet50_Wei')
    assert name_weights(other_version, tmp_path) == f"{SAID} True"
    assert json.loads(kept.read_text())["generated_from"] == "torchvision 0.21.0"


def test_a_catalog_made_behind_the_stand_in_has_its_transforms(other_version: Path, tmp_path: Path) -> None:
    install = "from weightstore.weights.stand_in import install\ninstall()\n"
    assert name_weights(other_version, tmp_path, install) == f"{SAID} True"


def test_a_torchvision_that_cannot_be_imported_leaves_the_built_in_catalog(other_version: Path, tmp_path: Path) -> None:
    (other_version / "extension.py").unlink()
    (other_version / "extension.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    said = name_weights(other_version, tmp_path)
    assert said.startswith("ResNet50_Weights.IMAGENET1K_V2 torchvision 0.2")
    assert "0.21.0" not in said


@pytest.mark.parametrize("name", sorted(upstream.document()["enums"]))
def test_the_part_of_the_catalog_that_is_read_for_an_enum_is_what_the_whole_says(name: str) -> None:
    part, whole = upstream._part(name), upstream.document()
    assert part["enums"] == {name: whole["enums"][name]}
    assert part["namespace"] == whole["namespace"]
    assert all(whole["categories"][key] == value for key, value in part["categories"].items())
    assert upstream.has_enum(name)
    assert not upstream.has_enum(f"{name}s")


def test_behind_the_stand_in_what_replaces_the_loading_function_is_called(tmp_path: Path) -> None:
    code = (
        "from weightstore.weights.stand_in import install\n"
        "install()\n"
        "from unittest import mock\n"
        "from torchvision.models import ResNet18_Weights\n"
        "with mock.patch('torchvision.models._api.load_state_dict_from_url', return_value={}) as loads:\n"
        "    assert ResNet18_Weights.DEFAULT.get_state_dict(progress=False, file_name='a.pth') == {}\n"
        "((url,), given), = loads.call_args_list\n"
        "assert url == ResNet18_Weights.DEFAULT.url\n"
        "assert (given['progress'], given['check_hash'], given['file_name']) == (False, True, 'a.pth')\n"
        "try:\n"
        "    ResNet18_Weights.DEFAULT.get_state_dict()\n"
        "except Exception as refused:\n"
        "    print(type(refused).__name__)\n"
    )
    environment = os.environ | {"WEIGHTSTORE_OFFLINE": "1", "WEIGHTSTORE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "NotPresent\n"), done.stderr
