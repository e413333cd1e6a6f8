"""``weightstore verify``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import WeightsName, command_with_example, shared_options
from weightstore.errors import Cancelled, IntegrityError, NotPresent, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.digest import Digest
    from weightstore.records import Wanted
    from weightstore.store.layers import Layer
    from weightstore.store.layout import Layout
    from weightstore.store.verify import Checked


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What was found of one blob of one layer."""

    layer: Layer
    checked: Checked
    name: str
    repaired: bool = False

    @property
    def is_bad(self) -> bool:
        return self.checked.verdict in {"damaged", "unreadable"} and not self.repaired

    @property
    def is_missing(self) -> bool:
        return self.checked.verdict == "missing" and not self.repaired


@command_with_example(
    example="""
weightstore verify
weightstore verify --repair resnet50
""",
)
@click.argument("names", nargs=-1, type=WeightsName(), metavar="[NAME]...")
@click.option(
    "--repair",
    is_flag=True,
    help="Fetch damaged blobs again from the sources that are recorded for them, also those put in quarantine earlier.",
)
@click.option("--layers", "with_layers", is_flag=True, help="Check the read-only layers too, and change nothing there.")
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, names: tuple[str, ...], repair: bool, with_layers: bool) -> None:
    """Hash stored blobs again with all cores, whatever is remembered of them. Damaged ones go to quarantine.

    Without NAMEs everything in the store is checked. Exits with 5 when something is damaged and was not repaired, with
    --repair also when something that was put in quarantine earlier could not be fetched again.
    """
    client = settings.client()
    only = _digests(client, names) if names else None
    missing = _missing(client, only)  # before the check, which puts more into quarantine
    verdicts = _check(client, settings, only, with_layers=with_layers) + missing
    if repair:
        verdicts = _repair(verdicts, client, settings)
    bad = [one for one in verdicts if one.is_bad]
    gone = [one for one in verdicts if one.is_missing]
    if settings.json:
        settings.print_json({"blobs": [_as_json(one) for one in verdicts], "damaged": len(bad), "missing": len(gone)})
    else:
        _print(verdicts, settings)
    if (bad or gone) and not repair:
        home = f"--home {settings.home} " if settings.home else ""
        settings.say(f"Fetch damaged and missing blobs again with: weightstore {home}verify --repair")
    damaged = [one for one in bad if one.checked.verdict == "damaged"] + (gone if repair else [])
    code = IntegrityError.exit_code if damaged else StoreError.exit_code if bad else 0
    click.get_current_context().exit(code)


def _digests(client: Client, names: Sequence[str]) -> set[Digest]:
    """Return the digests that names lead to, without reading a blob.

    Raises:
        NotPresent: nothing is stored, or lies in quarantine, under a name.
    """
    from weightstore.store.blobs import list_blobs
    from weightstore.store.gc import refs_by_digest
    from weightstore.store.quarantine import list_quarantined

    layers = client.obtainer.layers()
    stored: set[Digest] = set()
    recorded: dict[str, Digest] = {}
    for layer in layers:
        if layer.layout is not None:
            stored |= set(list_blobs(layer.layout)) | (set(list_quarantined(layer.layout)) if layer.writable else set())
            recorded |= {ref.source.key: ref.digest for refs in refs_by_digest(layer.layout).values() for ref in refs}
    digests = set()
    for wanted in client.gather(names):
        digest = wanted.pin.digest or recorded.get(wanted.source.key)
        matching = [one for one in stored if wanted.pin.is_pinned and wanted.pin.matches(one)]
        if digest is None and len(matching) == 1:
            digest = matching[0]
        if digest is None or digest not in stored:
            raise NotPresent(
                name=wanted.name,
                digest=str(digest or wanted.pin).replace("none", "digest unknown"),
                searched=[str(layer.root) for layer in layers],
                offline=client.config.offline,
                remedy=f"weightstore prefetch '{wanted.name}'",
            )
        digests.add(digest)
    return digests


def _missing(client: Client, only: Collection[Digest] | None) -> list[_Verdict]:
    """Return what lies in quarantine and is nowhere else."""
    from weightstore.store.verify import find_missing

    *others, layer = client.obtainer.layers()
    if layer.layout is None:
        return []
    found = []
    for one in find_missing(layer.layout, only=only):
        if not any(other.layout is not None and other.layout.blob(one.digest).exists() for other in others):
            again = _wanted(one.digest, layer.layout, client)
            found.append(_Verdict(layer, one, again.name if again else "(no ref names it)"))
    return found


