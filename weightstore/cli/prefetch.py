"""``weightstore prefetch``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightstore.cli.options import Bytes, LocalPath, WeightsName, command_with_example, shared_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weightstore.batch import Item, Plan
    from weightstore.cli.settings import Settings
    from weightstore.client import Client


@command_with_example(
    example="""
weightstore prefetch resnet50 'ViT_*_Weights.*'
weightstore prefetch --task detection --dry-run
weightstore prefetch https://example.org/model.pth#sha256=0123abcd…
weightstore prefetch --locked weights.lock --json
""",
)
@click.argument("names", nargs=-1, type=WeightsName(), metavar="[NAME|GLOB|URL|PATH]...")
@click.option(
    "--locked",
    type=LocalPath(),
    metavar="FILE",
    help="Fetch everything that a lockfile names, by full digest.",
)
@click.option("--task", metavar="TASK", help="The default weights of every model of a task, such as detection.")
@click.option("--all", "everything", is_flag=True, help="Everything that the catalogs know.")
@click.option("--sha256", metavar="HEX", help="The digest of the one file that is asked for.")
@click.option("-j", "--jobs", type=click.IntRange(1), metavar="N", help="So many files side by side.")
@click.option("--max-size", type=Bytes(), metavar="SIZE", help="Refuse files larger than this, such as 2GB.")
@click.option("-n", "--dry-run", is_flag=True, help="Print the plan and fetch nothing.")
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def command(
    settings: Settings,
    *,
    names: tuple[str, ...],
    locked: Path | None,
    task: str | None,
    everything: bool,
    sha256: str | None,
    jobs: int | None,
    max_size: int | None,
    dry_run: bool,
) -> None:
    """Fetch weights that are not in any store yet, each verified before it gets its name.

    NAMEs are weights names (ResNet50_Weights.IMAGENET1K_V2, resnet50), globs, URLs and paths. A download that was
    interrupted goes on where it stopped. The exit code is that of the worst failure.
    """
    from weightstore.cli.fetching import as_json, exit_code, fetch

    if not names and locked is None and task is None and not everything:
        raise click.UsageError("Nothing to fetch. Give names, --task, --all or --locked FILE.")
    client = settings.client(**({} if max_size is None else {"max_size": max_size}))
    lockfile = None
    if locked is not None:
        from weightstore.catalog.lockfile import Lockfile

        lockfile = Lockfile.read(locked)
    wanted = client.gather(names, task=task, everything=everything, sha256=sha256, lockfile=lockfile)
    plan = client.plan(wanted, asking=dry_run)
    if dry_run:
        print_plan(plan, settings=settings, client=client)
        click.get_current_context().exit(foreseen(plan, client=client))
    report = fetch(plan, settings=settings, client=client, jobs=jobs)
    if settings.json:
        settings.print_json(as_json(report))
    click.get_current_context().exit(exit_code(report))


def foreseen(plan: Plan, *, client: Client) -> int:
    """Return the exit code that carrying a plan out is bound to end with, as far as it is known beforehand; else 0."""
    from weightstore.errors import NoSpace  # start-up: not for --help

    if not client.config.offline and plan.free is not None and plan.bytes_to_fetch > plan.free:
        return NoSpace.exit_code
    refusals = [error for item in plan.missing if (error := client.obtainer.refusal(item.wanted)) is not None]
    return max((error.exit_code for error in refusals), default=0)


def print_plan(
    plan: Plan,
    *,
    settings: Settings,
    client: Client,
    more: Mapping[str, object] | None = None,
    left_out: bool = False,
) -> None:
    """Print what a plan would do; ``more`` stands in the JSON object as well. It is not all where some is left out."""
    if settings.json:
        settings.print_json(
            {
                "dry_run": True,
                "home": str(client.config.home),
                "items": [_item_as_json(item) for item in plan.items],
                "bytes_to_fetch": plan.bytes_to_fetch,
                "sizes_unknown": plan.sizes_unknown,
                "free_bytes": plan.free,
                **(more or {}),
            }
        )
        return
    from weightstore.cli import units
    from weightstore.cli.fetching import announcement
    from weightstore.cli.table import Cell, Column, print_table

    columns = [
        Column("NAME", flexible=True),
        Column("SIZE", right=True),
        Column("WHAT", drop=1),
        Column("FROM", drop=2),
    ]
    rows = []
    for item in plan.items:
        what, place = _what(item, client)
        size = Cell(units.size(item.size), str("" if item.size is None else item.size))
        rows.append([Cell(item.wanted.name), size, Cell(what), Cell(place)])
    print_table(columns, rows)
    for line in _vouched(plan):
        settings.say(line)
    nothing = "nothing to fetch" if left_out else "nothing to fetch: all of it is here"
    settings.say(announcement(plan, client=client) if plan.missing else nothing)
    if plan.free is not None and plan.bytes_to_fetch > plan.free:
        settings.say(f"note: it will not fit: {units.size(plan.bytes_to_fetch - plan.free)} are missing")


def _vouched(plan: Plan) -> list[str]:
    """Return whose word is believed of which weights, a line for each signed index."""
    names: dict[str, list[str]] = {}
    for item in plan.items:
        word = item.word
        if word is not None and word.expires is not None:
            place = f"the signed index of mirror {word.mirror}" if word.mirror else "a signed index read earlier"
            until = word.expires.strftime("%Y-%m-%d %H:%M UTC")
            names.setdefault(f"{place}, signed by {word.signer}, valid until {until}", []).append(item.wanted.name)
    return [f"known by {whose}: {', '.join(told)}" for whose, told in names.items()]


def _what(item: Item, client: Client) -> tuple[str, str]:
    from weightstore.cli.fetching import may_fetch

    if item.obtained is not None:
        return "present", item.obtained.place
    if not may_fetch(item, client):
        return "missing", "nowhere: offline"
    return "fetch", item.sources[0] if item.sources else "nowhere"


def _item_as_json(item: Item) -> dict[str, object]:
    from weightstore.cli.why import word_as_json

    return {
        "names": list(item.names),
        "source": item.wanted.source.display,
        "status": "present" if item.obtained else "missing",
        "digest": str(item.digest) if item.digest else None,
        "pin": str(item.wanted.pin),
        "size_bytes": item.size,
        "path": str(item.obtained.path) if item.obtained else None,
        "sources": list(item.sources),
        "known_by": item.known_by,
        "signed": word_as_json(item.word),
    }
