"""What the functions and types in a pickle of torch amount to: tensors and storages as descriptions.

The names are those that ``torch.load(weights_only=True)`` allows (torch, ``_weights_only_unpickler.py``); whatever else
a pickle names is foreign.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from weightstore.formats.access import Malformed
from weightstore.formats.dtypes import BITS, STORAGES, size_of
from weightstore.formats.inert import Global, Group, Opaque, Ordered, put_items

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST = 1 << 60
_MOST_DIMENSIONS = 128
_MOST_FLAGS = 8


@dataclass(slots=True)
class Stored:
    """A storage as a pickle names it: ``start`` bytes into the one that the file has under ``root``."""

    key: str
    root: str
    dtype: str
    nbytes: int
    root_nbytes: int
    start: int = 0


@dataclass(slots=True)
class Rebuilt:
    """A tensor as a pickle describes it. ``stored`` is None for one without elements, on the meta device."""

    stored: Stored | None
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool = False
    is_parameter: bool = False
    quantized: bool = False
    flags: tuple[str, ...] = ()


def read_storage_id(value: object) -> object:
    """Return the storage that a persistent id names: ``("storage", type, key, location, numel[, view])``.

    ``view``, of the legacy format alone, is None or ``(key, first element, numel)``. An id of anything else is opaque.

    Raises:
        Malformed: it begins like a storage's id and is none.
    """
    if type(value) is not tuple or not value or value[0] != "storage":
        return value[1] if type(value) is tuple and len(value) > 1 and value[0] == "module" else Opaque(None, ())
    if len(value) not in (5, 6):
        raise Malformed("a storage of its pickle is not described as storages are")
    _, kind, key, _, numel, *view = value
    dtype = kind.storage_dtype if type(kind) is Global else ""
    if not dtype:
        raise Malformed("a storage of its pickle has no type that torch knows")
    if type(key) is int:
        key = str(key)
    if type(key) is not str or type(numel) is not int or not 0 <= numel < _LARGEST:
        raise Malformed("a storage of its pickle has no size or no name")
    nbytes = size_of(dtype, numel)
    if not view or view[0] is None:
        return Stored(key, key, dtype, nbytes, nbytes)
    view_key, start, view_numel = view[0]
    if (
        type(view_key) not in (str, int)
        or type(start) is not int
        or type(view_numel) is not int
        or not 0 <= start <= start + view_numel <= numel
    ):
        raise Malformed("a view of a storage lies outside of it")
    return Stored(
        str(view_key), key, dtype, size_of(dtype, view_numel), nbytes, start * size_of(dtype, 1) if start else 0
    )


# -- torch's functions ------------------------------------------------------------------------------------------------


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        raise Malformed("a tensor of its pickle has no shape")
    if len(value) > _MOST_DIMENSIONS:
        raise Malformed("a tensor of its pickle has too many dimensions")
    if type(value) is not tuple:
        value = tuple(value)
    for size in value:
        if type(size) is not int or not 0 <= size < _LARGEST:
            raise Malformed("a tensor of its pickle has a size or stride that is none")
    return value


def _rebuilt(stored: object, offset: object, shape: object, stride: object, *, dtype: str = "") -> Rebuilt:
    if type(stored) is not Stored:
        raise Malformed("a tensor of its pickle has no storage")
    if type(offset) is not int or not 0 <= offset < _LARGEST:
        raise Malformed("a tensor of its pickle begins nowhere")
    sizes, steps = _sizes(shape), _sizes(stride)
    if len(sizes) != len(steps):
        raise Malformed("a tensor of its pickle has a stride that does not go with its shape")
    return Rebuilt(stored, dtype or stored.dtype, offset, sizes, steps)


def _flags(metadata: object) -> tuple[str, ...]:
    if not metadata:
        return ()
    if not isinstance(metadata, dict) or len(metadata) > _MOST_FLAGS:
        raise Malformed("a tensor of its pickle has metadata that are none")
    return tuple(sorted(str(name) for name, value in metadata.items() if type(name) is str and value))


def _dtype(value: object) -> str:
    if type(value) is not Global or not value.dtype:
        raise Malformed("a tensor of its pickle has no type that torch knows")
    return value.dtype


def _tensor(args: tuple[Any, ...]) -> Rebuilt:
    stored, offset, shape, stride = args
    return _rebuilt(stored, offset, shape, stride)


def _tensor_v2(args: tuple[Any, ...]) -> Rebuilt:
    stored, offset, shape, stride, requires_grad, _, *metadata = args
    made = _rebuilt(stored, offset, shape, stride)
    made.requires_grad = requires_grad is True
    if metadata:
        made.flags = _flags(metadata[0])
    return made


def _tensor_v3(args: tuple[Any, ...]) -> Rebuilt:
    stored, offset, shape, stride, requires_grad, _, dtype, *metadata = args
    made = _rebuilt(stored, offset, shape, stride, dtype=_dtype(dtype))
    made.requires_grad = requires_grad is True
    if metadata:
        made.flags = _flags(metadata[0])
    return made


def _quantized(args: tuple[Any, ...]) -> Rebuilt:
    stored, offset, shape, stride, _, requires_grad, _ = args
    made = _rebuilt(stored, offset, shape, stride)
    made.requires_grad, made.quantized = requires_grad is True, True
    return made


def _parameter(args: tuple[Any, ...]) -> object:
    data, requires_grad, *_ = (*args, True) if len(args) == 1 else args
    if type(data) is not Rebuilt:
        return Opaque(PARAMETER, args)
    return replace(data, is_parameter=True, requires_grad=requires_grad is True)


def _meta(args: tuple[Any, ...]) -> Rebuilt:
    dtype, shape, stride, requires_grad = args
    return Rebuilt(None, _dtype(dtype), 0, _sizes(shape), _sizes(stride), requires_grad is True)


def _device_tensor(args: tuple[Any, ...]) -> object:
    data = args[0]
    return replace(data, requires_grad=args[3] is True) if type(data) is Rebuilt else Opaque(None, args)


def _from_type(args: tuple[Any, ...]) -> object:
    function, kind, inner, state = args
    is_known = type(function) is Global and function.call not in (None, _from_type)
    if is_known and type(inner) is tuple:
        made = function.call(inner)
        if type(made) is Rebuilt and type(kind) is Global and not kind.is_foreign:
            return made
    else:
        made = Opaque(function, inner if type(inner) is tuple else (inner,))
    # A subclass may keep its values anywhere, so that what its elements mean only its class knows.
    return Opaque(kind, (made, state))


# -- Python's ---------------------------------------------------------------------------------------------------------


# Whoever makes a container of another one takes its content or keeps it as it is: a pickle that makes thousands of one
# large list, which costs it a few bytes for each, would otherwise fill the memory.


def _ordered(args: tuple[Any, ...]) -> object:
    made = Ordered()
    if not args:
        return made
    (content,) = args
    if not isinstance(content, (list, dict)):
        return Opaque(None, args)
    pairs = content.items() if isinstance(content, dict) else content
    flat = [part for key, value in pairs for part in (key, value)]
    content.clear()
    put_items(made, flat)
    return made


def _group(args: tuple[Any, ...]) -> object:
    (members,) = args or (Group(),)
    return members


def _size(args: tuple[Any, ...]) -> object:
    (sizes,) = args or ((),)
    return sizes


def _encoded(args: tuple[Any, ...]) -> object:
    # How protocols before 3 write bytes, as text of which each character is one. Of no use here but its presence.
    return args[0]


def _opaque_bytes(args: tuple[Any, ...]) -> bytes:
    return args[0] if args and type(args[0]) is bytes else b""


PARAMETER = Global("torch.nn.parameter", "Parameter", call=_parameter, is_foreign=False)

_CALLS: dict[str, Callable[[tuple[Any, ...]], object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _device_tensor,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": _size,
    "collections.OrderedDict": _ordered,
    "collections.Counter": _ordered,
    "_codecs.encode": _encoded,
    "builtins.set": _group,
    "__builtin__.set": _group,
    "builtins.bytearray": _opaque_bytes,
    "__builtin__.bytearray": _opaque_bytes,
}
_ALLOWED = {
    *_CALLS,
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_nested_tensor",
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_wrapper_subclass",
    "torch.Tensor",
    "torch.device",
    "torch.serialization._get_layout",
    "builtins.complex",
    "__builtin__.complex",
    "torch.per_channel_affine",
    "torch.per_channel_affine_float_qparams",
    "torch.per_channel_symmetric",
    "torch.per_tensor_affine",
    "torch.per_tensor_symmetric",
}
_TORCH = ("torch", "torch.cuda", "torch.storage")
_TENSORS = ("torch", "torch.cuda", "torch.sparse", "torch.cuda.sparse")


def resolve(module: str, name: str) -> Global:
    """Return what a name in a pickle stands for. Nothing is imported."""
    dotted = f"{module}.{name}"
    if dotted in _CALLS or dotted in _ALLOWED:
        return Global(module, name, call=_CALLS.get(dotted), is_foreign=False)
    if module in _TORCH and name in STORAGES:
        return Global(module, name, storage_dtype=STORAGES[name], is_foreign=False)
    if module == "torch" and name in BITS:
        return Global(module, name, dtype=name, is_foreign=False)
    if module in _TENSORS and f"{name.removesuffix('Tensor')}Storage" in STORAGES and name.endswith("Tensor"):
        return Global(module, name, is_foreign=False)
    return Global(module, name)
