"""``weightstore verify``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import WeightsName, command_with_example, shared_options
from weightstore.errors import IntegrityError, NotPresent, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from weightstore.batch import Report
    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.digest import Digest
    from weightstore.records import Wanted
    from weightstore.store.layers import Layer
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
        return self.checked.verdict != "good" and not self.repaired


@command_with_example(
    example="""
weightstore verify
weightstore verify --repair resnet50
""",
)
@click.argument("names", nargs=-1, type=WeightsName(), metavar="[NAME]...")
@click.option("--repair", is_flag=True, help="Fetch damaged blobs again from the sources that are recorded for them.")
@click.option("--layers", "with_layers", is_flag=True, help="Check the read-only layers too, and change nothing there.")
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, names: tuple[str, ...], repair: bool, with_layers: bool) -> None:
    """Hash stored blobs again with all cores, whatever is remembered of them. Damaged ones go to quarantine.

    Without NAMEs everything in the store is checked. Exits with 5 when something is damaged and was not repaired.
    """
    client = settings.client()
    only = _digests(client, names) if names else None
    verdicts = _check(client, settings, only, with_layers=with_layers)
    report = None
    if repair:
        verdicts, report = _repair(verdicts, client, settings)
    if settings.json:
        settings.print_json({"blobs": [_as_json(one) for one in verdicts], "damaged": _count(verdicts)})
    else:
        _print(verdicts, settings)
    if report is None and _count(verdicts) and not repair:
        settings.say("Fetch damaged blobs again with: weightstore verify --repair")
    bad = {one.checked.verdict for one in verdicts if one.is_bad}
    code = IntegrityError.exit_code if "damaged" in bad else StoreError.exit_code if bad else 0
    click.get_current_context().exit(code)


def _digests(client: Client, names: Sequence[str]) -> set[Digest]:
    """Return the digests that names lead to, without reading a blob.

    Raises:
        NotPresent: nothing is recorded under a name.
    """
    recorded = {ref.source.key: ref.digest for stored in client.stored() for ref in stored.refs}
    stored = {one.digest for one in client.stored()}
    digests = set()
    for wanted in client.gather(names):
        digest = wanted.pin.digest or recorded.get(wanted.source.key)
        matching = [one for one in stored if wanted.pin.is_pinned and wanted.pin.matches(one)]
        if digest is None and len(matching) == 1:
            digest = matching[0]
        if digest is None or digest not in stored:
            raise NotPresent(
                name=wanted.name,
                digest=str(wanted.pin),
                searched=[str(layer.root) for layer in client.obtainer.layers()],
                offline=client.config.offline,
                remedy=f"weightstore prefetch '{wanted.name}'",
            )
        digests.add(digest)
    return digests


def _check(client: Client, settings: Settings, only: Collection[Digest] | None, *, with_layers: bool) -> list[_Verdict]:
    from weightstore.cli.ls import title_of
    from weightstore.cli.progress import hashing_progress
    from weightstore.store.verify import verify_store

    stored = client.stored()
    titles = {one.digest: title_of(one) for one in stored}
    layers = [layer for layer in client.obtainer.layers() if layer.layout and (layer.writable or with_layers)]
    chosen = {layer.name for layer in layers}
    total = sum(one.size for one in stored if one.layer in chosen and (only is None or one.digest in only))
    verdicts = []
    with hashing_progress(settings, total, "verifying") as advance:
        for layer in layers:
            if layer.layout is not None:
                checked = verify_store(
                    layer.layout, client.receipts, only=only, quarantine=layer.writable, on_bytes=advance
                )
                verdicts += [_Verdict(layer, one, titles.get(one.digest, "")) for one in checked]
    return verdicts


def _repair(verdicts: list[_Verdict], client: Client, settings: Settings) -> tuple[list[_Verdict], Report | None]:
    """Fetch what is damaged in the writable store once more; return the verdicts as they are then."""
    damaged = [one for one in verdicts if one.layer.writable and one.checked.verdict == "damaged"]
    wanted = []
    for one in damaged:
        again = _wanted_again(one, client)
        if again is None:
            settings.complain(f"{one.checked.digest}: no source is recorded for it, so it cannot be fetched again")
        else:
            wanted.append(again)
    if not wanted:
        return verdicts, None
    from weightstore.cli.fetching import fetch

    report = fetch(client.plan(wanted), settings=settings, client=client)
    fixed = {result.obtained.digest for result in report.results if result.obtained is not None}
    return [
        _Verdict(one.layer, one.checked, one.name, repaired=one in damaged and one.checked.digest in fixed)
        for one in verdicts
    ], report


def _wanted_again(verdict: _Verdict, client: Client) -> Wanted | None:
    from weightstore.digest import Pin
    from weightstore.records import Wanted
    from weightstore.store.gc import refs_by_digest

    digest = verdict.checked.digest
    refs = refs_by_digest(verdict.layer.layout).get(digest, []) if verdict.layer.layout else []
    sources = [ref.source for ref in refs]
    for catalog in client.catalogs.near():
        sources += [entry.source for entry in catalog.entries() if entry.pin.is_pinned and entry.pin.matches(digest)]
    sources = list(dict.fromkeys(sources))
    if not sources:
        return None
    return Wanted(verdict.name, sources[0], Pin.of(digest), alternatives=tuple(sources[1:]))


def _count(verdicts: Sequence[_Verdict]) -> int:
    return sum(one.is_bad for one in verdicts)


def _print(verdicts: Sequence[_Verdict], settings: Settings) -> None:
    for one in verdicts:
        if one.checked.verdict == "good":
            continue
        what = "repaired" if one.repaired else one.checked.verdict
        click.echo(f"{what:<10} {one.name}\n{'':<10} {one.checked.digest}\n{'':<10} {one.checked.detail}")
    size = units.size(sum(one.checked.size for one in verdicts))
    good = sum(one.checked.verdict == "good" for one in verdicts)
    repaired = sum(one.repaired for one in verdicts)
    more = f", {repaired} repaired" if repaired else ""
    settings.say(f"{units.count(len(verdicts), 'blob')}, {size}: {good} good{more}, {_count(verdicts)} bad")


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
