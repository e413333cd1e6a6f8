"""A swapped function is the same object with other code, for everybody who holds it."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from weightstore.interop.hook.swap import Swap


def plain(a: int, b: int = 2, *, c: int = 3) -> tuple[int, int, int]:
    """Says what it got."""
    return a, b, c


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    checked = inspect.signature(function)

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        checked.bind(*args, **kwargs)
        return function(*args, **kwargs)

    return inner


@decorated
def wrapped(a: int, b: int = 2) -> tuple[int, int]:
    return a, b


class Holder:
    def method(self, a: int) -> tuple[Holder, int]:
        return self, a


DIRECT, PARTIAL = plain, functools.partial(plain, 1)


def answer(original: Callable[..., Any], given: inspect.BoundArguments) -> Any:
    return "ours", original(*given.args, **given.kwargs), dict(given.arguments)


@pytest.fixture(params=["plain", "wrapped"])
def swapped(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    function = {"plain": plain, "wrapped": wrapped}[request.param]
    swap = Swap(f"test.{request.param}", function, answer)
    yield function
    swap.restore()


def test_every_holder_is_reached() -> None:
    held = {"table": plain}

    def default(function: Callable[..., Any] = plain) -> Any:
        return function(1)

    swap = Swap("test.holders", plain, answer)
    try:
        calls = [DIRECT(1), PARTIAL(), held["table"](1), default()]
    finally:
        swap.restore()

    assert calls == [("ours", (1, 2, 3), {"a": 1})] * 4
    assert DIRECT(1) == PARTIAL() == (1, 2, 3)


def test_identity_signature_name_and_pickle_stay(swapped: Callable[..., Any]) -> None:
    before = inspect.signature(inspect.unwrap(swapped)) if hasattr(swapped, "__wrapped__") else None

    assert pickle.loads(pickle.dumps(swapped)) is swapped
    assert list(inspect.signature(swapped).parameters)[:2] == ["a", "b"]
    assert before is None or inspect.signature(swapped) == before
    assert swapped.__doc__ == (plain.__doc__ if swapped is plain else None)


def test_the_signature_is_the_functions_own_again() -> None:
    before = inspect.signature(plain)
    code = plain.__code__
    swap = Swap("test.signature", plain, answer)
    assert inspect.signature(plain) == before

    swap.restore()

    assert plain.__code__ is code
    assert "__signature__" not in plain.__dict__


def test_wrong_arguments_fail_as_they_did(swapped: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="argument"):
        swapped()
    with pytest.raises(TypeError, match="argument"):
        swapped(1, 2, unheard_of=3)


def test_a_method_keeps_its_self() -> None:
    swap = Swap("test.method", Holder.method, answer)
    try:
        holder = Holder()
        assert holder.method(5) == ("ours", (holder, 5), {"self": holder, "a": 5})
    finally:
        swap.restore()
    assert holder.method(5) == (holder, 5)


def test_closures_keep_their_cells() -> None:
    swap = Swap("test.closure", wrapped, answer)
    try:
        assert wrapped(1, b=5) == ("ours", (1, 5), {"a": 1, "b": 5})
    finally:
        swap.restore()
    assert wrapped(4) == (4, 2)


def test_many_calls_before_and_after_reach_the_right_code() -> None:
    # CPython specialises calls that it has seen often.
    def calls() -> set[Any]:
        return {str(plain(1)) for _ in range(200)}

    for _ in range(3):
        assert calls() == {"(1, 2, 3)"}
        swap = Swap("test.often", plain, answer)
        assert calls() == {str(("ours", (1, 2, 3), {"a": 1}))}
        swap.restore()
