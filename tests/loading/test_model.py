"""Models by name, with weights named in every way that there is."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from tests.loading.conftest import Save
from tests.servers.hostile import HostileServer
from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import InvalidCheckpoint, InvalidInput, NotPresent, UnknownName
from weightstore.loading.choice import choose
from weightstore.loading.model import get_model
from weightstore.weights.entry import Weights
from weightstore.weights.enum import WeightsEnum
from weightstore.weights.names import MODELS, register_model
from weightstore.weights.transforms import untouched


class Net(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, num_classes)


@dataclass(frozen=True)
class Upstream:
    """As TorchVision's own entries look."""

    url: str
    meta: dict[str, Any]


@dataclass
class Family:
    """A model, its checkpoints on a server, and two enums of them: one of ours, one as TorchVision's are."""

    state: dict[str, torch.Tensor]
    url: str
    path: Path
    ours: Any
    theirs: Any


@pytest.fixture
def family(save: Save) -> Iterator[Family]:
    state = Net().state_dict()
    path = save(state)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    with HostileServer() as server:
        url = server.serve(f"/net-{digest[:8]}.pth", data)
        meta = {"categories": ["a", "b", "c"], "_file_size": len(data) / 2**20}
        entry = Weights(url, untouched, meta, digest=digest)
        ours = WeightsEnum("Net_Weights", {"V1": entry, "DEFAULT": entry}, module=__name__)  # type: ignore[call-arg]
        theirs = Enum("Net_Weights", {"V1": Upstream(url, meta)}, module=__name__)  # type: ignore[misc]
        theirs.get_state_dict = lambda self, **_: pytest.fail("torch.hub was asked")  # type: ignore[attr-defined]
        theirs.url = property(lambda self: self.value.url)  # type: ignore[attr-defined]
        theirs.meta = property(lambda self: self.value.meta)  # type: ignore[attr-defined]
        _register("net", ours)
        _register("their_net", theirs)
        yield Family(state, url, path, ours, theirs)
    for name in ("net", "their_net"):
        del MODELS.builders[name]


def _register(name: str, enum: Any) -> None:
    def builder(*, weights: Any = None, progress: bool = True, num_classes: int = 3) -> Net:
        if isinstance(weights, str):
            weights = enum[weights.replace("Net_Weights.", "")]
        assert weights is None or isinstance(weights, enum)
        if weights is not None and num_classes != len(weights.meta["categories"]):
            raise ValueError(f"The parameter 'num_classes' expected value 3 but got {num_classes} instead.")
        model = Net(num_classes)
        if weights is not None:
            model.load_state_dict(weights.get_state_dict(progress=progress, check_hash=True))
        return model

    builder.__annotations__["weights"] = enum
    builder.__name__ = name
    register_model()(builder)


@pytest.fixture
def online(tmp_path: Path) -> Client:
    return Client(Config(home=tmp_path / "store", state=tmp_path / "state"))


