"""The committed catalog against the installed TorchVision, by the generator and by looking for ourselves."""

import importlib.util
import inspect
import json
import math
import re
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torchvision = pytest.importorskip("torchvision", reason="compares the catalog with the installed TorchVision")

from torch.hub import HASH_REGEX  # noqa: E402 - only where TorchVision is
from torchvision.models import (  # noqa: E402
    _meta,
    get_model_builder,
    get_model_weights,
    get_weight,
    list_models,
)

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / "scripts" / "generate_torchvision_catalog.py"
EXACT_SIZES = json.loads((ROOT / "scripts" / "torchvision_exact_sizes.json").read_text(encoding="utf-8"))
CATALOG_FILE = ROOT / "weightstore" / "catalog" / "torchvision.json"
CATALOG = json.loads(CATALOG_FILE.read_text(encoding="utf-8"))
ENUMS = CATALOG["enums"]
ENTRIES = {f"{enum}.{member}": entry for enum, record in ENUMS.items() for member, entry in record["entries"].items()}
LEGACY = [
    (record["builder"], parameter, interface)
    for record in ENUMS.values()
    for parameter, interface in record["legacy"].items()
]

pytestmark = pytest.mark.skipif(
    CATALOG["generated_from"].rpartition(".")[0] != f"torchvision {torchvision.__version__}".rpartition(".")[0],
    reason=f"the catalog is from {CATALOG['generated_from']}, installed is {torchvision.__version__}",
)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(GENERATOR.stem, GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def generated_file(generator: ModuleType, tmp_path: Path) -> Path:
    file = tmp_path / "torchvision.json"
    assert generator.main(["-o", str(file)]) == 0
    return file


def members() -> list[Any]:
    return [member for name in list_models() for member in get_model_weights(name)]


def nan_as_none(metrics: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    return {
        data_set: {name: None if math.isnan(value) else value for name, value in values.items()}
        for data_set, values in metrics.items()
    }


def comparable_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """TorchVision's meta, less what the catalog drops knowingly: line breaks and NaN."""
    return meta | {
        "_docs": " ".join(meta["_docs"].split()),
        "_metrics": nan_as_none(meta["_metrics"]),
    }


def meta_from(entry: dict[str, Any]) -> dict[str, Any]:
    """The meta as TorchVision has it, rebuilt from the catalog alone."""
    meta: dict[str, Any] = {
        "num_params": entry["num_params"],
        "_docs": entry["doc"],
        "_file_size": round(entry["size"] / 2**20, 3),
        "_metrics": entry["metrics"],
        "_ops": entry["gops"],
    }
    if entry["min_size"] is not None:
        meta["min_size"] = tuple(entry["min_size"])
    if entry["recipe"] is not None:
        meta["recipe"] = entry["recipe"]
    if entry["licence_url"] is not None:
        meta["license"] = entry["licence_url"]
    if entry["categories"] is not None:
        meta["categories"] = CATALOG["categories"][entry["categories"]]
    if "unquantized" in entry:
        meta["unquantized"] = get_weight(entry["unquantized"])
    return meta | {key: entry[key] for key in ("backend", "keypoint_names") if key in entry} | entry["extra"]


def imported(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return getattr(imported(module), name)


def argument_from(spec: Any) -> Any:
    if isinstance(spec, dict):
        return imported(spec["$enum"])
    return tuple(spec) if isinstance(spec, list) else spec


def announced_default(builder: str, **arguments: Any) -> str | None:
    """What TorchVision itself says that a legacy call means: its warning comes before anything is built.

    None where it says that there are no weights for such a call.
    """
    with warnings.catch_warnings(), pytest.raises((UserWarning, ValueError)) as raised:
        warnings.simplefilter("error")
        get_model_builder(builder)(**arguments)
    if str(raised.value).startswith("No weights available"):
        return None
    found = re.search(r"equivalent to passing `\w+=(\w+\.\w+)`", str(raised.value))
    assert found, raised.value
    return found[1]


def test_committed_catalog_is_what_the_generator_writes(generated_file: Path) -> None:
    generated = generated_file.read_text(encoding="utf-8")
    # A patch release that changes no weights leaves the committed file as it is.
    generated = generated.replace(json.loads(generated)["generated_from"], CATALOG["generated_from"])

    assert json.loads(generated) == CATALOG
    assert generated == CATALOG_FILE.read_text(encoding="utf-8")


def test_check_is_silent_about_an_equal_file(
    generator: ModuleType, generated_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generator.main(["--check", str(generated_file)]) == 0
    assert capsys.readouterr().out == ""


def test_check_tells_where_a_file_differs(
    generator: ModuleType, generated_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(generated_file.read_text(encoding="utf-8"))
    document["enums"]["ResNet50_Weights"]["default"] = "IMAGENET1K_V1"
    del document["enums"]["ResNet50_Weights"]["entries"]["IMAGENET1K_V2"]
    document["enums"]["ResNet50_Weights"]["entries"]["IMAGENET1K_V3"] = {}
    generated_file.write_text(json.dumps(document), encoding="utf-8")

    assert generator.main(["--check", str(generated_file)]) == 1

    assert capsys.readouterr().out.splitlines()[1:] == [
        '~ /enums/ResNet50_Weights/default: "IMAGENET1K_V1" -> "IMAGENET1K_V2"',
        "- /enums/ResNet50_Weights/entries/IMAGENET1K_V3",
        "+ /enums/ResNet50_Weights/entries/IMAGENET1K_V2",
    ]


def test_check_refuses_the_right_content_in_another_layout(
    generator: ModuleType, generated_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated_file.write_text(json.dumps(json.loads(generated_file.read_text(encoding="utf-8"))), encoding="utf-8")

    assert generator.main(["--check", str(generated_file)]) == 1

    assert "another order or layout" in capsys.readouterr().out


def test_check_refuses_what_is_no_json(
    generator: ModuleType, generated_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated_file.write_text("<<<<<<< HEAD", encoding="utf-8")

    assert generator.main(["--check", str(generated_file)]) == 1

    assert "not a JSON document" in capsys.readouterr().out


def test_each_weights_entry_has_its_own_line() -> None:
    lines = CATALOG_FILE.read_text(encoding="utf-8").splitlines()

    assert sum('"source": "https://' in line for line in lines) == len(ENTRIES)


@pytest.mark.parametrize(
    ("module", "preset"),
    [
        ("torchvision.models.depth", "DepthEstimation"),
        ("torchvision.models.detection.detr", "ObjectDetection"),
    ],
)
def test_unknown_task_is_refused(generator: ModuleType, module: str, preset: str) -> None:
    with pytest.raises(ValueError, match="no task known"):
        generator.task(module, preset)


def test_new_list_of_categories_is_refused(generator: ModuleType) -> None:
    with pytest.raises(ValueError, match="CATEGORY_LISTS"):
        generator.categories_id(["cat", "dog"])


def test_licence_that_nobody_has_read_is_refused(generator: ModuleType) -> None:
    with pytest.raises(ValueError, match="which licence"):
        generator.spdx_licence("https://example.org/LICENSE")


@pytest.mark.parametrize("value", [(1, 2), {1}, float("nan"), object()])
def test_meta_that_json_would_change_is_refused(generator: ModuleType, value: object) -> None:
    with pytest.raises(ValueError, match="surprise"):
        generator.extra({"surprise": value})


@pytest.mark.parametrize("transforms", [partial(dict, [("a", 1)]), partial(dict)])
def test_transforms_that_the_schema_cannot_hold_are_refused(generator: ModuleType, transforms: object) -> None:
    with pytest.raises(ValueError, match="argument"):
        generator.transforms_spec(transforms)


def test_published_size_counts_only_where_it_agrees_with_the_declared_one(generator: ModuleType) -> None:
    assert generator.size_bytes(97.781, 102530333) == (102530333, True)
    assert generator.size_bytes(97.781, 102530333 + 2000) == (102530810, False)
    assert generator.size_bytes(97.781, None) == (102530810, False)


def test_catalog_has_121_enums_with_166_members() -> None:
    assert len(ENUMS) == len(list_models()) == 121
    assert len(ENTRIES) == len(members()) == 166


def test_every_model_is_the_builder_of_its_enum() -> None:
    in_catalog = {record["builder"]: (name, record["module"]) for name, record in ENUMS.items()}

    assert in_catalog == {
        name: (get_model_weights(name).__name__, get_model_weights(name).__module__) for name in list_models()
    }


def test_every_name_of_an_enum_leads_to_its_member() -> None:
    for name in list_models():
        enum = get_model_weights(name)
        record = ENUMS[enum.__name__]
        names = {member: member for member in record["entries"]}
        names |= {"DEFAULT": record["default"]} | record.get("aliases", {})

        assert names == {alias: member.name for alias, member in enum.__members__.items()}


def test_members_are_in_torchvisions_order() -> None:
    for name in list_models():
        enum = get_model_weights(name)
        assert list(ENUMS[enum.__name__]["entries"]) == [member.name for member in enum]


def test_default_is_the_newest_where_there_are_two() -> None:
    assert ENUMS["ResNet50_Weights"]["default"] == "IMAGENET1K_V2"
    assert ENUMS["ViT_H_14_Weights"]["default"] == "IMAGENET1K_SWAG_E2E_V1"


@pytest.mark.parametrize(
    ("enum", "task"),
    [
        ("ResNet50_Weights", "classification"),
        ("ResNet50_QuantizedWeights", "classification"),
        ("SSD300_VGG16_Weights", "detection"),
        ("MaskRCNN_ResNet50_FPN_Weights", "instance-segmentation"),
        ("KeypointRCNN_ResNet50_FPN_Weights", "keypoint-detection"),
        ("LRASPP_MobileNet_V3_Large_Weights", "semantic-segmentation"),
        ("S3D_Weights", "video-classification"),
        ("Raft_Small_Weights", "optical-flow"),
    ],
)
def test_task_is_what_the_model_does(enum: str, task: str) -> None:
    assert ENUMS[enum]["task"] == task


def test_every_weights_parameter_has_its_legacy_form() -> None:
    for record in ENUMS.values():
        parameters = inspect.signature(get_model_builder(record["builder"])).parameters
        assert set(record["legacy"]) == {name for name in parameters if name.startswith("weights")}


@pytest.mark.parametrize(("builder", "parameter", "interface"), LEGACY)
def test_legacy_default_is_what_torchvision_announces(
    builder: str, parameter: str, interface: dict[str, str | None]
) -> None:
    default = interface["default"]

    assert announced_default(builder, **{parameter: True}) == default
    assert announced_default(builder, **{parameter: True, "quantize": True}) == interface.get(
        "default_quantized", default
    )
    if parameter == "weights":  # the only one that TorchVision lets "legacy" through for
        assert announced_default(builder, weights="legacy") == interface.get("default_legacy", default)


def test_legacy_defaults_that_we_know() -> None:
    def legacy(enum: str) -> dict[str, dict[str, str | None]]:
        return ENUMS[enum]["legacy"]  # type: ignore[no-any-return]

    assert legacy("ResNet50_Weights") == {
        "weights": {"parameter": "pretrained", "default": "ResNet50_Weights.IMAGENET1K_V1"}
    }
    assert legacy("ViT_H_14_Weights") == {"weights": {"parameter": "pretrained", "default": None}}
    assert legacy("SSD300_VGG16_Weights")["weights_backbone"] == {
        "parameter": "pretrained_backbone",
        "default": "VGG16_Weights.IMAGENET1K_FEATURES",
    }
    assert legacy("ResNet50_QuantizedWeights")["weights"] == {
        "parameter": "pretrained",
        "default": "ResNet50_Weights.IMAGENET1K_V1",
        "default_quantized": "ResNet50_QuantizedWeights.IMAGENET1K_FBGEMM_V1",
    }
    assert legacy("KeypointRCNN_ResNet50_FPN_Weights")["weights"] == {
        "parameter": "pretrained",
        "default": "KeypointRCNN_ResNet50_FPN_Weights.COCO_V1",
        "default_legacy": "KeypointRCNN_ResNet50_FPN_Weights.COCO_LEGACY",
    }


@pytest.mark.parametrize("name", ENTRIES)
def test_meta_can_be_rebuilt_from_the_catalog(name: str) -> None:
    assert meta_from(ENTRIES[name]) == comparable_meta(get_weight(name).meta)


@pytest.mark.parametrize("name", ENTRIES)
def test_transforms_can_be_rebuilt_from_the_catalog(name: str) -> None:
    spec = ENTRIES[name]["transforms"]
    arguments = {argument: argument_from(value) for argument, value in spec["kwargs"].items()}

    transforms = get_weight(name).transforms

    if isinstance(transforms, partial):
        assert (imported(spec["class"]), arguments) == (transforms.func, transforms.keywords)
    else:
        assert (imported(spec["class"]), arguments) == (transforms, {})


def test_sources_are_torchvisions_urls() -> None:
    assert {name: entry["source"] for name, entry in ENTRIES.items()} == {
        str(member): member.url for member in members()
    }


def test_pins_are_those_that_torch_hub_compares_and_four_more() -> None:
    ours = {entry["source"]: entry["pin"] for entry in ENTRIES.values()}
    of_torch_hub = {url: found[1] for url in ours if (found := HASH_REGEX.search(url.rpartition("/")[2]))}

    assert {url: pin for url, pin in ours.items() if url in of_torch_hub} == of_torch_hub
    assert {url.rpartition("/")[2]: pin for url, pin in ours.items() if url not in of_torch_hub} == {
        "mobilenet_v2_qnnpack_37f702c5.pth": "37f702c5",
        "resnet18_fbgemm_16fa66dd.pth": "16fa66dd",
        "resnet50_fbgemm_bf931d71.pth": "bf931d71",
        "resnext101_32x8_fbgemm_09835ccf.pth": "09835ccf",
    }


def test_file_name_without_a_digest_gives_no_pin(generator: ModuleType) -> None:
    assert generator.pin("https://example.org/resnet50.pth") is None
    assert generator.pin("https://example.org/resnet50-abc.pth") is None


def test_every_exact_size_agrees_with_what_torchvision_declares() -> None:
    exact = {entry["source"]: entry["size"] for entry in ENTRIES.values() if entry["size_exact"]}

    assert exact == EXACT_SIZES
    assert exact["https://download.pytorch.org/models/resnet50-0676ba61.pth"] == 102530333


def test_only_the_swag_weights_state_a_licence() -> None:
    licensed = {name: entry["licence"] for name, entry in ENTRIES.items() if entry["licence"] is not None}

    assert licensed == {str(member): "CC-BY-NC-4.0" for member in members() if "SWAG" in member.name}
    assert len(licensed) == 12


def test_each_list_of_categories_stands_once() -> None:
    categories = CATALOG["categories"]

    assert {name: len(listed) for name, listed in categories.items()} == {
        "coco": 91,
        "coco-person": 2,
        "imagenet-1k": 1000,
        "kinetics-400": 400,
        "voc": 21,
    }
    assert categories["imagenet-1k"] == _meta._IMAGENET_CATEGORIES
    assert {entry["categories"] for entry in ENTRIES.values()} == {*categories, None}


def test_quantized_and_unquantized_name_each_other() -> None:
    forth = {(name, quantized) for name, entry in ENTRIES.items() for quantized in entry.get("quantized", ())}
    back = {(entry["unquantized"], name) for name, entry in ENTRIES.items() if "unquantized" in entry}

    assert forth == back
    assert len(back) == 14
    assert ENTRIES["ResNet50_Weights.IMAGENET1K_V2"]["quantized"] == ["ResNet50_QuantizedWeights.IMAGENET1K_FBGEMM_V2"]
