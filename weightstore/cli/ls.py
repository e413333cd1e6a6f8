"""``weightstore ls``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from weightstore.cli.options import command_with_example, shared_options

if TYPE_CHECKING:
    from weightstore.cli.settings import Settings
    from weightstore.client import Stored


@command_with_example(
    example="""
weightstore ls
weightstore ls --sort size --json
""",
)
@click.option("--full", is_flag=True, help="Digests in full.")
@click.option(
    "--sort",
    type=click.Choice(["name", "size", "used"]),
    default="name",
    show_default=True,
    help="Largest or most recently used first.",
)
@shared_options("home", "json")
@click.pass_obj
def command(settings: Settings, *, full: bool, sort: str) -> None:
    """List the blobs of the store and of all layers.

    In a pipe the lines are tab-separated, with sizes in bytes and nothing shortened.
    """
    client = settings.client()
    stored = _sorted(client.stored(), sort)
    if settings.json:
        settings.print_json({"home": str(client.config.home), "blobs": [_as_json(one) for one in stored]})
        return
    from weightstore.cli import units
    from weightstore.cli.table import Cell, Column, print_table

    if not stored:
        settings.say(f"nothing is stored in {client.config.home}. Find weights with: weightstore search")
        return
    columns = [
        Column("NAME", flexible=True),
        Column("SIZE", right=True),
        Column("DIGEST", drop=0 if full else 1),
        Column("LAST USED", right=True, drop=2),
        Column("LAYER", drop=3),
        Column("SOURCES", right=True, drop=4),
    ]
    now = time.time()
    rows = [
        [
            Cell(title_of(one)),
            Cell(units.size(one.size), str(one.size)),
            Cell(one.digest.hex if full else one.digest.hex[:12]),
            Cell(units.ago(now - one.last_used), _moment(one.last_used)),
            Cell(one.layer),
            Cell(str(len(one.refs))),
        ]
        for one in stored
    ]
    total = f"{units.count(len(stored), 'blob')}, {units.size(sum(one.size for one in stored))}"
    print_table(columns, rows, total=total)


def title_of(stored: Stored) -> str:
    """Return what to call a blob: its catalog name, else where it came from, else what the store's index calls it."""
    if not stored.names and not stored.refs and not stored.title:
        return "(no ref names it)"
    name = stored.names[0] if stored.names else stored.refs[0].source.display if stored.refs else stored.title
    return name if stored.made_from is None else f"{name} (safetensors)"


def _sorted(stored: list[Stored], sort: str) -> list[Stored]:
    if sort == "size":
        return sorted(stored, key=lambda one: -one.size)
    if sort == "used":
        return sorted(stored, key=lambda one: -one.last_used)
    return sorted(stored, key=lambda one: (title_of(one).lower(), one.layer))


def _moment(seconds: float) -> str:
    from datetime import UTC, datetime

    from weightstore.records import timestamp

    return timestamp(datetime.fromtimestamp(seconds, UTC))


def _as_json(stored: Stored) -> dict[str, object]:
    from weightstore.records import timestamp

    return {
        "digest": str(stored.digest),
        "size_bytes": stored.size,
        "layer": stored.layer,
        "path": str(stored.path),
        "names": list(stored.names),
        "title": stored.title or None,
        "made_from": str(stored.made_from) if stored.made_from else None,
        "last_used": _moment(stored.last_used),
        "sources": [
            {"source": ref.source.display, "seen_at": timestamp(ref.seen_at), "via": ref.via} for ref in stored.refs
        ],
    }
