"""TorchVision's weights as ours: from the catalog of the TorchVision that is installed, without importing it.

The built-in catalog serves where no TorchVision is installed, or one of the same version up to the patch. Of any other
the catalog is made from what is installed, once, and kept in the user's state directory.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightstore.catalog.registry import Catalogs, built_in, read_catalog
from weightstore.errors import InvalidRecord, MissingDependency, StoreError
from weightstore.weights.entry import Weights
from weightstore.weights.enum import WeightsEnum
from weightstore.weights.meta import Later, Meta
from weightstore.weights.transforms import Transforms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from enum import Enum

    from weightstore.catalog.entries import Catalog

MODULE = "weightstore.torchvision"
_VERSION = re.compile(r"__version__ = ['\"](\d+)\.(\d+)\.(\w+)")
_MIB = 2**20


@functools.cache
def catalog() -> Catalog:
    """Return the catalog of TorchVision's weights: of the version that is installed, or the built-in one."""
    ours = built_in()
    version = installed_version()
    if version is None or version[:2] == _version_of(ours):
        return ours
    return _of_other_version(".".join(version))


def _version_of(catalog: Catalog) -> tuple[str, ...]:
    return tuple(catalog.generated_from.removeprefix("torchvision ").split("."))[:2]


def installed_version() -> tuple[str, str, str] | None:
    """Return the version of the TorchVision that is installed, or None. It is not imported."""
    try:
        spec = importlib.util.find_spec("torchvision")
    except (ImportError, ValueError):
        return None
    for place in spec.submodule_search_locations or () if spec is not None else ():
        try:
            found = _VERSION.search(Path(place, "version.py").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        if found is not None:
            return found[1], found[2], found[3]
    return None


def _of_other_version(version: str) -> Catalog:
    from weightstore.config import Config

    path = Config.load().state / "catalogs" / f"torchvision-{version}.json"
    try:
        return read_catalog(path)
    except InvalidRecord:
        pass  # not made yet, or by a weightstore that wrote another schema
    from weightstore.loading.torchvision_catalog import write_catalog  # imports torch

    try:
        return write_catalog(path)
    except MissingDependency:
        return built_in()
    except StoreError:
        from weightstore.loading.torchvision_catalog import make_catalog

        return make_catalog()


@functools.cache
def enum(name: str) -> type[WeightsEnum]:
    """Return TorchVision's enum of a name, as one of ours.

    Raises:
        KeyError: there is none.
    """
    return _enum_from(catalog(), name, module=MODULE)


def from_catalogs(namespace: str, name: str) -> type[WeightsEnum] | None:
    """Return an enum that an installed package's catalog, or a configured one, describes; or None."""
    from weightstore.config import Config

    for one in Catalogs(Config.load().catalogs).all():
        if name in set(one.enums()) and (not namespace or one.namespace.lower() == namespace):
            return _described(one.namespace, name) or _remember(one, name)
    return None


_made: dict[tuple[str, str], type[WeightsEnum]] = {}


def _described(namespace: str, name: str) -> type[WeightsEnum] | None:
    return _made.get((namespace, name))


def _remember(catalog: Catalog, name: str) -> type[WeightsEnum]:
    return _made.setdefault((catalog.namespace, name), _enum_from(catalog, name, module=__name__))


def _enum_from(catalog: Catalog, name: str, *, module: str) -> type[WeightsEnum]:
    if name not in set(catalog.enums()):
        raise KeyError(name)
    members: dict[str, Weights] = {member: _weights(catalog, name, member) for member in catalog.members(name)}
    members |= {alias: members[target] for alias, target in catalog.aliases(name).items()}
    default = catalog.member_name(name, "DEFAULT")
    if default is not None:
        members["DEFAULT"] = members[default]
    made: type[WeightsEnum] = WeightsEnum(name, members, module=module, qualname=name)  # type: ignore[call-arg,assignment]
    return made


def _weights(catalog: Catalog, enum_name: str, member: str) -> Weights:
    entry = catalog.entry(enum_name, member)
    named = entry.related
    items: dict[str, Any] = {
        "min_size": entry.min_size,
        "categories": list(entry.categories) or None,
        "keypoint_names": named.get("keypoint_names"),
        "num_params": entry.num_params,
        "recipe": entry.recipe,
        "license": entry.licence_url,
        "backend": named.get("backend"),
        "unquantized": _Original(named["unquantized"]) if "unquantized" in named else None,
        "_metrics": {
            data_set: {key: float("nan") if value is None else value for key, value in values.items()}
            for data_set, values in entry.metrics.items()
        },
        "_ops": entry.gops,
        "_file_size": None if entry.size is None else round(entry.size / _MIB, 3),
        "_docs": entry.doc,
    }
    items = {key: value for key, value in items.items() if value is not None} | dict(named.get("extra") or {})
    transforms = entry.transforms or ("weightstore.weights.transforms.none", {})
    return Weights(
        entry.source.url,
        Transforms(transforms[0], **transforms[1]),
        Meta.of(items, task=entry.task),
        digest=entry.pin.hex,
        size=entry.size if entry.size_is_exact else None,
        licence=entry.licence,
        mirrors=[source.url for source in entry.alternatives],
        shards=entry.shards,
    )


class _Original(Later):
    """The weights that others were quantized from."""

    def __init__(self, name: str) -> None:
        self.name = name

    def resolve(self) -> WeightsEnum:
        enum_name, _, member = self.name.partition(".")
        return enum(enum_name)[member]


def ours_of(theirs: type[Enum]) -> type[Enum]:
    """Return our enum for one of TorchVision's; an enum that the catalog does not have stays what it is."""
    try:
        return enum(theirs.__name__)
    except KeyError:
        return theirs


def builder(name: str) -> Callable[..., Any] | None:
    """Return TorchVision's builder of a name, or None where there is none.

    Raises:
        MissingDependency: TorchVision is not installed, and has a builder of this name.
    """
    if name not in catalog().builders:
        return None
    try:
        from torchvision.models import get_model_builder  # a second or more: only to build
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "torchvision"}:
            raise
        raise MissingDependency(package=error.name, purpose=f"building {name}") from None
    found: Callable[..., Any] = get_model_builder(name)
    return found


def attributes() -> Mapping[str, str]:
    """Return the names of TorchVision's enums and builders, each with ``enum`` or ``builder``."""
    known = catalog()
    return dict.fromkeys(known.enums(), "enum") | dict.fromkeys(known.builders, "builder")
