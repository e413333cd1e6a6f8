"""Refs: recorded facts that a source was seen to have a digest, one file a source, replaced atomically."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord
from weightstore.records import Ref
from weightstore.store.layout import read_limited, translated, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from weightstore.records import Via
    from weightstore.source import Source
    from weightstore.store.layout import Layout

_NAME = re.compile(r"[0-9a-f]{64}\.json")
_RANK: dict[Via, int] = {"mirror": 0, "signed": 1, "adopted": 1, "origin": 2}


def read_ref(layout: Layout, source: Source) -> Ref | None:
    """Return what was recorded of a source, or None where nothing was.

    Raises:
        InvalidRecord: the file is damaged, or speaks of another source than its name says.
    """
    return _read(layout.ref(source))


def read_ref_of_key(layout: Layout, key: str) -> Ref | None:
    """Return what was recorded of the source with this key; None where nothing was, and of what is no key.

    Raises:
        InvalidRecord: as for :func:`read_ref`.
    """
    name = f"{key}.json"
    return _read(layout.refs / name) if _NAME.fullmatch(name) else None


def _read(path: Path) -> Ref | None:
    try:
        data = read_limited(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidRecord(place=str(path), reason=f"cannot be read: {error.strerror}") from None
    ref = Ref.parse(data, place=str(path))
    if path.name != f"{ref.source.key}.json":
        raise InvalidRecord(place=str(path), reason="damaged ref: it speaks of another source than its name says")
    return ref


def write_ref(layout: Layout, ref: Ref, *, counts: Callable[[Ref], bool] = lambda _: True) -> None:
    """Record a fact. An equal one (same digest and size) is left as it is: it is the earlier sighting.

    Where a branch moved on and its file stayed the same, the newer commit is recorded; and one where there was none. A
    better word takes the place of a lesser one, and never the other way round: what the origin was seen to serve is
    more than what somebody decided or signed, and that is more than what a mirror served under somebody's pin. What one
    key signed, or somebody decided, takes the place of what another key signed that does not ``count`` for whoever
    records it.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        known = read_ref(layout, ref.source)
    except InvalidRecord:
        known = None
    if known is not None and (known.digest, known.size) == (ref.digest, ref.size):
        is_newer = bool(ref.commit) and ref.commit != known.commit and (ref.via == "origin" or not known.commit)
        is_better = _RANK[ref.via] > _RANK[known.via] or _follows(ref, known, counts)
        if not is_newer and not is_better:
            return
        if ref.via != "origin":
            ref = replace(ref, commit=ref.commit or known.commit, etag=ref.etag or known.etag)
        if not is_better and ref.via != "origin":
            ref = replace(ref, seen_at=known.seen_at, via=known.via, key=known.key)
    elif known is not None and _RANK[ref.via] < _RANK[known.via]:
        return
    with translated(layout.refs):
        write_record(layout.ref(ref.source), ref.encode(), mode=layout.modes.record, scratch=layout.tmp)


def _follows(ref: Ref, known: Ref, counts: Callable[[Ref], bool]) -> bool:
    is_another = known.via == "signed" and ref.via in {"signed", "adopted"} and ref.key != known.key
    return is_another and not counts(known)


def forget_ref(layout: Layout, source: Source) -> bool:
    """Remove what was recorded of a source; tell whether there was anything."""
    with translated(layout.refs):
        try:
            os.unlink(layout.ref(source))
        except FileNotFoundError:
            return False
    return True


def list_refs(layout: Layout) -> Iterator[Ref | InvalidRecord]:
    """Yield every ref of a store; a damaged one comes as the error that says so, and is not raised."""
    try:
        names = sorted(os.listdir(layout.refs))
    except OSError:
        return
    for name in names:
        if _NAME.fullmatch(name):
            try:
                ref = _read(layout.refs / name)
            except InvalidRecord as damage:
                yield damage
            else:
                if ref is not None:
                    yield ref
