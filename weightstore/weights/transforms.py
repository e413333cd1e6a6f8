"""Preprocessing as a description that prints and compares without torch, and becomes the real thing when called."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from weightstore.weights.frozen import FrozenDict, FrozenList, freeze

# TorchVision's documented name of what it keeps in a module of another.
_PUBLIC = {"torchvision.transforms.functional.InterpolationMode": "torchvision.transforms.InterpolationMode"}


class EnumMember:
    """An enum's member by its dotted name, in a package that need not be imported yet."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnumMember) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def resolve(self) -> Any:
        return imported(self.name)

    def __repr__(self) -> str:
        return ".".join(self.name.split(".")[-2:])


class Transforms:
    """How to preprocess a model's input: what to call, and with what.

    Calling it makes the preprocessing object; keyword arguments override those of the description. TorchVision's
    presets then take a ``PIL.Image`` or a tensor of shape (..., C, H, W), return a float tensor (..., C, H, W), and can
    be scripted.
    """

    __slots__ = ("_call", "args", "kwargs", "name")

    def __init__(self, target: str | Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """``target``: a callable, or its dotted name, which is imported when called."""
        call = None if isinstance(target, str) else target
        self._call: Callable[..., Any] | None = call
        self.name: str = target if isinstance(target, str) else _name_of(target)
        self.args: tuple[Any, ...] = tuple(_described(one) for one in args)
        self.kwargs: Mapping[str, Any] = FrozenDict({key: _described(value) for key, value in kwargs.items()})

    @classmethod
    def of(cls, transforms: Callable[..., Any]) -> Transforms:
        """Return the description of a callable: a partial's arguments are told apart, others are called as they are."""
        if isinstance(transforms, Transforms):
            return transforms
        if isinstance(transforms, functools.partial):
            return cls(transforms.func, *transforms.args, **transforms.keywords)
        return cls(transforms)

    @property
    def func(self) -> Callable[..., Any]:
        """What is called.

        Raises:
            MissingDependency: the package that it is in is not installed.
            InvalidInput: there is nothing of this name.
        """
        return self._call if self._call is not None else imported(self.name)

    @property
    def keywords(self) -> dict[str, Any]:
        """The keyword arguments as they are passed on."""
        return {key: _resolved(value) for key, value in self.kwargs.items()}

    def __call__(self, *args: Any, **overrides: Any) -> Any:
        """Make the preprocessing object. Errors as for :attr:`func`."""
        return self.func(*(_resolved(one) for one in self.args), *args, **{**self.keywords, **overrides})

    def _key(self) -> tuple[Any, ...]:
        # A function made on the spot has a name that says nothing: it is itself and no other.
        who = self._call if self._call is not None and "<" in self.name else self.name
        return who, self.args, self.kwargs

    def __eq__(self, other: object) -> bool:
        if isinstance(other, functools.partial) or (callable(other) and not isinstance(other, Transforms)):
            other = Transforms.of(other)
        return self._key() == other._key() if isinstance(other, Transforms) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.name, frozenset(self.kwargs)))

    def __repr__(self) -> str:
        given = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        return f"{self.name.rpartition('.')[2]}({', '.join(given)})"

    def __copy__(self) -> Transforms:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Transforms:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        target = self._call if self._call is not None else self.name
        return _rebuild, (target, self.args, dict(self.kwargs))


def _rebuild(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Transforms:
    return Transforms(target, *args, **kwargs)


def imported(name: str) -> Any:
    """Return what a dotted name means, importing its module.

    Raises:
        MissingDependency: the package is not installed.
        InvalidInput: there is nothing of this name.
    """
    from weightstore.errors import InvalidInput, MissingDependency  # start-up: naming weights needs none

    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name == parts[0]:
                extra = parts[0] if parts[0] in {"torch", "torchvision"} else ""
                raise MissingDependency(package=parts[0], purpose=name, extra="torch" if extra else "") from None
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            continue
        try:
            return functools.reduce(getattr, parts[length:], found)
        except AttributeError:
            break
    raise InvalidInput(f"there is no {name}")


def untouched(value: Any) -> Any:
    """Return what it is given: the preprocessing of weights that say nothing of it."""
    return value


def _name_of(target: Callable[..., Any]) -> str:
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    return f"{getattr(target, '__module__', None) or type(target).__module__}.{name}"


def _described(value: Any) -> Any:
    if isinstance(value, Enum):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        return EnumMember(f"{_PUBLIC.get(kind, kind)}.{value.name}")
    if isinstance(value, Mapping) and value.keys() == {"$enum"}:
        return EnumMember(value["$enum"])
    if isinstance(value, list | tuple) and not isinstance(value, FrozenList):
        return FrozenList(_described(one) for one in value)
    return freeze(value)


def _resolved(value: Any) -> Any:
    if isinstance(value, EnumMember):
        return value.resolve()
    if isinstance(value, FrozenList):
        return tuple(_resolved(one) for one in value)
    return dict(value) if isinstance(value, FrozenDict) else value
