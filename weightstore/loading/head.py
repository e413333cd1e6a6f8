"""A pretrained model with a new last layer for other classes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightstore.errors import InvalidInput
from weightstore.loading.building import blank_left, collector_paused, for_assignment
from weightstore.loading.initialisation import BlankRead, Skipping, skipping

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    import torch

    Builder = Callable[..., torch.nn.Module]


def with_new_head(
    builder: Builder,
    config: Mapping[str, Any],
    *,
    model: torch.nn.Module | None = None,
    state: Mapping[str, Any] | None = None,
    place: str = "",
) -> torch.nn.Module:
    """Return a model whose head is as its builder initialises it for ``num_classes``, and whose rest is pretrained.

    The head is found and not known: it is what changes when one class more is asked for, in the shapes of parameters
    and in the numbers that modules remember.

    Args:
        builder: makes the model; without weights.
        config: its arguments, ``num_classes`` among them.
        model: a pretrained model of the same builder, which is changed and returned;
        state: or a state dict for the rest of it; what it says of the head is passed over.
        place: what to call the state dict in errors.

    Raises:
        InvalidInput: there is no ``num_classes``, nothing follows from it, or the state dict does not fit.
    """
    classes = config.get("num_classes")
    if not isinstance(classes, int):
        raise InvalidInput("head='new' needs num_classes, the number of classes of the new head")
    with collector_paused():
        here = _Structure(_made(builder, config).model)
        there = _Structure(_made(builder, {**config, "num_classes": classes + 1}).model)
        head = {name: shape for name, shape in here.shapes.items() if there.shapes.get(name) != shape}
        numbers = {key: value for key, value in here.numbers.items() if there.numbers.get(key) != value}
        if not head:
            raise InvalidInput("head='new' has nothing to do: no layer of this model follows from num_classes")
        made = _made(builder, config, keep=frozenset(head.values()))
        if model is None:
            return _completed(made, builder, config, state or {}, head.keys(), place)
    _transplant(model, made.model, head.keys(), numbers)
    return model


class _Structure:
    """The shapes of a model's parameters and buffers, and the whole numbers that its modules remember."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if hasattr(tensor, "shape")}
        self.numbers = {
            (path, key): value
            for path, module in model.named_modules()
            for key, value in module.__dict__.items()
            if type(value) is int
        }


@dataclass(frozen=True, slots=True)
class _Made:
    """A model, and what knows its blanks; None where it has none."""

    model: torch.nn.Module
    blanks: Skipping | None


def _made(builder: Builder, config: Mapping[str, Any], keep: frozenset[torch.Size] = frozenset()) -> _Made:
    """Return a model that is initialised at least where its tensors have certain shapes."""
    try:
        with skipping(keep) as mode:
            return _Made(builder(**config), mode)
    except BlankRead:
        return _Made(builder(**config), None)


def _transplant(
    model: torch.nn.Module, donor: torch.nn.Module, head: Iterable[str], numbers: Mapping[tuple[str, str], int]
) -> None:
    """Move the head's tensors, and the numbers that go with it, from one model to the other."""
    modules = dict(model.named_modules())
    for name in head:
        path, _, key = name.rpartition(".")
        if path in modules:  # an auxiliary head that pretrained models leave out is left out
            new = getattr(donor.get_submodule(path), key)
            old = getattr(modules[path], key)
            setattr(modules[path], key, new.requires_grad_(old.requires_grad) if new.is_leaf else new)
    for (path, key), value in numbers.items():
        if path in modules and hasattr(modules[path], key):
            setattr(modules[path], key, value)


def _completed(
    made: _Made,
    builder: Builder,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    head: Collection[str],
    place: str,
) -> torch.nn.Module:
    """Return the model with everything but the head from a state dict."""
    rest = OrderedDict((name, value) for name, value in state.items() if name not in head)
    rest._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]  # noqa: SLF001 - torch's name for it
    model = made.model
    missing, unexpected = model.load_state_dict(for_assignment(rest), strict=False)
    lacking = sorted(set(missing) - set(head))
    if lacking or unexpected:
        wrong = f"lacks {lacking[0]}" if lacking else f"has {unexpected[0]}, which the model has not"
        raise InvalidInput(f"{place} does not fit the model: it {wrong}")
    if made.blanks is not None and blank_left(model, made.blanks):
        model = builder(**config)
        model.load_state_dict(rest, strict=False)
    return model
