"""Which of a builder's weights are meant."""

from __future__ import annotations

import difflib
from enum import Enum
from typing import TYPE_CHECKING

from weightstore.digest import pin_in_file_name
from weightstore.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightstore.digest import Digest

_MIB = 2**20
# TorchVision declares sizes in MiB, rounded to three digits after the point.
_ROUNDING = 0.0006 * _MIB


def choose(weights: object, enums: Iterable[type[Enum]]) -> tuple[object, Enum | None]:
    """Return what a builder is to be called with for ``weights``, and the member that this surely means.

    A member of another class of the same name stands for the one of the builder's own: ours for TorchVision's, and the
    other way round. What is neither text nor a member is for the builder to judge.

    Raises:
        UnknownName: none of the enums has an entry of this name.
    """
    enums = list(enums)
    if isinstance(weights, Enum):
        if isinstance(weights, tuple(enums)):
            return weights, weights
        for enum in enums:
            if enum.__name__ == type(weights).__name__ and weights.name in enum.__members__:
                return enum[weights.name], enum[weights.name]
        return weights, None
    if not isinstance(weights, str):
        return weights, None
    name = weights.rpartition("/")[2].rpartition(":")[2]
    class_name, _, member = name.rpartition(".")
    found = [enum[member] for enum in enums if class_name in {"", enum.__name__} and member in enum.__members__]
    if not found and enums:
        known = [f"{enum.__name__}.{one}" for enum in enums for one in enum.__members__]
        asked = name if class_name else f"{enums[0].__name__}.{name}"
        raise UnknownName(name=asked, suggestions=difflib.get_close_matches(asked, known, n=3, cutoff=0.3))
    # Of two enums the builder takes one by its other arguments.
    return (found[0], found[0]) if len(found) == 1 else (name, None)


def member_of_file(size: int, digest_of: Callable[[], Digest], enums: Iterable[type[Enum]]) -> Enum | None:
    """Return the member whose checkpoint a file is, or None. It is hashed only when its size could be that of one."""
    for enum in enums:
        for member in enum:
            url = getattr(member, "url", None)
            declared = getattr(member, "meta", {}).get("_file_size")
            if not isinstance(url, str) or (declared and abs(declared * _MIB - size) > _ROUNDING):
                continue
            pin = pin_in_file_name(url.partition("#")[0].rpartition("/")[2])
            if pin.is_pinned and pin.matches(digest_of()):
                return member
    return None
