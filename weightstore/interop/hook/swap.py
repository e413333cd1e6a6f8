"""Changing what a function does for everybody who holds it.

``from torch.hub import load_state_dict_from_url`` copies a reference, and so do default arguments, closures, partials
and dispatch tables: putting another function into ``torch.hub`` reaches none of them. What they all share is the
function object, so it is that object's code that is swapped, and swapped back. Its identity, name, signature and
pickle stay what they were.
"""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Callable
from typing import Any

Handler = Callable[[Callable[..., Any], inspect.BoundArguments], Any]
"""Gets the function as it was, and the arguments of the call as they were given, without defaults."""

_swaps: dict[int, Swap] = {}
_numbers = itertools.count()


class Swap:
    """One function whose calls go to a handler until it is restored."""

    def __init__(
        self, name: str, function: types.FunctionType, handler: Handler, *, code: types.CodeType | None = None
    ) -> None:
        """Swap a function's code in one step.

        Args:
            name: what it is called in tracebacks.
            function: what is swapped.
            handler: what is called in its place.
            code: the function's own, where it has been swapped before by something that ends with this.
        """
        number = next(_numbers)
        self.function = function
        self._code = code or function.__code__
        self._handler = handler
        self.original = with_code(function, self._code)
        self._signature = inspect.signature(self.original)
        self._own_signature = function.__dict__.get("__signature__")
        _swaps[number] = self
        if not hasattr(function, "__wrapped__"):  # else inspect looks there
            function.__signature__ = self._signature  # type: ignore[attr-defined]
        function.__code__ = _calling(name, number, function)

    def restore(self) -> None:
        """Give the function its own code back. Calls that are under way end as they began."""
        self.function.__code__ = self._code
        if self._own_signature is not None:
            self.function.__signature__ = self._own_signature  # type: ignore[attr-defined]
        else:
            self.function.__dict__.pop("__signature__", None)
        # The swap stays in the table: a call may be between the swapped code and the look-up.

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            given = self._signature.bind(*args, **kwargs)
        except TypeError:
            return self.original(*args, **kwargs)  # it says what is wrong with them
        return self._handler(self.original, given)


def call(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What swapped code calls."""
    return _swaps[number].call(args, kwargs)


def with_code(function: types.FunctionType, code: types.CodeType) -> Callable[..., Any]:
    """Return another function like this one, with some code of its own."""
    made = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__annotations__ = function.__kwdefaults__, function.__annotations__
    made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
    made.__dict__.update(function.__dict__)
    return made


def _calling(known_as: str, number: int, function: types.FunctionType) -> types.CodeType:
    """Return code that calls :func:`call`, and that this very function can take: with the same free variables."""
    name, free = function.__name__, function.__code__.co_freevars
    if not (name.isidentifier() and all(variable.isidentifier() for variable in free)):
        raise TypeError(f"{name} is no ordinary function")
    text = (
        f"def outside({', '.join(free)}):\n"
        f"    def {name}(*args, **kwargs):\n"
        f"        if False: {', '.join(free) or 'pass'}\n"
        f"        from {__name__} import call\n"
        f"        return call({number}, args, kwargs)\n"
        f"    return {name}\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(text, f"<weightstore for {known_as}>", "exec"), scope)  # noqa: S102 - our own text, but for identifiers
    code = scope["outside"](*[None] * len(free)).__code__
    assert isinstance(code, types.CodeType)  # noqa: S101 - for mypy
    return code.replace(co_firstlineno=function.__code__.co_firstlineno)
