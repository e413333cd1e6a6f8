"""``weightstore view``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, cast

import click

from weightstore.cli import units
from weightstore.cli.options import LocalPath, WeightsName, group_with_example, shared_options
from weightstore.errors import IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.config import Link as Way
    from weightstore.interop.views.build import Built
    from weightstore.interop.views.check import Finding
    from weightstore.interop.views.directory import Decision
    from weightstore.interop.views.layouts import Held, Kind, PassedOver
    from weightstore.interop.views.manifest import Manifest, Scope
    from weightstore.interop.views.plan import ViewPlan

_CHANGES = ("added", "replaced", "removed")
_ABOUT: dict[Kind, tuple[str, str]] = {
    "torch-hub": (
        "Make DIR a TORCH_HOME, for torch.hub, TorchVision and whatever downloads by them.",
        "Every http(s) source is in hub/checkpoints under the name that torch.hub gives it.",
    ),
    "huggingface": (
        "Make DIR a cache of huggingface_hub, for timm, transformers and others.",
        "Files on the Hub are there under the commit that was fetched, and the branch or tag that was asked for.",
    ),
    "fvcore": (
        "Make DIR a cache of iopath, for detectron2, fvcore and PyTorchVideo.",
        "Every http(s) source is there under its path, without its host.",
    ),
}


@group_with_example(
    example="""
