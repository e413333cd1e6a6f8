"""``weightstore adopt``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import LocalPath, command_with_example, shared_options
from weightstore.errors import Cancelled, IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.interop.adopting.adopt import Item
    from weightstore.interop.adopting.proof import Known

_TOLD = {
    "adopt": "to be adopted",
    "adopted": "adopted",
    "present": "in the store already",
    "wrong": "wrong",
    "unknown": "with nothing to verify them by",
    "skipped": "skipped",
    "left": "left",
}


@command_with_example(
    example="""
weightstore adopt --dry-run ~/.cache/torch ~/.cache/huggingface ~/.cache/clip
weightstore adopt ~/.cache/torch ~/.cache/huggingface ~/.cache/clip
""",
)
@click.argument("directories", nargs=-1, required=True, type=LocalPath(), metavar="DIR...")
@click.option("-n", "--dry-run", is_flag=True, help="Verify everything, print what would be done, and do nothing.")
@click.option(
    "--link",
    "hard_link",
    is_flag=True,
    help="Make the files themselves the blobs, by hard links: nothing is copied, and they become read-only.",
)
@click.option("--keep", is_flag=True, help="Leave the caches as they are; the store gets copies.")
@click.option(
    "--locked",
    type=LocalPath(),
    multiple=True,
    metavar="FILE",
    help="Believe what a lockfile says of digests, too. May be repeated.",
)
@shared_options("home", "json", "quiet")
@click.pass_obj
def command(
    settings: Settings,
    *,
    directories: tuple[Path, ...],
    dry_run: bool,
    hard_link: bool,
    keep: bool,
    locked: tuple[Path, ...],
) -> None:
    """Bring the caches of torch.hub, huggingface_hub and CLIP into the store, and let their files lead to it.

    DIR is a TORCH_HOME, an HF_HOME or HF_HUB_CACHE, or any directory of checkpoints. Only what is verified is adopted:
    by the digest in its name, a catalog, an earlier download, a lockfile, or the Hub's own name for it. The rest is
    listed and stays. Files are taken in by reflinks where the file system has them, else copied and replaced by links,
    so that one copy remains. Programs find what they found before. Exits with 5 when something failed verification.
    """
    from weightstore.cli.interrupt import interruptible
    from weightstore.cli.progress import hashing_progress
    from weightstore.interop.adopting.adopt import carry_out, examine
    from weightstore.interop.adopting.caches import find_caches
    from weightstore.interop.views.places import remember

    if hard_link and keep:
        raise click.UsageError("--link makes the files blobs, and --keep leaves them as they are: give one of them.")
    client = settings.client(offline=True)
    caches = [cache for directory in directories for cache in find_caches(directory)]
    _refuse_stores(client, [cache.root for cache in caches])
    known = _known(client, settings, locked)
    total = sum(one.size for cache in caches for one in cache.candidates if not one.problem)
    with interruptible() as stop, hashing_progress(settings, total, "verifying") as advance:

        def on_bytes(size: int) -> None:
            if stop.is_set():
                raise Cancelled
            advance(size)

        own = None if keep else Path.home().resolve()
        items = list(examine(caches, client=client, known=known, on_bytes=on_bytes, own=own))
        if not dry_run:
            plan, items = items, []
            with closing(carry_out(plan, client=client, hard_link=hard_link, keep=keep)) as done:
                for item in done:
                    items.append(item)
                    if stop.is_set():
                        raise Cancelled
            for cache in caches:
                remember(client.config.state, cache.root)
    if settings.json:
        settings.print_json(_as_json(items, dry_run=dry_run, keep=keep))
    else:
        _print(settings, items, keep=keep)
    statuses = {item.status for item in items}
    code = IntegrityError.exit_code if "wrong" in statuses else StoreError.exit_code if "left" in statuses else 0
    click.get_current_context().exit(code)


def _refuse_stores(client: Client, roots: Sequence[Path]) -> None:
    from weightstore.interop.views.directory import real

    for store in (real(layer.root) for layer in client.obtainer.layers()):
        for root in roots:
            if root == store or store in root.parents:
                raise StoreError(place=str(root), reason=f"lies in the store {store}: there is nothing to adopt")


def _known(client: Client, settings: Settings, locked: tuple[Path, ...]) -> Known:
    from weightstore.catalog.lockfile import Lockfile
    from weightstore.interop.adopting.proof import gather_claims
    from weightstore.interop.views.holdings import believed

    lockfiles = {str(path): Lockfile.read(path) for path in locked}
    return gather_claims(client.catalogs.all(), believed(client, note=settings.note), lockfiles)


def _print(settings: Settings, items: Sequence[Item], *, keep: bool) -> None:
    from weightstore.cli.terminal import printable

    for item in items:
        if item.status == "present":
            continue
        size = units.size(item.candidate.size)
        by = f"by {item.detail}" if item.status in {"adopt", "adopted"} else item.detail
        click.echo(printable(f"{item.status:<8} {item.path}  {size}  {by}"))
    counted = {status: [item for item in items if item.status == status] for status in _TOLD}
    told = [f"{len(found)} {_TOLD[status]}" for status, found in counted.items() if found]
    settings.say(f"{units.count(len(items), 'file')}: {', '.join(told) or 'nothing to adopt'}")
    adopted = [item for item in items if item.status in {"adopt", "adopted"}]
    if adopted:
        one_copy = units.size(sum(item.candidate.size for item in adopted if not item.is_stored))
        settings.say(f"{one_copy} {'to be ' if adopted[0].status == 'adopt' else ''}new in the store")
    if freed := 0 if keep else sum(item.freed for item in adopted):
        settings.say(f"{units.size(freed)} that the store had already take room once instead of twice")


def _as_json(items: Sequence[Item], *, dry_run: bool, keep: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "files": [
            {
                "path": str(item.path),
                "status": item.status,
                "detail": item.detail,
                "digest": str(item.digest) if item.digest else None,
                "size_bytes": item.candidate.size,
                "sources": [source.display for source in item.sources],
                "placed": item.placement.placed if item.placement else None,
            }
            for item in items
        ],
        "freed_bytes": 0 if keep else sum(item.freed for item in items),
    }
