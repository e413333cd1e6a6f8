"""From expressions to their possible values: constants, imported names, and what simple code makes of them."""

from __future__ import annotations

import ast
import copy
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.interop.scan.values import (
    UNKNOWN,
    Const,
    Found,
    Listed,
    Named,
    Record,
    Unknown,
    Value,
    Values,
    joined,
    union,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightstore.interop.scan.values import Scope

# Stands in a path for a name that is only known when it runs.
ANY = "?"
_MAKE_RECORDS = frozenset({"types.SimpleNamespace", "argparse.Namespace", "easydict.EasyDict"})
ONLY_KNOWN_WHEN_IT_RUNS = "only known when it runs"
_WEIGHTS_ENUMS = ("WeightsEnum", "Weights")


def evaluate(node: ast.expr | None, scope: Scope) -> Values:
    """Return what an expression may stand for."""
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, str | int | float):
            return (Const(value),)
        case ast.Name(id=name):
            return scope.look_up(name)
        case ast.Attribute(value=base, attr=attr):
            return union(*(_member(value, attr, scope) for value in evaluate(base, scope)))
        case ast.JoinedStr(values=parts):
            return joined(_part(part, scope) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _sum(evaluate(left, scope), evaluate(right, scope))
        case ast.IfExp(body=body, orelse=orelse):
            return union(evaluate(body, scope), evaluate(orelse, scope))
        case ast.BoolOp(values=several):
            return union(*(evaluate(one, scope) for one in several))
        case ast.UnaryOp(op=ast.Not()):
            return (Unknown(), Const(value=True), Const(value=False))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return (Const(-number),)
        case ast.NamedExpr(value=value) | ast.Await(value=value):
            return evaluate(value, scope)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            if any(isinstance(item, ast.Starred) for item in items):
                return UNKNOWN
            return (Listed(tuple(evaluate(item, scope) for item in items)),)
        case ast.Dict(keys=keys, values=values):
            known = [
                (key.value, value) for key, value in zip(keys, values, strict=True) if isinstance(key, ast.Constant)
            ]
            return (Record({str(key): evaluate(value, scope) for key, value in known}),)
        case ast.Subscript(value=base, slice=index):
            pairs = itertools.product(evaluate(base, scope), evaluate(index, scope))
            return union(*(_item(container, at, scope) for container, at in pairs))
        case ast.Call():
            return _call(node, scope)
        case _:
            return UNKNOWN


def _member(value: Value, attr: str, scope: Scope) -> Values:
    match value:
        case Named(path=path):
            return scope.imported(path, attr)
        case Record(members=members):
            return members.get(attr, UNKNOWN)
        case Found():
            return (value,) if attr.isupper() else UNKNOWN
        case Unknown():
            return (value,)
        case _:
            return UNKNOWN


def _item(value: Value, key: Value, scope: Scope) -> Values:
    match value, key:
        case Record(members=members), Const(value=name):
            return members.get(str(name), UNKNOWN)
        case Record(members=members, node=None), Unknown() if members:
            return union(*members.values())
        case Listed(items=items), Const(value=int(index)) if -len(items) <= index < len(items):
            return items[index]
        case Listed(items=items), Unknown() if items:
            return union(*items)
        case Named(path=path), _ if path.endswith(".__dict__"):
            return _attribute(Named(path.removesuffix(".__dict__")), key, scope)
        case Named(), Const(value=str()):  # an enum's member
            return _attribute(value, key, scope)
        case _:
            return UNKNOWN


def _attribute(owner: Value, name: Value, scope: Scope) -> Values:
    """Return an attribute whose name is a value itself, as for ``getattr``."""
    match owner, name:
        case _, Const(value=str(attr)) if attr.isidentifier():
            return _member(owner, attr, scope)
        case Named(path=path), Unknown():
            return (Named(f"{path}.{ANY}"),)
        case _:
            return UNKNOWN


def _part(part: ast.expr, scope: Scope) -> Values:
    if isinstance(part, ast.FormattedValue):
        return evaluate(part.value, scope) if part.format_spec is None and part.conversion in (-1, 115) else UNKNOWN
    return evaluate(part, scope)


def _sum(left: Values, right: Values) -> Values:
    """Return a sum of texts; of anything else nothing is known."""
    if not all(isinstance(one, Const) and isinstance(one.value, str) for one in (*left, *right)):
        return UNKNOWN
    return joined((left, right))


def _call(node: ast.Call, scope: Scope) -> Values:
    """Return what a call returns, of the few whose results matter."""
    first = node.args[0] if node.args else node.keywords[0].value if node.keywords else None
    if isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return (Record({one.arg: evaluate(one.value, scope) for one in node.keywords if one.arg}),)
    match node.func:
        case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr="verify"):
            if owner.endswith("Weights"):
                return evaluate(first, scope)
    if isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(node.args) > 1:
        owners, names = (evaluate(argument, scope) for argument in node.args[:2])
        return union(*(_attribute(owner, name, scope) for owner in owners for name in names))
    results: list[Values] = []
    for function in evaluate(node.func, scope):
        path = function.path if isinstance(function, Named) else ""
        name = path.rpartition(".")[2]
        if path in _MAKE_RECORDS:
            results.append((Record({one.arg: evaluate(one.value, scope) for one in node.keywords if one.arg}),))
        elif (
            isinstance(function, Record)
            and isinstance(function.node, ast.ClassDef)
            and not is_weights_enum(function.node)
        ):
            given = {one.arg: evaluate(one.value, scope) for one in node.keywords if one.arg}
            results.append((Record({**function.members, **given}),))
        elif name == "get_weight" or (isinstance(function, Record) and is_weights_enum(function.node)):
            results.append((Found(),))
        elif name == "get_model_weights":
            models = evaluate(first, scope)
            results.append(
                tuple(
                    Named(f"{path}({one.value})")
                    if isinstance(one, Const)
                    else Found()
                    if _is_named(one)
                    else Unknown()
                    for one in models
                )
            )
        else:
            results.append(UNKNOWN)
    return union(*results)


