"""Running a builder so that its model takes over the checkpoint's tensors instead of filling and copying its own."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from collections import OrderedDict
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

from weightstore.errors import WeightStoreError
from weightstore.loading.initialisation import BlankRead, Skipping, skipping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from enum import Enum

    States = Callable[[Enum], Mapping[str, Any]]

_log = logging.getLogger("weightstore")
_lending = threading.Lock()
_lent: dict[Enum, int] = {}
_states: ContextVar[States | None] = ContextVar("weightstore_states", default=None)


def build(
    builder: Callable[..., torch.nn.Module],
    config: Mapping[str, Any],
    *,
    members: Sequence[Enum],
    states: States,
    expected: Enum | None = None,
) -> torch.nn.Module:
    """Return what ``builder(**config)`` returns when ``members`` get their state dicts from ``states``, only sooner.

    The model is the same, bit by bit, in every parameter and buffer. It is built with random initialisation skipped,
    and its parameters *are* the state dict's tensors. Where the builder looks at values that were skipped, or anything
    else goes wrong in that way, it is built once more in the ordinary way, which then says what is wrong.

    Args:
        builder: makes the model and loads its state dict, by ``weights.get_state_dict``.
        config: its keyword arguments.
        members: the weights that it may ask for.
        expected: the weights that it will ask for, if that is known.
        states: gives a member's state dict, each time in tensors that nobody else holds.

    Raises:
        WeightStoreError: from ``states``.
        Exception: whatever the builder raises.
    """
    taken = [False]
    # Looked through beforehand: while initialisation is skipped, every call into torch takes twice as long.
    first = {} if expected is None else {expected: for_assignment(states(expected))}

    def taking_over(member: Enum) -> Mapping[str, Any]:
        taken[0] = True
        return first.pop(member, None) or for_assignment(states(member))

    with lent(members, taking_over), collector_paused():
        try:
            with skipping() as mode:
                model = builder(**config)
            reason = "it loaded no weights" if not taken[0] else blank_left(model, mode)
            if not reason:
                return model
        except WeightStoreError:
            raise
        except BlankRead as read:
            reason = f"its code looks at values that were skipped ({read})"
        except Exception as error:  # noqa: BLE001 - raised once more below, if it was not for the skipping
            reason = f"{type(error).__name__}: {error}"
    _log.debug("%s is built the ordinary way: %s", getattr(builder, "__name__", builder), reason)
    return build_ordinarily(builder, config, members=members, states=states)


def build_ordinarily(
    builder: Callable[..., torch.nn.Module], config: Mapping[str, Any], *, members: Sequence[Enum], states: States
) -> torch.nn.Module:
    """Return ``builder(**config)``, initialised and copied into as ever, with state dicts from ``states``."""
    with lent(members, states):
        return builder(**config)


def built_blank(
    builder: Callable[..., torch.nn.Module], config: Mapping[str, Any], state: Mapping[str, Any]
) -> torch.nn.Module | None:
    """Return ``builder(**config)`` with a state dict taken over, initialisation skipped; None where that is not enough.

    ``state`` is what :func:`for_assignment` returned. None also where it does not fit: the ordinary way says why.
    """
    with collector_paused():
        try:
            with skipping() as mode:
                model = builder(**config)
            model.load_state_dict(state)
        except (BlankRead, RuntimeError):
            return None
        return None if blank_left(model, mode) else model


@contextlib.contextmanager
def lent(members: Sequence[Enum], states: States) -> Iterator[None]:
    """Have these members' ``get_state_dict`` answered by ``states``, in this thread.

    A member is one object for the whole process, so what is put on it asks which thread calls; the others go on to the
    class's own method.
    """
    distinct = list(dict.fromkeys(members))
    with _lending:
        for member in distinct:
            _lent[member] = _lent.get(member, 0) + 1
            member.__dict__["get_state_dict"] = _answering(member)
    token = _states.set(states)
    try:
        yield
    finally:
        _states.reset(token)
        with _lending:
            for member in distinct:
                _lent[member] -= 1
                if _lent[member] == 0:
                    del _lent[member]
                    member.__dict__.pop("get_state_dict", None)


def _answering(member: Enum) -> Callable[..., Any]:
    def get_state_dict(*args: Any, **kwargs: Any) -> Any:
        states = _states.get()
        if states is None:
            return type(member).get_state_dict(member, *args, **kwargs)  # type: ignore[attr-defined]
        return states(member)

    return get_state_dict


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python's cyclic collector from running: a pass over all of torch's objects takes 0.2 s."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Assigning(OrderedDict[str, Any]):
    """A state dict's ``_metadata`` that tells every module to take the tensors themselves.

    ``load_state_dict(assign=True)`` tells them the same by the same key; but it is the builder that calls it.
    """

    def get(self, key: str, default: Any = None) -> Any:
        return {**(super().get(key) or default or {}), "assign_to_params_buffers": True}


def for_assignment(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a state dict whose tensors a module takes over, where that gives the same as copying them."""
    if not can_assign(state):
        return state
    taken: OrderedDict[str, Any] = OrderedDict((name, tensor.contiguous()) for name, tensor in state.items())
    taken._metadata = _Assigning(getattr(state, "_metadata", None) or {})  # type: ignore[attr-defined]  # noqa: SLF001 - torch's name for it
    return taken


def can_assign(state: Mapping[str, Any]) -> bool:
    """Tell whether taking over tensors and copying them come to the same.

    They do not where copying would convert (another element type than torch's default, another device), where several
    names share memory (tied weights, which copying leaves tied in the model), and for quantized tensors.
    """
    # Where a new tensor goes, by whichever of torch's ways that was said.
    if torch.empty(0).device.type != "cpu" or torch.__future__.get_swap_module_params_on_conversion():
        return False
    usual = torch.get_default_dtype()
    seen = set()
    for tensor in state.values():
        if type(tensor) not in {torch.Tensor, torch.nn.Parameter} or tensor.is_quantized or tensor.device.type != "cpu":
            return False
        if (tensor.is_floating_point() and tensor.dtype != usual) or tensor.is_complex():
            return False
        if tensor.numel():
            place = tensor.untyped_storage().data_ptr()
            if place in seen:
                return False
            seen.add(place)
    return True


def blank_left(model: torch.nn.Module, mode: Skipping) -> str:
    """Say what part of a model was left blank, a parameter, a buffer or an attribute; nothing where none was."""
    for path, module in model.named_modules():
        for values in (module._parameters, module._buffers, module.__dict__):  # noqa: SLF001 - also what is in no state dict
            for name, value in values.items():
                if any(mode.is_blank(tensor) for tensor in _tensors_in((value,))):
                    return f"{path}.{name} is in no checkpoint".removeprefix(".")
    return ""


def _tensors_in(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors_in(value)
