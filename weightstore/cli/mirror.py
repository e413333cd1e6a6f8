"""``weightstore mirror``."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from weightstore.cli import units
from weightstore.cli.mirror_carried import (
    OMS_GAP,
    carried_as_json,
    carried_from,
    carried_to,
    nothing_carried,
    oms_at,
    oms_carried_to,
    state_as_json,
    state_at,
    state_lines,
    tell_carried,
    tell_oms,
)
from weightstore.cli.mirror_pulled import print_pull_plan, skipped_as_json, skipped_notes
from weightstore.cli.mirror_sign import command as sign
from weightstore.cli.mirror_verify import command as verify
from weightstore.cli.options import LocalPath, WeightsName, group_with_example, shared_options
from weightstore.errors import InvalidInput, NotPresent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from weightstore.catalog.lockfile import Lockfile
    from weightstore.cli.settings import Settings
    from weightstore.cluster.index import IndexEntry, ModelIndex
    from weightstore.cluster.mirror.place import Outgoing
    from weightstore.cluster.mirror.plan import Difference, PushPlan
    from weightstore.cluster.mirror.push import Pushed
    from weightstore.cluster.mirror.signature import Carried

_NAMES = "[NAME|GLOB|URL]..."


@group_with_example(
    example="""
weightstore mirror push /sw/weights --locked weights.lock
weightstore mirror status /sw/weights
weightstore mirror pull https://weights.example.org --locked weights.lock
""",
)
def command() -> None:
    """Keep a mirror: one copy of the weights that a site uses, in a directory or other storage, asked by digest.

    A mirror is a store, and an OCI image layout. Nobody has to trust it: what comes from it is verified.
    """


def _selection(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments by which weights are chosen, and check that something is."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="Everything that there is."),
        click.option("--locked", type=LocalPath(), metavar="FILE", help="What a lockfile locks, by full digest."),
        click.argument("names", nargs=-1, type=WeightsName(), metavar=_NAMES),
    ):
        function = option(function)

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        chosen = bool(options["names"] or options["locked"])
        if chosen == options["everything"]:
            raise click.UsageError("Give NAMEs, --locked FILE or --all" + (", and not both." if chosen else "."))
        return function(*args, **options)

    return checked


def _read(locked: Path | None) -> Lockfile | None:
    from weightstore.catalog.lockfile import Lockfile  # start-up: not for --help

    return Lockfile.read(locked) if locked is not None else None


@command.command("index", example="weightstore --home /sw/weights mirror index")
@click.option(
    "--locked", type=LocalPath(), metavar="FILE", help="Take a lockfile's word for the sources of what is here."
)
@shared_options("home", "json", "quiet")
@click.pass_obj
def index(settings: Settings, *, locked: Path | None) -> None:
    """Write index.json, so that the store is an OCI image layout and tells what it has, and index.html, to look at.

    Each checkpoint that a source is recorded of becomes an artifact with its name, licence and sources. skopeo and oras
    copy it unchanged. Run it again when the store has changed; what changed nothing gives the same bytes. What others
    pushed stays as long as the store has it, also under names that no catalog here knows. What came from a mirror and
    is known by somebody's lockfile alone is told with its source if you give that lockfile: the word is yours then.
    """
    from weightstore.cli.pushing import adopted
    from weightstore.cluster.mirror.directory import Directory
    from weightstore.cluster.page import page_of, write_page
    from weightstore.cluster.renewal import renewed_index
    from weightstore.cluster.words import take_words, words_of
    from weightstore.store.image import INDEX_NAME, is_of_another_tool
    from weightstore.store.layout import adopt_layout, require_layout

    client = settings.client()
    if is_of_another_tool(client.config.home):
        adopt_layout(client.config.home)
        settings.note(adopted(str(client.config.home)))
    require_layout(client.config.home)  # a typo is not to become an empty mirror
    layout = client.obtainer.writable()
    catalogs, counts = client.catalogs.all(), client.obtainer.counts
    if (lockfile := _read(locked)) is not None:
        take_words(layout, words_of(lockfile, now=datetime.now(UTC)), counts=counts, note=settings.note)
    place = Directory(layout.root, client.receipts, locks=client.config.locks)
    made = place.renew_index(lambda there: renewed_index(there, catalogs, note=settings.note, counts=counts))
    write_page(layout, page_of(client, only_here=True))
    path = layout.root / INDEX_NAME
    if settings.json:
        settings.print_json({"index": str(path), "entries": [_entry_as_json(entry) for entry in made.entries]})
        return
    others = f", and {units.count(len(made.foreign), 'manifest')} of other tools" if made.foreign else ""
    settings.say(f"{path}: {units.count(len(made.entries), 'checkpoint')}, {units.size(_bytes(made.entries))}{others}")


@command.command(
    "push",
    example="""
