"""TorchVision's weights as ours: from the catalog of the TorchVision that is installed, without importing it.

The built-in catalog serves where no TorchVision is installed, or one of the same version up to the patch. Of any other
the catalog is made from what is installed, once, and kept in the user's state directory.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from typing import TYPE_CHECKING, Any

from weightstore.weights.entry import Weights
from weightstore.weights.enum import CATALOG_OF, WeightsEnum
from weightstore.weights.frozen import FrozenList
from weightstore.weights.meta import Later, Meta
from weightstore.weights.transforms import Transforms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from enum import Enum

    from weightstore.catalog.entries import Catalog

    Document = Mapping[str, Any]

MODULE = "weightstore.torchvision"
_MIB = 2**20
# Read as it is, and not through the Catalog, which checks every entry of files that others write: naming weights should
# cost no more than reading the file. The same holds for what is imported here.
_BUILT_IN = os.path.join(os.path.dirname(os.path.dirname(__file__)), "catalog", "torchvision.json")


@functools.cache
def document() -> Document:
    """Return the catalog of TorchVision's weights: of the version that is installed, or the built-in one."""
    other = _other()
    if other is not None:
        return other
    ours: Document = json.loads(_built_in())
    return ours


@functools.cache
def _built_in() -> bytes:
    with open(_BUILT_IN, "rb") as file:
        return file.read()


@functools.cache
def _other() -> Document | None:
    """Return the catalog of the installed TorchVision, if it is of another version than the built-in one."""
    version = installed_version()
    ours = _built_in().partition(b'"generated_from": "torchvision ')[2][:32].decode().split(".")[:2]
    return None if not version or version.split(".")[:2] == ours else _of_other_version(version)


def _part(name: str) -> Document:
    """Return as much of the catalog as one enum needs. KeyError where there is no such enum.

    The built-in catalog is written with each enum between two lines of its own, and each list of categories on one: so
    these are found and parsed, in a tenth of the time that parsing everything takes.
    """
    if _other() is None:
        found = _between(f'  "{name}": {{', "  }")
        if found is not None:
            about = json.loads(found)
            used = {one["categories"] for one in about["entries"].values() if one.get("categories")}
            lists = {one: _line(f'  "{one}": ') for one in used}
            if None not in lists.values():
                categories = {one: json.loads(line) for one, line in lists.items() if line is not None}
                return {"namespace": "torchvision", "enums": {name: about}, "categories": categories}
    return {**document(), "enums": {name: document()["enums"][name]}}


def _between(first: str, last: str) -> bytes | None:
    """Return the JSON object of the built-in catalog between two lines that begin so."""
    text = _built_in()
    start = text.find(f"\n{first}\n".encode())
    end = text.find(f"\n{last}".encode(), start)
    return None if start < 0 or end < 0 else text[start + len(first) : end] + b"\n}"


def _line(beginning: str) -> bytes | None:
    """Return the JSON value of the built-in catalog on the line that begins so."""
    text = _built_in()
    start = text.find(f"\n{beginning}".encode())
    end = text.find(b"\n", start + 1)
    return None if start < 0 or end < 0 else text[start + 1 + len(beginning) : end].rstrip(b",")


def installed_version() -> str:
    """Return the version of the TorchVision that is installed, without what is local to it; empty where there is none.

    TorchVision is not imported, nor is its metadata looked for, which takes longer.
    """
    try:
        spec = importlib.util.find_spec("torchvision")
    except (ImportError, ValueError):
        return ""
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        try:
            with open(os.path.join(place, "version.py"), encoding="utf-8") as file:
                text = file.read(4096)
        except (OSError, UnicodeDecodeError):
            continue
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "__version__":
                version = value.strip().strip("'\"").partition("+")[0]
                if version.replace(".", "").isalnum():
                    return version
    return ""


def _of_other_version(version: str) -> Document | None:
    """Return the catalog made from the installed TorchVision, now or before; None where that fails."""
    from weightstore.catalog.registry import read_catalog
    from weightstore.config import Config
    from weightstore.errors import InvalidRecord, StoreError

    path = Config.load().state / "catalogs" / f"torchvision-{version}.json"
    try:
        return read_catalog(path).document
    except InvalidRecord:
        pass  # not made yet, or by a weightstore that wrote another schema
    try:
        from weightstore.loading.torchvision_catalog import make_catalog, write_catalog  # imports torch
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # No torch; or one that this TorchVision was not built for, which its import finds out in many ways.
        import logging

        logging.getLogger("weightstore").debug("TorchVision %s cannot be imported: %s", version, error)
        return None
    try:
        return write_catalog(path).document
    except StoreError:
        return make_catalog().document


@functools.cache
def builders() -> Mapping[str, str]:
    """Return the names of TorchVision's builders, each with the name of its enum."""
    return {about["builder"]: name for name, about in document()["enums"].items() if about.get("builder")}


def legacy_interface(builder_name: str) -> dict[str, tuple[str, Callable[[dict[str, Any]], WeightsEnum | None]]]:
    """Return what a builder's deprecated parameters mean, as :func:`handle_legacy_interface` takes it."""
    interface: Mapping[str, Any] = document()["enums"][builders()[builder_name]].get("legacy") or {}
    return {key: (about["parameter"], functools.partial(_meant, about)) for key, about in interface.items()}


