"""``head="new"``: everything pretrained but the layers that name the classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision

from tests.loading.conftest import Save
from weightstore.client import Client
from weightstore.errors import InvalidInput
from weightstore.loading.head import with_new_head
from weightstore.loading.model import get_model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

HEADS = {
    "resnet18": {"fc.weight", "fc.bias"},
    "vit_b_32": {"heads.head.weight", "heads.head.bias"},
    "mobilenet_v3_small": {"classifier.3.weight", "classifier.3.bias"},
    "squeezenet1_1": {"classifier.1.weight", "classifier.1.bias"},
    "fcn_resnet50": {"classifier.4.weight", "classifier.4.bias"},
    "fasterrcnn_mobilenet_v3_large_320_fpn": {
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.box_predictor.cls_score.bias",
        "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.box_predictor.bbox_pred.bias",
    },
    "retinanet_resnet50_fpn": {
        "head.classification_head.cls_logits.weight",
        "head.classification_head.cls_logits.bias",
    },
}


def bare(name: str, **config: Any) -> tuple[Any, dict[str, Any]]:
    builder = torchvision.models.get_model_builder(name)
    detection = {"weights_backbone": None} if "rcnn" in name or name.startswith(("fcn", "retina")) else {}
    return builder, {"weights": None, **detection, **config}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_new_and_the_rest_pretrained(name: str) -> None:
    builder, config = bare(name)
    pretrained = builder(**config)
    state = {key: value.clone() for key, value in pretrained.state_dict().items()}

    model = with_new_head(builder, {**config, "num_classes": 7}, model=pretrained)

    after = model.state_dict()
    assert after.keys() == state.keys()
    assert {key for key in after if after[key].shape != state[key].shape} == HEADS[name]
    assert all(torch.equal(after[key], state[key]) for key in after.keys() - HEADS[name])
    reference = builder(**{**config, "num_classes": 7}).state_dict()
    for key in HEADS[name]:
        assert after[key].shape == reference[key].shape
        if reference[key].numel() > 100:
            assert float(after[key].std()) == pytest.approx(float(reference[key].std()), rel=0.3)
        elif reference[key].std() == 0:
            assert torch.equal(after[key], reference[key])


@pytest.mark.parametrize("name", ["resnet18", "fcn_resnet50", "squeezenet1_1"])
def test_the_model_answers_for_the_new_classes(name: str) -> None:
    builder, config = bare(name)
    model = with_new_head(builder, {**config, "num_classes": 7}, model=builder(**config)).eval()
    with torch.no_grad():
        answer = model(torch.rand(1, 3, 64, 64))
    assert (answer["out"] if isinstance(answer, dict) else answer).shape[1] == 7


def test_a_detector_remembers_the_new_number() -> None:
    builder, config = bare("retinanet_resnet50_fpn")
    model = with_new_head(builder, {**config, "num_classes": 7}, model=builder(**config)).eval()
    assert model.head.classification_head.num_classes == 7
    with torch.no_grad():
        assert model([torch.rand(3, 64, 64)])[0]["labels"].numel() >= 0


def test_as_many_classes_as_before_get_a_new_head_too(save: Save, client: Client) -> None:
    model = torchvision.models.resnet18()
    path = save(model.state_dict())
    new = get_model(torchvision.models.resnet18, weights=path, head="new", num_classes=1000, client=client)
    assert new.fc.weight.shape == model.fc.weight.shape
    assert not torch.equal(new.fc.weight, model.fc.weight)
    assert torch.equal(new.conv1.weight, model.conv1.weight)


def test_a_file_for_other_classes_gives_the_rest(save: Save, client: Client) -> None:
    trained = torchvision.models.resnet18(num_classes=3)
    path = save(trained.state_dict())
    model = get_model(torchvision.models.resnet18, weights=path, head="new", num_classes=10, client=client)
    assert model.fc.out_features == 10
    assert model.fc.weight.count_nonzero() == 5120
    assert torch.equal(model.layer4[1].bn2.running_var, trained.layer4[1].bn2.running_var)


def test_the_new_head_can_be_trained() -> None:
    builder, config = bare("resnet18")
    model = with_new_head(builder, {**config, "num_classes": 2}, model=builder(**config))
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert model.fc.weight.requires_grad
    assert model.fc.weight.grad is not None


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        ("resnet18", {}, "needs num_classes"),
        ("raft_small", {"num_classes": 3}, "num_classes"),
    ],
)
def test_a_head_that_cannot_be_found_is_refused(name: str, config: dict[str, Any], reason: str) -> None:
    builder, plain = bare(name)
    with pytest.raises((InvalidInput, TypeError), match=reason):
        with_new_head(builder, {**plain, **config}, model=builder(**plain))


def test_a_file_of_another_model_is_refused(save: Save, client: Client) -> None:
    path = save({"something": torch.zeros(3)})
    with pytest.raises(InvalidInput, match="does not fit the model: it lacks"):
        get_model(torchvision.models.resnet18, weights=path, head="new", num_classes=2, client=client)


def test_other_values_of_head_are_refused(client: Client) -> None:
    with pytest.raises(InvalidInput, match="head is 'new' or None"):
        get_model(torchvision.models.resnet18, head="old", client=client)  # type: ignore[arg-type]
