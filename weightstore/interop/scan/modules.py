"""What the scanned files know of each other: constants, settings and enums that one defines and another imports."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from weightstore.interop.scan.values import Record, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weightstore.interop.scan.values import Value, Values

_MOST_PARTS = 8
_DEEPEST = 6
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Modules:
    """The names that modules define at their top, by the modules' names.

    A file is known by its name in the package that it lies in. Where it lies in none it may be imported from any of the
    directories above it, and so is known by every ending of its path, as long as no other file has the same.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, Values] | None] = {}

    def add(self, path: Path, package: str, names: Mapping[str, Values]) -> None:
        """Note what a file defines. Code is left out, so that the trees of all files need not be kept."""
        kept = {name: values for name, all_values in names.items() if (values := _without_code(all_values))}
        parts = [*path.absolute().parent.parts[1:], path.stem]
        if path.stem == "__init__":
            parts.pop()
        least = package.count(".") + 2 if package and path.stem != "__init__" else package.count(".") + 1
        for count in range(min(least, len(parts)), min(len(parts), _MOST_PARTS) + 1):
            name = ".".join(parts[-count:])
            self._by_name[name] = None if name in self._by_name else kept

    def get(self, module: str, name: str) -> Values:
        """Return what a name of a module may stand for; nothing where the module was not scanned."""
        return (self._by_name.get(module.lstrip(".")) or {}).get(name, ())


def _without_code(values: Values, depth: int = 0) -> Values:
    """Return values without those that nothing is known of, and without functions; of classes only the constants.

    Settings are not nested deeper than a few levels; what is may hold one thing twice on each, and double each time.
    """
    kept: list[Value] = []
    for value in values:
        if isinstance(value, Unknown) or (isinstance(value, Record) and isinstance(value.node, _FUNCTIONS)):
            return ()
        if isinstance(value, Record) and depth == _DEEPEST:
            return ()
        if isinstance(value, Record):
            members = {key: its for key, all_its in value.members.items() if (its := _without_code(all_its, depth + 1))}
            kept.append(Record(members))
        else:
            kept.append(value)
    return tuple(kept)
