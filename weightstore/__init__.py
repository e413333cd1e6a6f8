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
    from weightstore.batch import Plan, Progress, Report
    from weightstore.catalog.entries import Catalog, Entry
    from weightstore.catalog.lockfile import Locked, Lockfile
    from weightstore.client import Client, Explanation, Stored
    from weightstore.config import Config
    from weightstore.digest import Digest, Pin
    from weightstore.errors import WeightStoreError
    from weightstore.formats.checkpoint import Checkpoint, TensorInfo
    from weightstore.shortcuts import open, path, prefetch  # noqa: A004 - weightstore.open, like io.open
    from weightstore.source import Source
    from weightstore.transfer.progress import Meter

_HOMES = {
    "Catalog": "catalog.entries",
    "Checkpoint": "formats.checkpoint",
    "Client": "client",
    "Config": "config",
    "Digest": "digest",
    "Entry": "catalog.entries",
    "Explanation": "client",
    "Locked": "catalog.lockfile",
    "Lockfile": "catalog.lockfile",
    "Meter": "transfer.progress",
    "Pin": "digest",
    "Plan": "batch",
    "Progress": "batch",
    "Report": "batch",
    "Source": "source",
    "Stored": "client",
    "TensorInfo": "formats.checkpoint",
    "WeightStoreError": "errors",
    "open": "shortcuts",
    "path": "shortcuts",
    "prefetch": "shortcuts",
}

__all__ = [
    "Catalog",
    "Checkpoint",
    "Client",
    "Config",
    "Digest",
    "Entry",
    "Explanation",
    "Locked",
    "Lockfile",
    "Meter",
    "Pin",
    "Plan",
    "Progress",
    "Report",
    "Source",
    "Stored",
    "TensorInfo",
    "WeightStoreError",
    "__version__",
    "open",
    "path",
    "prefetch",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
