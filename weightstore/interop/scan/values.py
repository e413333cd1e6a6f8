"""What an expression may stand for, as far as that can be told without running anything.

An expression has a few possible values: those of both branches, of every element that is looped over, of each call that
is seen. :class:`Unknown` is among them where there may be others.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Mapping

    from weightstore.interop.scan.modules import Modules

_MOST = 64
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Const:
    """A string, a number, a boolean or None."""

    value: str | float | bool | None


@dataclass(frozen=True, slots=True)
class Named:
    """Something imported, by its full name: ``torchvision.models.resnet50``."""

    path: str


@dataclass(frozen=True, slots=True)
class Record:
    """Something with members: a class of this file, or a dictionary with constant keys. ``node`` is what defines it."""

    members: Mapping[str, Values] = field(default_factory=dict)
    node: ast.AST | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A list, tuple or set that is written out."""

    items: tuple[Values, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Weights that are found where they are made: what a call of ``get_weight("…")`` returns."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """What is only known when the code runs; ``why`` says more, where there is more to say.

    ``is_left_to_callers`` says that it is a parameter with a default, of a function that nobody was seen to call.
    """

    why: str = ""
    is_left_to_callers: bool = False


Value: TypeAlias = Const | Named | Record | Listed | Found | Unknown
Values: TypeAlias = tuple[Value, ...]
UNKNOWN: Values = (Unknown(),)


def union(*several: Iterable[Value]) -> Values:
    """Return all of some values, each once, in order. Too many are as good as unknown."""
    kept: dict[object, Value] = {}
    for value in itertools.chain(*several):
        # True is 1 to Python and not to us; records are one when they are the same.
        key = (type(value.value), value.value) if isinstance(value, Const) else _key(value)
        kept.setdefault(key, value)
        if len(kept) > _MOST:
            return UNKNOWN
    return tuple(kept.values())


def _key(value: Value) -> object:
    return id(value) if isinstance(value, Record | Listed) else value


def strings(values: Values) -> list[str]:
    return [value.value for value in values if isinstance(value, Const) and isinstance(value.value, str)]


def joined(parts: Iterable[Values]) -> Values:
    """Return the texts that parts make, one after another: of an f-string, or of a sum."""
    texts: Values = (Const(""),)
    for part in parts:
        made: list[Value] = []
        for left, right in itertools.product(texts, part):
            if not (isinstance(left, Const) and isinstance(right, Const)):
                made.append(Unknown())
            elif len(text := f"{left.value}{right.value}") > _LONGEST:
                return UNKNOWN
            else:
                made.append(Const(text))
        texts = union(made)
    return texts


class Scope:
    """The names of a module, class or function, and what they may stand for at this point."""

    def __init__(self, parent: Scope | None = None, *, modules: Modules | None = None, is_class: bool = False) -> None:
        self.names: dict[str, Values] = {}
        self.stars: list[str] = []
        self.is_class = is_class
        self.modules: Modules | None = parent.modules if parent is not None else modules
        # A function in a class sees what is around the class, and not what is in it.
        self.parent: Scope | None = parent.parent if parent is not None and parent.is_class else parent

    def look_up(self, name: str) -> Values:
        scope: Scope | None = self
        stars: list[str] = []
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            stars += scope.stars
            scope = scope.parent
        return union(*(self.imported(module, name) for module in stars)) or UNKNOWN

    def imported(self, module: str, name: str) -> Values:
        """Return what a name of another module may stand for: what that defines, where it is among what is scanned."""
        known = self.modules.get(module, name) if self.modules is not None else ()
        return known or (Named(f"{module}.{name}"),)

    def bind(self, name: str, values: Values) -> None:
        self.names[name] = values


def merged(one: Mapping[str, Values], other: Mapping[str, Values]) -> dict[str, Values]:
    """Return what names may stand for after either of two branches."""
    names = {name: union(values, other.get(name, ())) for name, values in one.items()}
    return names | {name: values for name, values in other.items() if name not in one}
