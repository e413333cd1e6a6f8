"""What becomes of a complete download: it lands, alone or with others that are complete at the same time."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from weightstore.errors import StoreError, WeightStoreError
from weightstore.records import Ref
from weightstore.store.refs import write_ref

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.records import Wanted
    from weightstore.signing.claims import Claim
    from weightstore.store.layout import Layout
    from weightstore.store.receipts import Receipts
    from weightstore.transfer.download import Downloaded
    from weightstore.transfer.policy import Candidate
    from weightstore.transfer.progress import Meter

_Arrived = tuple["Landing", "Callable[[], None]"]
Via = Literal["store", "layer", "mirror", "origin"]

_GROUP = 32
# Writing the pages of a file this large takes longer than the commit that it would share.
_LARGE = 16 << 20
# So long the first of a group waits for others, looking now and then whether any will come.
_GATHERING_S = 0.2
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Obtained:
    """A verified blob at ``path``; ``via`` tells where it came from. ``received`` counts bytes that were downloaded."""

    path: Path
    digest: Digest
    size: int
    via: Via
    place: str
    received: int = 0


class Landing:
    """A download that is complete and verified, and becomes a blob by landing. Holds its flight's lock until then.

    Whoever lands several calls :meth:`settle` on all of them first: an fsync is mostly a commit of the file system's
    journal, for which everybody has to wait who creates a file meanwhile, and one commit serves all that was written
    before it.
    """

    def __init__(
        self,
        wanted: Wanted,
        candidate: Candidate,
        done: Downloaded,
        receipts: Receipts,
        held: contextlib.ExitStack,
        meter: Meter,
        claim: Claim | None = None,
        counts: Callable[[Ref], bool] = lambda _: True,
    ) -> None:
        """``claim`` is what was signed of it, where its digest is known by that; ``counts`` tells whom they believe."""
        self.wanted = wanted
        self.size = done.size
        self._candidate = candidate
        self._done = done
        self._receipts = receipts
        self._held = held
        self._meter = meter
        self._claim = claim
        self._counts = counts
        self._is_settled = False
        self._problem: WeightStoreError | None = None

    def settle(self) -> None:
        """Make the content durable. What goes wrong, :meth:`land` raises."""
        from weightstore.store.publish import settle  # start-up: not for a hit

        try:
            settle(self._done.part, size=self.size)
        except WeightStoreError as error:
            self._problem = error
        self._is_settled = True

    def land(self) -> Obtained:
        """Publish the blob, record where it came from, and let go of the flight.

        The blob's name is durable once :meth:`Obtainer.sync_names` was called.

        Raises:
            PartLost: another process took the part over; :meth:`Obtainer.obtain` finds what became of it.
            CannotReplace, NoSpace, StoreError: it cannot be stored.
        """
        from weightstore.store.publish import give_name  # start-up: not for a hit

        done, candidate = self._done, self._candidate
        with self._held:
            try:
                if not self._is_settled:
                    self.settle()
                if self._problem is not None:
                    raise self._problem
                path = give_name(done.part, done.digest, self._receipts)
            except BaseException:
                done.part.discard()
                raise
            if self.wanted.is_recorded:
                self._record(done.part.layout)
        return Obtained(path, done.digest, done.size, candidate.kind, candidate.source.display, received=done.received)

    def _record(self, layout: Layout) -> None:
        candidate, done = self._candidate, self._done
        if candidate.kind == "mirror" and self._claim is not None:
            self._write(layout, self._claim.ref(datetime.now(UTC)))
            return
        source = candidate.source if candidate.kind == "origin" else self.wanted.source
        # What a mirror on the Hub declares is of the mirror's file.
        declared = done.declared if candidate.kind == "origin" else None
        ref = Ref(
            source,
            done.digest,
            done.size,
            datetime.now(UTC),
            candidate.kind,
            commit=declared.commit if declared is not None else "",
            etag=declared.etag if declared is not None else "",
        )
        self._write(layout, ref)

    def _write(self, layout: Layout, ref: Ref) -> None:
        try:
            write_ref(layout, ref, counts=self._counts)
            if (pinned := ref.pinned_source) is not None and pinned != ref.source:
                write_ref(layout, replace(ref, source=pinned), counts=self._counts)  # so that both are found offline
        except StoreError as error:
            # The blob is there and right; without a ref it is found by its pin, or fetched again.
            self._meter.note(f"the digest of {ref.source} could not be recorded: {error}")


class Lander:
    """A thread that lands downloads, as many together as are complete at once, while others go on downloading."""

    def __init__(self, receipts: Receipts, *, more_to_come: Callable[[], bool]) -> None:
        """Start the thread.

        Args:
            receipts: where what lands is noted.
            more_to_come: tells whether downloads are under way, which are worth waiting for.
        """
        self._receipts = receipts
        self._more_to_come = more_to_come
        # Bounded, so that a slow disk holds up the downloads, and does not fill memory with open files.
        self._arrived: queue.Queue[_Arrived | None] = queue.Queue(maxsize=2 * _GROUP)
        # Not Thread.join(): see Crew.
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="weightstore-land", daemon=True).start()

    def take(self, landing: Landing, then: Callable[[], None]) -> None:
        """Settle it together with others; ``then`` is called in the lander's thread and lands it."""
        self._arrived.put((landing, then))

    def close(self, timeout_s: float | None = None) -> None:
        """Wait until all have landed. Nothing more is taken."""
        self._arrived.put(None)
        self._ended.wait(timeout_s)

    def _run(self) -> None:
        try:
            is_open = True
            while is_open:
                group, is_open = self._gather()
                for landing, _ in group:
                    landing.settle()
                with self._receipts.together():
                    for _, then in group:
                        then()
        finally:
            self._ended.set()

    def _gather(self) -> tuple[list[_Arrived], bool]:
        """Return those that land together, and whether others may come after them."""
        group: list[_Arrived] = []
        deadline = 0.0
        while True:
            try:
                arrived = self._arrived.get(timeout=_LOOK_S if group else None)
            except queue.Empty:
                pass
            else:
                if arrived is None:
                    return group, False
                deadline = deadline or time.monotonic() + _GATHERING_S
                group.append(arrived)
                if len(group) >= _GROUP or arrived[0].size > _LARGE:
                    return group, True
                if not self._arrived.empty():
                    continue
            if time.monotonic() >= deadline or not self._more_to_come():
                return group, True