weightstore mirror push /sw/weights resnet50 'ViT_*'
weightstore mirror push oci://registry.example.org/group/weights --locked weights.lock --dry-run
""",
)
@click.argument("destination", metavar="DEST")
@_selection
@click.option(
    "--mount-from", default="", metavar="REPOSITORY", help="Of oci://: take blobs from there that it has already."
)
@click.option(
    "--check", is_flag=True, help="Read and hash all of these that DEST has, and push again what is damaged or lost."
)
@click.option("-j", "--jobs", type=click.IntRange(1), metavar="N", help="So many files side by side.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would travel, and push nothing.")
@shared_options("home", "json", "quiet")
@click.pass_obj
def push(
    settings: Settings,
    *,
    destination: str,
    names: tuple[str, ...],
    locked: Path | None,
    everything: bool,
    mount_from: str,
    check: bool,
    jobs: int | None,
    dry_run: bool,
) -> None:
    """Bring stored weights to a mirror: what it lacks, and nothing else.

    DEST is a directory, which is made where there is none, oci://host/repository, or s3://, gs:// or az://bucket/prefix.
    Every file is hashed once more on its way. The index is written last, and keeps what others pushed; what a lockfile
    given with --locked says of sources is told in it as your word. The store's signed index goes along, unless users of
    DEST would not believe it or would lose by it.
    """
    from weightstore.cli.fetching import worst
    from weightstore.cli.interrupt import interruptible
    from weightstore.cli.pushing import adopted, damaged_at_mirror, push_progress
    from weightstore.cluster.mirror import push as pushing
    from weightstore.cluster.mirror.directory import Directory
    from weightstore.cluster.mirror.places import open_place
    from weightstore.cluster.mirror.plan import plan_push
    from weightstore.cluster.words import words_of

    client = settings.client()
    place = open_place(destination, client=client, writable=True, mount_from=mount_from, check=check)
    lockfile = _read(locked)
    wanted = [] if everything else pushing.gather(names, client=client, lockfile=lockfile)
    blobs = pushing.held(client) if everything else pushing.chosen(client, wanted)
    if lockfile is not None:
        blobs = pushing.with_words(blobs, words_of(lockfile, now=datetime.now(UTC)), client=client)
    known = place.read_index()
    sizes = {blob.digest: blob.size for blob in blobs}
    there = place.present(sizes, known)
    damaged = damaged_at_mirror(place, {digest: sizes[digest] for digest in there}, settings, client, check=check)
    plan = plan_push(blobs, there, damaged)
    pushing.check_room(plan, place)
    if isinstance(place, Directory) and place.is_of_another_tool:
        settings.note(adopted(place.display, would_be=dry_run))
    if dry_run:
        after = pushing.index_after(blobs, known, client=client)
        _print_push_plan(settings, place.display, plan, carried_to(place, after, client=client, dry_run=True))
        return
    settings.say(_announcement(place.display, plan))

    with interruptible() as stop, push_progress(settings, plan, place.display) as progress:
        results = pushing.push(
            plan, place, client=client, jobs=jobs or client.config.jobs, progress=progress, stop=stop
        )
    code = worst([done.error for done in results if done.error is not None])
    pushed = [done.blob for done in results if done.status == "pushed"]
    carried = carried_to(place, place.read_index(), client=client)
    oms = oms_carried_to(place, client=client)
    if settings.json:
        settings.print_json(
            {
                "destination": place.display,
                "dry_run": False,
                "blobs": [_pushed_as_json(done) for done in results],
                "pushed_bytes": _bytes(pushed),
                "mended": place.mended,
                "signature": carried_as_json(carried),
                "oms": {"status": oms.status, "matches": oms.matches},
                "exit_code": code,
            }
        )
    else:
        failed = sum(done.status in {"failed", "cancelled"} for done in results)
        settings.say(f"{len(pushed)} pushed, {len(plan.present)} there already, {failed} failed")
        if place.mended:
            settings.say(f"written again: what {place.display} had lost of {units.count(place.mended, 'artifact')}")
    tell_carried(settings, carried, place.display)
    tell_oms(settings, oms, place.display)
    click.get_current_context().exit(code)


@command.command(
    "pull",
    example="""
