"""Ours beside TorchVision's own: the same values, names and errors, the same mapping of the old to the new."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torchvision
from torchvision.models import get_model_builder, get_model_weights, list_models

import weightstore
from weightstore.weights.meta import Meta

BUILDERS = list_models()


def members() -> list[Any]:
    return [member for name in BUILDERS for member in get_model_weights(name)]


@pytest.mark.parametrize("theirs", members(), ids=str)
def test_every_entry_says_what_torchvisions_says(theirs: Any) -> None:
    ours = weightstore.get_weight(f"{type(theirs).__name__}.{theirs.name}")

    assert str(ours) == str(theirs)
    assert ours.url == theirs.url
    assert ours.transforms == theirs.transforms
    expected = dict(theirs.meta)
    expected["_docs"] = " ".join(expected["_docs"].split())
    assert ours.meta.keys() == expected.keys()
    for key, value in expected.items():
        if key == "unquantized":
            assert str(ours.meta[key]) == str(value)
        else:
            assert ours.meta[key] == value or str(ours.meta[key]) == str(value), key  # NaN is not even itself
    assert isinstance(ours.meta, Meta)
    assert ours is getattr(weightstore.torchvision, type(theirs).__name__)[theirs.name]
    assert type(ours).verify(theirs) is ours, "TorchVision's own member stands for ours"


@pytest.mark.parametrize("name", BUILDERS)
def test_every_enum_has_torchvisions_members_and_aliases(name: str) -> None:
    theirs, ours = get_model_weights(name), weightstore.get_model_weights(name)
    assert ours.__name__ == theirs.__name__
    assert [member.name for member in ours] == [member.name for member in theirs]
    assert {key: one.name for key, one in ours.__members__.items()} == {
        key: one.name for key, one in theirs.__members__.items()
    }


def test_all_models_are_listed() -> None:
    assert set(BUILDERS) <= set(weightstore.list_models())
    assert weightstore.list_models(torchvision.models) == list_models(torchvision.models)
    filters: dict[str, Any] = {"include": "*resnet*", "exclude": ["quantized*", "*101*"]}
    assert weightstore.list_models(**filters) == list_models(**filters)


@pytest.mark.parametrize("name", ["resnet50", "ResNet50", "quantized_resnet50", "fasterrcnn_resnet50_fpn"])
def test_builders_are_torchvisions(name: str) -> None:
    assert weightstore.get_model_builder(name) is get_model_builder(name)


@pytest.mark.parametrize(
    "name", ["ResNet50_Weights", "a.b.c", "Nothing_Weights.DEFAULT", "ResNet50_Weights.NOTHING", ""]
)
def test_wrong_weights_names_are_the_same_errors(name: str) -> None:
    with pytest.raises(Exception) as theirs:
        torchvision.models.get_weight(name)
    with pytest.raises(type(theirs.value)) as ours:
        weightstore.get_weight(name)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("wrong", ["IMAGENET1K_V3", 3, object, torchvision.models.ResNet18_Weights.DEFAULT])
def test_what_is_no_member_is_refused_as_upstream_refuses_it(wrong: Any) -> None:
    with pytest.raises(Exception) as theirs:
        torchvision.models.ResNet50_Weights.verify(wrong)
    with pytest.raises(type(theirs.value)) as ours:
        weightstore.torchvision.ResNet50_Weights.verify(wrong)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["ResNet50_Weights.IMAGENET1K_V2", "ResNet50_QuantizedWeights.DEFAULT"])
def test_a_member_survives_copying_and_pickling_as_itself(name: str, protocol: int) -> None:
    member = weightstore.get_weight(name)
    assert copy.copy(member) is copy.deepcopy(member) is member
    assert pickle.loads(pickle.dumps(member, protocol)) is member
    assert pickle.loads(pickle.dumps(member.value, protocol)) == member.value
    assert copy.deepcopy(member.meta) is member.meta


PRESETS = {
    "ResNet50_Weights.DEFAULT": "image",
    "FasterRCNN_ResNet50_FPN_Weights.DEFAULT": "detection",
    "FCN_ResNet50_Weights.DEFAULT": "segmentation",
    "R3D_18_Weights.DEFAULT": "video",
    "Raft_Small_Weights.DEFAULT": "flow",
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_presets_are_built_scripted_and_the_same_as_torchvisions(name: str) -> None:
    import torch

    ours = weightstore.get_weight(name).transforms()
    theirs = torchvision.models.get_weight(name).transforms()
    assert type(ours) is type(theirs)
    shape = {"video": (2, 4, 3, 120, 160), "flow": (1, 3, 128, 128)}.get(PRESETS[name], (2, 3, 240, 250))
    image = torch.randint(0, 256, shape, dtype=torch.uint8)
    arguments = (image, image.clone()) if PRESETS[name] == "flow" else (image,)
    expected = theirs(*arguments)
    for made in (ours, torch.jit.script(ours)):
        found = made(*arguments)
        assert all(
            torch.equal(one, other)
            for one, other in zip(
                found if isinstance(found, tuple) else (found,),
                expected if isinstance(expected, tuple) else (expected,),
                strict=True,
            )
        )


def test_a_preset_takes_pictures_and_other_arguments() -> None:
    from PIL import Image

    transforms = weightstore.torchvision.ResNet50_Weights.IMAGENET1K_V1.transforms
    picture = Image.new("RGB", (300, 280))
    assert transforms()(picture).shape == (3, 224, 224)
    assert transforms(crop_size=128)(picture).shape == (3, 128, 128)
    assert repr(transforms) == "ImageClassification(crop_size=224)"


# Run where TorchVision is made of our classes, and where it is made of its own: what is printed must be the same.
LEGACY = """
import json, sys, warnings
if sys.argv[1] == "ours":
    from weightstore.weights.stand_in import install
    install()
