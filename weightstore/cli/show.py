"""``weightstore show``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from weightstore.cli import units
from weightstore.cli.options import WeightsName, command_with_example, shared_options
from weightstore.source import parse_source

if TYPE_CHECKING:
    from weightstore.catalog.entries import Entry
    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.records import Wanted

_FEW = 8
_LINK = re.compile(r"`([^`<]+?)\s*<([^>`]+)>`_+")
_ROLE = re.compile(r":\w+:`([^`]+)`")


@command_with_example(
    example="""
weightstore show resnet50
weightstore show ResNet50_Weights.IMAGENET1K_V1 --categories all
weightstore show 'vit_*' --json
""",
)
@click.argument("names", nargs=-1, required=True, type=WeightsName(), metavar="NAME...")
@click.option("--categories", type=click.Choice(["few", "all"]), default="few", help="How many categories to list.")
@shared_options("home", "json")
@click.pass_obj
def command(settings: Settings, *, names: tuple[str, ...], categories: str) -> None:
    """Show what the catalog knows of weights, and whether they are stored. Needs no torch."""
    client = settings.client()
    entries = client.entries(names)
    if settings.json:
        settings.print_json({"weights": [_as_json(entry, client) for entry in entries]})
        return
    from weightstore.cli.table import print_facts

    for index, entry in enumerate(entries):
        if index:
            click.echo()
        click.echo(entry.name)
        print_facts(_facts(entry, client, all_categories=categories == "all"))


def _facts(entry: Entry, client: Client, *, all_categories: bool) -> list[tuple[str, str]]:
    legacy = entry.legacy.get("weights", {})
    related = entry.related
    return [
        ("catalog", entry.namespace),
        ("builder", entry.builder),
        ("default", f"yes: `{entry.builder}` alone means these weights" if entry.is_default else "no"),
        ("task", entry.task),
        ("about", _plain(entry.doc)),
        *_stored(entry, client),
        ("source", entry.source.display),
        *(("", other.display) for other in entry.alternatives),
        *(("shard" if number == 0 else "", _shown(shard)) for number, shard in enumerate(entry.shards)),
        ("pin", str(entry.pin)),
        ("size", size_of(entry)),
        ("licence", " ".join(one for one in (entry.licence, entry.licence_url) if one) or "not declared"),
        *_metrics(entry),
        ("parameters", f"{units.number(entry.num_params)} ({entry.num_params:,})" if entry.num_params else ""),
        ("GFLOPs", f"{entry.gops:g}" if entry.gops is not None else ""),
        ("smallest input", f"{entry.min_size[0]} x {entry.min_size[1]}" if entry.min_size else ""),
        *((name.replace("_", " "), str(value)) for name, value in related.get("extra", {}).items() if value),
        ("categories", _categories(entry, all_categories=all_categories)),
        ("keypoints", ", ".join(related.get("keypoint_names", ()))),
        ("transforms", transforms_of(entry)),
        ("recipe", entry.recipe or ""),
        ("backend", str(related.get("backend", ""))),
        ("unquantized", str(related.get("unquantized", ""))),
        ("quantized", ", ".join(related.get("quantized", ()))),
        ("legacy", f"{legacy['parameter']}=True meant {legacy['default']}" if legacy.get("default") else ""),
    ]


def size_of(entry: Entry) -> str:
    """Return an entry's size, and how well it is known."""
    if entry.size is None:
        return "not known"
    return (
        f"{units.size(entry.size)} ({entry.size:,} bytes)" if entry.size_is_exact else f"about {units.size(entry.size)}"
    )


def transforms_of(entry: Entry) -> str:
    """Return the preprocessing as the call that makes it: ``ImageClassification(crop_size=224)``."""
    if entry.transforms is None:
        return ""
    name, arguments = entry.transforms
    given = ", ".join(f"{key}={_argument(value)}" for key, value in arguments.items())
    return f"{name.rpartition('.')[2]}({given})"


def _argument(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"$enum"}:
        return ".".join(str(value["$enum"]).split(".")[-2:])
    if isinstance(value, list):
        return f"({', '.join(_argument(one) for one in value)})"
    return repr(value)


def _plain(doc: str) -> str:
    """Return a docstring's text without its reStructuredText: links become ``text (address)``, roles their names."""
    text = _LINK.sub(r"\1 (\2)", " ".join(doc.split()))
    return _ROLE.sub(lambda match: match[1].lstrip("~").rpartition(".")[2], text)


def _metrics(entry: Entry) -> list[tuple[str, str]]:
    return [
        (dataset, ", ".join(f"{name} {value:g}" for name, value in metrics.items() if value is not None))
        for dataset, metrics in entry.metrics.items()
    ]


def _categories(entry: Entry, *, all_categories: bool) -> str:
    names = entry.categories
    if not names:
        return ""
    if all_categories or len(names) <= _FEW:
        return f"{len(names)}: {', '.join(names)}"
    return f"{len(names)}: {', '.join(names[:_FEW])}, …"


def _stored(entry: Entry, client: Client) -> list[tuple[str, str]]:
    places = _places(entry, client)
    if len(places) == 1:
        return [("stored", places[0] or "no")]
    return [("stored", f"{sum(map(bool, places))} of {len(places)} files"), *(("", place) for place in places if place)]


def _places(entry: Entry, client: Client) -> list[str]:
    """Return where each file of an entry lies; an empty text where it is in no store."""
    return [_where(wanted, client) for wanted in entry.wants()]


def _shown(shard: str) -> str:
    return parse_source(shard)[0].display


def _where(wanted: Wanted, client: Client) -> str:
    located = client.obtainer.locate(wanted)
    if located.hit is None:
        return ""
    with located.hit.blob as blob:
        layer = "" if located.hit.layer.writable else f" (layer {located.hit.layer.root})"
        return f"{blob.path}{layer}"


def _as_json(entry: Entry, client: Client) -> dict[str, object]:
    return {
        "name": entry.name,
        "qualified_name": entry.qualified_name,
        "namespace": entry.namespace,
        "builder": entry.builder,
        "is_default": entry.is_default,
        "task": entry.task,
        "source": entry.source.display,
        "alternatives": [source.display for source in entry.alternatives],
        "pin": str(entry.pin),
        "size_bytes": entry.size,
        "size_is_exact": entry.size_is_exact,
        "licence": entry.licence,
        "licence_url": entry.licence_url,
        "recipe": entry.recipe,
        "metrics": {dataset: dict(metrics) for dataset, metrics in entry.metrics.items()},
        "num_params": entry.num_params,
        "gflops": entry.gops,
        "min_size": list(entry.min_size) if entry.min_size else None,
        "categories": list(entry.categories),
        "transforms": {"class": entry.transforms[0], "kwargs": dict(entry.transforms[1])} if entry.transforms else None,
        "doc": entry.doc,
        "legacy": dict(entry.legacy),
        "related": dict(entry.related),
        "shards": [_shown(shard) for shard in entry.shards],
        "path": None if entry.shards else _places(entry, client)[0] or None,
    }