def _is_named(value: Value) -> bool:
    return isinstance(value, Named)


def is_weights_enum(node: ast.AST | None) -> bool:
    """Tell whether a class of this file is an enum of weights: their URLs are found where its members are written."""
    if not isinstance(node, ast.ClassDef):
        return False
    names = [base.attr for base in node.bases if isinstance(base, ast.Attribute)]
    names += [base.id for base in node.bases if isinstance(base, ast.Name)]
    return any(name.endswith(_WEIGHTS_ENUMS) for name in names)


def elements(node: ast.expr, scope: Scope) -> Values:
    """Return what the elements of something that is looped over may stand for."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
        records = [one for one in evaluate(node.func.value, scope) if isinstance(one, Record)]
        match node.func.attr:
            case "items":
                return (
                    union(
                        Listed(((Const(key),), values)) for record in records for key, values in record.members.items()
                    )
                    or UNKNOWN
                )
            case "values":
                return union(*(values for record in records for values in record.members.values())) or UNKNOWN
            case "keys":
                return union(Const(key) for record in records for key in record.members) or UNKNOWN
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        if node.func.id == "enumerate":
            return union(Listed((UNKNOWN, (one,))) for one in elements(node.args[0], scope))
        if node.func.id in {"sorted", "set", "list", "tuple", "reversed", "tqdm"}:
            return elements(node.args[0], scope)
        if node.func.id == "zip":
            return (Listed(tuple(elements(argument, scope) for argument in node.args)),)
    found: list[Values] = []
    for value in evaluate(node, scope):
        match value:
            case Listed(items=items):
                found += items
            case Record(members=members):
                found.append(tuple(Const(key) for key in members))
            case _:
                found.append(UNKNOWN)
    return union(*found)


def unpacked(values: Values, count: int) -> list[Values]:
    """Return what each of so many targets may stand for, where a value of several is assigned to them."""
    several: list[list[Values]] = [[] for _ in range(count)]
    for value in values:
        fits = isinstance(value, Listed) and len(value.items) == count
        for index in range(count):
            several[index].append(value.items[index] if fits and isinstance(value, Listed) else UNKNOWN)
    return [union(*one) for one in several]


def defaults_of(parameters: ast.arguments) -> dict[str, ast.expr]:
    """Return the defaults of a function's parameters, by name."""
    by_position = [*parameters.posonlyargs, *parameters.args]
    with_default = by_position[len(by_position) - len(parameters.defaults) :]
    pairs = [*zip(with_default, parameters.defaults, strict=True)]
    pairs += [
        (one, it) for one, it in zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True) if it is not None
    ]
    return {parameter.arg: default for parameter, default in pairs}


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call: how it is written, and what it may stand for."""

    node: ast.expr
    values: Values

    @property
    def unknown(self) -> str | None:
        """Why it may be something that is not known, or None where all that it may be is known."""
        return self._why(but=())

    @property
    def unknown_here(self) -> str | None:
        """The same, but for what callers may give instead of a default."""
        return self._why(
            but=[value for value in self.values if isinstance(value, Unknown) and value.is_left_to_callers]
        )

    def _why(self, *, but: Sequence[Value]) -> str | None:
        whys = [_why(one) for one in self.values if not isinstance(one, Const | Found) and one not in but]
        return None if not whys else next((why for why in whys if why), ONLY_KNOWN_WHEN_IT_RUNS)

    @property
    def others(self) -> str:
        """What to say of it where a default is known, and others are left to callers."""
        return "" if (why := self.unknown) is None or self.unknown_here is not None else f"or another: {why}"

    @property
    def is_given(self) -> bool:
        """Whether it may be anything but None and False."""
        return any(not isinstance(value, Const) or value.value not in {None, False} for value in self.values)


def _why(value: Value) -> str:
    match value:
        case Unknown(why=why):
            return why
        case Named(path=path) if not path.endswith(ANY):
            return f"{path} is defined elsewhere"
        case _:
            return ""


class Arguments:
    """The arguments of one call."""

    def __init__(self, node: ast.Call, scope: Scope) -> None:
        starred = next((i for i, one in enumerate(node.args) if isinstance(one, ast.Starred)), None)
        plain = node.args[:starred]
        self.positional = [Argument(one, evaluate(one, scope)) for one in plain]
        self.named = {one.arg: Argument(one.value, evaluate(one.value, scope)) for one in node.keywords if one.arg}
        self.has_more_positional = starred is not None
        self.rest = [one.value for one in node.keywords if one.arg is None]
        for rest in list(self.rest):
            records = [one for one in evaluate(rest, scope) if isinstance(one, Record)]
            if len(records) == 1 and records[0].node is None:
                self.named |= {name: Argument(rest, values) for name, values in records[0].members.items()}
                self.rest.remove(rest)

    def get(self, name: str, position: int | None = None) -> Argument | None:
        if name in self.named:
            return self.named[name]
        if position is not None and position < len(self.positional):
            return self.positional[position]
        return None

    def but_for_the_first(self) -> Arguments:
        """Return the arguments that are handed on by a function whose first one says to which."""
        others = copy.copy(self)
        others.positional = self.positional[1:]
        return others

    @property
    def may_hold_more(self) -> bool:
        """Whether there are ``*args`` or ``**kwargs`` that may hold anything."""
        return self.has_more_positional or bool(self.rest)

    def all(self) -> list[Argument]:
        return [*self.positional, *self.named.values()]