def is_trained(model: Any, family: Family) -> bool:
    return all(torch.equal(value, family.state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("builder", ["net", "their_net"])
@pytest.mark.parametrize(
    "form", ["V1", "Net_Weights.V1", "mine/Net_Weights.V1", "ours", "theirs", "path", "url", "pinned"]
)
def test_weights_may_be_named_in_every_way(
    family: Family, online: Client, builder: str, form: str, *, fast: bool
) -> None:
    weights: Any = {
        "ours": family.ours.V1,
        "theirs": family.theirs.V1,
        "path": family.path,
        "url": family.url,
        "pinned": f"{family.url}#sha256={hashlib.sha256(family.path.read_bytes()).hexdigest()}",
    }.get(form, form)
    assert is_trained(get_model(builder, weights=weights, fast=fast, client=online), family)


def test_a_builder_may_be_given_itself(family: Family, online: Client) -> None:
    assert is_trained(get_model(MODELS.builders["net"], weights="DEFAULT", client=online), family)


def test_without_weights_a_model_is_initialised(family: Family, online: Client) -> None:
    model = get_model("net", client=online)
    assert not is_trained(model, family)
    assert model.body.weight.count_nonzero() == 16


def test_what_was_fetched_builds_a_model_without_a_network(family: Family, online: Client) -> None:
    get_model("net", weights="V1", client=online)
    offline = Client(online.config.but(offline=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a socket was opened"))
        model = get_model("net", weights="V1", client=offline)
    assert is_trained(model, family)


def test_weights_that_are_not_there_say_what_to_run(family: Family, client: Client) -> None:
    with pytest.raises(NotPresent, match="weightstore prefetch"):
        get_model("net", weights="V1", client=client)


def test_a_name_that_the_builder_does_not_have_suggests_others(family: Family, online: Client) -> None:
    with pytest.raises(UnknownName, match=r"Did you mean Net_Weights\.V1"):
        get_model("net", weights="V2", client=online)


def test_a_model_that_nobody_knows_is_a_value_error(client: Client) -> None:
    with pytest.raises(ValueError, match="Unknown model resnet51"):
        get_model("resnet51", client=client)


def test_the_builders_arguments_are_checked_by_the_builder(family: Family, online: Client) -> None:
    with pytest.raises(ValueError, match="expected value 3 but got 5"):
        get_model("net", weights="V1", num_classes=5, client=online)


def test_a_new_head_goes_on_the_trained_body(family: Family, online: Client) -> None:
    model = get_model("net", weights="V1", head="new", num_classes=5, client=online)
    assert model.head.out_features == 5
    assert model.head.weight.shape == (5, 4)
    assert torch.equal(model.body.weight, family.state["body.weight"])


def test_a_file_that_does_not_fit_says_so(family: Family, online: Client, save: Save) -> None:
    other = save({"x": torch.zeros(2)}, "other.pth")
    with pytest.raises(InvalidInput, match=r"(?s)other\.pth does not fit the model.*Missing key"):
        get_model("net", weights=other, client=online)
    with pytest.raises(InvalidCheckpoint):
        nothing = other.with_name("nothing.pth")
        nothing.write_bytes(b"nothing")
        get_model("net", weights=nothing, client=online)


def test_a_file_of_no_state_dict_says_so(family: Family, online: Client, save: Save) -> None:
    with pytest.raises(InvalidInput, match="holds no state dict, but Tensor"):
        get_model("net", weights=save(torch.zeros(3), "tensor.pth"), client=online)


def test_a_file_for_other_classes_is_loaded_with_their_number(family: Family, online: Client, save: Save) -> None:
    trained = Net(7)
    model = get_model("net", weights=save(trained.state_dict(), "own.pth"), num_classes=7, client=online)
    assert torch.equal(model.head.weight, trained.head.weight)


def test_a_copy_of_an_entrys_checkpoint_is_used_as_that_entry(family: Family, online: Client) -> None:
    copy = family.path.with_name("copy.pth")
    copy.write_bytes(family.path.read_bytes())
    with pytest.raises(ValueError, match="expected value 3"):  # which only the entry's metadata can tell
        get_model("net", weights=copy, num_classes=5, client=online)
    assert is_trained(get_model("net", weights=copy, client=Client(online.config.but(offline=True))), family)


def test_training_a_model_changes_no_file(family: Family, online: Client) -> None:
    model = get_model("net", weights="V1", client=online)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.head(model.body(torch.rand(2, 4))).sum().backward()
    optimizer.step()
    assert not is_trained(model, family)
    assert is_trained(get_model("net", weights="V1", client=online), family)


class TestChoice:
    """Which member is meant, of the enums that a builder takes."""

    resnet50 = torchvision.models.ResNet50_Weights
    quantized = torchvision.models.quantization.ResNet50_QuantizedWeights

    def test_a_short_name_that_two_enums_have_is_left_to_the_builder(self) -> None:
        assert choose("DEFAULT", [self.quantized, self.resnet50]) == ("DEFAULT", None)

    def test_a_full_name_is_of_its_enum(self) -> None:
        member = self.resnet50.IMAGENET1K_V1
        assert choose("ResNet50_Weights.IMAGENET1K_V1", [self.quantized, self.resnet50]) == (member, member)
        assert choose("torchvision/ResNet50_Weights.IMAGENET1K_V1", [self.resnet50]) == (member, member)
        assert choose("resnet50:IMAGENET1K_V1", [self.resnet50]) == (member, member)

    def test_our_member_stands_for_torchvisions(self) -> None:
        import weightstore

        ours = weightstore.torchvision.ResNet50_Weights.IMAGENET1K_V2
        assert choose(ours, [self.resnet50]) == (self.resnet50.IMAGENET1K_V2, self.resnet50.IMAGENET1K_V2)

    def test_a_member_of_another_model_is_left_to_the_builder_to_refuse(self, client: Client) -> None:
        other = torchvision.models.ResNet18_Weights.DEFAULT
        assert choose(other, [self.resnet50]) == (other, None)
        with pytest.raises(TypeError, match="Invalid Weight class provided; expected ResNet50_Weights"):
            get_model("resnet50", weights=other, client=client)

    @pytest.mark.parametrize("value", [None, True, 3])
    def test_what_is_no_name_is_left_to_the_builder(self, value: object) -> None:
        assert choose(value, [self.resnet50]) == (value, None)
