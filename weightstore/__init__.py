"""Model weights for PyTorch: downloaded once, verified, shared by everyone on the machine or the cluster.

    >>> import weightstore
    >>> weightstore.path("resnet50")        # doctest: +SKIP

Importing this package costs next to nothing: what a name needs is imported when it is first used, and nothing of the
network, and no torch, before something asks for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from weightstore import torchvision
    from weightstore.batch import Plan, Progress, Report
    from weightstore.catalog.entries import Catalog, Entry
    from weightstore.catalog.lockfile import Locked, Lockfile
    from weightstore.client import Client, Explanation, Stored
    from weightstore.config import Config
    from weightstore.digest import Digest, Pin
    from weightstore.errors import WeightStoreError
    from weightstore.formats.checkpoint import Checkpoint, TensorInfo
    from weightstore.interop.checking import Checked, check
    from weightstore.interop.hook.switch import disable, enable, enabled
    from weightstore.loading.model import get_model
    from weightstore.loading.state_dict import load_state_dict
    from weightstore.shortcuts import open, path, prefetch  # noqa: A004 - weightstore.open, like io.open
    from weightstore.source import Source
    from weightstore.transfer.progress import Meter
    from weightstore.weights.entry import Weights
    from weightstore.weights.enum import WeightsEnum, extend
    from weightstore.weights.legacy import handle_legacy_interface, kwonly_to_pos_or_kw
    from weightstore.weights.meta import Meta
    from weightstore.weights.names import (
        get_model_builder,
        get_model_weights,
        get_weight,
        list_models,
        register_model,
    )
    from weightstore.weights.transforms import Transforms

_HOMES = {
    "Catalog": "catalog.entries",
    "Checked": "interop.checking",
    "Checkpoint": "formats.checkpoint",
    "Client": "client",
    "Config": "config",
    "Digest": "digest",
    "Entry": "catalog.entries",
    "Explanation": "client",
    "Locked": "catalog.lockfile",
    "Lockfile": "catalog.lockfile",
    "Meta": "weights.meta",
    "Meter": "transfer.progress",
    "Pin": "digest",
    "Plan": "batch",
    "Progress": "batch",
    "Report": "batch",
    "Source": "source",
    "Stored": "client",
    "Transforms": "weights.transforms",
    "TensorInfo": "formats.checkpoint",
    "WeightStoreError": "errors",
    "Weights": "weights.entry",
    "WeightsEnum": "weights.enum",
    "check": "interop.checking",
    "disable": "interop.hook.switch",
    "enable": "interop.hook.switch",
    "enabled": "interop.hook.switch",
    "extend": "weights.enum",
    "get_model": "loading.model",
    "get_model_builder": "weights.names",
    "get_model_weights": "weights.names",
    "get_weight": "weights.names",
    "handle_legacy_interface": "weights.legacy",
    "kwonly_to_pos_or_kw": "weights.legacy",
    "list_models": "weights.names",
    "load_state_dict": "loading.state_dict",
    "open": "shortcuts",
    "path": "shortcuts",
    "prefetch": "shortcuts",
    "register_model": "weights.names",
}
_SUBMODULES = frozenset({"torchvision"})

__all__ = [
    "Catalog",
    "Checked",
    "Checkpoint",
    "Client",
    "Config",
    "Digest",
    "Entry",
    "Explanation",
    "Locked",
    "Lockfile",
    "Meta",
    "Meter",
    "Pin",
    "Plan",
    "Progress",
    "Report",
    "Source",
    "Stored",
    "TensorInfo",
    "Transforms",
    "WeightStoreError",
    "Weights",
    "WeightsEnum",
    "__version__",
    "check",
    "disable",
    "enable",
    "enabled",
    "extend",
    "get_model",
    "get_model_builder",
    "get_model_weights",
    "get_weight",
    "handle_legacy_interface",
    "kwonly_to_pos_or_kw",
    "list_models",
    "load_state_dict",
    "open",
    "path",
    "prefetch",
    "register_model",
    "torchvision",
]


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
