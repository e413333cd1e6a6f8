"""``weightstore bundle``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import Bytes, LocalPath, WeightsName, group_with_example, shared_options
from weightstore.errors import Cancelled, IntegrityError, InvalidBundle, InvalidInput, WeightStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from weightstore.catalog.lockfile import Lockfile
    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.cluster.bundle import Incoming
    from weightstore.cluster.index import IndexEntry
    from weightstore.cluster.packing import Created, Item


@group_with_example(
    example="""
weightstore have > have.json
weightstore bundle create --locked weights.lock --have have.json out.tar
weightstore bundle import --locked weights.lock out.tar
""",
)
def command() -> None:
    """Carry weights over an air gap, in one file or in volumes, and only those that the other side lacks."""


@command.command(
    "create",
    example="""
weightstore bundle create --locked weights.lock --have have.json out.tar
weightstore bundle create resnet50 'ViT_B_*' --volume-size 4GB out.tar
skopeo inspect --raw oci-archive:out.tar:ResNet50_Weights.IMAGENET1K_V2
""",
)
@click.argument("names", nargs=-1, type=WeightsName(), metavar="[NAME|GLOB|URL]...")
@click.argument("output", type=LocalPath(), metavar="OUTPUT")
@click.option(
    "--locked",
    type=LocalPath(),
    multiple=True,
    metavar="FILE",
    help="Everything that a lockfile locks. May be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="Everything in the store and its layers.")
@click.option("--have", "have_file", type=LocalPath(), metavar="FILE", help="Leave out what the other side has.")
@click.option(
    "--volume-size", type=Bytes(), metavar="SIZE", help="Write OUTPUT.001, OUTPUT.002, … of at most SIZE bytes each."
)
@shared_options("home", "json", "quiet")
@click.pass_obj
def create_command(
    settings: Settings,
    *,
    names: tuple[str, ...],
    output: Path,
    locked: tuple[Path, ...],
    everything: bool,
    have_file: Path | None,
    volume_size: int | None,
) -> None:
    """Write stored weights into a bundle: an OCI image layout in a tar file.

    Nothing is fetched: what is not stored here is an error. Every byte is hashed on its way, and a damaged blob fails
    the bundle. Equal content gives equal bytes. Volumes are pieces of the one file: `cat OUTPUT.*` puts them together.
    """
    from weightstore.cli.interrupt import interruptible
    from weightstore.cli.progress import hashing_progress
    from weightstore.cluster.have import Have
    from weightstore.cluster.packing import create

    if everything and (names or locked):
        raise click.UsageError("--all is everything: give no NAMEs and no --locked with it.")
    if not (everything or names or locked):
        raise click.UsageError("Nothing to bundle. Give NAMEs, --locked FILE, or --all.")
    if volume_size is not None and volume_size < 1024:
        raise click.UsageError("A volume has at least 1024 bytes.")
    if str(output) == "-":
        raise InvalidInput("a bundle is written to a file, which gets its name when it is whole. For a file - give ./-")
    have = Have.read(have_file) if have_file is not None else None
    client = settings.client(offline=True)
    items = _chosen(client, settings, names, locked, everything=everything)
    there = have.blobs if have is not None else {}
    total = sum(item.size for item in items if item.digest not in there)
    with interruptible() as stop, hashing_progress(settings, total, "bundling") as advance:

        def on_bytes(size: int) -> None:
            if stop.is_set():
                raise Cancelled
            advance(size)

        created = create(items, output, client=client, have=have, volume_size=volume_size, on_bytes=on_bytes)
    _report(created, settings)


def _chosen(
    client: Client, settings: Settings, names: tuple[str, ...], locked: tuple[Path, ...], *, everything: bool
) -> list[Item]:
    from weightstore.catalog.lockfile import Lockfile
    from weightstore.cluster.packing import choose, choose_all

    if everything:
        items, others = choose_all(client)
        if others:
            settings.note(f"{units.count(others, 'blob')} left out: converted, or of no known source")
        return items
    wanted = client.gather(names)
    for path in locked:
        wanted += client.gather(lockfile=Lockfile.read(path))
    return choose(client, wanted)


def _report(created: Created, settings: Settings) -> None:
    if settings.json:
        settings.print_json(
            {
                "volumes": [str(path) for path in created.paths],
                "weights": [_entry_as_json(entry) for entry in created.index.entries],
                "bytes": created.size,
                "spared": len(created.spared),
                "spared_bytes": sum(item.size for item in created.spared),
            }
        )
        return
    for path in created.paths:
        click.echo(str(path))
    spared = f"; {len(created.spared)} that the other side has left out" if created.spared else ""
    files = units.count(len(created.index.entries), "file")
    settings.say(f"{files}, {units.size(created.size)} in {units.count(len(created.paths), 'volume')}{spared}")


@command.command(
    "import",
    example="""
