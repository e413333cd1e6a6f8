"""Which digest a source has by the signed indexes of the configured mirrors: asked of them, or remembered."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.errors import InvalidInput, InvalidRecord, MissingDependency, WeightStoreError
from weightstore.signing.claims import Claim, recall, remember
from weightstore.signing.signers import read_signers
from weightstore.signing.trusted import signed_index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from weightstore.config import Config
    from weightstore.digest import Digest
    from weightstore.records import Wanted
    from weightstore.signing.document import Believed, SignedEntry
    from weightstore.signing.signers import Signer
    from weightstore.source import Source
    from weightstore.transfer.transport import Transport

_FRESH_S = 300.0  # so long a process goes by what it has read


class Vouchers:
    """Those whom a user allows to say which digest a source has. Safe to use from many threads."""

    def __init__(
        self,
        config: Config,
        *,
        allowed_signers: Path,
        transport_for: Callable[[Source], Transport],
        note: Callable[[str], None],
    ) -> None:
        """Nothing is read yet. A mirror whose index is not believed is noted, and says nothing."""
        mirrors = config.mirrors if "mirrors" in config.order else ()
        # A registry has no files that could lie beside its blobs.
        mirrors = tuple(mirror for mirror in mirrors if mirror.scheme != "oci")
        self._mirrors = [mirror for mirror in mirrors if mirror.scheme == "file" or not config.offline]
        self._allowed_signers = allowed_signers
        self._state = config.state
        self._transport_for = transport_for
        self._note = note
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._indexes: list[tuple[Believed, dict[Source, SignedEntry]]] = []

    def remembered(self, wanted: Wanted) -> Claim | None:
        """Return what was once signed of some weights, while it is believed. Opens no socket.

        Raises:
            InvalidConfig: the file of signers cannot be used.
        """
        for source in wanted.sources:
            try:
                claim = recall(self._state, source)
            except InvalidRecord as damage:
                self._note(str(damage))
                continue
            if claim is None or not _agree(wanted, claim):
                continue
            if claim.is_believed(read_signers(self._allowed_signers), datetime.now(UTC)):
                return claim
        return None

    def ask(self, wanted: Wanted, *, remembering: bool = True) -> Claim | None:
        """Return what the mirrors' signed indexes say of some weights, the first that agrees, and remember it.

        Raises:
            InvalidConfig: the file of signers cannot be used.
            MissingDependency: cryptography is not installed.
        """
        for source in wanted.sources:
            for claim in self.claims_for(source):
                if _agree(wanted, claim):
                    if remembering:
                        remember(self._state, claim)
                    return claim
        return None

    def claims_of(self, digest: Digest) -> list[Claim]:
        """Return which sources the mirrors' signed indexes say to have a digest. Errors as for :meth:`ask`."""
        now = datetime.now(UTC)
        return [
            Claim(entry, believed.index.expires, believed.signer.key)
            for believed, entries in self._listen()
            for entry in entries.values()
            if entry.digest == digest and now < believed.index.expires
        ]

    def claims_for(self, source: Source) -> list[Claim]:
        """Return what each mirror says of a source, in the mirrors' order. Errors as for :meth:`ask`."""
        now = datetime.now(UTC)
        return [
            Claim(entries[source], believed.index.expires, believed.signer.key)
            for believed, entries in self._listen()
            if source in entries and now < believed.index.expires
        ]

    def _listen(self) -> list[tuple[Believed, dict[Source, SignedEntry]]]:
        with self._lock:
            if self._read_at is None or time.monotonic() - self._read_at > _FRESH_S:
                signers = read_signers(self._allowed_signers)
                read = [self._read(mirror, signers) for mirror in self._mirrors]
                self._indexes = [(one, one.index.by_source) for one in read if one is not None]
                self._read_at = time.monotonic()
            return self._indexes

    def _read(self, mirror: Source, signers: Sequence[Signer]) -> Believed | None:
        try:
            return signed_index(
                mirror,
                signers=signers,
                state=self._state,
                transport=self._transport_for(mirror),
                now=datetime.now(UTC),
            )
        except (InvalidInput, MissingDependency):
            raise  # ours to mend, and not the mirror's fault
        except WeightStoreError as error:
            self._note(f"what mirror {mirror} says of sources is passed over: {error}")
            return None


def _agree(wanted: Wanted, claim: Claim) -> bool:
    """Tell whether what was signed is something that the caller's pin and size allow."""
    return wanted.pin.matches(claim.entry.digest) and wanted.exact_size in {None, claim.entry.size}
