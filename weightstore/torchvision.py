"""TorchVision's weights and builders, from the store: ``weightstore.torchvision.ResNet50_Weights.IMAGENET1K_V2``.

Every enum and every builder of the TorchVision that is installed, by its name, detection's and quantized ones among
them as TorchVision's registry calls them. Enums need no torch; builders import TorchVision when called, and make their
models as :func:`weightstore.get_model` does. They take the deprecated forms as well, ``pretrained=True`` and arguments
by position, for what TorchVision means by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


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


def _builder(name: str) -> Callable[..., Any]:
    import functools
    import inspect  # start-up: enums need none

    from weightstore.weights import upstream

    @functools.cache
    def real() -> Callable[..., Any]:
        return _with_legacy(name)

    def build(*args: Any, **config: Any) -> Any:
        return real()(*args, **config)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Return TorchVision's {name}, as :func:`weightstore.get_model` builds it."
    weights_enum = upstream.enum(upstream.builders()[name])
    kinds = inspect.Parameter
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            kinds("weights", kinds.KEYWORD_ONLY, default=None, annotation=weights_enum | None),
            kinds("progress", kinds.KEYWORD_ONLY, default=True, annotation=bool),
            kinds("config", kinds.VAR_KEYWORD, annotation=Any),
        ]
    )
    return build


def _with_legacy(name: str) -> Callable[..., Any]:
    """Return TorchVision's builder over our loading, with its deprecated forms translated before it sees them."""
    import inspect

    from weightstore.loading.model import get_model  # torch
    from weightstore.weights import upstream
    from weightstore.weights.legacy import handle_legacy_interface

    theirs = upstream.builder(name)
    assert theirs is not None, name  # noqa: S101 - it is in the catalog of what is installed

    def build(**config: Any) -> Any:
        return get_model(theirs, **config)

    build.__name__ = theirs.__name__
    build.__signature__ = inspect.signature(theirs)  # type: ignore[attr-defined]
    return handle_legacy_interface(**upstream.legacy_interface(name))(build)