weightstore bundle import --dry-run out.tar
weightstore bundle import --locked weights.lock out.tar.001 out.tar.002
""",
)
@click.argument("files", nargs=-1, required=True, type=LocalPath(), metavar="FILE...")
@click.option(
    "--locked",
    type=LocalPath(),
    multiple=True,
    metavar="LOCKFILE",
    help="Believe a lockfile of yours as to where the weights come from. May be repeated.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be imported, and import nothing.")
@shared_options("home", "json", "quiet")
@click.pass_obj
def import_command(settings: Settings, *, files: tuple[Path, ...], locked: tuple[Path, ...], dry_run: bool) -> None:
    """Bring a bundle's weights into the store.

    FILEs are bundles, or all volumes of them. Each blob is hashed while it is written, and only what is what its name
    says is stored. What was right stays when the rest is damaged or cut short; another import goes on from there. What
    the bundle says of sources is not believed: give your lockfile for that. Exits with 5 when something is wrong.
    """
    from weightstore.catalog.lockfile import Lockfile
    from weightstore.cluster.bundle import vouch
    from weightstore.cluster.volumes import grouped

    client = settings.client(offline=True)
    lockfiles = [Lockfile.read(path) for path in (*locked, *client.config.locked)]
    done: list[Incoming] = []
    problems: list[WeightStoreError] = []
    for paths in grouped(_no_pipes(files)):
        try:
            for one in _incoming(paths, lockfiles, client=client, settings=settings, dry_run=dry_run):
                done.append(one)  # noqa: PERF402 - what came before an error counts
        except (InvalidBundle, InvalidInput) as error:
            problems.append(error)  # and the other bundles may be right
        except WeightStoreError as error:
            problems.append(error)
            break
    vouched = 0
    if not dry_run:
        here = {one.entry.digest: one.entry.size for one in done if one.status in {"imported", "present"}}
        vouched = vouch(client, lockfiles, here, now=datetime.now(UTC))
    _report_import(done, settings, dry_run=dry_run, vouched=vouched, problems=problems)
    codes = [error.exit_code for error in problems]
    codes += [IntegrityError.exit_code for one in done if one.status in {"damaged", "missing"}]
    click.get_current_context().exit(max(codes, default=0))


def _no_pipes(files: tuple[Path, ...]) -> tuple[Path, ...]:
    if any(str(path) == "-" for path in files):
        raise InvalidInput(
            "a bundle is read here and there, so that it cannot come through a pipe: write it to a file first"
        )
    return files


def _incoming(
    paths: Sequence[Path], lockfiles: Sequence[Lockfile], *, client: Client, settings: Settings, dry_run: bool
) -> Iterator[Incoming]:
    """Import one bundle, or plan it, and yield what became of each of its weights."""
    from weightstore.cli.interrupt import interruptible
    from weightstore.cli.progress import hashing_progress
    from weightstore.cluster.bundle import Bundle, carry_out, contradictions, plan_import

    with Bundle(paths) as bundle:
        plan = plan_import(bundle, client=client)
        for contradiction in contradictions(bundle, lockfiles):
            settings.note(contradiction)
        if dry_run:
            yield from plan
        else:
            total = sum(one.entry.size for one in plan if one.status == "import")
            with interruptible() as stop, hashing_progress(settings, total, "importing") as advance:
                yield from carry_out(plan, bundle, client=client, stop=stop, on_bytes=advance)
        if bundle.problem:
            raise InvalidBundle(place=bundle.blamed, reason=bundle.problem)


def _report_import(
    done: Sequence[Incoming],
    settings: Settings,
    *,
    dry_run: bool,
    vouched: int,
    problems: Sequence[WeightStoreError],
) -> None:
    from weightstore.cli.settings import described

    bad = [one for one in done if one.status in {"damaged", "missing"}]
    for one in bad:
        settings.complain(f"{_called(one.entry)} is {one.status}: {one.detail}")
    for problem in problems:
        settings.complain(str(problem))
    counts = {status: [one for one in done if one.status == status] for status in ("import", "imported", "present")}
    if settings.json:
        settings.print_json(
            {
                "dry_run": dry_run,
                "weights": [_incoming_as_json(one) for one in done],
                "imported_bytes": sum(one.entry.size for one in counts["imported"]),
                "vouched": vouched,
                **({"error": described(problems[0])} if problems else {}),
            }
        )
        return
    for one in done:
        if one.status in {"import", "imported"}:
            click.echo(f"{one.status:<8} {_called(one.entry)}  {units.size(one.entry.size)}")
    brought = counts["import"] or counts["imported"]
    word = "to import" if dry_run else "imported"
    size = units.size(sum(one.entry.size for one in brought))
    told = f"{units.count(len(done), 'file')}: {len(brought)} {word}, {size}; {len(counts['present'])} here already"
    if done or not problems:
        settings.say(f"{told}{f'; {len(bad)} wrong' if bad else ''}")
    if vouched < len(brought) + len(counts["present"]) and not dry_run and brought:
        settings.note("no lockfile says where these come from: they are found by full digests. Give it with --locked")


@command.command(
    "show",
    example="""
