"""Search expressions: ``acc@1>80 size<100MB task=classification``.

A condition is a field, an operator (``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``~`` for "contains") and a value,
without blanks. All must hold. A word by itself must be contained in the weights' name. Weights for which a field is
not known match no condition on it.
"""

from __future__ import annotations

import operator
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.catalog.entries import is_error
from weightstore.catalog.names import task_matches
from weightstore.config import parse_size
from weightstore.errors import InvalidConfig, InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightstore.catalog.entries import Entry

_CONDITION = re.compile(r"(\w[\w@.\- ]*?)\s*(<=|>=|!=|==|=|<|>|~)\s*(.*)", re.DOTALL)
_ORDERINGS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TEXTS: dict[str, Callable[[Entry], str]] = {
    "name": lambda entry: entry.name,
    "enum": lambda entry: entry.enum,
    "builder": lambda entry: entry.builder,
    "namespace": lambda entry: entry.namespace,
    "task": lambda entry: entry.task,
    "licence": lambda entry: entry.licence or "unknown",
    "dataset": lambda entry: " ".join(entry.metrics),
    "backend": lambda entry: str(entry.related.get("backend", "")),
}
_NUMBERS: dict[str, Callable[[Entry], float | None]] = {
    "size": lambda entry: entry.size,
    "params": lambda entry: entry.num_params,
    "gflops": lambda entry: entry.gops,
    "classes": lambda entry: len(entry.categories) or None,
}
_FLAGS: dict[str, Callable[[Entry], bool]] = {
    "default": lambda entry: entry.is_default,
    "quantized": lambda entry: "unquantized" in entry.related,
}
_SYNONYMS = {"license": "licence", "gops": "gflops", "num_params": "params", "model": "builder"}
# Less of these is better, as of every metric that is an error.
_COSTS = frozenset({"size", "params", "gflops"})


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of an entry."""

    field: str
    operator: str
    value: str

    def holds(self, entry: Entry) -> bool:
        if self.field in _TEXTS:
            return self._text_holds(_TEXTS[self.field](entry))
        if self.field in _FLAGS:
            return (_FLAGS[self.field](entry) == _flag(self.value)) == (self.operator != "!=")
        known = value_of(entry, self.field)
        return known is not None and _ORDERINGS[self.operator](known, _number(self.field, self.value))

    def _text_holds(self, text: str) -> bool:
        value, lowered = self.value.lower(), text.lower()
        if self.operator == "~":
            return value in lowered
        if self.field == "task":
            equal = task_matches(text, value)
        elif self.field == "dataset":
            equal = value in lowered.split()
        else:
            equal = value == lowered
        return equal == (self.operator == "=")


def parse_query(text: str) -> list[Condition]:
    """Read a search expression.

    Raises:
        InvalidQuery: with the part that does not parse.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidQuery(f"{text!r}: {error}") from None
    return [_condition(word) for word in words]


def _condition(word: str) -> Condition:
    match = _CONDITION.fullmatch(word)
    if match is None:
        if any(sign in word for sign in "<>=~"):
            raise InvalidQuery(f"{word!r} is not a condition like acc@1>80 or task=detection. Write it without blanks")
        return Condition("name", "~", word)
    name, sign, value = match[1].lower(), match[2].replace("==", "="), match[3]
    name = _SYNONYMS.get(name, name)
    if not value:
        raise InvalidQuery(f"{word!r}: nothing to compare with. Write conditions without blanks: {name}{sign}80")
    if name in _TEXTS:
        if sign not in {"=", "!=", "~"}:
            raise InvalidQuery(f"{word!r}: {name} is text, and compares with =, != and ~")
    elif name in _FLAGS:
        if sign not in {"=", "!="}:
            raise InvalidQuery(f"{word!r}: {name} is yes or no")
        _flag(value)
    else:
        if sign == "~":
            raise InvalidQuery(f"{word!r}: {name} is a number, and compares with =, !=, <, <=, > and >=")
        _number(name, value)
    return Condition(name, sign, value)


def _flag(text: str) -> bool:
    if text.lower() in {"yes", "true", "1"}:
        return True
    if text.lower() in {"no", "false", "0"}:
        return False
    raise InvalidQuery(f"{text!r} is neither yes nor no")


def _number(name: str, text: str) -> float:
    value = text.removesuffix("%")
    try:
        if name == "size":
            return float(parse_size(value))
        if name == "params" and value[-1:].lower() in {"k", "m", "b", "g"}:
            return float(value[:-1]) * {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}[value[-1].lower()]
        return float(value)
    except (ValueError, InvalidConfig):
        raise InvalidQuery(f"{text!r} is not a number for {name}") from None


def value_of(entry: Entry, name: str) -> float | None:
    """Return the number that an entry has for a field or metric (1 or 0 for yes or no), or None."""
    name = _SYNONYMS.get(name.lower(), name.lower())
    if name in _FLAGS:
        return float(_FLAGS[name](entry))
    return _NUMBERS[name](entry) if name in _NUMBERS else entry.metric(name)


def search(entries: Iterable[Entry], query: str, *, sort: str | None = None) -> list[Entry]:
    """Return the entries for which a query holds, sorted.

    ``sort`` is a field or metric, the best first (the least first for sizes and errors); a leading ``-`` turns it
    round. By default the first metric of the query sorts, or else the name.

    Raises:
        InvalidQuery: the expression does not parse, or speaks of a metric that no entry has.
    """
    entries = list(entries)
    conditions = parse_query(query)
    numbers = [one.field for one in conditions if one.field not in _TEXTS and one.field not in _FLAGS]
    key = sort.lower() if sort else next((name for name in numbers if name not in _NUMBERS), "name")
    metrics = {metric.lower() for entry in entries for group in entry.metrics.values() for metric in group}
    for name in [*numbers, key.removeprefix("-")]:
        if _SYNONYMS.get(name, name) not in {*metrics, *_NUMBERS, *_TEXTS, *_FLAGS}:
            known = ", ".join([*sorted(metrics), *_NUMBERS, *_TEXTS, *_FLAGS])
            raise InvalidQuery(f"{name!r} is neither a field nor a metric. Known are: {known}")
    found = [entry for entry in entries if all(condition.holds(entry) for condition in conditions)]
    return _sorted(found, key)


def _sorted(entries: list[Entry], key: str) -> list[Entry]:
    turned = key.startswith("-")
    name = _SYNONYMS.get(key.removeprefix("-"), key.removeprefix("-"))
    if name in _TEXTS:
        return sorted(entries, key=lambda entry: (_TEXTS[name](entry).lower(), entry.name), reverse=turned)
    descending = (name in _COSTS or is_error(name)) == turned
    known = [(value, entry) for entry in entries if (value := value_of(entry, name)) is not None]
    known.sort(key=lambda item: item[0], reverse=descending)
    return [entry for _, entry in known] + [entry for entry in entries if value_of(entry, name) is None]
