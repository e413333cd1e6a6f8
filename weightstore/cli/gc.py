"""``weightstore gc``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import Bytes, LocalPath, Seconds, command_with_example, shared_options
from weightstore.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from weightstore.cli.settings import Settings
    from weightstore.digest import Digest
    from weightstore.store.gc import Outcome

_RECEIPTS_S = 365 * 86400.0


@command_with_example(
    example="""
weightstore gc --dry-run
weightstore gc --max-size 50GB --keep weights.lock
""",
)
@click.option("-n", "--dry-run", is_flag=True, help="Print the plan and remove nothing.")
@click.option(
    "--grace",
    type=Seconds(),
    default="24h",
    show_default=True,
    metavar="TIME",
    help="Keep whatever was written or used within this time.",
)
@click.option("--max-size", type=Bytes(), metavar="SIZE", help="Then remove the least recently used beyond this size.")
@click.option(
    "--keep",
    type=LocalPath(),
    multiple=True,
    metavar="LOCKFILE",
    help="Keep everything that a lockfile names. May be repeated.",
)
@shared_options("home", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, dry_run: bool, grace: float, max_size: int | None, keep: tuple[Path, ...]) -> None:
    """Remove stray parts, what lay long in quarantine, and blobs that no recorded source, lockfile or index names.

    Removes exactly what --dry-run prints. Safe beside running downloads: what they write is left alone.
    """
    from weightstore.store.gc import Outcome, plan_removals, remove, take_inventory

    kept: frozenset[Digest] = frozenset().union(*(_locked(path) for path in keep))
    client = settings.client()
    layout = client.obtainer.layers()[-1].layout
    if layout is None:
        settings.say(f"there is no store at {client.config.home}")
        if settings.json:
            settings.print_json(_as_json([], dry_run=dry_run))
        return
    inventory = take_inventory(layout, client.receipts)
    plan = plan_removals(inventory, keep=kept, grace_s=grace, max_size=max_size)
    outcomes = [Outcome(removal) for removal in plan] if dry_run else remove(layout, plan)
    if not dry_run:
        client.receipts.sweep(older_than_s=_RECEIPTS_S)
    if settings.json:
        settings.print_json(_as_json(outcomes, dry_run=dry_run))
    else:
        _print(outcomes, settings, dry_run=dry_run)
    blobs = [one.removal.file.path for one in outcomes if one.removal.file.kind == "blob" and not one.problem]
    note_names_lost(settings, client.config.state, blobs)
    left = inventory.blob_bytes - sum(one.removal.file.size for one in outcomes if one.removal.file.kind == "blob")
    if max_size is not None and left > max_size:
        settings.say(f"note: {units.size(left)} remain: what is in use, locked or within the grace period stays")
    if any(outcome.problem for outcome in outcomes):
        click.get_current_context().exit(StoreError.exit_code)


def note_names_lost(settings: Settings, state: Path, blobs: Collection[Path]) -> None:
    """Tell of views whose names lead to blobs that are, or would be, removed."""
    from weightstore.interop.views.places import names_lost

    for root, count in names_lost(state, blobs).items():
        settings.note(f"{units.count(count, 'name')} of the view {root} without a blob: weightstore view check {root}")


def _locked(path: Path) -> frozenset[Digest]:
    from weightstore.catalog.lockfile import Lockfile

    return Lockfile.read(path).digests()


def _print(outcomes: Sequence[Outcome], settings: Settings, *, dry_run: bool) -> None:
    from weightstore.cli.table import Cell, Column, print_table

    columns = [
        Column("WHAT", flexible=True),
        Column("SIZE", right=True, drop=1),
        Column("WHY", drop=3),
        Column("KIND", drop=2),
    ]
    rows = []
    for outcome in outcomes:
        file = outcome.removal.file
        reason = f"kept: {outcome.problem}" if outcome.problem else outcome.removal.reason
        rows.append(
            [
                Cell(file.path.name[:12] if file.digest else file.path.name, str(file.path)),
                Cell(units.size(file.size), str(file.size)),
                Cell(reason),
                Cell(file.kind),
            ]
        )
    if rows:
        print_table(columns, rows)
    gone = [outcome for outcome in outcomes if not outcome.problem]
    size = units.size(sum(outcome.removal.file.size for outcome in gone))
    settings.say(f"{units.count(len(gone), 'file')}, {size} {'would be removed' if dry_run else 'removed'}")


def _as_json(outcomes: Sequence[Outcome], *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "removals": [
            {
                "kind": outcome.removal.file.kind,
                "path": str(outcome.removal.file.path),
                "digest": str(outcome.removal.file.digest) if outcome.removal.file.digest else None,
                "size_bytes": outcome.removal.file.size,
                "reason": outcome.removal.reason,
                "removed": not dry_run and not outcome.problem,
                "problem": outcome.problem,
            }
            for outcome in outcomes
        ],
        "bytes": sum(outcome.removal.file.size for outcome in outcomes if not outcome.problem),
    }
