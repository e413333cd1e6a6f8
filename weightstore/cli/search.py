"""``weightstore search``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import command_with_example, shared_options
from weightstore.errors import InvalidQuery

if TYPE_CHECKING:
    from weightstore.catalog.entries import Entry
    from weightstore.cli.settings import Settings
    from weightstore.cli.table import Cell

# Columns that the table has anyway.
_SHOWN = {"name", "enum", "builder", "task", "size", "params", "gflops", "namespace", "default", "quantized"}


@command_with_example(
    example="""
weightstore search 'acc@1>80 size<100MB task=classification'
weightstore search task=detection --sort box_map --limit 3
weightstore search licence=unknown mobilenet --sort size
""",
)
@click.argument("query", nargs=-1)
@click.option("--sort", metavar="FIELD", help="Best first by a field or metric; -FIELD turns it round.")
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="The first N only.")
@shared_options("json")
@click.pass_obj
def command(settings: Settings, *, query: tuple[str, ...], sort: str | None, limit: int | None) -> None:
    """Find weights in the catalogs. All conditions must hold; without any, everything is listed.

    A condition is a field, one of = != < <= > >= ~ and a value, without blanks. Fields are the metrics (acc@1,
    box_map, miou, …), size, params, gflops, classes, name, builder, task, licence, dataset, backend, default and
    quantized. A word by itself is looked for in the name.
    """
    from weightstore.catalog.query import parse_query, search

    text = " ".join(query)
    if "://" in text:  # and not shown: it may carry a password
        raise InvalidQuery("a URL is not searched for. Give conditions like acc@1>80, or words of a name")
    client = settings.client()
    entries = [entry for catalog in client.catalogs.all() for entry in catalog.entries()]
    found = search(entries, text, sort=sort)
    shown = found[:limit]
    if settings.json:
        settings.print_json({"query": text, "matches": len(found), "weights": [_as_json(entry) for entry in shown]})
        return
    if not found:
        settings.say("no weights match")
        return
    from weightstore.cli.table import Column, print_table

    asked = [condition.field for condition in parse_query(text)] + ([sort.lower().removeprefix("-")] if sort else [])
    more = [name for name in dict.fromkeys(asked) if name not in _SHOWN and not _is_metric(name, entries)]
    metrics = [name for name in dict.fromkeys(asked) if _is_metric(name, entries)]
    columns = [
        Column("NAME", flexible=True),
        *(Column(name.upper(), right=True, drop=1) for name in metrics),
        *([] if metrics else [Column("METRIC", right=True, drop=3)]),
        Column("SIZE", right=True, drop=2),
        Column("PARAMS", right=True, drop=4),
        Column("GFLOPS", right=True, drop=5),
        *(Column(name.upper(), drop=3) for name in more),
        Column("TASK", drop=6),
    ]
    rows = [_row(entry, metrics, more) for entry in shown]
    hidden = f", {len(shown)} shown" if len(shown) < len(found) else ""
    print_table(columns, rows, total=f"{len(found)} of {len(entries)} weights match{hidden}" if text else "")


def _is_metric(name: str, entries: list[Entry]) -> bool:
    return any(entry.metric(name) is not None for entry in entries)


def _row(entry: Entry, metrics: list[str], more: list[str]) -> list[Cell]:
    from weightstore.cli.table import Cell

    about = "" if entry.size_is_exact or entry.size is None else "~"
    values = [entry.metric(name) for name in metrics]
    return [
        Cell(entry.name),
        *(Cell("" if value is None else f"{value:g}") for value in values),
        *([] if metrics else [Cell(_first_metric(entry))]),
        Cell(about + units.size(entry.size), str(entry.size or "")),
        Cell(units.number(entry.num_params), str(entry.num_params or "")),
        Cell("" if entry.gops is None else f"{entry.gops:g}"),
        *(Cell(_text(entry, name)) for name in more),
        Cell(entry.task),
    ]


def _first_metric(entry: Entry) -> str:
    for metrics in entry.metrics.values():
        for name, value in metrics.items():
            if value is not None:
                return f"{name} {value:g}"
    return ""


def _text(entry: Entry, name: str) -> str:
    if name in {"licence", "license"}:
        return entry.licence or "unknown"
    if name == "dataset":
        return ", ".join(entry.metrics)
    if name == "classes":
        return str(len(entry.categories) or "")
    return str(entry.related.get(name, ""))


def _as_json(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "qualified_name": entry.qualified_name,
        "builder": entry.builder,
        "task": entry.task,
        "is_default": entry.is_default,
        "size_bytes": entry.size,
        "size_is_exact": entry.size_is_exact,
        "num_params": entry.num_params,
        "gflops": entry.gops,
        "licence": entry.licence,
        "metrics": {dataset: dict(metrics) for dataset, metrics in entry.metrics.items()},
        "source": entry.source.display,
        "pin": str(entry.pin),
    }
