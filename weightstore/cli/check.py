"""``weightstore check``."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import LocalPath, command_with_example, shared_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from weightstore.cli.settings import Settings
    from weightstore.interop.checking import Checked


@command_with_example(
    example="""
weightstore check weights.lock || exit
weightstore check weights.lock --json
weightstore prefetch --locked weights.lock
""",
)
@click.argument("lockfiles", nargs=-1, required=True, type=LocalPath(), metavar="LOCKFILE...")
@click.option("--rehash", is_flag=True, help="Hash every file, whatever is remembered of it.")
@shared_options("home", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, lockfiles: tuple[Path, ...], rehash: bool) -> None:
    """Prove that all of a lockfile is present, verified and readable by you, before a job needs it.

    Opens no network connection and changes no store. A file that was verified before and has not changed since is not
    hashed again. Exits with 4 when something is absent, with 5 when something is damaged, and with 8 when something
    cannot be read: with the largest of these.
    """
    from weightstore.catalog.lockfile import Lockfile
    from weightstore.interop.checking import EXIT_CODES, check

    read = [(place, Lockfile.read(place)) for place in lockfiles]
    config = settings.config()

    def watch(total: int) -> AbstractContextManager[Callable[[int], None]]:
        return _watched(settings, total)

    checked: list[tuple[Path, Checked]] = []
    for place, lockfile in read:
        found = check(lockfile, config=config, rehash=rehash, note=settings.note, watch=watch)
        checked += [(place, one) for one in found]
    code = max((EXIT_CODES[one.status] for _, one in checked), default=0)
    if settings.json:
        counts = {name.replace("-", "_"): sum(one.status == name for _, one in checked) for name in EXIT_CODES}
        settings.print_json({"entries": [_as_json(*one) for one in checked], **counts, "exit_code": code})
    elif not settings.quiet:
        _print(checked)
    _tell(checked, settings)
    click.get_current_context().exit(code)


@contextmanager
def _watched(settings: Settings, total: int) -> Iterator[Callable[[int], None]]:
    from weightstore.cli.interrupt import interruptible  # start-up: not where receipts say enough
    from weightstore.cli.progress import hashing_progress
    from weightstore.errors import Cancelled

    with interruptible() as stop, hashing_progress(settings, total, "checking") as advance:

        def on_bytes(size: int) -> None:
            if stop.is_set():
                raise Cancelled
            advance(size)

        yield on_bytes


def _print(checked: Sequence[tuple[Path, Checked]]) -> None:
    from weightstore.cli.table import Cell, Column, print_table

    columns = [
        Column("STATUS"),
        Column("NAME", flexible=True),
        Column("SIZE", right=True),
        Column("LAYER", drop=2),
        Column("ASKED BY", drop=1),
    ]
    rows = [
        [
            Cell(one.status),
            Cell(one.locked.name),
            Cell(units.size(one.locked.size), str(one.locked.size)),
            Cell(one.layer or "-", one.layer),
            Cell(one.locked.asked_by),
        ]
        for _, one in checked
    ]
    if not any(one.locked.asked_by for _, one in checked):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    if rows:
        print_table(columns, rows)


def _tell(checked: Sequence[tuple[Path, Checked]], settings: Settings) -> None:
    """Tell each problem in a line, and what to do about them; or that there are none."""
    bad = [(place, one) for place, one in checked if not one.is_present]
    for _, one in bad:
        where = f" in {one.layer}" if one.layer else f" ({one.locked.digest})"
        detail = f": {one.detail}" if one.detail else ""
        settings.complain(f"{one.locked.name} is {_STATUS[one.status]}{where}{detail}")
    size = units.size(sum(one.locked.size for _, one in checked if one.is_present))
    if not bad:
        settings.say(f"{units.count(len(checked), 'file')}, {size}: all present, verified and readable")
        return
    settings.say(f"{len(checked) - len(bad)} of {units.count(len(checked), 'file')} present, {size}")
    if any(one.status == "unreadable" for _, one in bad):
        settings.say("Ask whoever owns the unreadable files for permission, or fetch copies of your own.")
    places = dict.fromkeys(shlex.quote(str(place)) for place, _ in bad)
    remedy = " && ".join(f"weightstore prefetch --locked {place}" for place in places)
    settings.say(f"Where there is internet, run: {remedy}")


_STATUS = {
    "absent": "absent from every store",
    "damaged": "damaged",
    "wrong-size": "of another size",
    "unreadable": "unreadable",
}


def _as_json(place: Path, checked: Checked) -> dict[str, object]:
    return {
        "name": checked.locked.name,
        "source": checked.locked.source.display,
        "digest": str(checked.locked.digest),
        "size_bytes": checked.locked.size,
        "status": checked.status,
        "layer": checked.layer or None,
        "path": str(checked.path) if checked.path else None,
        "asked_by": checked.locked.asked_by or None,
        "detail": checked.detail or None,
        "lockfile": str(place),
    }