import inspect
import torchvision
from torchvision.models import list_models, get_model_builder, get_model_weights

class Stop(Exception):
    pass

def call(builder, *args, **kwargs):
    # The decorated builder's own body is replaced by one that tells what it was called with.
    inner = inspect.unwrap(builder)
    code, told = inner.__code__, []
    def body(*a, **k):
        raise Stop({key: str(value) for key, value in k.items()}, [str(one) for one in a])
    layers, layer = [], builder
    while hasattr(layer, "__wrapped__"):
        layers.append(layer)
        layer = layer.__wrapped__
    innermost = layers[-1]
    cells = dict(zip(innermost.__code__.co_freevars, innermost.__closure__))
    name = next(key for key, cell in cells.items() if cell.cell_contents is inner)
    original = cells[name].cell_contents
    body.__name__ = inner.__name__
    cells[name].cell_contents = body
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                builder(*args, **kwargs)
                outcome = "returned"
            except Stop as stop:
                outcome = [stop.args[0], stop.args[1]]
            except Exception as error:
                outcome = [type(error).__name__, str(error)]
    finally:
        cells[name].cell_contents = original
    return [outcome, [[one.category.__name__, str(one.message)] for one in caught]]

result = {}
for name in list_models():
    builder = get_model_builder(name)
    if not hasattr(builder, "__wrapped__"):
        continue
    backbone = "weights_backbone" in inspect.signature(builder).parameters
    calls = [((), {}), ((), {"pretrained": True}), ((), {"pretrained": False}), ((True,), {}), ((False, False), {}),
             ((), {"weights": True}), ((), {"pretrained": "legacy"}), ((), {"weights": "DEFAULT"}),
             ((), {"weights": None}), ((), {"pretrained": True, "quantize": True})]
    if backbone:
        calls += [((), {"pretrained_backbone": True}), ((), {"pretrained_backbone": False, "pretrained": True})]
    result[name] = [call(builder, *args, **dict(kwargs)) for args, kwargs in calls]
print(json.dumps(result, sort_keys=True))
"""


def _told(whose: str) -> Any:
    done = subprocess.run([sys.executable, "-c", LEGACY, whose], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_builders_deprecated_calls_mean_and_say_the_same() -> None:
    ours, theirs = _told("ours"), _told("theirs")
    assert len(theirs) > 100
    assert ours.keys() == theirs.keys()
    assert {name: told for name, told in ours.items() if told != theirs[name]} == {}


STAND_IN = """
from weightstore.weights.stand_in import install
install(); install()
import torch, torchvision, warnings, inspect
from torchvision.models import list_models, get_model, get_model_weights, get_weight
from weightstore.weights.enum import WeightsEnum
assert torchvision.models._api.WeightsEnum is WeightsEnum
assert len(list_models()) == 121, len(list_models())
for name in list_models():
    enum = get_model_weights(name)
    assert issubclass(enum, WeightsEnum), name
    assert get_weight(str(enum.DEFAULT)) is enum.DEFAULT
    if name.startswith("quantized"):
        continue
    config = {"weights": None}
    if "weights_backbone" in inspect.signature(torchvision.models.get_model_builder(name)).parameters:
        config["weights_backbone"] = None
    if "googlenet" in name or "inception" in name:
        config["init_weights"] = False
    from weightstore.loading.initialisation import skipping
    with skipping():
        get_model(name, **config)
torch.jit.script(torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None))
print("done")
"""


@pytest.mark.timeout(300)
def test_all_builders_work_on_our_classes() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", STAND_IN], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


def test_a_stand_in_that_comes_too_late_says_so() -> None:
    from weightstore.errors import InvalidInput
    from weightstore.weights.stand_in import install

    with pytest.raises(InvalidInput, match="before anything imports torchvision"):
        install()


def test_a_deprecated_call_names_the_callers_line_and_is_told_once_a_line() -> None:
    code = """
from weightstore.weights.stand_in import install
install()
import torchvision
def build():
    return torchvision.models.resnet18(pretrained=False)
build()
build()
torchvision.models.resnet18(False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = [line for line in done.stderr.splitlines() if "UserWarning" in line]
    assert [line.split(": ")[0] for line in told] == ["<string>:6", "<string>:6", "<string>:9", "<string>:9"]
    assert "'pretrained' is deprecated since 0.13" in told[0]
    assert "Using 'weights' as positional parameter(s)" in told[2]


def test_with_warnings_as_errors_every_deprecated_call_raises() -> None:
    @weightstore.handle_legacy_interface(weights=("pretrained", weightstore.torchvision.ResNet18_Weights.DEFAULT))
    def build(*, weights: Any = None) -> Any:
        return weights

    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="'pretrained' is deprecated"):
                build(pretrained=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert build(pretrained=True) is weightstore.torchvision.ResNet18_Weights.IMAGENET1K_V1
    assert "equivalent to passing `weights=ResNet18_Weights.IMAGENET1K_V1`" in str(told[1].message)


def test_signatures_are_upstreams() -> None:
    for name in ("get_model_builder", "get_model_weights", "get_weight", "list_models"):
        ours = inspect.signature(getattr(weightstore, name)).parameters
        theirs = inspect.signature(getattr(torchvision.models, name)).parameters
        assert [(one.name, one.kind, one.default) for one in ours.values()] == [
            (one.name, one.kind, one.default) for one in theirs.values()
        ]
