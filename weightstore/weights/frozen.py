"""Containers that compare as lists and dicts do, and cannot be changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn


class FrozenList(tuple[Any, ...]):
    """A tuple that equals the list of the same items: what upstream declares as lists reads like one."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, tuple(other)) if isinstance(other, list | tuple) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return tuple.__hash__(self)

    def __add__(self, other: Any) -> Any:
        return [*self, *other] if isinstance(other, list) else tuple.__add__(self, other)

    def __radd__(self, other: Any) -> Any:
        return [*other, *self] if isinstance(other, list) else NotImplemented

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return FrozenList(found) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        return repr(list(self))


class FrozenDict(dict[str, Any]):
    """A dict without its ways to change it."""

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("metadata is read-only. Make a new one: {**meta, 'key': value}")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return freeze, (dict(self),)


def freeze(value: Any) -> Any:
    """Return plain data with its lists and dicts, however deep, replaced by such as cannot change."""
    if isinstance(value, FrozenList | FrozenDict):
        return value
    if isinstance(value, list):
        return FrozenList(freeze(one) for one in value)
    if type(value) is tuple:
        return tuple(freeze(one) for one in value)
    if isinstance(value, Mapping):
        return FrozenDict((key, freeze(one)) for key, one in value.items())
    return value
