"""The interface of before: ``pretrained=True``, and arguments by position.

What each deprecated form means is TorchVision's business, to the letter: builders that are decorated here behave as
they do there, and warn with the same words. Only that the warning names the caller's line: the first that is neither
ours nor TorchVision's, and once for each such line.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from enum import Enum
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_P = ParamSpec("_P")
_R = TypeVar("_R")
_V = TypeVar("_V")
_MISSING = object()
_OURS = (
    "weightstore.weights.",
    "weightstore.loading.",
    "weightstore.torchvision.",
    "torchvision.",
    "torch.",
    "functools.",
)


def kwonly_to_pos_or_kw(fn: Callable[_P, _R]) -> Callable[..., _R]:
    """Return a function whose keyword-only parameters can be given by position, with a warning.

    Raises:
        TypeError: it has no keyword-only parameter.
    """
    parameters = inspect.signature(fn).parameters
    names = tuple(parameters)
    first = next((i for i, one in enumerate(parameters.values()) if one.kind is one.KEYWORD_ONLY), None)
    if first is None:
        raise TypeError(f"Found no keyword-only parameter on function '{fn.__name__}'")

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> _R:
        positional, beyond = args[:first], args[first:]
        if beyond:
            given = dict(zip(names[first:], beyond, strict=False))
            warn(
                f"Using {_listed(given)} as positional parameter(s) is deprecated since 0.13 and may be removed in the "
                "future. Please use keyword parameter(s) instead."
            )
            kwargs.update(given)
        return fn(*positional, **kwargs)

    return wrapper


def handle_legacy_interface(
    **weights: tuple[str, Any | Callable[[dict[str, Any]], Any | None] | None],
) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    """Return a decorator for builders that were once called with ``pretrained=True``, and with arguments by position.

    Args:
        weights: for each parameter that takes weights, the name of the parameter that took a boolean before, and the
            member that ``True`` meant; or a function from the call's keyword arguments to that member.
    """

    def decorate(builder: Callable[..., _R]) -> Callable[..., _R]:
        @kwonly_to_pos_or_kw
        @functools.wraps(builder)
        def build(*args: Any, **kwargs: Any) -> _R:
            for parameter, (deprecated, default) in weights.items():
                translate(builder.__name__, kwargs, parameter, deprecated, default)
            return builder(*args, **kwargs)

        return build

    return decorate


def translate(name: str, kwargs: dict[str, Any], parameter: str, deprecated: str, default: Any) -> None:
    """Replace a deprecated argument, if there is one, by what it stands for."""
    given = kwargs.get(parameter, _MISSING)
    if given is _MISSING and deprecated not in kwargs:
        return
    if given is None or isinstance(given, Enum) or (isinstance(given, str) and given != "legacy"):
        return
    by_position = given is not _MISSING
    if by_position:  # the first positional argument was once ``pretrained``
        kwargs[deprecated] = kwargs.pop(parameter)
    asked = kwargs[deprecated]
    meant = (default(kwargs) if callable(default) else default) if asked else None
    if asked and not isinstance(meant, Enum):
        raise ValueError(f"No weights available for model {name}")
    if not by_position:
        warn(
            f"The parameter '{deprecated}' is deprecated since 0.13 and may be removed in the future, please use "
            f"'{parameter}' instead."
        )
    message = (
        f"Arguments other than a weight enum or `None` for '{parameter}' are deprecated since 0.13 and may be removed "
        f"in the future. The current behavior is equivalent to passing `{parameter}={meant}`."
    )
    if asked:
        message += f" You can also use `{parameter}={type(meant).__name__}.DEFAULT` to get the most up-to-date weights."
    warn(message)
    del kwargs[deprecated]
    kwargs[parameter] = meant


_shown: set[tuple[str, int, str]] = set()


def warn(message: str) -> None:
    """Warn whoever called from outside of this package and TorchVision, at the line of the call, and once for each.

    Python does the same by default, but forgets what it has shown each time that anything anywhere changes the filters,
    and torch does that all the time. A filter that asks for every warning, or for errors, gets what it asks for.
    """
    frame = sys._getframe(1)  # noqa: SLF001 - what warnings.warn(skip_file_prefixes=…) does, from Python 3.12 on
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(_OURS):
        frame = frame.f_back
    module = str(frame.f_globals.get("__name__", "<unknown>"))
    place = (frame.f_code.co_filename, frame.f_lineno, message)
    if _action(message, module, frame.f_lineno) == "default":
        if place in _shown:
            return
        _shown.add(place)
        registry = None
    else:
        registry = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, UserWarning, *place[:2], module=module, registry=registry)


def _action(message: str, module: str, line: int) -> str:
    """Return what the filters say is to be done with a warning, as Python decides it."""
    filters = getattr(warnings, "_get_filters", lambda: warnings.filters)()  # each context's own, from Python 3.14 on
    for action, text, category, where, number in filters:
        if (
            issubclass(UserWarning, category)
            and (text is None or text.match(message))
            and (where is None or where.match(module))
            and number in (0, line)
        ):
            return str(action)
    return str(getattr(warnings, "defaultaction", "default"))


def _listed(names: Mapping[str, Any]) -> str:
    quoted = [f"'{name}'" for name in names]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def overwrite_named_param(kwargs: dict[str, Any], param: str, new_value: Any) -> None:
    """Set a keyword argument that follows from the weights.

    Raises:
        ValueError: the caller has given another value.
    """
    if kwargs.setdefault(param, new_value) != new_value:
        raise ValueError(f"The parameter '{param}' expected value {new_value} but got {kwargs[param]} instead.")


def overwrite_value_param(param: str, actual: _V | None, expected: _V) -> _V:
    """Return the value that follows from the weights.

    Raises:
        ValueError: the caller has given another one.
    """
    if actual is not None and actual != expected:
        raise ValueError(f"The parameter '{param}' expected value {expected} but got {actual} instead.")
    return expected


class ModelURLs(dict[str, str]):
    """The dictionaries of URLs that TorchVision's modules once had; reading one warns."""

    def __getitem__(self, item: str) -> str:
        warn(
            "Accessing the model URLs via the internal dictionary of the module is deprecated since 0.13 and may be "
            "removed in the future. Please access them via the appropriate Weights Enum instead."
        )
        return super().__getitem__(item)
