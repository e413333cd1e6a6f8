"""Pull: fetch from a mirror by digest, through the same downloads and the same publishing as everything else."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fnmatch
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.catalog.entries import best_known_first
from weightstore.cluster.index import make_entry, model_index
from weightstore.cluster.merging import merged
from weightstore.cluster.mirror.directory import Directory
from weightstore.cluster.mirror.foreign import understood
from weightstore.cluster.mirror.plan import (
    NAMELESS,
    Skipped,
    Told,
    commit_of,
    plan_pull,
    told_by,
    wanted_of,
    wanted_of_digest,
)
from weightstore.cluster.renewal import index_there, renewed_index
from weightstore.digest import Digest, Pin
from weightstore.errors import InvalidInput, InvalidRecord, SourceNotFound, StoreError, UnknownName
from weightstore.records import Wanted
from weightstore.store.blobs import list_blobs
from weightstore.store.gc import refs_by_digest
from weightstore.store.image import read_index_file, titles_by_index
from weightstore.store.refs import write_ref
from weightstore.transfer.bucket import BUCKETS
from weightstore.transfer.policy import blob_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weightstore.batch import Item, Report
    from weightstore.catalog.lockfile import Lockfile
    from weightstore.client import Client
    from weightstore.cluster.index import IndexEntry, ModelIndex
    from weightstore.cluster.mirror.place import Place
    from weightstore.cluster.mirror.plan import PullPlan
    from weightstore.source import Source
    from weightstore.store.layout import Layout

_LOOKING = 8


def gather(
    names: Sequence[str], *, place: Place, client: Client, lockfile: Lockfile | None, trusted: bool
) -> list[Wanted]:
    """Return what names, globs, URLs, digests and a lockfile ask for.

    What no catalog knows is looked for among the mirror's own names where it is ``trusted``: those of weights, tags and
    files.

    Raises:
        UnknownName, InvalidInput: something that cannot be resolved.
        Drift: the lockfile and the catalog disagree.
    """
    wanted: list[Wanted] = []
    for name in names:
        if name.startswith("sha256:"):
            wanted.append(wanted_of_digest(Digest.parse(name), place.source))
            continue
        try:
            found = client.chosen([name], lockfile=lockfile)
            wanted += [_file_there(one, place, client) if trusted else one for one in found]
        except UnknownName as error:
            entries = _called(name, index_of_place(place, client=client)) if trusted else []
            if not entries:
                raise _unknown(error) from None
            wanted += [pinned_by_catalog(wanted_of(entry, place.source), client) for entry in entries]
    return [*wanted, *client.gather(lockfile=lockfile)]


def _file_there(wanted: Wanted, place: Place, client: Client) -> Wanted:
    """Return what a mirror has under the name of a local file that nothing here knows; else what was wanted.

    Mirrors are told of no paths, only of the files' names.
    """
    if wanted.source.scheme != "file" or client.obtainer.known_digest(wanted) is not None:
        return wanted
    index = index_of_place(place, client=client)
    named = _called(wanted.source.file_name, replace(index, entries=tuple(e for e in index.entries if not e.sources)))
    return wanted_of(named[0], place.source) if len(named) == 1 else wanted


def _called(name: str, index: ModelIndex) -> list[IndexEntry]:
    """Return what a mirror calls so. Of several files of one name none is guessed."""
    is_glob = any(char in name for char in "*?[")
    found = [
        entry
        for entry in index.entries
        if any(
            fnmatch.fnmatchcase(called, name) if is_glob else called == name
            for called in {entry.name, *entry.aliases, entry.title, entry.ref_name} - {""}
        )
    ]
    if len(found) > 1 and not is_glob:
        choices = ", ".join(str(entry.digest) for entry in found)
        raise InvalidInput(f"{name!r}: the mirror has several files of this name. Say which: {choices}")
    return found


def _unknown(error: UnknownName) -> UnknownName:
    if error.unbelieved:  # a signature that does not hold is no reason to believe the mirror without one
        return error
    near = f", did you mean {', '.join(error.suggestions)}?" if error.suggestions else "."
    known = error.hint or f"no catalog knows it{near}"
    hint = "What only the mirror has a name for is pulled with --trust-mirror, or by its digest, sha256:<64 hex>"
    return UnknownName(name=error.name, hint=f"{known.rstrip('.')}{'' if known.endswith('?') else '.'} {hint}")


def prepare(place: Place, *, client: Client, wanted: Iterable[Wanted] | None, trusted: bool) -> PullPlan:
    """Return what a pull of some weights, or of everything that a mirror has, will ask for.

    The index is read only where it matters: for everything, or where its word is to be believed. Whom to believe
    besides is decided as for every fetch, and so by what somebody has signed whom this user allows to.

    Raises:
        SourceNotFound: an index is needed, and there is none.
        InvalidRecord, TransferError: it cannot be read.
    """
    signed: dict[Digest, int] = {}

    def known(one: Wanted) -> Digest | None:
        found = client.obtainer.believed(one, asking=True)
        if found.claim is not None:
            signed[found.claim.entry.digest] = found.claim.entry.size
        return found.digest

    nameless: list[Skipped] = []
    index = index_of_place(place, client=client) if wanted is None or trusted else None
    if wanted is None and index is not None:
        offered = [entry for entry in index.entries if trusted or entry.sources or _is_here(entry.digest, client)]
        asked = {entry.digest for entry in offered}
        nameless = [Skipped(one.name or one.title, NAMELESS) for one in index.entries if one.digest not in asked]
        wanted = [pinned_by_catalog(wanted_of(entry, place.source), client) for entry in offered]
    plan = plan_pull(wanted or (), index, known=known, trusted=trusted, room=client.plan(()).free)
    sized = tuple(replace(one, size=signed.get(Digest(one.pin.hex), one.size)) for one in plan.wanted)
    told = _signed(signed, client)
    if trusted and index is not None:
        coming = {Digest(one.pin.hex) for one in plan.wanted}
        told += told_by(index, coming, pin_of=lambda source: _pin_of(source, client))
    offers = index.entries if trusted and index is not None else ()
    return replace(plan, wanted=sized, skipped=(*plan.skipped, *nameless), told=told, offered=offers)


def _signed(digests: Iterable[Digest], client: Client) -> tuple[Told, ...]:
    """Return all that is signed of some blobs, whatever was asked for."""
    vouchers = client.obtainer.vouchers()
    told: list[Told] = []
    for digest in digests if vouchers is not None else ():
        claims = vouchers.claims_of(digest) if vouchers is not None else []
        sources = [claim.entry.source for claim in claims]
        told += [
            Told(one.entry.source, digest, one.entry.size, commit_of(one.entry.source, sources), one.key.hex())
            for one in claims
        ]
    return tuple(told)


def _is_here(digest: Digest, client: Client) -> bool:
    hit = client.obtainer.find(digest)
    if hit is not None:
        hit.blob.close()
    return hit is not None


def index_of_place(place: Place, *, client: Client) -> ModelIndex:
    """Return a mirror's index, with what other tools have put there as well.

    Raises:
        SourceNotFound: it has none.
        InvalidRecord, TransferError: it cannot be read.
    """
    index = place.read_index()
    if index is None:
        raise SourceNotFound(source=place.display, reason=_no_index(place))
    return understood(index, place.source, client=client)


def _no_index(place: Place) -> str:
    push = f"Push something to it: weightstore mirror push {place.display} NAMES"
    scheme = place.source.scheme
    if scheme == "oci":
        return f"there is no such repository, or nobody has pushed to it yet. {push}"
    if scheme in BUCKETS:
        return f"there is no index.json: no such bucket, or nobody has pushed to it yet. {push}"
    if scheme == "file":
        return f"there is no mirror. {push}"
    return (
        "there is no index.json. Whoever keeps the mirror makes one, in the directory that is served: "
        "weightstore --home DIR mirror index"
    )


def pinned_by_catalog(wanted: Wanted, client: Client) -> Wanted:
    """Return what a mirror offers under the pin that a catalog has for its source, which the mirror has no say in.

    Of several entries that have a pin goes before others, and then the one whose name leads.
    """
    known = best_known_first(entry for one in wanted.sources if (entry := client.entry_of(one)) is not None)
    entry = min(known, key=lambda one: not one.pin.is_pinned, default=None)
    if entry is None:
        return wanted
    offered = tuple(source for source in wanted.sources if source != entry.source)
    pin = entry.pin.narrower(wanted.pin) if entry.pin.agrees_with(wanted.pin) else entry.pin
    return replace(
        wanted, name=entry.name, qualified_name=entry.qualified_name, source=entry.source, alternatives=offered, pin=pin
    )


def _pin_of(source: Source, client: Client) -> Pin:
    entry = client.entry_of(source)
    return source.pin if entry is None else entry.pin


def lacking(items: Iterable[Item], place: Place, *, client: Client) -> list[Item]:
    """Return which of some missing items a mirror does not have: it is asked for each, and sends nothing of it.

    Raises:
        TransferError: the mirror cannot be asked.
    """

    def is_there(item: Item) -> bool:
        if item.digest is None:
            return False
        source = blob_in(place.source, item.digest)
        try:
            client.obtainer.transports().transport_for(source).open(source, end=1).close()
        except SourceNotFound:
            return False
        return True

    asked = list(items)
    with concurrent.futures.ThreadPoolExecutor(_LOOKING, thread_name_prefix="weightstore-look") as pool:
        return [item for item, there in zip(asked, pool.map(is_there, asked), strict=True) if not there]


def record_told(report: Report, told: Iterable[Told], *, client: Client) -> None:
    """Record what somebody was believed of the blobs that are here now: they are found by their sources from now on.

    What is recorded of a source already is not contradicted.
    """
    here = {result.obtained.digest for result in report.results if result.obtained is not None}
    now = datetime.now(UTC)
    for one in told:
        if one.digest not in here:
            continue
        ref = one.ref(now)
        if client.obtainer.known_digest(Wanted(str(one.source), one.source, Pin())) in {None, one.digest}:
            layout = client.obtainer.writable()
            write_ref(layout, ref, counts=client.obtainer.counts)
            if (pinned := ref.pinned_source) is not None and pinned != ref.source:
                write_ref(layout, replace(ref, source=pinned), counts=client.obtainer.counts)


def record_named(report: Report, offered: Iterable[IndexEntry], *, client: Client) -> None:
    """Have the store's index tell of what came without a source, as the mirror's does, so that it keeps its name.

    A mirror is nobody's origin, so no ref is made of it. What is asked for by its digest alone has no other name. Where
    the store has no index yet, the whole of it is written.
    """
    came = [result.obtained for result in report.results if not result.item.wanted.is_recorded and result.obtained]
    layout = client.obtainer.layers()[-1].layout
    if not came or layout is None:
        return
    there, refs, titles = list_blobs(layout), refs_by_digest(layout), titles_by_index(layout)
    told = {entry.digest: entry for entry in offered}
    entries: list[IndexEntry] = []
    documents: dict[Digest, bytes] = {}
    for digest, size in {one.digest: one.size for one in came}.items():
        said = told.get(digest)
        title = said.title if said is not None else digest.hex
        if digest not in there or digest in refs or titles.get(digest, digest.hex) != digest.hex:
            continue  # in a layer, or known by another name
        entry, made = make_entry(
            digest,
            size,
            sources=(),
            title=title,
            name=said.name if said is not None else "",
            aliases=said.aliases if said is not None else (),
            licence=said.licence if said is not None else "",
        )
        entries.append(entry)
        documents |= made
    if not entries:
        return
    more = model_index(entries, documents=documents)
    place = Directory(layout.root, client.receipts, locks=client.config.locks)
    try:
        place.renew_index(lambda now: merged(_index_of_store(now, client), more))
    except StoreError as error:  # members of a group may add blobs, and not all of them may write the index
        client.note(f"what came without a source is here by its digest only, and gc would take it: {error}")


def _index_of_store(layout: Layout, client: Client) -> ModelIndex:
    with contextlib.suppress(InvalidRecord):  # it is written anew, which tells of the damage
        if read_index_file(layout) is not None:
            return index_there(layout)
    return renewed_index(layout, client.catalogs.all(), note=client.note, counts=client.obtainer.counts)
