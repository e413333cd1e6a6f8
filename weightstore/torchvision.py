"""TorchVision's weights and builders, from the store: ``weightstore.torchvision.ResNet50_Weights.IMAGENET1K_V2``.

Every enum and every builder of the TorchVision that is installed, by its name, detection's and quantized ones among
them as TorchVision's registry calls them. Enums need no torch; builders import TorchVision when called, and make their
models as :func:`weightstore.get_model` does.
"""

from __future__ import annotations

import functools
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from weightstore.weights import upstream

    if upstream.has_enum(name):
        value: Any = upstream.enum(name)
    elif name in upstream.builders():
        value = _builder(name)
    else:
        raise AttributeError(f"TorchVision has no weights enum and no builder {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from weightstore.weights import upstream

    return sorted({*globals(), *upstream.builders(), *upstream.builders().values()})


def _builder(name: str) -> Any:
    def build(*, weights: object = None, **config: Any) -> Any:
        from weightstore.loading.model import get_model  # torch

        return get_model(name, weights=weights, **config)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Return TorchVision's {name}, as :func:`weightstore.get_model` builds it."
    return functools.wraps(build)(build)
