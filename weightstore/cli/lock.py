"""``weightstore lock``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import LocalPath, WeightsName, command_with_example, shared_options
from weightstore.errors import Drift, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightstore.catalog.lockfile import Lockfile
    from weightstore.cli.settings import Settings
    from weightstore.client import Client


@command_with_example(
    example="""
weightstore lock resnet50 'ViT_B_*_Weights.*'
weightstore lock --update
weightstore lock --check
weightstore prefetch --locked weights.lock
""",
)
@click.argument("names", nargs=-1, type=WeightsName(), metavar="[NAME|GLOB|URL]...")
@click.option(
    "-o",
    "--output",
    type=LocalPath(),
    default=Path("weights.lock"),
    show_default=True,
    metavar="FILE",
    help="The lockfile. What it locks already stays.",
)
@click.option(
    "--update", is_flag=True, help="Replace entries that say otherwise. Without NAMEs: lock all of them again."
)
@click.option("--check", is_flag=True, help="Write nothing: tell whether the lockfile agrees with the catalogs.")
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, names: tuple[str, ...], output: Path, update: bool, check: bool) -> None:
    """Write weights' full digests and sizes to a lockfile, to be checked in beside the code.

    Weights that are not stored yet are fetched first: a digest is known when the bytes are. With --check nothing is
    fetched or written, and an entry that has drifted from the catalog, or a NAME that is not locked, exits with 5.
    """
    from weightstore.catalog.lockfile import Lockfile

    client = settings.client()
    known = Lockfile.read(output) if output.exists() or check else Lockfile()
    if check:
        _check(client, known, names, output)
        _report(settings, known, output, "agrees with the catalogs")
        return
    chosen = names or (tuple(entry.name for entry in known.entries) if update else ())
    if not chosen:
        raise click.UsageError("Nothing to lock. Give names, or --update to lock everything in the lockfile again.")
    lockfile, what = lock_weights(chosen, known, output, settings=settings, client=client, update=update)
    _report(settings, lockfile, output, what)


def lock_weights(
    names: Sequence[str], known: Lockfile, output: Path, *, settings: Settings, client: Client, update: bool
) -> tuple[Lockfile, str]:
    """Fetch what is missing of some weights, and write them to a lockfile beside what is known; tell what was done.

    Ends the command where something cannot be fetched: then nothing is written.
    """
    if not output.parent.is_dir():  # found now, and not when all has been fetched
        raise InvalidInput(f"{output}: there is no directory to write it to")
    from weightstore.cli.fetching import exit_code, fetch

    report = fetch(client.plan(client.gather(names)), settings=settings, client=client)
    if code := exit_code(report):
        settings.complain(f"{output} was not written")
        click.get_current_context().exit(code)
    lockfile = known.merge(client.lock(report), update=update, place=str(output))
    if lockfile == known and output.exists():
        return lockfile, "unchanged"
    lockfile.write(output)
    return lockfile, "written"


def _check(client: Client, lockfile: Lockfile, names: tuple[str, ...], place: Path) -> None:
    client.check_drift(lockfile)
    locked = {entry.source.key for entry in lockfile.entries}
    for wanted in client.gather(names):
        if wanted.source.key not in locked:
            raise Drift(
                name=wanted.name,
                recorded=f"nothing in {place}",
                found=str(wanted.source),
                remedy=f"Lock it: weightstore lock -o {place} '{wanted.name}'",
            )


def _report(settings: Settings, lockfile: Lockfile, output: Path, what: str) -> None:
    if settings.json:
        settings.print_json(
            {
                "lockfile": str(output),
                "result": what,
                "entries": [
                    {
                        "name": entry.name,
                        "source": entry.source.display,
                        "digest": str(entry.digest),
                        "size_bytes": entry.size,
                        "asked_by": entry.asked_by or None,
                        "commit": entry.commit or None,
                    }
                    for entry in lockfile.entries
                ],
            }
        )
        return
    settings.say(told(lockfile, output, what))


def told(lockfile: Lockfile, output: Path, what: str) -> str:
    """Return what became of a lockfile, in one line."""
    size = units.size(sum(entry.size for entry in lockfile.entries))
    entries = f"{len(lockfile.entries)} entries" if len(lockfile.entries) != 1 else "1 entry"
    return f"{output}: {what}, {entries}, {size}"
