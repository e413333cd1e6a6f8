"""Which records of a store are a word of the source itself, that an index may tell others and a signer may sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightstore.catalog.entries import Catalog
    from weightstore.records import Ref


def all_count(_: Ref) -> bool:
    """Let every record count, as for a user who allows nobody in particular to sign."""
    return True


def why_no_word(ref: Ref, catalogs: Iterable[Catalog], *, counts: Callable[[Ref], bool]) -> str:
    """Return why a record is not to be told as what its source has; empty if it may be.

    As for finding it: one that came from a mirror is as good as a pin that agrees, of the source or of a catalog, and
    one by a signature is as good as its key.
    """
    pins = [ref.source.pin, *(entry.pin for one in catalogs for entry in one.entries_of_source(ref.source))]
    if any(pin.digest == ref.digest for pin in pins):
        return ""
    if ref.via == "mirror" and not any(pin.is_pinned and pin.matches(ref.digest) for pin in pins):
        return "came from a mirror for somebody who knew its digest, which is no word of the source"
    if not counts(ref):
        return "is known from an index by a key that your allowed_signers does not allow"
    return ""
