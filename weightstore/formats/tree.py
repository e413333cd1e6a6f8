"""From the values that a pickle describes to a checkpoint's tensors, by the paths that lead to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightstore.formats.access import Malformed
from weightstore.formats.checkpoint import Storage, TensorInfo
from weightstore.formats.dtypes import BITS, size_of
from weightstore.formats.inert import Global, Key, Opaque, Ordered
from weightstore.formats.rebuild import Rebuilt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightstore.formats.rebuild import Stored

MAX_VALUES = 500_000
MAX_DEPTH = 100
_MAX_LOOKED_AT = 10_000_000
_LONGEST_KEY = 100
_MAX_PATH = 64 << 20
_MAX_BYTES = 1 << 62
_NO_STORAGE = Storage("", "uint8", 0, None)


class Collected:
    """The tensors of a tree of values, and the paths of everything else."""

    def __init__(self, place_of: Callable[[Stored], Storage]) -> None:
        self.tensors: list[TensorInfo] = []
        self.others: list[str] = []
        self._place_of = place_of
        self._values = 0
        self._looked_at = 0
        self._characters = 0
        self._around: set[int] = set()

    def add(self, value: object) -> None:
        """Take in the whole tree under ``value``.

        Raises:
            Malformed: it is deeper or has more leaves than any checkpoint, or a tensor is not one.
        """
        self._add(value, "", ())

    def _add(self, value: object, name: str, path: tuple[str, ...]) -> None:
        self._values += 1
        self._characters += len(name)
        if self._values > MAX_VALUES or self._characters > _MAX_PATH:
            raise Malformed("it has more values, or longer names, than can be listed")
        if type(value) is Rebuilt:
            self.tensors.append(self._tensor(value, name, path))
            return
        # A list that is shared is looked through wherever it is met.
        self._looked_at += _length(value)
        if self._looked_at > _MAX_LOOKED_AT:
            raise Malformed("it has more values, or longer names, than can be listed")
        children = list(_children(value))
        if not children or id(value) in self._around:  # a container in itself is listed, and not entered again
            self.others.append(name)
            return
        if len(path) >= MAX_DEPTH:
            raise Malformed("its values are nested too deeply")
        self._around.add(id(value))
        for key, child in children:
            self._add(child, f"{name}.{key}" if name else key, (*path, key))
        self._around.discard(id(value))

    def _tensor(self, found: Rebuilt, name: str, path: tuple[str, ...]) -> TensorInfo:
        shape, stride = found.shape, found.stride
        numel = last = 1
        for size, step in zip(shape, stride, strict=True):
            numel *= size
            last += (size - 1) * step
        if numel > _MAX_BYTES:
            raise Malformed("a tensor has more elements than there can be")
        storage = _NO_STORAGE if found.stored is None else self._place_of(found.stored)
        if found.stored is not None:
            # Those with several elements to a byte count in bytes or in elements, by version.
            whole = BITS[found.dtype] >= 8
            if numel and whole and size_of(found.dtype, found.offset + last) > storage.nbytes:
                raise Malformed("a tensor reaches beyond its storage")
        return TensorInfo(
            name,
            path,
            found.dtype,
            shape,
            stride,
            storage,
            found.offset,
            found.is_parameter,
            found.requires_grad,
            found.quantized,
            found.flags,
        )


def is_flat(value: object) -> bool:
    """Tell whether a value is a plain state dict: names and tensors, and nothing else."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(type(key) is str and type(found) is Rebuilt for key, found in value.items())
    )


def metadata_of(value: object) -> dict[str, object]:
    """Return the ``_metadata`` that ``Module.state_dict`` puts on what it returns, as plain data; else nothing."""
    state = value.state if type(value) is Ordered else None
    found = state.get("_metadata") if isinstance(state, dict) else None
    plain = _plain(found, [MAX_VALUES], 0) if isinstance(found, dict) else None
    return plain if isinstance(plain, dict) else {}


def _plain(value: object, budget: list[int], depth: int) -> object:
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise Malformed("its metadata is nested too deeply")
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, dict):
        return {_text(key): _plain(child, budget, depth + 1) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child, budget, depth + 1) for child in value]
    return f"<{type(value).__name__.lower()}>"


def _text(key: object) -> str:
    if type(key) is str:
        return key
    if isinstance(key, Key):
        value = key.value
        if isinstance(value, Opaque):
            value = value.function
        if isinstance(value, tuple) and len(value) <= _LONGEST_KEY and all(map(_is_short, value)):
            return f"({', '.join(map(_text, value))})"
        return f"<{value}>" if isinstance(value, Global) else f"<{type(value).__name__}>"
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    if isinstance(key, int) and abs(key) >= 1 << 60:  # as text it may have as many digits as the file has bytes
        return "<int>"
    return str(key)


def _is_short(value: object) -> bool:
    return isinstance(value, (bool, float, int)) or (type(value) is str and len(value) <= _LONGEST_KEY)


def _children(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield _text(key), child
    elif isinstance(value, (list, tuple)):
        if any(_may_hold_more(child) for child in value):  # a list of numbers is one value
            for index, child in enumerate(value):
                yield str(index), child
    elif isinstance(value, Opaque):
        yield from _parts(value)


def _parts(value: Opaque) -> Iterator[tuple[str, Any]]:
    """Return what an object is made of, as far as it holds something: its state goes by the names of attributes."""
    for index, child in enumerate(value.args):
        if _may_hold_more(child):
            yield f"<{index}>", child
    if isinstance(value.state, dict):
        yield from _children(value.state)
    elif _may_hold_more(value.state):
        yield "<state>", value.state
    for index, child in enumerate(value.elements):
        yield str(index), child
    for key, child in value.items.items():
        yield _text(key), child


def _length(value: object) -> int:
    if isinstance(value, Opaque):
        return len(value.args) + len(value.elements) + len(value.items)
    return len(value) if isinstance(value, (dict, list, tuple)) else 0


def _may_hold_more(value: object) -> bool:
    return isinstance(value, (dict, list, tuple, Opaque, Rebuilt))
