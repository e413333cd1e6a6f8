"""Pull: fetch from a mirror by digest, through the same downloads and the same publishing as everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weightstore.cluster.mirror.plan import plan_pull, wanted_of
from weightstore.errors import InvalidRecord, SourceNotFound
from weightstore.store.refs import forget_ref, read_ref, write_ref

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from weightstore.batch import Report
    from weightstore.client import Client
    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.mirror.place import Place
    from weightstore.cluster.mirror.plan import PullPlan
    from weightstore.digest import Digest
    from weightstore.records import Wanted


def prepare(place: Place, *, client: Client, wanted: Iterable[Wanted] | None, trusted: bool) -> PullPlan:
    """Return what a pull of some weights, or of everything that a mirror has, will ask for.

    The index is read only where it matters: for everything, or where its word is to be believed. What somebody signed
    whom this user allows to is known, as a pin is.

    Raises:
        SourceNotFound: an index is needed, and there is none.
        InvalidRecord, TransferError: it cannot be read.
    """
    vouchers = client.obtainer.vouchers()

    def known(one: Wanted) -> Digest | None:
        digest = client.obtainer.known_digest(one)
        if digest is None and vouchers is not None and (word := vouchers.ask(one)) is not None and word.claim:
            return word.claim.entry.digest
        return digest

    if wanted is not None and not trusted:
        return plan_pull(wanted, None, known=known, trusted=False)
    index = index_of_place(place)
    if wanted is None:
        wanted = [pinned_by_catalog(wanted_of(entry, place.source), client) for entry in index.entries]
    return plan_pull(wanted, index, known=known, trusted=trusted, room=client.plan(()).free)


def index_of_place(place: Place) -> ModelIndex:
    """Return a mirror's index.

    Raises:
        SourceNotFound: it has none.
        InvalidRecord, TransferError: it cannot be read.
    """
    index = place.read_index()
    if index is None:
        reason = "there is no index.json. Whoever keeps the mirror makes one: weightstore mirror index"
        raise SourceNotFound(source=place.display, reason=reason)
    return index


def pinned_by_catalog(wanted: Wanted, client: Client) -> Wanted:
    """Return what a mirror offers under the pin that a catalog has for its source, which the mirror has no say in."""
    entry = next((entry for source in wanted.sources if (entry := client.entry_of(source)) is not None), None)
    if entry is None:
        return wanted
    offered = tuple(source for source in wanted.sources if source != entry.source)
    pin = entry.pin.narrower(wanted.pin) if entry.pin.agrees_with(wanted.pin) else entry.pin
    return replace(
        wanted, name=entry.name, qualified_name=entry.qualified_name, source=entry.source, alternatives=offered, pin=pin
    )


def record_believed(report: Report, believed: Collection[Digest], *, client: Client) -> None:
    """Record as this user's own decision what was fetched on a mirror's word: it is found by its source from now on."""
    layout = client.obtainer.writable()
    for result in report.results:
        obtained = result.obtained
        if result.status != "fetched" or obtained is None or obtained.digest not in believed:
            continue
        source = result.item.wanted.source
        try:
            ref = read_ref(layout, source)
        except InvalidRecord:
            continue
        if ref is not None and ref.via == "mirror" and ref.digest == obtained.digest:
            forget_ref(layout, source)
            write_ref(layout, replace(ref, via="adopted"))
