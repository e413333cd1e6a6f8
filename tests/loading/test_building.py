"""A model built fast is the model that its builder builds, bit by bit."""

from __future__ import annotations

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from tests.loading.conftest import same
from weightstore.loading.building import build, build_ordinarily, can_assign, lent
from weightstore.loading.initialisation import BlankRead, skipping

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*quantiz.*"),
    pytest.mark.filterwarnings("ignore:TypedStorage:UserWarning"),
    pytest.mark.filterwarnings("ignore:must run observer:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

# One of every family, and every builder that does something of its own with its weights.
SOME = [
    "alexnet",
    "convnext_tiny",
    "deeplabv3_mobilenet_v3_large",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn",
    "googlenet",
    "inception_v3",
    "keypointrcnn_resnet50_fpn",
    "lraspp_mobilenet_v3_large",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "mvit_v1_b",
    "quantized_mobilenet_v2",
    "quantized_resnet18",
    "r3d_18",
    "raft_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet50",
    "retinanet_resnet50_fpn",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "ssdlite320_mobilenet_v3_large",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
]
OTHERS = sorted(set(torchvision.models.list_models()) - set(SOME))


class Reached(Exception):
    pass


def state_for(builder: Callable[..., Any], config: Mapping[str, Any], member: Enum) -> OrderedDict[str, Any]:
    """Return a state dict as the model has it at the moment when its builder loads one: right in every name and shape.

    The real checkpoints are not to be had here; one of other numbers, different in each tensor, shows the same.
    """
    marker: dict[str, Any] = {}
    found: list[OrderedDict[str, Any]] = []
    load = nn.Module.load_state_dict

    def capture(self: nn.Module, state: Any, *args: Any, **kwargs: Any) -> Any:
        if state is marker:
            found.append(self.state_dict())
            raise Reached
        return load(self, state, *args, **kwargs)

    def reach() -> None:
        with pytest.raises(Reached), lent([member], lambda _: marker):
            builder(**config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "load_state_dict", capture)
        try:
            with skipping():
                reach()
        except BlankRead:
            reach()
    for number, value in enumerate(found[0].values()):
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.is_quantized:
            flat = torch.arange(value.numel(), dtype=torch.float32).remainder_(251).add_(number)
            value.copy_(flat.reshape(value.shape))
    return found[0]


def everything(model: nn.Module) -> dict[tuple[str, str, str, int], torch.Tensor]:
    """Return all tensors of a model: parameters, buffers, and those that are plain attributes."""
    return {
        (path, kind, key, number): tensor
        for path, module in model.named_modules()
        for kind in ("_parameters", "_buffers", "__dict__")
        for key, value in getattr(module, kind).items()
        for number, tensor in enumerate(tensors_in(value))
    }


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one)


def check(name: str, caplog: pytest.LogCaptureFixture, *, every_kind: bool) -> None:
    builder, enum = torchvision.models.get_model_builder(name), torchvision.models.get_model_weights(name)
    for member in {enum.DEFAULT, next(iter(enum))} if every_kind else {enum.DEFAULT}:
        config: dict[str, Any] = {"weights": member}
        if name.startswith("quantized"):
            config["quantize"] = True
        state = state_for(builder, config, member)
        ordinary = everything(build_ordinarily(builder, config, members=[member], states=lambda _, s=state: s))
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "weightstore"):
            model = build(builder, config, members=[member], states=lambda _, s=state: s, expected=member)
        # As docs/explanation/fast-models.md says.
        assert bool(caplog.messages) == name.startswith("quantized"), caplog.messages
        fast = everything(model)
        assert fast.keys() == ordinary.keys()
        assert [key for key in fast if not same(fast[key], ordinary[key])] == []


