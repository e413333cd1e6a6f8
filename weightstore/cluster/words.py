"""Which records of a store are a word of the source itself, that an index may tell others and a signer may sign."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord
from weightstore.records import Ref
from weightstore.store.refs import read_ref, write_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from weightstore.catalog.entries import Catalog
    from weightstore.catalog.lockfile import Lockfile
    from weightstore.store.layout import Layout


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
        return (
            "came from a mirror for somebody who knew its digest, which is no word of the source. A lockfile is one if "
            "you give it with --locked"
        )
    if not counts(ref):
        return "is known from an index by a key that your allowed_signers does not allow"
    return ""


def words_of(lockfile: Lockfile, *, now: datetime) -> list[Ref]:
    """Return what a lockfile says of sources as its keeper's own decision, who names it: as good as any word."""
    found = []
    for locked in lockfile.entries:
        ref = Ref(locked.source, locked.digest, locked.size, now, "adopted", commit=locked.commit)
        pinned = ref.pinned_source
        found += [ref] if pinned in {None, ref.source} else [ref, replace(ref, source=pinned)]
    return found


def take_words(
    layout: Layout, words: Iterable[Ref], *, counts: Callable[[Ref], bool], note: Callable[[str], None]
) -> None:
    """Record what a keeper says of sources whose blobs a store has.

    What it has seen of the origin, or what somebody decided or signed who counts, is not contradicted, which is noted.

    Raises:
        StoreError: it cannot be written.
    """
    for ref in words:
        known = None
        with contextlib.suppress(InvalidRecord):
            known = read_ref(layout, ref.source)
        if not layout.blob(ref.digest).is_file():
            continue
        if known is not None and known.digest != ref.digest and known.via != "mirror" and counts(known):
            note(f"{ref.source} is recorded as {known.digest}, and the lockfile says {ref.digest}: not taken")
        else:
            write_ref(layout, ref, counts=counts)
