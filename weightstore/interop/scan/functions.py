"""The functions of a module, whose bodies are walked when all around them has been: in which order, and what with."""

from __future__ import annotations

import ast
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from weightstore.interop.scan.evaluation import defaults_of, evaluate
from weightstore.interop.scan.values import UNKNOWN, Unknown, Values, union

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightstore.interop.scan.evaluation import Arguments
    from weightstore.interop.scan.values import Scope

_MOST_CALLS = 32
_MAKER = "__init__"
Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"


@dataclass(frozen=True, slots=True)
class Deferred:
    """A function whose body is still to be walked. ``owner`` is the class that it is a method of."""

    node: Function
    scope: Scope
    owner: ast.ClassDef | None

    @property
    def parameter_of_self(self) -> str:
        """What a method calls its own object, or its class; empty where it is no method."""
        parameters = [*self.node.args.posonlyargs, *self.node.args.args]
        decorators = [one.id for one in self.node.decorator_list if isinstance(one, ast.Name)]
        return parameters[0].arg if self.owner is not None and parameters and "staticmethod" not in decorators else ""

    @property
    def is_maker(self) -> bool:
        """Whether it is what makes instances of a class."""
        return self.owner is not None and self.node.name == _MAKER


class Functions:
    """The functions that are still to be walked, and all calls that were seen."""

    def __init__(self) -> None:
        self._deferred: dict[int, Deferred] = {}
        self._makers: dict[int, int] = {}
        self._called: defaultdict[int, list[Arguments]] = defaultdict(list)
        self._ready: deque[int] = deque()
        self._selves: dict[int, Values] = {}

    def __bool__(self) -> bool:
        return bool(self._deferred)

    def defer(self, deferred: Deferred) -> None:
        """Leave a function for later."""
        key = id(deferred.node)
        self._deferred[key] = deferred
        if deferred.is_maker:
            self._makers[id(deferred.owner)] = key
        if self._called.get(key):
            self._ready.append(key)

    def called(self, node: ast.AST, arguments: Arguments) -> None:
        """Note a call of a function, or of a class, which is one of what makes its instances."""
        calls = self._called[id(node)]
        if len(calls) < _MOST_CALLS:
            calls.append(arguments)
        self._ready.append(self._makers.get(id(node), id(node)))

    def made(self, owner: ast.ClassDef, values: Values) -> None:
        """Note what an object of a class is known to have for attributes."""
        self._selves[id(owner)] = values

    def pop(self) -> Deferred:
        """Return which function is walked next: one that is called; else the last, which may call those above it.

        Of a class what makes its instances comes first, for it says what their attributes are.
        """
        while self._ready and self._ready[0] not in self._deferred:
            self._ready.popleft()
        key = self._ready.popleft() if self._ready else next(reversed(self._deferred))
        maker = self._makers.get(id(self._deferred[key].owner), key)
        return self._deferred.pop(maker if maker in self._deferred else key)

    def parameters(self, of: Deferred) -> Iterator[tuple[str, Values]]:
        """Yield the parameters of a function, and what each may stand for."""
        arguments = of.node.args
        by_position = [*arguments.posonlyargs, *arguments.args]
        if of.parameter_of_self:
            yield by_position.pop(0).arg, self._selves.get(id(of.owner), UNKNOWN)
        calls = list(self._called.get(id(of.node), ()))
        if of.is_maker:
            calls += self._called.get(id(of.owner), ())
        defaults = defaults_of(arguments)
        for index, parameter in enumerate([*by_position, *arguments.kwonlyargs]):
            position = index if index < len(by_position) else None
            yield parameter.arg, _given(parameter.arg, position, calls, defaults.get(parameter.arg), of)
        for rest in (arguments.vararg, arguments.kwarg):
            if rest is not None:
                yield rest.arg, UNKNOWN


def _given(name: str, position: int | None, calls: list[Arguments], default: ast.expr | None, of: Deferred) -> Values:
    """Return what a parameter may be: what it is in the calls that were seen; without any, its default, or another."""
    default_values = evaluate(default, of.scope) if default is not None else ()
    if not calls:
        default_is = f", {ast.unparse(default)[:40]} by default" if default is not None else ""
        why = f"{name} is a parameter of {of.node.name}(){default_is}"
        return union(default_values, (Unknown(why, is_left_to_callers=default is not None),))
    several: list[Values] = []
    for call in calls:
        argument = call.get(name, position)
        if argument is not None:
            several.append(argument.values)
        else:
            several.append(UNKNOWN if call.may_hold_more else default_values)
    return union(*several)
