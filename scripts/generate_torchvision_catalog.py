"""Prints the catalog of TorchVision's weights as JSON, read from the installed TorchVision.

Run it after each TorchVision release, where torch and torchvision are installed::

    python scripts/generate_torchvision_catalog.py -o weightstore/catalog/torchvision.json
    python scripts/generate_torchvision_catalog.py --check weightstore/catalog/torchvision.json

The same TorchVision always gives the same bytes: one line per weights entry, enums in alphabetical order, the
members of an enum in TorchVision's order (which is the order in which the enum iterates).

What the file means where its names do not say it:

* ``size`` is in bytes. TorchVision declares MiB rounded to three decimals (``_file_size``), so most sizes are
  known to about 500 bytes only: ``size_exact`` is false there. The exact ones stand in
  ``torchvision_exact_sizes.json`` beside this script: sizes that public projects publish for these URLs, kept
  only where they agree with TorchVision's own declaration within its rounding. One that stops agreeing is
  ignored here, and a test asks to remove it.
* ``pin`` is the hexadecimal number at the end of the file name. Four of the quantized files write it after
  ``_``, where torch.hub never compared it with the bytes.
* A metric is null where TorchVision declares NaN (the ``IMAGENET1K_FEATURES`` of VGG16 cannot classify).
* ``extra`` is the rest of the meta, verbatim, and with it each key that TorchVision sets to None: a field
  that is null without being in ``extra`` is one whose key is absent.
* ``transforms`` without ``kwargs`` is the bare class, otherwise a ``functools.partial`` of it.
* ``legacy`` is what the parameter's deprecated form brings when it is true: ``default_quantized`` with
  ``quantize=True``, ``default_legacy`` with ``pretrained="legacy"``, both only where they differ from
  ``default``.
"""

import argparse
import functools
import inspect
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torchvision  # type: ignore[import-untyped]
from torchvision.models import (  # type: ignore[import-untyped]
    get_model_builder,
    get_model_weights,
    list_models,
)
from torchvision.models._meta import (  # type: ignore[import-untyped]
    _COCO_CATEGORIES,
    _COCO_PERSON_CATEGORIES,
    _IMAGENET_CATEGORIES,
    _KINETICS400_CATEGORIES,
    _VOC_CATEGORIES,
)
from torchvision.transforms import InterpolationMode  # type: ignore[import-untyped]

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
Meta: TypeAlias = Mapping[str, Any]

EXACT_SIZES_FILE = Path(__file__).with_name("torchvision_exact_sizes.json")

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

LINES_OF_DIFFERENCES = 20


def catalog(exact_sizes: Mapping[str, int]) -> dict[str, Json]:
    """The whole document. ``exact_sizes``: URL to bytes."""
    builder_names = {get_model_weights(name): name for name in list_models()}
    if len(builder_names) != len(list_models()):
        raise ValueError("two models share one weights enum: the catalog's schema has room for one builder")
    enums = sorted(builder_names, key=lambda enum: enum.__name__)
    quantized = quantized_by_original(enums)
    return {
        "schema": 1,
        "namespace": "torchvision",
        "generated_from": f"torchvision {torchvision.__version__.partition('+')[0]}",
        "categories": {name: list(CATEGORY_LISTS[name]) for name in sorted(CATEGORY_LISTS)},
        "enums": {enum.__name__: enum_record(enum, builder_names[enum], exact_sizes, quantized) for enum in enums},
    }


def enum_record(
    enum: Any, builder_name: str, exact_sizes: Mapping[str, int], quantized: Mapping[str, Sequence[str]]
) -> dict[str, Json]:
    """One enum, its members included."""
    tasks = {task(enum.__module__, transforms_class(member.transforms).__name__) for member in enum}
    if len(tasks) != 1:
        raise ValueError(f"{enum.__name__} has members for different tasks: {sorted(tasks)}")
    record: dict[str, Json] = {
        "builder": builder_name,
        "module": enum.__module__,
        "task": tasks.pop(),
        "default": enum.DEFAULT.name,
        "legacy": legacy(get_model_builder(builder_name)),
    }
    if names := aliases(enum):
        record["aliases"] = names
    record["entries"] = {
        member.name: entry_record(
            member,
            published_size=exact_sizes.get(member.url),
            quantized=quantized.get(weights_name(member), ()),
        )
        for member in enum
    }
    return record


def entry_record(member: Any, *, published_size: int | None, quantized: Sequence[str]) -> dict[str, Json]:
    """One member of an enum: everything that TorchVision declares of it."""
    meta: Meta = member.meta
    size, is_exact = size_bytes(meta["_file_size"], published_size)
    record: dict[str, Json] = {
        "source": member.url,
        "pin": pin(member.url),
        "size": size,
        "size_exact": is_exact,
        "licence": spdx_licence(meta.get("license")),
        "licence_url": meta.get("license"),
        "recipe": meta.get("recipe"),
        "metrics": metrics(meta["_metrics"]),
        "min_size": meta.get("min_size"),
        "num_params": meta["num_params"],
        "gops": meta["_ops"],
        "categories": categories_id(meta.get("categories")),
        "transforms": transforms_spec(member.transforms),
        "doc": " ".join(meta["_docs"].split()),
        "extra": extra(meta),
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


def categories_id(categories: Sequence[str] | None) -> str | None:
    """The name under which the catalog lists these categories. ValueError for a new list."""
    if categories is None:
        return None
    for name, known in CATEGORY_LISTS.items():
        if categories == known:
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
    """The preset behind the ``transforms`` of a member, which is a class or a partial of one."""
    found = transforms.func if isinstance(transforms, functools.partial) else transforms
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


def render(value: Json, depth: int = 0) -> str:
    """JSON text with the document's own levels spread over lines: each weights entry and list is one line."""
    if not isinstance(value, Mapping) or not value or depth == 4:
        return json.dumps(value, allow_nan=False, sort_keys=True)
    indent = " " * depth
    lines = (f"{indent} {json.dumps(key)}: {render(item, depth + 1)}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def differences(old: Json, new: Json, path: str = "") -> Iterator[str]:
    """A line for each place where two documents differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{path}/{key}"
            if key not in new:
                yield f"- {place}"
            elif key not in old:
                yield f"+ {place}"
            else:
                yield from differences(old[key], new[key], place)
    elif old != new:
        yield f"~ {path}: {shortened(old)} -> {shortened(new)}"


def shortened(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def summary(old_text: str, new_text: str) -> list[str]:
    """The differences between two renderings for a person to read; empty if there are none."""
    if old_text == new_text:
        return []
    try:
        found = list(differences(json.loads(old_text), json.loads(new_text)))
    except json.JSONDecodeError as error:
        return [f"not a JSON document: {error}"]
    if not found:
        return ["same content in another order or layout"]
    more = len(found) - LINES_OF_DIFFERENCES
    return found[:LINES_OF_DIFFERENCES] + ([f"and {more} more"] if more > 0 else [])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generates the catalog of TorchVision's weights.")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it to FILE")
    target.add_argument("--check", type=Path, metavar="FILE", help="exit with 1 if FILE differs, and say where")
    arguments = parser.parse_args(argv)

    text = render(catalog(json.loads(EXACT_SIZES_FILE.read_text(encoding="utf-8")))) + "\n"
    if arguments.check:
        found = summary(arguments.check.read_text(encoding="utf-8"), text)
        if found:
            print(f"{arguments.check} is not what the installed TorchVision gives:", *found, sep="\n")
            return 1
    elif arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
