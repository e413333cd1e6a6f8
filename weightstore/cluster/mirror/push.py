"""Push: bring to a mirror what it lacks, side by side, and then tell it in the index."""

from __future__ import annotations

import concurrent.futures
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from weightstore.cluster.index import ModelIndex, index_of
from weightstore.cluster.merging import merged
from weightstore.cluster.mirror.checked import make_sure_of
from weightstore.cluster.mirror.directory import Directory
from weightstore.cluster.mirror.place import Chunks, Outgoing
from weightstore.cluster.mirror.plan import wanted_of_digest
from weightstore.cluster.words import why_no_word
from weightstore.digest import Digest, Pin
from weightstore.errors import Cancelled, InvalidInput, NoSpace, StoreError, UnknownName, WeightStoreError
from weightstore.records import Wanted
from weightstore.source import Source
from weightstore.store.gc import refs_by_digest
from weightstore.store.image import titles_by_index

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence

    from weightstore.catalog.entries import Catalog
    from weightstore.catalog.lockfile import Lockfile
    from weightstore.client import Client
    from weightstore.cluster.mirror.place import Place
    from weightstore.cluster.mirror.plan import PushPlan
    from weightstore.records import Ref
    from weightstore.transfer.progress import Meter


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of one blob."""

    blob: Outgoing
    status: Literal["pushed", "present", "failed", "cancelled"]
    error: WeightStoreError | None = None


class PushProgress(Protocol):
    """Watches a push. Called from several threads."""

    def meter(self, blob: Outgoing) -> Meter:
        """Return what watches one blob on its way."""
        ...

    def done(self, done: Pushed) -> None:
        """Something became of a blob."""
        ...


def recorded(client: Client) -> dict[Digest, tuple[Ref, ...]]:
    """Return what all layers recorded, by digest; of each source what the first layer says."""
    found: dict[Digest, dict[str, Ref]] = {}
    for layer in client.obtainer.layers():
        if layer.layout is not None:
            for digest, refs in refs_by_digest(layer.layout).items():
                mine = found.setdefault(digest, {})
                for ref in refs:
                    mine.setdefault(ref.source.key, ref)
    return {digest: tuple(refs.values()) for digest, refs in found.items()}


def held(client: Client) -> list[Outgoing]:
    """Return every checkpoint that the store and its layers have, and of which a source or a file name is recorded."""
    refs = recorded(client)
    found: dict[Digest, Outgoing] = {}
    for one in client.stored():
        if one.digest in found:
            continue
        if one.digest in refs:
            name = one.names[0] if one.names else refs[one.digest][0].source.display
            found[one.digest] = Outgoing(one.digest, one.size, name, refs[one.digest])
        elif one.title and one.made_from is None:
            found[one.digest] = Outgoing(one.digest, one.size, one.title, title=one.title)
    return list(found.values())


def gather(names: Iterable[str], *, client: Client, lockfile: Lockfile | None) -> list[Wanted]:
    """Return what names, globs, URLs, digests and a lockfile ask for; of files without a source also their file names.

    Raises:
        UnknownName, InvalidInput: something that cannot be resolved.
        Drift: the lockfile and the catalog disagree.
    """
    here = Source.of_path(client.config.home)
    wanted: list[Wanted] = []
    for name in names:
        if name.startswith("sha256:"):
            wanted.append(wanted_of_digest(Digest.parse(name), here))
            continue
        try:
            wanted += client.chosen([name], lockfile=lockfile)
        except UnknownName:
            titled = sorted({one.digest for one in client.stored() if one.title == name and one.made_from is None})
            if not titled:
                raise
            if len(titled) > 1:
                choices = ", ".join(map(str, titled))
                raise InvalidInput(f"{name!r}: several files have this name. Say which: {choices}") from None
            wanted.append(replace(wanted_of_digest(titled[0], here), name=name))
    return [*wanted, *client.gather(lockfile=lockfile)]


def chosen(client: Client, wanted: Iterable[Wanted]) -> list[Outgoing]:
    """Return the blobs of some weights, verified.

    Raises:
        NotPresent: some of them are in no store here.
    """
    refs = recorded(client)
    titles: dict[Digest, str] = {}
    for layer in client.obtainer.layers():
        titles = {**(titles_by_index(layer.layout) if layer.layout is not None else {}), **titles}
    found = []
    for one in wanted:
        located = client.obtainer.locate(one)
        if located.hit is None:
            raise client.obtainer.not_present(one, located)
        with located.hit.blob as blob:
            mine = refs.get(blob.digest, ())
            found.append(Outgoing(blob.digest, blob.size, one.name, mine, "" if mine else titles.get(blob.digest, "")))
    return found


def with_words(blobs: Iterable[Outgoing], words: Iterable[Ref], *, client: Client) -> list[Outgoing]:
    """Return blobs with what a keeper says of their sources, where no better word is recorded of these here."""
    catalogs = tuple(client.catalogs.all())
    by_digest: dict[Digest, list[Ref]] = {}
    for ref in words:
        known = client.obtainer.known_digest(Wanted(str(ref.source), ref.source, Pin()))
        if known in {None, ref.digest}:
            by_digest.setdefault(ref.digest, []).append(ref)
        else:
            client.note(f"{ref.source} is recorded as {known}, and the lockfile says {ref.digest}: not taken")
    found = []
    for blob in blobs:
        said = {ref.source: ref for ref in by_digest.get(blob.digest, ())}
        said |= {ref.source: ref for ref in blob.refs if ref.source not in said}
        said |= {ref.source: ref for ref in _words(blob.refs, catalogs, client)}
        found.append(replace(blob, refs=tuple(said.values())))
    return found


def check_room(plan: PushPlan, place: Place) -> None:
    """Make sure that what is to be pushed will fit, where a mirror can tell: in a directory.

    Raises:
        NoSpace: it will not.
    """
    if isinstance(place, Directory) and plan.missing:
        place.check_room(plan.bytes_to_push)


def push(
    plan: PushPlan,
    place: Place,
    *,
    client: Client,
    jobs: int,
    progress: PushProgress,
    stop: threading.Event,
) -> list[Pushed]:
    """Bring the missing blobs to a mirror, and record them in its index; one that fails does not keep the others.

    The index is written last: it never names what is not there.

    Raises:
        InvalidRecord, TransferError, StoreError: the index cannot be read or written.
    """

    def one(blob: Outgoing) -> Pushed:
        is_damaged = blob.digest in plan.damaged and not isinstance(place, Directory)  # that puts damaged ones aside
        done = _attempt(blob, place, client, progress.meter(blob), stop, is_damaged=is_damaged)
        progress.done(done)
        return done

    with concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="weightstore-push") as pool:
        results = list(pool.map(one, plan.missing))
    there = [*plan.present, *(done.blob for done in results if done.status == "pushed")]
    if isinstance(place, Directory):
        catalogs = tuple(client.catalogs.all())
        for blob in there:
            place.record(replace(blob, refs=_words(blob.refs, catalogs, client)), counts=client.obtainer.counts)
    if there:
        publish_index(there, place, client=client)
        if isinstance(place, Directory):
            place.show(client)
    return [*(Pushed(blob, "present") for blob in plan.present), *results]


def _words(refs: Iterable[Ref], catalogs: Sequence[Catalog], client: Client) -> tuple[Ref, ...]:
    return tuple(ref for ref in refs if not why_no_word(ref, catalogs, counts=client.obtainer.counts))


def _attempt(
    blob: Outgoing, place: Place, client: Client, meter: Meter, stop: threading.Event, *, is_damaged: bool
) -> Pushed:
    def go_on(_size: int) -> None:
        if stop.is_set():
            raise Cancelled

    def advance(size: int) -> None:
        go_on(size)
        meter.advance(size)

    def start(offset: int) -> None:
        meter.start(place.display, offset=offset, total=blob.size)

    if stop.is_set():
        return Pushed(blob, "cancelled", Cancelled())
    try:
        hit = client.obtainer.find(blob.digest)
        if hit is None:
            raise StoreError(place=blob.name, reason="was removed from the store meanwhile")
        with hit.blob as opened:
            place.write(blob, Chunks(opened, on_bytes=advance, on_start=start))
        if is_damaged:
            make_sure_of(place, blob.digest, blob.size, client=client, on_bytes=go_on)
    except Cancelled as error:
        return Pushed(blob, "cancelled", error)
    except WeightStoreError as error:
        if isinstance(error, NoSpace):
            stop.set()
        return Pushed(blob, "failed", error)
    return Pushed(blob, "pushed")


def publish_index(blobs: Sequence[Outgoing], place: Place, *, client: Client) -> None:
    """Have a mirror's index tell of some blobs, beside what it tells already."""
    mine = _index_of(blobs, client)
    place.change_index(lambda old: merged(old, mine))


def index_after(blobs: Sequence[Outgoing], old: ModelIndex | None, *, client: Client) -> ModelIndex:
    """Return what a mirror's index will be when it tells of some blobs as well."""
    return merged(old or ModelIndex(), _index_of(blobs, client))


def _index_of(blobs: Sequence[Outgoing], client: Client) -> ModelIndex:
    return index_of(
        {blob.digest: blob.size for blob in blobs},
        {blob.digest: blob.refs for blob in blobs},
        client.catalogs.all(),
        counts=client.obtainer.counts,
        titles={blob.digest: blob.title for blob in blobs},
    )
