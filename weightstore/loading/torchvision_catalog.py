"""The catalog of TorchVision's weights, read from the TorchVision that is installed.

The same TorchVision always gives the same document: enums in alphabetical order, the members of an enum in
TorchVision's order (which is the order in which the enum iterates). What it means is told in
``scripts/generate_torchvision_catalog.py``, which makes the catalog that comes with this package, and is strict: what
it does not know ends it. Otherwise what is unknown is left out.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torchvision
from torchvision.models import get_model_builder, get_model_weights, list_models
from torchvision.models._meta import (
    _COCO_CATEGORIES,
    _COCO_PERSON_CATEGORIES,
    _IMAGENET_CATEGORIES,
    _KINETICS400_CATEGORIES,
    _VOC_CATEGORIES,
)
from torchvision.transforms import InterpolationMode

from weightstore.catalog.entries import Catalog
from weightstore.store.layout import translated, write_record
from weightstore.weights.transforms import Transforms

if TYPE_CHECKING:
    from pathlib import Path

_T = TypeVar("_T")

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
Meta: TypeAlias = Mapping[str, Any]

MIB = 2**20
MIB_ROUNDING = 0.0005

CATEGORY_LISTS: Mapping[str, Sequence[str]] = {
    "imagenet-1k": _IMAGENET_CATEGORIES,
    "coco": _COCO_CATEGORIES,
    "coco-person": _COCO_PERSON_CATEGORIES,
    "voc": _VOC_CATEGORIES,
    "kinetics-400": _KINETICS400_CATEGORIES,
}

TASK_OF_TRANSFORMS = {
    "ImageClassification": "classification",
    "OpticalFlow": "optical-flow",
    "SemanticSegmentation": "semantic-segmentation",
    "VideoClassification": "video-classification",
}
# One preset serves all of these, so the module has to tell.
TASK_OF_DETECTION_MODULE = {
    "faster_rcnn": "detection",
    "fcos": "detection",
    "keypoint_rcnn": "keypoint-detection",
    "mask_rcnn": "instance-segmentation",
    "retinanet": "detection",
    "ssd": "detection",
    "ssdlite": "detection",
}

# TorchVision's meta has the URL of the licence text; what that text is was read once, by a person.
SPDX_OF_LICENCE_URL = {
    "https://github.com/facebookresearch/SWAG/blob/main/LICENSE": "CC-BY-NC-4.0",
}

META_KEYS_WITH_A_FIELD = frozenset(
    {
        "_docs",
        "_file_size",
        "_metrics",
        "_ops",
        "backend",
        "categories",
        "keypoint_names",
        "license",
        "min_size",
        "num_params",
        "recipe",
        "unquantized",
    }
)


def make_catalog() -> Catalog:
    """Return the catalog of the installed TorchVision."""
    return Catalog(document({}, strict=False), place=f"torchvision {torchvision.__version__}")


def write_catalog(path: Path) -> Catalog:
    """Write the catalog of the installed TorchVision to a file of this user's, in one step, and return it.

    Raises:
        StoreError: it cannot be written.
    """
    made = document({}, strict=False)
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_record(path, json.dumps(made, allow_nan=False).encode(), mode=0o600)
    return Catalog(made, place=str(path))


def document(exact_sizes: Mapping[str, int], *, strict: bool) -> dict[str, Json]:
    """Return the whole document.

    Args:
        exact_sizes: URL to bytes.
        strict: whether something unknown is an error (ValueError), or left out.
    """
    builder_names = {get_model_weights(name): name for name in list_models()}
    if strict and len(builder_names) != len(list_models()):
        raise ValueError("two models share one weights enum: the catalog's schema has room for one builder")
    enums = sorted(builder_names, key=lambda enum: enum.__name__)
    quantized = quantized_by_original(enums)
    lists = dict(CATEGORY_LISTS)
    records = {
        enum.__name__: enum_record(enum, builder_names[enum], exact_sizes, quantized, lists, strict=strict)
        for enum in enums
    }
    return {
        "schema": 1,
        "namespace": "torchvision",
        "generated_from": f"torchvision {torchvision.__version__.partition('+')[0]}",
        "categories": {name: list(lists[name]) for name in sorted(lists)},
        "enums": records,
    }


def _known(answer: Callable[[], _T], *, strict: bool) -> _T | None:
    """Return an answer; where it is not known, None, or the ValueError that says so."""
    try:
        return answer()
    except (ValueError, TypeError, KeyError):
        if strict:
            raise
        return None


def enum_record(
    enum: Any,
    builder_name: str,
    exact_sizes: Mapping[str, int],
    quantized: Mapping[str, Sequence[str]],
    lists: dict[str, Sequence[str]],
    *,
    strict: bool,
) -> dict[str, Json]:
    """One enum, its members included. New lists of categories are added to ``lists``, unless it is strict."""

    def task_of(member: Any) -> str:
        return task(enum.__module__, transforms_class(member.transforms).__name__)

    tasks = {_known(functools.partial(task_of, member), strict=strict) or "" for member in enum}
    if strict and len(tasks) != 1:
        raise ValueError(f"{enum.__name__} has members for different tasks: {sorted(tasks)}")
    record: dict[str, Json] = {
        "builder": builder_name,
        "module": enum.__module__,
        "task": max(tasks),
        "default": enum.DEFAULT.name if strict or hasattr(enum, "DEFAULT") else None,
        "legacy": _known(lambda: legacy(get_model_builder(builder_name)), strict=strict) or {},
    }
    if names := aliases(enum):
        record["aliases"] = names
    record["entries"] = {
        member.name: entry_record(
            member,
            published_size=exact_sizes.get(member.url),
            quantized=quantized.get(weights_name(member), ()),
            lists=lists,
            strict=strict,
        )
        for member in enum
    }
    return record


def entry_record(
    member: Any,
    *,
    published_size: int | None,
    quantized: Sequence[str],
    lists: dict[str, Sequence[str]],
    strict: bool,
) -> dict[str, Json]:
    """One member of an enum: everything that TorchVision declares of it."""
    meta: Meta = member.meta
    size, is_exact = _known(lambda: size_bytes(meta["_file_size"], published_size), strict=strict) or (None, False)
    categories = meta.get("categories")
    if not strict and categories is not None and list(categories) not in map(list, lists.values()):
        lists[f"list-{len(lists)}"] = list(categories)
    record: dict[str, Json] = {
        "source": member.url,
        "pin": pin(member.url),
        "size": size,
        "size_exact": is_exact,
        "licence": _known(lambda: spdx_licence(meta.get("license")), strict=strict),
        "licence_url": meta.get("license"),
        "recipe": meta.get("recipe"),
        "metrics": _known(lambda: metrics(meta["_metrics"]), strict=strict) or {},
        "min_size": meta.get("min_size"),
        "num_params": _known(lambda: meta["num_params"], strict=strict),
        "gops": _known(lambda: meta["_ops"], strict=strict),
        "categories": categories_id(categories, lists),
        "transforms": _known(lambda: transforms_spec(member.transforms), strict=strict),
        "doc": " ".join(str(meta["_docs"] if strict else meta.get("_docs", "")).split()),
        "extra": _known(lambda: extra(meta), strict=strict) or {},
    }
    record |= {key: meta[key] for key in ("backend", "keypoint_names") if key in meta}
    if "unquantized" in meta:
        record["unquantized"] = weights_name(meta["unquantized"])
    if quantized:
        record["quantized"] = quantized
    return record


def weights_name(member: Any) -> str:
    """``ResNet50_Weights.IMAGENET1K_V2``"""
    return f"{type(member).__name__}.{member.name}"


def aliases(enum: Any) -> dict[str, str]:
    """Second names of members, without DEFAULT, which has its own field."""
    return {name: member.name for name, member in enum.__members__.items() if name not in (member.name, "DEFAULT")}


def quantized_by_original(enums: Sequence[Any]) -> dict[str, list[str]]:
    """The weights names quantized from each weights name, in alphabetical order."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for member in (member for enum in enums for member in enum):
        if "unquantized" in member.meta:
            found[weights_name(member.meta["unquantized"])].append(weights_name(member))
    return {original: sorted(names) for original, names in found.items()}


