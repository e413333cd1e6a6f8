"""The demo's family of models: as another package would define it, on real weights and a real photograph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weightstore.client import Client
from weightstore.config import Config
from weightstore.demo import efficientnet_lite as family
from weightstore.demo.checkpoints import find_checkpoints
from weightstore.demo.photograph import classify, find_photograph
from weightstore.loading.model import get_model

MODELS = [
    (family.efficientnet_lite0, family.EfficientNet_Lite0_Weights),
    (family.efficientnet_lite1, family.EfficientNet_Lite1_Weights),
    (family.efficientnet_lite2, family.EfficientNet_Lite2_Weights),
]


@pytest.mark.parametrize(("number", "enum"), [(number, enum) for number, (_, enum) in enumerate(MODELS)])
def test_what_is_said_of_the_weights_is_true_of_the_files(number: int, enum: type[family.WeightsEnum]) -> None:
    file = find_checkpoints()[number].path
    weights = enum["DEFAULT"]
    assert weights.size == file.stat().st_size
    assert weights.url.endswith(file.name)
    assert weights.pin.is_full
    assert len(weights.meta.categories) == 1000
    assert json.dumps(dict(weights.meta))


@pytest.mark.parametrize(("builder", "enum"), MODELS)
def test_each_model_sees_a_cat(builder: object, enum: type[family.WeightsEnum], tmp_path: Path) -> None:
    client = Client(Config(home=tmp_path / "store", state=tmp_path / "state"))
    weights = enum["DEFAULT"]
    file = find_checkpoints()[[one for _, one in MODELS].index(enum)].path
    client.path(f"file://{file}", sha256=weights.pin.hex)
    offline = Client(client.config.but(offline=True))

    fast = get_model(builder, weights=weights, client=offline).eval()  # type: ignore[arg-type]
    ordinary = get_model(builder, weights=weights, client=offline, fast=False).eval()  # type: ignore[arg-type]

    answers = classify(fast, weights, find_photograph())
    assert answers[0][0] in {"tiger cat", "Egyptian cat"}
    assert answers[0][1] > 0.3
    assert answers == classify(ordinary, weights, find_photograph())
    assert sum(parameter.numel() for parameter in fast.parameters()) == weights.meta.num_params


def test_the_builders_take_what_torchvisions_take() -> None:
    with pytest.warns(UserWarning, match="deprecated since 0.13"):
        model = family.efficientnet_lite0(pretrained=False, num_classes=7)
    assert model._fc.out_features == 7
