"""Weights and models by name: those that were registered, TorchVision's, and those that packages announce."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightstore.weights import upstream
from weightstore.weights.enum import WeightsEnum
from weightstore.weights.registry import BUILDERS_GROUP, ENUMS_GROUP, Models, enum_of, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from enum import Enum
    from importlib.metadata import EntryPoint
    from types import ModuleType


def _elsewhere(name: str) -> Callable[..., Any] | None:
    """Return a builder that an installed package announces, or TorchVision's."""
    namespace, _, bare = name.rpartition("/")
    if namespace in {"", "torchvision"}:
        found = upstream.builder(bare)
        if found is not None:
            return found
    for point in _points(BUILDERS_GROUP):
        if point.name.lower() == name:
            builder: Callable[..., Any] = point.load()
            return builder
    return None


MODELS = Models(_elsewhere)
register_model = MODELS.register_model
get_model_builder = MODELS.get_model_builder


def get_model_weights(name: str | Callable[..., Any]) -> type[Enum]:
    """Return the weights enum of a builder, or of a builder's name; TorchVision's without importing it.

    Raises:
        ValueError: there is no such builder, it takes no weights, or its annotation does not say which.
    """
    if isinstance(name, str) and name.lower() not in MODELS.builders:
        key = name.lower().removeprefix("torchvision/")
        enum_name = upstream.builders().get(key)
        if enum_name is not None:
            return upstream.enum(enum_name)
    found = enum_of(MODELS.get_model_builder(name) if isinstance(name, str) else name)
    return found if issubclass(found, WeightsEnum) else upstream.ours_of(found)


def get_weight(name: str) -> WeightsEnum:
    """Return weights by their full name: ``ResNet50_Weights.IMAGENET1K_V2``, ``torchgeo/ResNet50_Weights.FOREST``.

    Without a namespace TorchVision's come first. Neither torch nor TorchVision is imported for theirs.

    Raises:
        ValueError: it is no full name, or there is no such enum.
        KeyError: the enum has no such member.
    """
    namespace, _, full = name.rpartition("/")
    enum_name, dot, member = full.partition(".")
    if not dot or "." in member:
        raise ValueError(f"Invalid weight name provided: '{name}'.")
    found = _enum(namespace.lower(), enum_name)
    if found is None:
        raise ValueError(f"The weight enum '{enum_name}' for the specific method couldn't be retrieved.")
    return found[member]


def list_models(
    module: ModuleType | None = None,
    include: Iterable[str] | str | None = None,
    exclude: Iterable[str] | str | None = None,
) -> list[str]:
    """Return the names of all models that can be built, sorted: registered ones, TorchVision's, packages'.

    Args:
        module: only those whose builder is defined in a module directly below this package.
        include: only those that match one of these globs.
        exclude: none that matches one of these globs.
    """
    names = set(MODELS.list_models(module))
    if module is None:
        names |= {*upstream.builders(), *(point.name.lower() for point in _points(BUILDERS_GROUP))}
    elif module.__name__.partition(".")[0] == "torchvision":
        from torchvision.models import list_models as theirs  # it is imported: there is a module of it

        names |= set(theirs(module))
    return select(names, include, exclude)


def _enum(namespace: str, name: str) -> type[WeightsEnum] | None:
    if namespace in {"", "torchvision"} and upstream.has_enum(name):
        return upstream.enum(name)
    for one in _subclasses(WeightsEnum):
        if one.__name__ == name and (not namespace or one.__module__.partition(".")[0].lower() == namespace):
            return one
    for point in _points(ENUMS_GROUP):
        announced_in, _, announced = point.name.rpartition("/")
        if announced == name and (not namespace or announced_in.lower() == namespace):
            found: type[WeightsEnum] = point.load()
            return found
    return upstream.from_catalogs(namespace, name)


def _subclasses(parent: type[WeightsEnum]) -> Iterator[type[WeightsEnum]]:
    for one in parent.__subclasses__():
        if one.__module__ != upstream.MODULE:
            yield one
        yield from _subclasses(one)


def _points(group: str) -> Iterable[EntryPoint]:
    # 10 ms: only for names that nothing nearer knows.
    from importlib.metadata import entry_points

    return entry_points(group=group)