def task(module: str, transforms_class_name: str) -> str:
    """What the models of this module do. ValueError for a preset or a detection module that is new."""
    last = module.rpartition(".")[2]
    found = (
        TASK_OF_DETECTION_MODULE.get(last)
        if transforms_class_name == "ObjectDetection"
        else TASK_OF_TRANSFORMS.get(transforms_class_name)
    )
    if found is None:
        raise ValueError(f"no task known for {module} with the transforms {transforms_class_name}")
    return found


def pin(url: str) -> str | None:
    """The prefix of the SHA-256 digest in the file name, None without one.

    The rule is torch.hub's ``-<hex>.`` from eight digits on, and the ``_<hex8>.pth`` of four quantized files.
    """
    file_name = url.rpartition("/")[2]
    found = re.search(r"-([0-9a-f]{8,})\.", file_name) or re.search(r"_([0-9a-f]{8})\.pth$", file_name)
    return found[1] if found else None


def size_bytes(declared_mib: float, published: int | None) -> tuple[int, bool]:
    """The size in bytes and whether it is exact, that is: published, and agreeing with the declared one."""
    if published is not None and math.isclose(published / MIB, declared_mib, rel_tol=0, abs_tol=MIB_ROUNDING):
        return published, True
    return round(declared_mib * MIB), False


