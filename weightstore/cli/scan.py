"""``weightstore scan``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import LocalPath, command_with_example, shared_options

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.cli.settings import Settings
    from weightstore.interop.scan.findings import Finding, Scan


@command_with_example(
    example="""
weightstore scan train.py src/
weightstore scan train.py src/ --lock weights.lock
weightstore prefetch $(weightstore scan --names train.py)
""",
)
@click.argument("paths", nargs=-1, required=True, type=LocalPath(), metavar="FILE|DIR...")
@click.option(
    "-o", "--lock", type=LocalPath(), metavar="LOCKFILE", help="Lock what is found. What is locked already stays."
)
@click.option("--names", is_flag=True, help="Print only what can be given to prefetch, one a line.")
@click.option("--strict", is_flag=True, help="Exit with 1 when something is unresolved or does not parse.")
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, paths: tuple[Path, ...], lock: Path | None, names: bool, strict: bool) -> None:
    """Find the weights that Python code asks for, without running it.

    Reads Python files and notebooks, also those under directories. What is only known when the code runs, such as an
    argument of its command line, is listed as unresolved, with its place. With --lock what is found is fetched where it
    is not stored yet, and locked.
    """
    from weightstore.interop.scan.scanning import scan

    client = settings.client()
    found = scan(paths, catalogs=client.catalogs)
    if names and not settings.json:
        for target in found.targets:
            click.echo(target)
    elif not settings.json:
        _print(found)
    _tell(found, settings, names=names)
    if lock is not None and found.targets:
        from weightstore.catalog.lockfile import Lockfile
        from weightstore.cli.lock import lock_weights, told

        known = Lockfile.read(lock) if lock.exists() else Lockfile()
        lockfile, what = lock_weights(found.targets, known, lock, settings=settings, client=client, update=False)
        settings.say(told(lockfile, lock, what))
    if settings.json:
        settings.print_json(_as_json(found, lock))
    if strict and (found.unresolved or found.unread):
        click.get_current_context().exit(1)


def _print(found: Scan) -> None:
    """Print a table. In a pipe notes are a column; on a terminal there is no room, and they are told after it."""
    from weightstore.cli.table import Cell, Column, print_table
    from weightstore.cli.terminal import printable

    columns = [Column("WHERE"), Column("WEIGHTS", flexible=True), Column("CODE", drop=1), Column("NOTE")]
    rows = [
        [
            Cell(printable(str(one.place))),
            Cell(one.target or f"? {printable(one.note)}", one.target),
            Cell(printable(one.what)),
            Cell(printable(one.note)),
        ]
        for one in found.findings
    ]
    shown = len(columns) - sys.stdout.isatty()
    if rows:
        print_table(columns[:shown], [row[:shown] for row in rows])


def _tell(found: Scan, settings: Settings, *, names: bool) -> None:
    from weightstore.cli.terminal import printable

    for unread in found.unread:
        settings.note(printable(f"{unread.place}: {unread.reason}"))
    for one in found.findings:
        if not one.is_resolved and names:
            settings.note(printable(f"{one.place}: unresolved: {one.what}: {one.note}"))
        elif one.is_resolved and one.note and not names and not settings.json and sys.stdout.isatty():
            settings.note(printable(f"{one.place}: {one.note}"))
    told = f"{units.count(found.files, 'file')}: {units.count(len(found.targets), 'checkpoint')} found"
    settings.say(f"{told}, {len(found.unresolved)} unresolved")
    if found.unresolved:
        settings.say("A recorded run tells what is unresolved: weightstore run --record weights.lock -- python …")


def _as_json(found: Scan, lock: Path | None) -> dict[str, object]:
    return {
        "findings": [_finding_as_json(one) for one in found.findings],
        "targets": found.targets,
        "unresolved": len(found.unresolved),
        "unread": [{"place": one.place, "reason": one.reason} for one in found.unread],
        "files": found.files,
        "lockfile": str(lock) if lock is not None else None,
    }


def _finding_as_json(finding: Finding) -> dict[str, object]:
    return {
        "file": finding.place.file,
        "line": finding.place.line,
        "cell": finding.place.cell,
        "code": finding.what,
        "target": finding.target or None,
        "note": finding.note or None,
        "asked_by": finding.asked_by or None,
    }