weightstore mirror pull /sw/weights --locked weights.lock
weightstore mirror pull https://weights.example.org --all --dry-run
""",
)
@click.argument("origin", metavar="SRC")
@_selection
@click.option(
    "--trust-mirror",
    is_flag=True,
    help="Believe the mirror which digest a source has, where this machine does not know it.",
)
@click.option("-j", "--jobs", type=click.IntRange(1), metavar="N", help="So many files side by side.")
@click.option("-n", "--dry-run", is_flag=True, help="Print the plan and fetch nothing.")
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def pull(
    settings: Settings,
    *,
    origin: str,
    names: tuple[str, ...],
    locked: Path | None,
    everything: bool,
    trust_mirror: bool,
    jobs: int | None,
    dry_run: bool,
) -> None:
    """Fetch weights from a mirror, and from nowhere else.

    SRC is a directory, a web address, a bucket or oci://host/repository. Weights are asked for by their digest, which a
    lockfile, a full pin, an earlier download or somebody's signature tells; sha256:<64 hex> is a NAME as well. A mirror
    that serves other bytes is found out, whatever it says. The exit code is 4 when something was left out, --all too.
    """
    from weightstore.cli.fetching import as_json, exit_code, fetch
    from weightstore.cluster.mirror.places import open_place
    from weightstore.cluster.mirror.pull import gather, prepare, record_named, record_told
    from weightstore.store.image import INDEX_NAME

    source = open_place(origin, client=settings.client()).source
    client = settings.client(mirrors=(source,), order=("layers", "mirrors"))
    if trust_mirror and client.config.trust == "pinned":
        raise InvalidInput('trust = "pinned" in the configuration forbids --trust-mirror')
    place = open_place(origin, client=client)
    lockfile = _read(locked)
    wanted = None if everything else gather(names, place=place, client=client, lockfile=lockfile, trusted=trust_mirror)
    prepared = prepare(place, client=client, wanted=wanted, trusted=trust_mirror)
    for note in skipped_notes(prepared):
        settings.note(note)
    plan = client.plan(prepared.wanted)
    skipping = NotPresent.exit_code if prepared.skipped else 0
    if dry_run:
        code = print_pull_plan(plan, prepared, place=place, settings=settings, client=client) or skipping
        click.get_current_context().exit(code)
    report = fetch(plan, settings=settings, client=client, jobs=jobs)
    record_told(report, prepared.told, client=client)
    record_named(report, prepared.offered, client=client)
    came = any(result.obtained is not None for result in report.results)
    carried = carried_from(place, client=client) if came else nothing_carried()
    code = exit_code(report) or skipping
    if settings.json:
        settings.print_json(
            {
                **as_json(report),
                **skipped_as_json(prepared),
                "signature": carried_as_json(carried),
                "exit_code": code,
            }
        )
    tell_carried(settings, carried, str(client.config.home), is_mirror=(client.config.home / INDEX_NAME).exists())
    click.get_current_context().exit(code)


@command.command("status", example="weightstore mirror status /sw/weights")
@click.argument("mirror", metavar="MIRROR")
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def status(settings: Settings, *, mirror: str) -> None:
    """Tell what is missing on which side, in the mirror or here; who signed the mirror's index, and until when.

    Reads the mirror's index or one listing of it, its signed index, and no weights.
    """
    from weightstore.cluster.mirror.places import open_place
    from weightstore.cluster.mirror.plan import compare
    from weightstore.cluster.mirror.pull import index_of_place
    from weightstore.cluster.mirror.push import held

    client = settings.client()
    place = open_place(mirror, client=client)
    known = index_of_place(place, client=client)
    blobs = held(client)
    there = place.present({blob.digest: blob.size for blob in blobs}, known)
    found = compare(blobs, there, known)
    state, oms = state_at(place, known, client=client), oms_at(place, client=client)
    if settings.json:
        signed = {"signature": state_as_json(state), "oms": None if oms is None else {"matches": oms}}
        settings.print_json({**_difference_as_json(place.display, found, known), **signed})
        return
    _print_difference(settings, place.display, found)
    for line in state_lines(state, place.display):
        settings.say(line)
    if oms is not None:
        settings.say("model.sig is over the files that are there" if oms else f"note: {OMS_GAP}")


def _print_difference(settings: Settings, display: str, found: Difference) -> None:
    from weightstore.cli.table import Cell, Column, print_table

    columns = [Column("NAME", flexible=True), Column("SIZE", right=True), Column("WHERE"), Column("DIGEST", drop=1)]
    rows = [
        [Cell(name), Cell(units.size(size), str(size)), Cell(where), Cell(hexadecimal[:12], hexadecimal)]
        for name, size, where, hexadecimal in (
            *((one.name, one.size, "here only", one.digest.hex) for one in found.here),
            *((one.name or one.title, one.size, "mirror only", one.digest.hex) for one in found.there),
        )
    ]
    if rows:
        print_table(columns, rows)
    parts = (("on both sides", found.both), ("here only", found.here), ("only in the mirror", found.there))
    told = ", ".join(f"{len(blobs)} {where} ({units.size(_bytes(blobs))})" for where, blobs in parts)
    settings.say(f"{display}: {told}")


def _announcement(display: str, plan: PushPlan) -> str:
    there = f"; {len(plan.present)} there already" if plan.present else ""
    return f"{units.count(len(plan.missing), 'file')} to push, {units.size(plan.bytes_to_push)}{there} in {display}"


def _print_push_plan(settings: Settings, display: str, plan: PushPlan, carried: Carried) -> None:
    if settings.json:
        blobs = [*((blob, "missing") for blob in plan.missing), *((blob, "present") for blob in plan.present)]
        settings.print_json(
            {
                "destination": display,
                "dry_run": True,
                "blobs": [_blob_as_json(blob, what) for blob, what in blobs],
                "bytes_to_push": plan.bytes_to_push,
                "signature": carried_as_json(carried),
            }
        )
        return
    for blob in plan.missing:
        click.echo(f"push      {blob.name}  {units.size(blob.size)}")
    settings.say(_announcement(display, plan))
    tell_carried(settings, carried, display, dry_run=True)


def _bytes(blobs: Sequence[Outgoing] | Sequence[IndexEntry]) -> int:
    return sum(blob.size for blob in blobs)


def _blob_as_json(blob: Outgoing, status: str) -> dict[str, object]:
    return {"name": blob.name, "digest": str(blob.digest), "size_bytes": blob.size, "status": status}


def _pushed_as_json(done: Pushed) -> dict[str, object]:
    from weightstore.cli.settings import described

    return {**_blob_as_json(done.blob, done.status), "error": described(done.error) if done.error else None}


def _entry_as_json(entry: IndexEntry) -> dict[str, object]:
    return {
        "name": entry.name or None,
        "aliases": list(entry.aliases),
        "tag": entry.ref_name,
        "digest": str(entry.digest),
        "size_bytes": entry.size,
        "manifest": str(entry.manifest),
        "licence": entry.licence or None,
        "sources": [str(source) for source in entry.sources],
    }


def _difference_as_json(display: str, found: Difference, known: ModelIndex) -> dict[str, object]:
    return {
        "mirror": display,
        "entries": len(known.entries),
        "here_only": [_blob_as_json(blob, "here") for blob in found.here],
        "mirror_only": [_entry_as_json(entry) for entry in found.there],
        "both": len(found.both),
        "missing_in_mirror_bytes": _bytes(found.here),
        "missing_here_bytes": _bytes(found.there),
    }


command.add_command(sign)
command.add_command(verify)
