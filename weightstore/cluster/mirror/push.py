"""Push: bring to a mirror what it lacks, side by side, and then tell it in the index."""

from __future__ import annotations

import concurrent.futures
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from weightstore.cluster.index import ModelIndex, index_of, merged
from weightstore.cluster.mirror.directory import Directory
from weightstore.cluster.mirror.place import Chunks, Outgoing
from weightstore.errors import Cancelled, NoSpace, StoreError, WeightStoreError
from weightstore.store.gc import refs_by_digest

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence

    from weightstore.client import Client
    from weightstore.cluster.mirror.place import Place
    from weightstore.cluster.mirror.plan import PushPlan
    from weightstore.digest import Digest
    from weightstore.records import Ref, Wanted

# So often another push may write the index between our reading and our writing it.
_RACES = 5


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of one blob."""

    blob: Outgoing
    status: Literal["pushed", "present", "failed", "cancelled"]
    error: WeightStoreError | None = None


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
    """Return every checkpoint that the store and its layers have, and that a source is recorded of."""
    refs = recorded(client)
    found: dict[Digest, Outgoing] = {}
    for one in client.stored():
        if one.digest in refs and one.digest not in found:
            name = one.names[0] if one.names else refs[one.digest][0].source.display
            found[one.digest] = Outgoing(one.digest, one.size, name, refs[one.digest])
    return list(found.values())


def chosen(client: Client, wanted: Iterable[Wanted]) -> list[Outgoing]:
    """Return the blobs of some weights, verified.

    Raises:
        NotPresent: some of them are in no store here.
    """
    refs = recorded(client)
    found = []
    for one in wanted:
        located = client.obtainer.locate(one)
        if located.hit is None:
            raise client.obtainer.not_present(one, located)
        with located.hit.blob as blob:
            found.append(Outgoing(blob.digest, blob.size, one.name, refs.get(blob.digest, ())))
    return found


def push(
    plan: PushPlan,
    place: Place,
    *,
    client: Client,
    jobs: int,
    on_bytes: Callable[[int], None],
    on_done: Callable[[Pushed], None],
    stop: threading.Event,
) -> list[Pushed]:
    """Bring the missing blobs to a mirror, and record them in its index; one that fails does not keep the others.

    The index is written last: it never names what is not there.

    Raises:
        InvalidRecord, TransferError, StoreError: the index cannot be read or written.
    """

    def advance(size: int) -> None:
        if stop.is_set():
            raise Cancelled
        on_bytes(size)

    def one(blob: Outgoing) -> Pushed:
        done = _attempt(blob, place, client, advance, stop)
        on_done(done)
        return done

    with concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="weightstore-push") as pool:
        results = list(pool.map(one, plan.missing))
    there = [*plan.present, *(done.blob for done in results if done.status == "pushed")]
    if isinstance(place, Directory):
        for blob in there:
            place.record(blob)
    if there:
        publish_index(there, place, client=client)
    return [*(Pushed(blob, "present") for blob in plan.present), *results]


def _attempt(
    blob: Outgoing, place: Place, client: Client, advance: Callable[[int], None], stop: threading.Event
) -> Pushed:
    if stop.is_set():
        return Pushed(blob, "cancelled", Cancelled())
    try:
        hit = client.obtainer.find(blob.digest)
        if hit is None:
            raise StoreError(place=blob.name, reason="was removed from the store meanwhile")
        with hit.blob as opened:
            place.write(blob, Chunks(opened, on_bytes=advance))
    except Cancelled as error:
        return Pushed(blob, "cancelled", error)
    except WeightStoreError as error:
        if isinstance(error, NoSpace):
            stop.set()
        return Pushed(blob, "failed", error)
    return Pushed(blob, "pushed")


def publish_index(blobs: Sequence[Outgoing], place: Place, *, client: Client) -> None:
    """Have a mirror's index tell of some blobs, beside what it tells already.

    Two pushes at once may each replace the index that the other wrote: whoever finds itself missing writes again.
    """
    mine = index_of(
        {blob.digest: blob.size for blob in blobs},
        {blob.digest: blob.refs for blob in blobs},
        client.catalogs.all(),
    )
    for _ in range(_RACES):
        old = place.read_index() or ModelIndex()
        new = merged(old, mine)
        if new.encode() == old.encode() and not old.documents:  # with documents it is only built, and not yet there
            return
        place.replace_index(new)
    raise StoreError(place=place.display, reason="others keep replacing the index. Run it again when they are done")


def index_after(blobs: Sequence[Outgoing], old: ModelIndex | None, *, client: Client) -> ModelIndex:
    """Return what a mirror's index will be when it tells of some blobs as well."""
    sizes = {blob.digest: blob.size for blob in blobs}
    return merged(
        old or ModelIndex(), index_of(sizes, {blob.digest: blob.refs for blob in blobs}, client.catalogs.all())
    )
