"""Which catalogs there are: TorchVision's, those of installed packages, and those that the configuration names.

A package adds a catalog by an entry point in the group ``weightstore.catalogs`` whose value names a JSON file in the
package: ``mypackage.weights:catalog.json``. The file is read where the package lies; the package is not imported, so it
may need torch and its catalog does not.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.catalog.entries import Catalog
from weightstore.errors import InvalidConfig, InvalidRecord, WeightStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from importlib.metadata import EntryPoint

GROUP = "weightstore.catalogs"
_LIMIT = 64 << 20
_BUILT_IN = Path(__file__).parent / "torchvision.json"


@functools.cache
def built_in() -> Catalog:
    """Return the catalog of TorchVision's weights that comes with this package."""
    return read_catalog(_BUILT_IN)


def read_catalog(path: Path) -> Catalog:
    """Return the catalog in a JSON file.

    Raises:
        InvalidRecord: it cannot be read, or is not a catalog.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise InvalidRecord(place=str(path), reason=error.strerror or str(error)) from None
    if len(data) > _LIMIT:
        raise InvalidRecord(place=str(path), reason=f"larger than {_LIMIT} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(place=str(path), reason=f"not JSON ({error})") from None
    if not isinstance(document, dict):
        raise InvalidRecord(place=str(path), reason="not a catalog: not an object")
    return Catalog(document, place=str(path))


class Catalogs:
    """All catalogs, read when first needed: the built-in one, named files, then those of installed packages.

    A package's damaged catalog is noted and left out; a file that the configuration names must be right.
    """

    def __init__(self, files: Iterable[Path] = (), *, note: Callable[[str], None] | None = None) -> None:
        self._files = tuple(files)
        self._note = note or (lambda _: None)
        self._near: list[Catalog] | None = None
        self._far: list[Catalog] | None = None

    def near(self) -> list[Catalog]:
        """Return the catalogs that cost next to nothing to find: named files, then the built-in one."""
        if self._near is None:
            try:
                named = [read_catalog(path) for path in self._files]
            except InvalidRecord as error:
                raise InvalidConfig(f"catalogs: {error}") from None
            near = {catalog.namespace: catalog for catalog in named}
            if len(near) != len(named):
                raise InvalidConfig("catalogs: two files have one namespace")
            ours = built_in()
            # A file may stand in for the built-in catalog, as that of another TorchVision.
            self._near = list((near | {ours.namespace: near.get(ours.namespace, ours)}).values())
        return self._near

    def all(self) -> list[Catalog]:
        """Return all catalogs. Looking through the installed packages takes some 10 ms."""
        if self._far is None:
            self._far = list(self._installed())
        return [*self.near(), *self._far]

    def _installed(self) -> Iterator[Catalog]:
        from importlib.metadata import entry_points  # start-up: 10 ms that a built-in name does not need

        taken = {catalog.namespace for catalog in self.near()}
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
            try:
                catalog = read_catalog(_file_of(point))
                for _ in catalog.entries():  # a damaged entry would otherwise raise in the middle of a search
                    pass
            except WeightStoreError as error:
                self._note(f"the catalog of {point.name} is left out: {error}")
                continue
            if catalog.namespace in taken:
                self._note(f"the catalog of {point.name} is left out: its namespace {catalog.namespace} is taken")
                continue
            taken.add(catalog.namespace)
            yield catalog


def _file_of(point: EntryPoint) -> Path:
    """Return the file that an entry point names, found without importing anything of its package."""
    place = f"entry point {point.name} = {point.value}"
    try:
        module, file_name = point.module, point.attr or ""
    except (AttributeError, ValueError):  # importlib.metadata's answers to a value that does not parse
        raise InvalidRecord(
            place=place,
            reason="is not read by Python as an entry point. Write it like mypackage:catalog.json: in the names of the "
            "package and the file, use letters, digits, _ and . only",
        ) from None
    if not file_name.endswith(".json"):
        raise InvalidRecord(place=place, reason="does not name a JSON file, like mypackage:catalog.json")
    top, *rest = module.split(".")
    # Only the first part: find_spec imports the parents of a dotted name.
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InvalidRecord(place=place, reason=f"there is no package {top}")
    for location in spec.submodule_search_locations:
        path = Path(location, *rest, file_name)
        if os.path.isfile(path):
            return path
    raise InvalidRecord(place=place, reason="there is no such file in the package")
