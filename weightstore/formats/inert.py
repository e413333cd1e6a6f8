"""Values that stand for what a pickle would import, call and make, and that do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightstore.formats.access import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST_KEY = 1 << 60


class OutOfData(Malformed):
    """The pickle goes on after the bytes that were given."""


class Global:
    """A name that a pickle would import. ``call``, if not None, tells what calling it with arguments amounts to."""

    __slots__ = ("call", "dtype", "is_foreign", "module", "name", "storage_dtype")

    def __init__(
        self,
        module: str,
        name: str,
        *,
        call: Callable[[tuple[Any, ...]], object] | None = None,
        dtype: str = "",
        storage_dtype: str = "",
        is_foreign: bool = True,
    ) -> None:
        self.module = module
        self.name = name
        self.call = call
        self.dtype = dtype
        self.storage_dtype = storage_dtype
        self.is_foreign = is_foreign

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Opaque:
    """What a pickle would make by calling ``function``, and everything that it would do to it; never made."""

    __slots__ = ("args", "elements", "function", "items", "state")

    def __init__(self, function: object, args: tuple[object, ...]) -> None:
        self.function = function
        self.args = args
        self.state: object = None
        self.items: dict[object, object] = {}
        self.elements: list[object] = []


class Ordered(dict[Any, Any]):
    """A ``collections.OrderedDict``, with the attributes that it was given."""

    __slots__ = ("state",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.state: object = None


class Group(list[Any]):
    """A set. It is kept as a list: its members may be values that have no hash."""

    __slots__ = ()


class Key:
    """A dictionary's key that is not text or a number. Each is its own, so that a hash never has to be computed."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def to_tuple(value: object) -> tuple[Any, ...]:
    """Return the arguments of a call, which must be a tuple."""
    if not isinstance(value, tuple):
        raise Malformed("something is called with arguments that are none")
    return value


def called(function: object, args: object) -> object:
    """Return what calling a function amounts to, as far as that is known."""
    arguments = to_tuple(args)
    if type(function) is Global and function.call is not None:
        return function.call(arguments)
    return Opaque(function, arguments)


def put_items(target: object, pairs: list[object]) -> None:
    """Do what ``target[key] = value`` amounts to, for keys and values in turn."""
    items = target.items if isinstance(target, Opaque) else target
    if not isinstance(items, dict) or len(pairs) % 2:
        raise Malformed("items are put into something that holds none")
    for index in range(0, len(pairs), 2):
        key = pairs[index]
        if type(key) is not str:
            key = _as_key(key)
        items[key] = pairs[index + 1]


def _as_key(key: object) -> object:
    if key is None or type(key) in (bool, float, bytes):
        return key
    # Larger numbers can be chosen so that they all have one hash, which makes a dictionary a list.
    if type(key) is int and -_LARGEST_KEY < key < _LARGEST_KEY:
        return key
    return Key(key)


def put_elements(target: object, elements: list[object]) -> None:
    """Do what adding elements to a list or set amounts to."""
    if isinstance(target, Opaque):
        target.elements.extend(elements)
    elif isinstance(target, list):
        target.extend(elements)
    else:
        raise Malformed("elements are added to something that holds none")


def build(target: object, state: object) -> None:
    """Do what giving an object its attributes amounts to."""
    if isinstance(target, (Ordered, Opaque)):
        target.state = state