weightstore bundle show out.tar
weightstore bundle show --json out.tar.001 out.tar.002
""",
)
@click.argument("files", nargs=-1, required=True, type=LocalPath(), metavar="FILE...")
@shared_options("json", "quiet")
@click.pass_obj
def show_command(settings: Settings, *, files: tuple[Path, ...]) -> None:
    """List what a bundle says is in it. Its headers and index are checked, and the weights are not hashed."""
    from weightstore.cli.settings import described
    from weightstore.cli.table import Cell, Column, print_table
    from weightstore.cluster.bundle import Bundle
    from weightstore.cluster.volumes import grouped

    entries: list[IndexEntry] = []
    size = 0
    problems: list[WeightStoreError] = []
    for paths in grouped(_no_pipes(files)):
        try:
            with Bundle(paths) as bundle:
                entries += [entry for entry in bundle.index.entries if entry.digest in bundle.members]
                size += bundle.size
                if bundle.problem:
                    problems.append(InvalidBundle(place=bundle.blamed, reason=bundle.problem))
        except (InvalidBundle, InvalidInput) as error:
            problems.append(error)
    for problem in problems:
        settings.complain(str(problem))
    if settings.json:
        failure = {"error": described(problems[0])} if problems else {}
        settings.print_json({"bytes": size, "weights": [_entry_as_json(entry) for entry in entries], **failure})
    elif entries:
        columns = [Column("NAME", flexible=True), Column("SIZE", right=True), Column("DIGEST")]
        rows = [
            [
                Cell(_called(entry)),
                Cell(units.size(entry.size), str(entry.size)),
                Cell(f"sha256:{entry.digest.hex[:12]}", str(entry.digest)),
            ]
            for entry in entries
        ]
        print_table(columns, rows)
    if entries or not problems:
        settings.say(f"{units.count(len(entries), 'file')}, {units.size(size)}")
    click.get_current_context().exit(max((error.exit_code for error in problems), default=0))


def _called(entry: IndexEntry) -> str:
    return entry.name or entry.title


def _entry_as_json(entry: IndexEntry) -> dict[str, object]:
    return {
        "name": entry.name or None,
        "title": entry.title,
        "digest": str(entry.digest),
        "size_bytes": entry.size,
        "sources": [source.display for source in entry.sources],
        "licence": entry.licence or None,
    }


def _incoming_as_json(one: Incoming) -> dict[str, object]:
    shown = _entry_as_json(one.entry)
    path = str(one.path) if one.path is not None else None
    return {**shown, "status": one.status, "path": path, "detail": one.detail or None}
