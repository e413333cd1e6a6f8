"""Our classes in the place of ``torchvision.models._api`` and ``torchvision.models._utils``.

After :func:`install`, TorchVision's own builders and enums are made of our classes:
``torchvision.models.ResNet50_Weights`` is a :class:`WeightsEnum`, whose state dicts come from the store.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

from weightstore.errors import InvalidInput
from weightstore.weights import legacy
from weightstore.weights.entry import Weights
from weightstore.weights.enum import WeightsEnum
from weightstore.weights.registry import Models, enum_of

if TYPE_CHECKING:
    from types import ModuleType

_PACKAGE = "torchvision.models"


def install() -> None:
    """Have TorchVision import our modules for its own. Once done, doing it again changes nothing.

    Raises:
        InvalidInput: TorchVision's models are imported already, with its own classes.
    """
    present = sys.modules.get(f"{_PACKAGE}._api")
    if present is not None and getattr(present, "WeightsEnum", None) is not WeightsEnum:
        raise InvalidInput(f"{_PACKAGE} is imported already: install the stand-in before anything imports torchvision")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder, Loader):
    """Finds our modules under TorchVision's names."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        if name in {f"{_PACKAGE}._api", f"{_PACKAGE}._utils"}:
            return ModuleSpec(name, self, origin=f"weightstore's stand-in for {name}")
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update(_api() if module.__name__.endswith("._api") else _utils())


def _api() -> dict[str, Any]:
    models = Models()
    names = ("get_model", "get_model_builder", "get_model_weights", "list_models")
    public = {name: getattr(models, name) for name in names}
    public |= {"Weights": Weights, "WeightsEnum": WeightsEnum, "get_weight": _get_weight}
    # Upstream's list leaves out what only authors of models need; its own code imports that all the same.
    rest = {
        "register_model": models.register_model,
        "BUILTIN_MODELS": models.builders,
        "_get_enum_from_fn": enum_of,
        # Upstream's module has the function that its enums load by, and tests replace it there: see enum.py.
        "load_state_dict_from_url": _load_state_dict_from_url,
        "_loads_by_default": _load_state_dict_from_url,
    }
    return {"__all__": sorted(public), **public, **rest}


def _utils() -> dict[str, Any]:
    from weightstore.loading.layers import IntermediateLayerGetter, make_divisible  # torch, which TorchVision imports

    return {
        "IntermediateLayerGetter": IntermediateLayerGetter,
        "_make_divisible": make_divisible,
        "_ModelURLs": legacy.ModelURLs,
        "_ovewrite_named_param": legacy.overwrite_named_param,  # spelt so upstream
        "_ovewrite_value_param": legacy.overwrite_value_param,
        "handle_legacy_interface": legacy.handle_legacy_interface,
        "kwonly_to_pos_or_kw": legacy.kwonly_to_pos_or_kw,
    }


def _load_state_dict_from_url(
    url: str,
    model_dir: object = None,  # noqa: ARG001 - the store is where bytes lie
    map_location: Any = None,
    progress: bool = True,  # noqa: FBT001, FBT002 - torch.hub's signature
    check_hash: bool = False,  # noqa: ARG001, FBT001, FBT002
    file_name: str | None = None,  # noqa: ARG001
    weights_only: bool = True,  # noqa: FBT001, FBT002
) -> Any:
    """Return the state dict at a URL, by way of the store."""
    from weightstore.loading.state_dict import load_state_dict

    trust: dict[str, Any] = {} if weights_only else {"trust": "pickle"}
    return load_state_dict(url, map_location=map_location, progress=progress, **trust)


def _get_weight(name: str) -> WeightsEnum:
    """Return weights by their full name, among TorchVision's own enums.

    Raises:
        ValueError: it is no full name, or there is no such enum.
        KeyError: the enum has no such member.
    """
    enum_name, dot, member = name.partition(".")
    if not dot or "." in member:
        raise ValueError(f"Invalid weight name provided: '{name}'.")
    package = importlib.import_module(_PACKAGE)
    packages = [one for _, one in inspect.getmembers(package, inspect.ismodule) if hasattr(one, "__path__")]
    for module in (package, *packages):
        found = module.__dict__.get(enum_name)
        if isinstance(found, type) and issubclass(found, WeightsEnum):
            return found[member]
    raise ValueError(f"The weight enum '{enum_name}' for the specific method couldn't be retrieved.")


__all__ = ["install"]