def spdx_licence(url: str | None) -> str | None:
    """The SPDX identifier of a licence text. ValueError for a URL that nobody has read yet."""
    if url is None:
        return None
    if url not in SPDX_OF_LICENCE_URL:
        raise ValueError(f"which licence is {url}? Read it and add it to SPDX_OF_LICENCE_URL")
    return SPDX_OF_LICENCE_URL[url]


def metrics(declared: Mapping[str, Mapping[str, float]]) -> dict[str, Json]:
    """Data set to metric to value, NaN as None: JSON has no NaN."""
    return {
        data_set: {name: None if math.isnan(value) else value for name, value in values.items()}
        for data_set, values in declared.items()
    }


def categories_id(categories: Sequence[str] | None, lists: Mapping[str, Sequence[str]] = CATEGORY_LISTS) -> str | None:
    """The name under which the catalog lists these categories. ValueError for a new list."""
    if categories is None:
        return None
    for name, known in lists.items():
        if list(categories) == list(known):
            return name
    raise ValueError(f"{len(categories)} new categories from {categories[0]!r} on: name them in CATEGORY_LISTS")


def extra(meta: Meta) -> dict[str, Json]:
    """What the other fields do not hold: unknown keys, and None where TorchVision says None explicitly.

    ValueError for a value that would not come back from JSON as it is.
    """
    rest = {key: value for key, value in meta.items() if key not in META_KEYS_WITH_A_FIELD or value is None}
    for key, value in rest.items():
        if not survives_json(value):
            raise ValueError(f"meta key {key!r} cannot be recorded as JSON: {value!r}")
    return rest


def survives_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def transforms_class(transforms: Any) -> type:
    """The preset behind the ``transforms`` of a member: a class or a partial of one, as ours, too, in a stand-in."""
    found = transforms.func if isinstance(transforms, functools.partial | Transforms) else transforms
    if not isinstance(found, type):
        raise TypeError(f"transforms that are not a class: {found!r}")
    return found


def transforms_spec(transforms: Any) -> dict[str, Json]:
    """The preset's class and keyword arguments. ValueError for what the schema cannot tell apart or hold."""
    preset = transforms_class(transforms)
    keywords: Mapping[str, Any] = {}
    if isinstance(transforms, functools.partial):
        if transforms.args:
            raise ValueError(f"transforms with positional arguments: {transforms!r}")
        if not transforms.keywords:
            raise ValueError(f"a partial without arguments cannot be told from its class: {transforms!r}")
        keywords = transforms.keywords
    elif isinstance(transforms, Transforms):
        keywords = transforms.keywords
    return {
        "class": f"{preset.__module__}.{preset.__qualname__}",
        "kwargs": {name: argument_spec(value) for name, value in keywords.items()},
    }


def argument_spec(value: Any) -> Json:
    """One keyword argument of a preset: enum members by their public name, tuples as lists."""
    match value:
        case InterpolationMode():
            return {"$enum": f"torchvision.transforms.InterpolationMode.{value.name}"}
        case tuple():
            return [argument_spec(item) for item in value]
        case bool() | int() | float() | str() | None:
            return value
    raise ValueError(f"no JSON for the transforms argument {value!r}")


def legacy(builder: Callable[..., Any]) -> dict[str, Json]:
    """Each ``weights`` parameter's deprecated form and what it stood for; empty without such an interface."""
    return {
        parameter: legacy_parameter(deprecated, default)
        for parameter, (deprecated, default) in legacy_interface(builder).items()
    }


def legacy_interface(builder: Callable[..., Any]) -> Mapping[str, tuple[str, Any]]:
    """The keyword arguments of the builder's ``handle_legacy_interface``, out of the decorator's closure."""
    for function in unwrapped(builder):
        if function.__code__.co_qualname.startswith("handle_legacy_interface."):
            interface: Mapping[str, tuple[str, Any]] = inspect.getclosurevars(function).nonlocals["weights"]
            return interface
    return {}


def unwrapped(function: Any) -> Iterator[Any]:
    """The function, then what it wraps, from the outside in."""
    yield function
    while (function := getattr(function, "__wrapped__", None)) is not None:
        yield function


def legacy_parameter(deprecated: str, default: Any) -> dict[str, Json]:
    """One parameter of it; a default that depends on the call is asked in each known case."""
    if not callable(default):
        return {"parameter": deprecated, "default": weights_name_or_none(default)}
    usual = weights_name_or_none(default({deprecated: True}))
    special = {
        "default_quantized": weights_name_or_none(default({deprecated: True, "quantize": True})),
        "default_legacy": weights_name_or_none(default({deprecated: "legacy"})),
    }
    return {
        "parameter": deprecated,
        "default": usual,
        **{case: name for case, name in special.items() if name != usual},
    }


def weights_name_or_none(member: Any) -> str | None:
    return None if member is None else weights_name(member)