def _meant(about: Mapping[str, Any], config: Mapping[str, Any]) -> WeightsEnum | None:
    name = about["default"]
    if config.get("quantize"):
        name = about.get("default_quantized", name)
    if config[about["parameter"]] == "legacy":
        name = about.get("default_legacy", name)
    if name is None:
        return None
    enum_name, _, member = name.partition(".")
    return enum(enum_name)[member]


def has_enum(name: str) -> bool:
    """Tell whether TorchVision has an enum of this name."""
    if _other() is None and _between(f'  "{name}": {{', "  }") is not None:
        return True
    return name in document()["enums"]


@functools.cache
def enum(name: str) -> type[WeightsEnum]:
    """Return TorchVision's enum of a name, as one of ours.

    Raises:
        KeyError: there is none.
    """
    return _made(_part(name), name, module=MODULE)


def from_catalogs(namespace: str, name: str) -> type[WeightsEnum] | None:
    """Return an enum that an installed package's catalog, or a configured one, describes; or None.

    Its members are pickled by their names, and read back where the catalog is known.
    """
    from weightstore.catalog.registry import Catalogs
    from weightstore.config import Config

    for one in Catalogs(Config.load().catalogs).all():
        if name in set(one.enums()) and (not namespace or one.namespace.lower() == namespace.lower()):
            return _described(one, name)
    return None


_from_catalogs: dict[tuple[str, str], type[WeightsEnum]] = {}


def _described(catalog: Catalog, name: str) -> type[WeightsEnum]:
    key = (catalog.namespace, name)
    if key not in _from_catalogs:
        for _ in (catalog.entry(name, member) for member in catalog.members(name)):
            pass  # checks what others have written
        made = _made(catalog.document, name, module=catalog.namespace)
        type.__setattr__(made, CATALOG_OF, catalog.namespace)
        _from_catalogs.setdefault(key, made)
    return _from_catalogs[key]


def _made(document: Document, name: str, *, module: str) -> type[WeightsEnum]:
    about = document["enums"][name]
    # One tuple for all members: nobody can change it.
    lists = {one["categories"] for one in about["entries"].values() if one.get("categories")}
    categories = {one: FrozenList(document["categories"][one]) for one in lists}
    task = about.get("task") or ""
    namespace = document["namespace"]
    members = {member: _weights(values, task, categories, namespace) for member, values in about["entries"].items()}
    members |= {alias: members[target] for alias, target in about.get("aliases", {}).items()}
    if about.get("default"):
        members["DEFAULT"] = members[about["default"]]
    made: type[WeightsEnum] = WeightsEnum(name, members, module=module, qualname=name)  # type: ignore[call-arg,assignment]
    return made


def _weights(values: Mapping[str, Any], task: str, categories: Mapping[str, FrozenList], namespace: str) -> Weights:
    size = values.get("size")
    items: dict[str, Any] = {
        "min_size": tuple(values["min_size"]) if values.get("min_size") else None,
        "categories": categories[values["categories"]] if values.get("categories") else None,
        "keypoint_names": values.get("keypoint_names"),
        "num_params": values.get("num_params"),
        "recipe": values.get("recipe"),
        "license": values.get("licence_url"),
        "backend": values.get("backend"),
        "unquantized": _Original(values["unquantized"], namespace) if values.get("unquantized") else None,
        "_metrics": {
            data_set: {key: float("nan") if value is None else value for key, value in metrics.items()}
            for data_set, metrics in (values.get("metrics") or {}).items()
        },
        "_ops": values.get("gops"),
        "_file_size": None if size is None else round(size / _MIB, 3),
        "_docs": values.get("doc"),
    }
    items = {key: value for key, value in items.items() if value is not None} | (values.get("extra") or {})
    transforms = values.get("transforms") or {"class": "weightstore.weights.transforms.untouched"}
    return Weights(
        values["source"],
        Transforms(transforms["class"], **(transforms.get("kwargs") or {})),
        Meta.of(items, task=task),
        digest=values.get("pin"),
        size=size if values.get("size_exact") else None,
        licence=values.get("licence"),
        mirrors=values.get("alternatives") or (),
        shards=values.get("shards") or (),
    )


class _Original(Later):
    """The weights that others were quantized from."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self._namespace = namespace

    def resolve(self) -> WeightsEnum:
        enum_name, _, member = self.name.partition(".")
        if self._namespace == "torchvision":
            return enum(enum_name)[member]
        found = from_catalogs(self._namespace, enum_name)
        if found is None:
            raise KeyError(f"{self._namespace}/{self.name}")
        return found[member]

    def __repr__(self) -> str:
        return self.name


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
    if name not in builders():
        return None
    try:
        from torchvision.models import get_model_builder  # a second or more: only to build
    except ModuleNotFoundError as error:
        from weightstore.errors import MissingDependency

        if error.name not in {"torch", "torchvision"}:
            raise
        raise MissingDependency(package=error.name, purpose=f"building {name}") from None
    found: Callable[..., Any] = get_model_builder(name)
    return found