@pytest.mark.parametrize("name", SOME)
def test_a_model_is_the_same_bit_by_bit(name: str, caplog: pytest.LogCaptureFixture) -> None:
    check(name, caplog, every_kind=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_model_is_the_same_bit_by_bit(name: str, caplog: pytest.LogCaptureFixture) -> None:
    check(name, caplog, every_kind=False)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.register_buffer("scale", torch.arange(3.0), persistent=False)


class Net_Weights(Enum):  # noqa: N801
    A = "a"
    B = "b"

    def get_state_dict(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        raise AssertionError("the class's own method was asked")


def net(*, weights: Net_Weights | None = None) -> Net:
    model = Net()
    if weights is not None:
        model.load_state_dict(weights.get_state_dict(progress=True))
    return model


STATE = Net().state_dict()


def fast(builder: Callable[..., nn.Module] = net, state: Mapping[str, Any] = STATE, **config: Any) -> Any:
    config = {"weights": Net_Weights.A} | config
    return build(builder, config, members=list(Net_Weights), states=lambda _: state)


def test_parameters_are_the_checkpoints_tensors_and_buffers_are_made() -> None:
    model = fast()
    assert model.a.weight.data_ptr() == STATE["a.weight"].data_ptr()
    assert isinstance(model.a.weight, nn.Parameter)
    assert model.a.weight.requires_grad
    assert model.scale.tolist() == [0, 1, 2]


def test_another_element_type_is_converted_as_copying_would() -> None:
    half = {name: value.half() for name, value in STATE.items()}
    model = fast(state=half)
    assert model.a.weight.dtype == torch.float32
    assert torch.equal(model.a.weight, half["a.weight"].float())


def test_tied_weights_stay_tied() -> None:
    def tied(*, weights: Net_Weights | None = None) -> nn.Module:
        model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
        model["b"].weight = model["a"].weight
        if weights is not None:
            model.load_state_dict(weights.get_state_dict())
        return model

    state = tied().state_dict()
    model = fast(tied, state)
    assert model["a"].weight is model["b"].weight
    assert torch.equal(model["a"].weight, state["a.weight"])


def test_a_builder_that_looks_at_its_initial_values_gets_them() -> None:
    seen = []

    def curious(*, weights: Net_Weights | None = None) -> Net:
        model = net(weights=weights)
        model.first = float(Net().a.weight.abs().sum())
        seen.append(model.first)
        return model

    assert fast(curious).first > 0
    assert len(seen) == 1, "the fast attempt ended before"


def test_what_no_checkpoint_fills_is_initialised() -> None:
    def more(*, weights: Net_Weights | None = None) -> nn.Module:
        model = net(weights=weights)
        model.more = nn.Linear(100, 100)
        return model

    torch.manual_seed(1)
    assert 0.05 < fast(more).more.weight.std() < 0.07


def test_a_tensor_in_an_attribute_is_initialised_too() -> None:
    def more(*, weights: Net_Weights | None = None) -> nn.Module:
        model = net(weights=weights)
        model.noise = [torch.zeros(100).normal_()]
        return model

    assert fast(more).noise[0].count_nonzero() == 100


def test_a_builder_that_loads_nothing_is_initialised() -> None:
    assert fast(lambda weights: Net()).a.weight.count_nonzero() == 9


def test_the_builders_own_error_is_raised() -> None:
    def wrong(*, weights: Net_Weights | None = None) -> Net:
        raise ValueError("The parameter 'num_classes' expected value 3 but got 2 instead.")

    with pytest.raises(ValueError, match="expected value 3"):
        fast(wrong)
    with pytest.raises(RuntimeError, match="size mismatch"):
        fast(state={"a.weight": torch.zeros(2, 2), "a.bias": torch.zeros(2)})


def test_only_the_building_thread_is_answered() -> None:
    inside, done = threading.Event(), threading.Event()
    answers: list[object] = []

    def other() -> None:
        inside.wait(10)
        try:
            Net_Weights.A.get_state_dict()
        except AssertionError as error:
            answers.append(str(error))
        done.set()

    def slow(*, weights: Net_Weights | None = None) -> Net:
        inside.set()
        assert done.wait(10)
        return net(weights=weights)

    thread = threading.Thread(target=other)
    thread.start()
    fast(slow)
    thread.join()
    assert answers == ["the class's own method was asked"]
    assert "get_state_dict" not in vars(Net_Weights.A)


def test_two_threads_may_build_at_once() -> None:
    barrier = threading.Barrier(4)
    models: list[Net] = []

    def slow(*, weights: Net_Weights | None = None) -> Net:
        model = net(weights=weights)
        barrier.wait(10)
        return model

    threads = [threading.Thread(target=lambda: models.append(fast(slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 4
    assert all(torch.equal(model.a.weight, STATE["a.weight"]) for model in models)
    assert all(vars(member).keys().isdisjoint({"get_state_dict"}) for member in Net_Weights)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(*, enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        fast()
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # the ordinary way warns alike
def test_a_default_device_is_kept_to() -> None:
    with torch.device("meta"):
        model = fast()
    assert model.a.weight.is_meta


def test_what_may_be_taken_over() -> None:
    tensor = torch.rand(4)
    assert can_assign({"a": tensor, "count": torch.tensor(1)})
    assert not can_assign({"a": tensor.double()})
    assert not can_assign({"a": tensor[:2], "b": tensor[2:]})
    assert not can_assign({"a": tensor.to(torch.complex64)})
    assert not can_assign({"a": "no tensor"})