def _check(client: Client, settings: Settings, only: Collection[Digest] | None, *, with_layers: bool) -> list[_Verdict]:
    from weightstore.cli.interrupt import interruptible
    from weightstore.cli.ls import title_of
    from weightstore.cli.progress import hashing_progress
    from weightstore.store.blobs import list_blobs
    from weightstore.store.image import documents_in
    from weightstore.store.verify import verify_store

    stored = client.stored()
    layers = [layer for layer in client.obtainer.layers() if layer.layout and (layer.writable or with_layers)]
    weights = [one.digest for one in stored]
    made: set[Digest] = set()
    for layout in (layer.layout for layer in layers if layer.layout is not None):
        sizes = {digest: found.st_size for digest, found in list_blobs(layout).items()}
        made |= documents_in(layout, sizes, weights=weights)
    titles = dict.fromkeys(made, "(of index.json: weightstore mirror index makes it again)")
    titles |= {one.digest: title_of(one) for one in stored}
    chosen = {layer.name for layer in layers}
    total = sum(one.size for one in stored if one.layer in chosen and (only is None or one.digest in only))
    verdicts = []
    with interruptible() as stop, hashing_progress(settings, total, "verifying") as advance:

        def on_bytes(size: int) -> None:
            if stop.is_set():
                raise Cancelled
            advance(size)

        for layer in layers:
            if layer.layout is not None:
                checked = verify_store(
                    layer.layout, client.receipts, only=only, quarantine=layer.writable, on_bytes=on_bytes
                )
                verdicts += [_Verdict(layer, one, titles.get(one.digest, "")) for one in checked]
    return verdicts


def _repair(verdicts: list[_Verdict], client: Client, settings: Settings) -> list[_Verdict]:
    """Fetch what is damaged or missing in the writable store once more; return the verdicts as they are then."""
    broken = [one for one in verdicts if one.layer.writable and one.checked.verdict in {"damaged", "missing"}]
    wanted = []
    for one in broken:
        again = _wanted(one.checked.digest, one.layer.layout, client)
        if again is None:
            settings.complain(f"{one.checked.digest}: no source is recorded for it, so it cannot be fetched again")
        else:
            wanted.append(again)
    if not wanted:
        return verdicts
    from weightstore.cli.fetching import exit_code, fetch

    report = fetch(client.plan(wanted), settings=settings, client=client)
    if exit_code(report) == Cancelled.exit_code:
        click.get_current_context().exit(Cancelled.exit_code)
    fixed = {result.obtained.digest for result in report.results if result.obtained is not None}
    return [replace(one, repaired=one in broken and one.checked.digest in fixed) for one in verdicts]


def _wanted(digest: Digest, layout: Layout | None, client: Client) -> Wanted | None:
    """Return what brings a blob back, called as the catalogs call it, or None where nobody knows where it was from."""
    from weightstore.digest import Pin
    from weightstore.records import Wanted
    from weightstore.store.gc import refs_by_digest

    refs = refs_by_digest(layout).get(digest, []) if layout is not None else []
    entries = [
        entry
        for catalog in client.catalogs.all()
        for entry in catalog.entries()
        if entry.pin.is_pinned and entry.pin.matches(digest)
    ]
    sources = list(dict.fromkeys([ref.source for ref in refs] + [entry.source for entry in entries]))
    if not sources:
        return None
    named = [entry.name for entry in entries if entry.source in sources[:1]]
    size = refs[0].size if refs else None
    return Wanted(
        named[0] if named else sources[0].display, sources[0], Pin.of(digest), size, alternatives=tuple(sources[1:])
    )


def _print(verdicts: Sequence[_Verdict], settings: Settings) -> None:
    for one in verdicts:
        if one.checked.verdict == "good":
            continue
        what = "repaired" if one.repaired else one.checked.verdict
        click.echo(f"{what:<10} {one.name}\n{'':<10} {one.checked.digest}\n{'':<10} {one.checked.detail}")
    checked = [one for one in verdicts if one.checked.verdict != "missing"]
    told = [f"{sum(one.checked.verdict == 'good' for one in checked)} good"]
    if repaired := sum(one.repaired for one in verdicts):
        told.append(f"{repaired} repaired")
    told.append(f"{sum(one.is_bad for one in checked)} bad")
    if missing := sum(one.is_missing for one in verdicts):
        told.append(f"{missing} missing")
    size = units.size(sum(one.checked.size for one in checked))
    settings.say(f"{units.count(len(checked), 'blob')}, {size}: {', '.join(told)}")


def _as_json(verdict: _Verdict) -> dict[str, object]:
    return {
        "digest": str(verdict.checked.digest),
        "size_bytes": verdict.checked.size,
        "layer": verdict.layer.name,
        "name": verdict.name,
        "verdict": verdict.checked.verdict,
        "detail": verdict.checked.detail,
        "repaired": verdict.repaired,
    }
