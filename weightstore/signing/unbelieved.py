"""What is here of a source and does not count for this user, told instead of saying that there is nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord
from weightstore.records import timestamp
from weightstore.signing.claims import recall
from weightstore.signing.signers import allowed, read_signers
from weightstore.signing.sshsig import NAMESPACE, fingerprint
from weightstore.store.refs import read_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from weightstore.digest import Digest, Pin
    from weightstore.records import Ref, Wanted
    from weightstore.store.layers import Layer


def refs_that_do_not_count(wanted: Wanted, layers: Sequence[Layer], *, counts: Callable[[Ref], bool]) -> list[str]:
    """Return a sentence for each record of a blob that is here and that the pin allows, but that is not believed."""
    found = []
    for layer in layers:
        for source in wanted.sources if layer.layout is not None else ():
            try:
                ref = read_ref(layer.layout, source) if layer.layout is not None else None
            except InvalidRecord:
                continue  # noted where it was looked for
            if ref is None or not wanted.pin.matches(ref.digest) or not is_here(ref.digest, layers):
                continue
            if why := why_it_does_not_count(ref, pin=wanted.pin, counts=counts):
                found.append(_told(ref.digest, why))
    return found


def why_it_does_not_count(ref: Ref, *, pin: Pin, counts: Callable[[Ref], bool]) -> str:
    """Return why a record that the pin of its source allows is not believed; empty if it is."""
    if ref.via == "mirror" and not pin.is_pinned:
        return "a mirror gave it where somebody knew the digest, which is no word of the source"
    if not counts(ref):
        key = fingerprint(bytes.fromhex(ref.key))
        return f"known from an index that the key {key} signed, which your allowed_signers does not allow"
    return ""


def claims_that_do_not_count(
    wanted: Wanted, layers: Sequence[Layer], *, state: Path, allowed_signers: Path | None
) -> list[str]:
    """Return a sentence for each blob that is here and that somebody once signed, where that counts no more."""
    found = []
    now = datetime.now(UTC)
    signers = read_signers(allowed_signers) if allowed_signers is not None else ()
    for source in wanted.sources:
        try:
            claim = recall(state, source)
        except InvalidRecord:
            continue  # noted where it was looked for
        if claim is None or not wanted.pin.matches(claim.entry.digest) or not is_here(claim.entry.digest, layers):
            continue
        signer = allowed(signers, claim.key, now, namespace=NAMESPACE)
        whose = signer.name if signer is not None else f"the key {fingerprint(claim.key)}"
        if signer is None:
            why = f"known from an index that {whose} signed, which your allowed_signers does not allow"
        elif claim.expires <= now:
            why = f"known from the index that {whose} signed, which expired on {timestamp(claim.expires)}"
        else:
            continue
        found.append(_told(claim.entry.digest, why))
    return found


def is_here(digest: Digest, layers: Sequence[Layer]) -> bool:
    """Tell whether some layer has a blob, good or not."""
    return any(layer.layout is not None and layer.layout.blob(digest).is_file() for layer in layers)


def _told(digest: Digest, why: str) -> str:
    return f"{digest} is here, {why}. If that is it: --sha256 {digest.hex}"
