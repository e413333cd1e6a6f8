"""Models by name, with verified weights, ready in the time that making the modules takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from weightstore.errors import InvalidInput
from weightstore.loading.choice import choose, member_of_file
from weightstore.loading.requirement import require_torch
from weightstore.source import is_source
from weightstore.weights.registry import annotations_of, enums_in

if TYPE_CHECKING:
    import torch

    from weightstore.client import Client

Builder = Callable[..., Any]


def get_model(
    name: str | Builder,
    *,
    weights: object = None,
    fast: bool = True,
    head: Literal["new"] | None = None,
    client: Client | None = None,
    **config: Any,
) -> torch.nn.Module:
    """Return a model with weights from the store, fetched first where no store has them, and verified.

    Args:
        name: of a registered builder (``"resnet50"``; ours, TorchVision's or another package's), or the builder.
        weights: None for random weights; a member of the builder's weights enum, ours or TorchVision's; an entry's
            name (``"DEFAULT"``, ``"IMAGENET1K_V2"``); a full weights name (``"ResNet50_Weights.IMAGENET1K_V2"``); or
            the path or URL of a state dict. A file that is the checkpoint of one of the enum's members is used as that
            member.
        fast: whether to skip random initialisation, and to take the checkpoint's tensors (pages of the file, copied
            when first written to) as parameters. The model is the same, bit by bit; where skipping would make a
            difference, it is built the ordinary way.
        head: ``"new"`` initialises the layers whose shape follows from ``num_classes`` as the builder does, and takes
            all others from the checkpoint.
        client: finds and fetches; by default one of the environment's configuration.
        config: the builder's own keyword arguments.

    Raises:
        MissingDependency: torch is absent, or older than 2.6.
        ValueError: no such model, or the builder refuses its arguments.
        UnknownName: the builder has no weights of this name.
        InvalidInput: the checkpoint or ``head`` does not fit the builder.
        WeightStoreError: as for :func:`load_state_dict`.
    """
    require_torch()
    from weightstore.loading.building import build, build_ordinarily
    from weightstore.loading.head import with_new_head

    if head not in {None, "new"}:
        raise InvalidInput(f"head is 'new' or None, not {head!r}")
    builder = _builder_of(name)
    weights = _without_legacy(name, builder, weights, config)
    parameters = annotations_of(builder)
    enums = {key: tuple(enums_in(annotation)) for key, annotation in parameters.items()}
    for key, found in enums.items():  # the backbone's: a member of ours is for TorchVision no member, but a true value
        if isinstance(config.get(key), Enum):
            config[key], _ = choose(config[key], found)
    states = _States(client, progress=bool(config.get("progress", True)))
    file = None
    if isinstance(weights, os.PathLike) or (isinstance(weights, str) and is_source(weights)):
        file = states.read(weights, enums.get("weights", ()))
        weights = file.member
    weights, expected = choose(weights, enums.get("weights", ()))
    members = [member for found in enums.values() for enum in found for member in enum]
    if isinstance(weights, Enum) and not enums.get("weights"):  # the annotation does not tell
        members.append(weights)
        expected = weights
    if file is not None and file.member is None:
        bare = without_weights(config, parameters)
        if head is not None:
            return with_new_head(builder, bare, state=file.state, place=file.place)
        return _built_from(builder, bare, file, fast=fast)
    if weights is not None:
        config["weights"] = weights
    classes = config.pop("num_classes", None) if head is not None else None
    is_random = weights is None and not config.get("pretrained")
    if fast and not is_random:
        model = build(builder, config, members=members, states=states, expected=expected)
    else:
        model = build_ordinarily(builder, config, members=members, states=states)
    if head is None:
        return model
    bare = without_weights(config, parameters)
    return with_new_head(builder, bare | ({} if classes is None else {"num_classes": classes}), model=model)


def _builder_of(name: str | Builder) -> Builder:
    if not isinstance(name, str):
        return name
    from weightstore.weights.names import get_model_builder

    return get_model_builder(name)


def _without_legacy(name: object, builder: Builder, weights: object, config: dict[str, Any]) -> object:
    """Translate what TorchVision's builders took once, ``pretrained=True``, in place; return the weights it means.

    They do so themselves, too, and warn of their own lines and not of the caller's.
    """
    from weightstore.weights import upstream
    from weightstore.weights.legacy import translate

    key = name.lower().removeprefix("torchvision/") if isinstance(name, str) else ""
    if key not in upstream.builders() or not builder.__module__.startswith("torchvision."):
        return weights
    if isinstance(weights, bool) or weights == "legacy":
        config["weights"] = weights
    for parameter, (deprecated, default) in upstream.legacy_interface(key).items():
        translate(builder.__name__, config, parameter, deprecated, default)
    return config.pop("weights", weights)


@dataclass(frozen=True, slots=True)
class _File:
    """A state dict from a path or URL, and the member whose checkpoint the file is, if it is one."""

    state: Mapping[str, Any]
    place: str
    member: Enum | None


class _States:
    """State dicts from the store, for whoever asks."""

    def __init__(self, client: Client | None, *, progress: bool) -> None:
        self._client = client
        self._progress = progress
        self._read: dict[Enum, Mapping[str, Any]] = {}

    def __call__(self, member: Enum) -> Mapping[str, Any]:
        from weightstore.loading.state_dict import load_state_dict

        if member in self._read:
            return self._read.pop(member)
        return load_state_dict(member, client=self._client, progress=self._progress)

    def read(self, source: object, enums: tuple[type[Enum], ...]) -> _File:
        """Read the state dict of a path or URL."""
        from weightstore.loading.opening import open_weights
        from weightstore.loading.progress import meter_for
        from weightstore.loading.state_dict import Loading

        client = self._client
        if client is None:
            from weightstore.shortcuts import default_client

            client = self._client = default_client()
        with meter_for(progress=self._progress) as meter:
            (opened,) = open_weights(source, client=client, meter=meter)
        with opened:
            member = member_of_file(opened.size, opened.known_digest, enums)
            state = Loading().load(opened)
        if not isinstance(state, Mapping):
            raise InvalidInput(f"{opened.place} holds no state dict, but {type(state).__name__}")
        if member is not None:
            self._read[member] = state
        return _File(state, opened.place, member)


def without_weights(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a builder's arguments for a model that gets its weights from elsewhere, backbone included."""
    bare = {key: value for key, value in config.items() if not key.startswith("pretrained")}
    return bare | {key: None for key in ("weights", "weights_backbone") if key in parameters}


def _built_from(builder: Builder, config: Mapping[str, Any], file: _File, *, fast: bool) -> torch.nn.Module:
    """Return a model with a state dict of which nothing is known but that it should fit."""
    from weightstore.loading.building import built_blank, for_assignment

    model = built_blank(builder, config, for_assignment(file.state)) if fast else None
    if model is None:
        model = builder(**config)
        try:
            model.load_state_dict(file.state)
        except RuntimeError as error:
            raise InvalidInput(
                f"{file.place} does not fit the model. {error}\nIf only the number of classes differs, give "
                "num_classes; or head='new' for a new last layer"
            ) from None
    return model