weightstore view torch-hub /scratch/me/torch
weightstore view huggingface /scratch/me/hub --locked weights.lock
weightstore view check /scratch/me/torch
""",
)
def command() -> None:
    """Show the store to other libraries: a directory in the layout that they look in, whose names lead to blobs.

    Programs that have never heard of weightstore find weights there, also without a network.
    """


def _add(kind: Kind) -> None:
    about, more = _ABOUT[kind]

    @command.command(
        kind,
        help=f"{about}\n\n{more} {_SHARED_HELP}",
        short_help=about,
        example=f"weightstore view {kind} /scratch/me/{kind}",
    )
    @click.argument("directory", metavar="DIR", type=LocalPath())
    @click.argument("names", nargs=-1, type=WeightsName(), metavar="[NAME|GLOB|URL]...")
    @click.option("--all", "everything", is_flag=True, help="Everything that is stored, as without NAMEs.")
    @click.option("--locked", type=LocalPath(), metavar="FILE", help="What a lockfile locks.")
    @click.option(
        "--link",
        type=click.Choice(["auto", "reflink", "symlink", "hardlink", "copy"]),
        default="auto",
        show_default=True,
        help="How names lead to blobs: by reflinks where the file system has them, else by symbolic links, or as said.",
    )
    @click.option("-n", "--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
    @shared_options("home", "json", "quiet")
    @click.pass_obj
    def make(
        settings: Settings,
        *,
        directory: Path,
        names: tuple[str, ...],
        everything: bool,
        locked: Path | None,
        link: Way,
        dry_run: bool,
    ) -> None:
        if everything and (names or locked):
            raise click.UsageError("--all is everything: give no NAMEs and no --locked beside it.")
        _make(settings, kind, directory, names=names, locked=locked, link=link, dry_run=dry_run)


_SHARED_HELP = (
    "Without NAMEs and --locked everything stored is shown. Nothing is fetched. Run again, it brings the view up to "
    "date in one step; files that programs put there stay."
)
_add("torch-hub")
_add("huggingface")
_add("fvcore")


def _make(
    settings: Settings,
    kind: Kind,
    directory: Path,
    *,
    names: tuple[str, ...],
    locked: Path | None,
    link: Way,
    dry_run: bool,
) -> None:
    from weightstore.interop.views.build import build, recover
    from weightstore.interop.views.directory import decide
    from weightstore.interop.views.holdings import opener
    from weightstore.interop.views.places import remember
    from weightstore.interop.views.plan import plan_view

    client = settings.client()
    held, scope = _held(client, settings, names=names, locked=locked)
    plan = plan_view(kind, held)
    if not dry_run:
        recover(directory)
    decision = decide(
        plan,
        directory,
        scope=scope,
        link=link,
        receipts=client.receipts,
        stores=[layer.root for layer in client.obtainer.layers()],
    )
    for note in decision.notes:
        settings.note(note)
    for note in _passed_over(plan.passed_over):
        settings.note(note)
    built = None if dry_run else build(decision, open_blob=opener(client), receipts=client.receipts)
    if built is not None:
        remember(client.config.state, decision.root)
    if settings.json:
        settings.print_json(_as_json(decision, built))
        return
    _print(settings, decision, built)
    if not dry_run:
        for name, value in environment(kind, decision.root).items():
            click.echo(f"export {name}={shlex.quote(value)}")


def _held(
    client: Client, settings: Settings, *, names: tuple[str, ...], locked: Path | None
) -> tuple[list[Held], Scope]:
    from weightstore.interop.views.holdings import chosen, everything

    if not names and locked is None:
        return everything(client, note=settings.note), "all"
    held = []
    if names:
        held += chosen(client, client.gather(names))
    if locked is not None:
        from weightstore.catalog.lockfile import Lockfile

        wanted = client.gather(lockfile=Lockfile.read(locked))
        held += chosen(client, wanted, remedy=f"weightstore prefetch --locked {shlex.quote(str(locked))}")
    return held, "chosen"


def _passed_over(passed_over: Iterable[PassedOver]) -> Iterator[str]:
    """Yield what is not in the view, by reason, each with an example."""
    by_reason: dict[str, list[PassedOver]] = {}
    for one in passed_over:
        by_reason.setdefault(one.reason, []).append(one)
    for reason, ones in by_reason.items():
        more = f", and {len(ones) - 1} more" if len(ones) > 1 else ""
        yield f"not in this view: {ones[0].source}{more}: {reason}"


def environment(kind: Kind, root: Path) -> dict[str, str]:
    """Return the variables that make programs look in a view, and not elsewhere."""
    if kind == "torch-hub":
        return {"TORCH_HOME": str(root)}
    if kind == "fvcore":
        return {"FVCORE_CACHE": str(root)}
    return {"HF_HUB_CACHE": str(root), "HF_HUB_OFFLINE": "1"}


def _print(settings: Settings, decision: Decision, built: Built | None) -> None:
    entries = decision.plan.entries
    size = units.size(sum({one.digest: one.size for one in entries}.values()))
    names = {one.path for one in entries}
    names |= {one.path for one in decision.old.placements} if decision.old is not None else set()
    changed = [f"{len(names.intersection(getattr(decision, what)))} {what}" for what in _CHANGES]
    would = "would lead" if built is None else "leads" if len(entries) == 1 else "lead"
    settings.say(f"{decision.root}: {units.count(len(entries), 'name')} {would} to {size} in the store")
    settings.say(f"{', '.join(changed)}; {units.count(len(decision.carried), 'file')} of others kept")
    if built is None:
        for what in _CHANGES:
            for path in getattr(decision, what):
                click.echo(f"{what:<9} {path}")


def _as_json(decision: Decision, built: Built | None) -> dict[str, object]:
    placed = {one.path: one.placed for one in built.manifest.placements} if built is not None else {}
    changes = {path: what for what in ("added", "replaced") for path in getattr(decision, what)}
    return {
        "kind": decision.plan.kind,
        "directory": str(decision.root),
        "scope": decision.scope,
        "dry_run": built is None,
        "at_once": built.how == "at once" if built is not None else None,
        "entries": [
            {
                "path": one.path,
                "source": one.source.display,
                "digest": str(one.digest),
                "size_bytes": one.size,
                "change": changes.get(one.path, "kept"),
                "placed": placed.get(one.path),
            }
            for one in decision.plan.entries
        ],
        "removed": list(decision.removed),
        "carried": list(decision.carried),
        "passed_over": [{"source": one.source.display, "reason": one.reason} for one in decision.plan.passed_over],
        "environment": environment(decision.plan.kind, decision.root),
    }


@command.command(
    "check",
    example="weightstore view check /scratch/me/torch",
)
@click.argument("directory", metavar="DIR", type=LocalPath())
@shared_options("home", "json", "quiet")
@click.pass_obj
def check(settings: Settings, *, directory: Path) -> None:
    """Tell whether each name of a view still leads to the bytes that it should.

    Exits with 5 when a name is gone, dangling, was written through or replaced, and with 1 when the view is merely
    older than the store. Tells which commands put it right.
    """
    from weightstore.interop.views.check import BAD, check_view, worst
    from weightstore.interop.views.directory import real
    from weightstore.interop.views.holdings import everything, recorded
    from weightstore.interop.views.manifest import read_manifest
    from weightstore.interop.views.plan import plan_view

    root = real(directory)
    manifest = read_manifest(root)
    if manifest is None:
        raise StoreError(place=str(root), reason="is no view. Make one: weightstore view --help")
    client = settings.client(offline=True)
    now = {one.source: one.digest for one in recorded(client, note=settings.note)}
    kind = manifest.kind

    def plan() -> ViewPlan:
        return plan_view(cast("Kind", kind), everything(client, note=settings.note))

    findings = check_view(
        root,
        manifest,
        current=now.get,
        plan=plan if manifest.scope == "all" and kind != "files" else None,
        receipts=client.receipts,
    )
    remedies = _remedies(root, manifest, findings)
    statuses = worst(findings)
    if settings.json:
        settings.print_json(
            {
                "directory": str(root),
                "kind": manifest.kind,
                "scope": manifest.scope,
                "is_good": not statuses,
                "findings": [_finding_as_json(one) for one in findings],
                "remedies": remedies,
            }
        )
    else:
        for one in findings:
            if one.status != "ok":
                click.echo(f"{one.status:<15} {one.path}  {one.detail}".rstrip())
        good = sum(one.status == "ok" for one in findings)
        settings.say(f"{root}: {good} of {units.count(len(findings), 'name')} good")
        if remedies:
            settings.say("To put it right:\n" + "\n".join(f"  {remedy}" for remedy in remedies))
    click.get_current_context().exit(IntegrityError.exit_code if statuses & BAD else 1 if statuses else 0)


def _remedies(root: Path, manifest: Manifest, findings: Iterable[Finding]) -> list[str]:
    bad = [one for one in findings if one.status != "ok"]
    if not bad:
        return []
    remedies = []
    linked = {one.path for one in manifest.placements if one.placed in {"symlink", "hardlink"}}
    if any(one.status == "written through" and one.path in linked for one in bad):
        remedies.append("weightstore verify --repair")
    gone = sorted({str(one.source) for one in bad if one.status == "dangling" and one.source})
    if gone:
        remedies.append("weightstore prefetch " + " ".join(map(shlex.quote, gone)))
    if manifest.kind == "files" or all(one.is_adopted for one in manifest.placements):
        return [*remedies, shlex.join(["weightstore", "adopt", str(root)])]
    again = ["weightstore", "view", manifest.kind, str(root)]
    if manifest.scope == "chosen":
        again += sorted({str(one.source) for one in manifest.placements if one.source})
    remedies.append(shlex.join(again))
    return remedies


def _finding_as_json(one: Finding) -> dict[str, object]:
    return {
        "path": one.path,
        "status": one.status,
        "detail": one.detail,
        "digest": str(one.digest) if one.digest else None,
        "source": one.source.display if one.source else None,
    }
