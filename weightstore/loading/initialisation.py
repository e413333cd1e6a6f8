"""Building a model without initialising what a checkpoint overwrites anyway.

Most of the time that a builder takes goes into random numbers: 2.6 of 3.7 s for ViT-L/16. Inside :func:`skipping`,
calls that would fill a tensor at random return at once, and leave it as it was allocated: memory that was never touched
costs nothing. Such a tensor is *blank*. Blankness is followed through the builder's code, to whatever is computed from
blank tensors; should a blank value decide anything (``if weight.sum() > 0``, ``.item()``, ``.tolist()``),
:class:`BlankRead` ends the attempt and the model is built the ordinary way.

It works by a torch function mode, which sees the calls of its own thread only. ``trunc_normal_`` alone does not pass
through torch's dispatch of functions, and is replaced for the time being by one that does.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_RANDOM: set[Any] = set(
    {
        init.uniform_,
        init.normal_,
        init.kaiming_uniform_,
        *(
            getattr(torch.Tensor, name)
            for name in (
                "bernoulli_",
                "cauchy_",
                "exponential_",
                "geometric_",
                "log_normal_",
                "normal_",
                "random_",
                "uniform_",
            )
        ),
    }
)
# What overwrites all of a tensor, whatever it held.
_OVERWRITING = frozenset({"copy_", "fill_", "zero_"})
# What tells of a tensor and not of its values. Attributes that are no tensors come through "__get__".
_DESCRIBING = frozenset(
    {
        "__get__",
        "__len__",
        "__hash__",
        "__set__",
        "_is_view",
        "data_ptr",
        "dim",
        "element_size",
        "get_device",
        "is_complex",
        "is_contiguous",
        "is_floating_point",
        "is_pinned",
        "is_same_size",
        "is_shared",
        "is_signed",
        "ndimension",
        "nelement",
        "numel",
        "size",
        "storage_offset",
        "stride",
        "type",
    }
)


class BlankRead(Exception):
    """Code that builds a model wants to know a value that was never filled in."""


class Skipping(TorchFunctionMode):  # type: ignore[misc]
    """Skips random initialisation, and follows what it left blank."""

    def __init__(self, keep: frozenset[torch.Size] = frozenset()) -> None:
        """``keep``: tensors of these shapes are initialised all the same."""
        super().__init__()
        self._keep = keep
        # By storage, so that views and parameters count with what they are views of. The tensors keep the storages
        # alive, and so their addresses unique.
        self._blank: dict[int, torch.Tensor] = {}

    def skip(self, tensor: torch.Tensor) -> bool:
        """Leave a tensor blank, unless its shape is to be kept; tell whether it was left."""
        if tensor.shape in self._keep:
            return False
        self._blank[_storage(tensor)] = tensor
        return True

    def is_blank(self, tensor: torch.Tensor) -> bool:
        """Tell whether any part of a tensor's storage was left blank."""
        return bool(self._blank) and _storage(tensor) in self._blank

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RANDOM:
            tensor = args[0] if args else kwargs["tensor"]
            return tensor if self.skip(tensor) else func(*args, **kwargs)
        if not self._blank:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _DESCRIBING:
            return self._followed(func(*args, **kwargs), args, name)
        touched = [tensor for tensor in _tensors((*args, *kwargs.values())) if self.is_blank(tensor)]
        if not touched:
            return func(*args, **kwargs)
        target = args[0] if args else None
        is_in_place = name.endswith("_") and not name.endswith("__") and any(one is target for one in touched)
        if is_in_place and target is not None:
            if name in _OVERWRITING and len(touched) == 1:
                if target.numel() * target.element_size() == target.untyped_storage().nbytes():
                    del self._blank[_storage(target)]
                return func(*args, **kwargs)
            if name != "requires_grad_":
                return target  # scaling or clamping what is blank leaves it blank
        result = func(*args, **kwargs)
        for tensor in _tensors((result,)):
            self._blank[_storage(tensor)] = tensor
        if _holds_values(result):
            raise BlankRead(name)
        return result

    def _followed(self, result: Any, args: tuple[Any, ...], name: str) -> Any:
        if name == "__get__" and isinstance(result, torch.Tensor) and args and self.is_blank(args[0]):
            self._blank[_storage(result)] = result  # .real, .T, .data, ...: mostly the same storage
        return result


def _storage(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - its address in memory is 0 for all that are empty
    except (NotImplementedError, RuntimeError):  # tensors without storage: sparse, functional
        return id(tensor)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _holds_values(result: Any) -> bool:
    """Tell whether a result says something of values, and is not only made of tensors."""
    if isinstance(result, torch.Tensor) or result is None:
        return False
    if isinstance(result, list | tuple):
        return any(_holds_values(one) for one in result)
    return True


_lock = threading.Lock()
_users = 0
_original = init.trunc_normal_


@functools.wraps(_original)
def _trunc_normal_(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if has_torch_function_unary(tensor):  # a mode of this thread: as its neighbours in torch.nn.init do it
        result: torch.Tensor = handle_torch_function(_trunc_normal_, (tensor,), tensor, *args, **kwargs)
        return result
    return _original(tensor, *args, **kwargs)


_RANDOM |= {_trunc_normal_}


@contextlib.contextmanager
def skipping(keep: frozenset[torch.Size] = frozenset()) -> Iterator[Skipping]:
    """Skip random initialisation in this thread; other threads initialise as ever.

    Raises:
        BlankRead: a value that was left blank was asked for.
    """
    global _users  # noqa: PLW0603 - how many threads need the replacement
    with _lock:
        _users += 1
        if _users == 1:
            init.trunc_normal_ = _trunc_normal_
    try:
        with Skipping(keep) as mode:
            yield mode
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and init.trunc_normal_ is _trunc_normal_:
                init.trunc_normal_ = _original
