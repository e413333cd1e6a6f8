"""One blob, from wherever it is: layers, then mirrors by digest, then the origin; verified, published, recorded."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from weightstore.digest import Digest, Pin
from weightstore.errors import (
    NotPresent,
    SourceNotFound,
    SourceUnavailable,
    StoreError,
    UntrustedSource,
    WeightStoreError,
)
from weightstore.landing import Landing, Obtained, Via
from weightstore.store.durability import start_write_back, sync_directory
from weightstore.store.layers import Hit, Layer, find_blob, find_ref, open_layers
from weightstore.store.layout import Layout, create_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weightstore.config import Config
    from weightstore.records import Ref, Wanted
    from weightstore.signing.claims import Claim
    from weightstore.signing.vouchers import Vouchers, Word
    from weightstore.source import Source
    from weightstore.store.receipts import Receipts
    from weightstore.transfer.health import Health
    from weightstore.transfer.policy import Candidate, Route
    from weightstore.transfer.progress import Meter
    from weightstore.transfer.transports import Transports

# So often may other processes take a download over before it is given up.
_LOSSES = 3
Known = Literal["pin", "ref", "signature", "nothing"]


@dataclass(frozen=True, slots=True)
class Located:
    """What the stores know of a wanted blob: its digest and how that is known, and a verified copy if there is one.

    ``ref`` is the record that tells the digest, where it is known by one. By a signature it is known where a mirror's
    signed index tells it, by somebody whom the configuration trusts with that: ``word`` is what it says.
    """

    digest: Digest | None
    known_by: Known
    hit: Hit | None
    ref: Ref | None = None
    word: Word | None = None

    @property
    def claim(self) -> Claim | None:
        """What was signed of it, where its digest is known by that."""
        return self.word.claim if self.word is not None else None


class Obtainer:
    """Finds blobs, and fetches those that are missing. One for a client; safe to use from many threads."""

    def __init__(self, config: Config, receipts: Receipts, *, note: Callable[[str], None]) -> None:
        self.config = config
        self.receipts = receipts
        self._note = note
        self._layers: tuple[Layer, ...] | None = None
        self._created: Layout | None = None
        self._transports: Transports | None = None
        self._vouchers: Vouchers | None = None
        self._lock = threading.Lock()
        self._mirrors_health: Health | None = None
        self._process = os.getpid()

    # -- finding ------------------------------------------------------------------------------------------------

    def layers(self) -> tuple[Layer, ...]:
        """Return the stores that are consulted, in order; the writable one is the last."""
        layers = self._layers
        if layers is None or layers[-1].layout is None:
            read_only = self.config.layers if "layers" in self.config.order else ()
            layers = self._layers = open_layers(self.config.home, read_only, note=self._note)
        return layers

    def locate(self, wanted: Wanted, *, note: Callable[[str], None] | None = None, asking: bool = False) -> Located:
        """Look for a blob in all layers. Opens no socket, takes no lock, writes nothing but a receipt of this user.

        The blob that is found is open: close it. When ``asking``, the mirrors are asked for what they have signed where
        nothing here tells the digest, unless that is forbidden.
        """
        found = self.believed(wanted, note=note, asking=asking)
        if found.digest is None:
            return found
        return replace(found, hit=find_blob(found.digest, self.layers(), self.receipts, note=note or self._note))

    def believed(
        self,
        wanted: Wanted,
        *,
        note: Callable[[str], None] | None = None,
        asking: bool = False,
        remembering: bool = False,
    ) -> Located:
        """Return which digest some weights have by what this user believes, and by whose word; looks for no blob.

        The one place where that is decided: for what is stored, fetched and pulled. In this order: the pin, what a
        layer recorded, what the mirrors' signed indexes say now when ``asking``, which is remembered when
        ``remembering``, and what was signed and is remembered.
        """
        digest, ref = self._known_digest(wanted, self.layers(), note or self._note)
        if digest is not None:
            return Located(digest, "pin" if ref is None else "ref", None, ref)
        if (vouchers := self.vouchers()) is not None:
            word = vouchers.ask(wanted, remembering=remembering) if asking else vouchers.remembered(wanted)
            if word is not None and word.claim is not None:
                return Located(word.claim.entry.digest, "signature", None, word=word)
        return Located(None, "nothing", None)

    def known_digest(self, wanted: Wanted) -> Digest | None:
        """Return the digest that some weights have, by their pin or by what a layer recorded; opens no blob."""
        return self._known_digest(wanted, self.layers(), self._note)[0]

    def counts(self, ref: Ref) -> bool:
        """Tell whether a record counts for this user. One by a signature does while its key is allowed to sign.

        Who allows nobody in particular goes by what the store's other users have recorded, as with every record.

        Raises:
            InvalidConfig: the file of signers cannot be used.
        """
        if ref.via != "signed" or self.config.allowed_signers is None:
            return True
        from weightstore.signing.signers import may_have_signed  # start-up: only where somebody signs

        return may_have_signed(self.config.allowed_signers, ref)

    def known_commit(self, wanted: Wanted, digest: Digest) -> str:
        """Return the commit at which a file on the Hub was seen to have a digest; empty where none was recorded."""
        asked = wanted.source.hub_file
        if asked is None or asked.is_commit:
            return asked.revision if asked is not None else ""
        for source in wanted.sources:
            found = source.hub_file
            if found is None or found.at(asked.revision) != asked:
                continue  # an alternative in another repository
            ref = find_ref(source, self.layers(), pin=Pin.of(digest), note=self._note, counts=self.counts)
            if ref is not None and ref.commit:
                return ref.commit
        return ""

    def find(self, digest: Digest, *, note: Callable[[str], None] | None = None) -> Hit | None:
        """Look for a blob by its digest in all layers, as :meth:`locate` does. The blob that is found is open."""
        return find_blob(digest, self.layers(), self.receipts, note=note or self._note)

    def _known_digest(
        self, wanted: Wanted, layers: Sequence[Layer], note: Callable[[str], None]
    ) -> tuple[Digest | None, Ref | None]:
        if (digest := wanted.pin.digest) is not None:
            return digest, None
        for source in wanted.sources:
            ref = find_ref(source, layers, pin=wanted.pin, note=note, counts=self.counts)
            if ref is not None and not (_has_changed(source, ref) and not wanted.pin.is_pinned):
                return ref.digest, ref
        return None, None

    # -- fetching -----------------------------------------------------------------------------------------------

    def obtain(self, wanted: Wanted, *, meter: Meter, stop: threading.Event) -> Obtained:
        """Return a verified blob, fetched if no layer has it.

        Raises:
            NotPresent: it would have to be fetched, and we are offline.
            UntrustedSource: it has no pin, and the configuration wants one.
            IntegrityError, TransferError: no source gave the right bytes.
            NoSpace, StoreError: it cannot be stored.
            Cancelled: ``stop`` was set.
        """
        from weightstore.store.publish import PartLost  # start-up: not for a hit

        for _ in range(_LOSSES):
            brought = self.bring(wanted, meter=meter, stop=stop)
            if isinstance(brought, Obtained):
                return brought
            try:
                obtained = brought.land()
            except PartLost as error:
                # Another process believed this one dead and went on with its part: see what became of it.
                meter.note(str(error))
            else:
                self.sync_names()
                return obtained
        raise SourceUnavailable(source=wanted.source.display, reason="other processes kept taking the download over")

    def land(self, landing: Landing, *, meter: Meter, stop: threading.Event) -> Obtained:
        """Land a download, or, should another process have taken it over, return what became of it.

        Call :meth:`sync_names` when all have landed. Errors as for :meth:`obtain`.
        """
        from weightstore.store.publish import PartLost  # start-up: not for a hit

        try:
            return landing.land()
        except PartLost as error:
            meter.note(str(error))
            return self.obtain(landing.wanted, meter=meter, stop=stop)

    def left_behind(self) -> frozenset[str]:
        """Return the keys of all parts that lie in the writable store now."""
        from weightstore.store.parts import list_parts  # start-up: not for a hit

        layout = self.layers()[-1].layout
        return frozenset() if layout is None else frozenset(part.key for part in list_parts(layout))

    def bring(
        self,
        wanted: Wanted,
        *,
        meter: Meter,
        stop: threading.Event,
        left_behind: frozenset[str] | None = None,
    ) -> Obtained | Landing:
        """Return a verified blob that is there, or one that was just downloaded and has yet to land.

        ``left_behind`` are the keys of the parts that there were a moment ago: who brings many looks once for all.
        Errors as for :meth:`obtain`.
        """
        located = self.believed(wanted, note=meter.note, asking=True, remembering=True)
        hit = self.find(located.digest, note=meter.note) if located.digest is not None else None
        if hit is not None:
            self._record_signed(located, meter)
            return obtained_from(hit)
        from weightstore.fetching import fetch  # start-up: not for a hit
        from weightstore.store.flight import flight
        from weightstore.transfer.progress import Silent

        candidates = self.candidates(wanted, located)
        layout = self.writable()
        key = f"sha256-{located.digest.hex}" if located.digest is not None else f"source-{wanted.source.key}"

        def arrived() -> Hit | None:
            if located.known_by == "signature" and located.digest is not None:
                return self.find(located.digest, note=meter.note)
            return self.locate(wanted, note=meter.note).hit

        with contextlib.ExitStack() as held:
            hit = held.enter_context(
                flight(
                    layout,
                    key,
                    arrived=arrived,
                    locks=self.config.locks,
                    stall_s=self.config.stall_s,
                    stop=stop,
                    on_wait=lambda whom: meter.note(f"waiting for {whom}"),
                )
            )
            if hit is not None:
                self._record_signed(located, meter)
                return obtained_from(hit)
            may_resume = left_behind is None or key in left_behind
            done, candidate = fetch(
                wanted,
                located,
                candidates,
                config=self.config,
                transports=self.transports(),
                health=self._health(),
                layout=layout,
                key=key,
                meter=meter,
                # Also who watches nothing is told that a mirror fails.
                tell=self._note if isinstance(meter, Silent) else meter.note,
                stop=stop,
                may_resume=may_resume,
            )
            start_write_back(done.part.fd, 0, 0)
            # The lock goes with it: until the blob has its name, others wait for this flight.
            return Landing(wanted, candidate, done, self.receipts, held.pop_all(), meter, located.claim, self.counts)

    def _record_signed(self, located: Located, meter: Meter) -> None:
        """Record what was signed of a blob that is here, so that it is found when the index has expired."""
        layout = self.layers()[-1].layout
        if located.claim is None or layout is None:
            return
        from weightstore.store.refs import write_ref  # start-up: not for a hit

        try:
            write_ref(layout, located.claim.ref(datetime.now(UTC)), counts=self.counts)
        except StoreError as error:
            meter.note(f"the digest of {located.claim.entry.source} could not be recorded: {error}")

    def vouchers(self) -> Vouchers | None:
        """Return those who may say by a signature which digest a source has; None where the user allows nobody."""
        if self.config.allowed_signers is None:
            return None
        transports, health = self.transports(), self._health()
        with self._lock:
            if self._vouchers is None:
                from weightstore.signing.vouchers import Vouchers  # start-up: only where somebody signs

                self._vouchers = Vouchers(
                    self.config,
                    allowed_signers=self.config.allowed_signers,
                    transport_for=transports.transport_for,
                    health=health,
                    note=self._note,
                )
        return self._vouchers

    def candidates(self, wanted: Wanted, located: Located) -> list[Candidate]:
        """Return the sources that may be asked for a missing blob, in order.

        Raises:
            NotPresent: there is none, as when we are offline.
            UntrustedSource: it has no pin, and the configuration wants one.
        """
        if self.config.trust == "pinned" and not wanted.pin.is_pinned and located.known_by == "nothing":
            raise UntrustedSource(source=wanted.source.display)
        chosen = self.route(wanted, located)
        candidates = [
            candidate
            for candidate in chosen.candidates
            if not (self.config.offline and candidate.source.scheme != "file")
        ]
        if not candidates:
            raise self.not_present(wanted, located, notes=chosen.skipped)
        return candidates

    def refusal(self, wanted: Wanted) -> WeightStoreError | None:
        """Return the error with which fetching some weights that are missing is bound to end before it asks anybody."""
        located = self.believed(wanted, asking=True)
        try:
            candidates = self.candidates(wanted, located)
        except WeightStoreError as error:
            return error
        sources = [candidate.source for candidate in candidates]
        if any(source.scheme != "file" or os.path.exists(source.path) for source in sources):
            return None
        return SourceNotFound(source=sources[0].display, reason="no such file")

    def route(self, wanted: Wanted, located: Located) -> Route:
        """Return the sources that would be asked for a missing blob, in order, were we online."""
        from weightstore.transfer.policy import route  # start-up: not for a hit

        return route(
            wanted,
            digest=located.digest,
            mirrors=self.config.mirrors,
            order=self.config.order,
            recorded=located.ref.pinned_source if located.ref is not None else None,
        )

    def not_present(self, wanted: Wanted, located: Located, *, notes: Sequence[str] = ()) -> WeightStoreError:
        """Return the error that says where we looked and what to run; of a local file that is gone, that it is gone."""
        is_local = all(source.scheme == "file" for source in wanted.sources)
        if is_local and not any(os.path.exists(source.path) for source in wanted.sources):
            return SourceNotFound(source=wanted.source.display, reason="no such file, and it is in no store")
        searched = [f"{layer.root}" + ("" if layer.layout else " (no store)") for layer in self.layers()]
        known = f"sha256:{located.digest.hex}" if located.digest else str(wanted.pin).replace("none", "digest unknown")
        argument = wanted.name if "://" not in wanted.name else wanted.source.display
        return NotPresent(
            name=wanted.name,
            digest=known,
            searched=searched,
            offline=self.config.offline,
            remedy=f"weightstore prefetch '{argument}'",
            is_local=is_local,
            notes=notes if self.config.mirrors else (),
            unbelieved=self.unbelieved(wanted) if located.digest is None else (),
        )

    def unbelieved(self, wanted: Wanted, layers: Sequence[Layer] | None = None) -> list[str]:
        """Return what layers have of some weights that does not count for this user, each with the reason."""
        from weightstore.signing.unbelieved import claims_that_do_not_count, refs_that_do_not_count

        found = refs_that_do_not_count(wanted, layers or self.layers(), counts=self.counts)
        if layers is None:
            found += claims_that_do_not_count(
                wanted, self.layers(), state=self.config.state, allowed_signers=self.config.allowed_signers
            )
        return list(dict.fromkeys(found))

    def interrupt(self) -> None:
        """End all downloads' waits for the network; whoever sets ``stop`` first has them stop."""
        if self._transports is not None:
            self._transports.interrupt()

    def writable(self) -> Layout:
        """Return the writable store, made where there is none yet."""
        if self._created is None:
            self._created = create_layout(self.config.home)
        return self._created

    def sync_names(self) -> None:
        """Make the names of everything published so far durable."""
        sync_directory(self.writable().blobs)

    def _health(self) -> Health:
        from weightstore.transfer.health import Health  # start-up: not for a hit

        with self._lock:
            if self._mirrors_health is None:
                self._mirrors_health = Health(state=self.config.state)
            return self._mirrors_health

    def transports(self) -> Transports:
        """Return the transports of this process, made when first asked for."""
        from weightstore.transfer.transports import Transports  # start-up: not for a hit

        if self._process != os.getpid():
            # Connections must not be shared with the process that forked us, nor a lock that it held.
            self._process, self._lock = os.getpid(), threading.Lock()
            self._transports = self._vouchers = self._mirrors_health = None
        with self._lock:  # two of them would be two caps on connections
            if self._transports is None:
                self._transports = Transports(self.config)
            return self._transports


def _has_changed(source: Source, ref: Ref) -> bool:
    """Tell whether a local file was written after it was recorded. Of a file that is gone the record still holds."""
    if source.scheme != "file":
        return False
    try:
        found = source.path.stat()
    except OSError:
        return False
    return found.st_size != ref.size or found.st_mtime >= ref.seen_at.timestamp() + 1  # recorded in whole seconds


def obtained_from(hit: Hit) -> Obtained:
    """Return what a hit amounts to, and close its blob."""
    with hit.blob as blob:
        via: Via = "store" if hit.layer.writable else "layer"
        return Obtained(blob.path, blob.digest, blob.size, via, str(hit.layer.root))
