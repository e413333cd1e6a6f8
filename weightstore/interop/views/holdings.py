"""What there is to show in a view: the sources of which some layer has a blob, all of them or those asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord, NotPresent, StoreError
from weightstore.interop.views.layouts import Held
from weightstore.signing.unbelieved import is_here, why_it_does_not_count
from weightstore.store.layers import find_ref
from weightstore.store.refs import list_refs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from weightstore.client import Client
    from weightstore.digest import Digest, Pin
    from weightstore.records import Ref, Wanted
    from weightstore.source import Source
    from weightstore.store.blobs import OpenBlob


def believed(client: Client, *, note: Callable[[str], None]) -> list[Ref]:
    """Return the refs of all layers that may be believed, one for each source; its blob need not be there.

    As everywhere, the first layer's word counts. What is here and is not believed is told, with the reason.
    """
    refs: dict[Source, Ref] = {}
    others: dict[Source, str] = {}
    layers = client.obtainer.layers()
    for layer in layers:
        for ref in list_refs(layer.layout) if layer.layout is not None else ():
            if isinstance(ref, InvalidRecord):
                note(str(ref))
            elif ref.source not in refs and (pin := _pin_of(ref.source, client)).matches(ref.digest):
                why_not = why_it_does_not_count(ref, pin=pin, counts=client.obtainer.counts)
                if not why_not:
                    refs[ref.source] = ref
                elif is_here(ref.digest, layers):
                    others.setdefault(ref.source, why_not)
    by_reason: dict[str, list[Source]] = {}
    for source, why_not in others.items():
        if source not in refs:
            by_reason.setdefault(why_not, []).append(source)
    for why_not, sources in by_reason.items():
        more = f", and {len(sources) - 1} more" if len(sources) > 1 else ""
        note(f"passed over: {sources[0]}{more}: {why_not}")
    return list(refs.values())


def recorded(client: Client, *, note: Callable[[str], None]) -> list[Held]:
    """Return every source that a believed ref tells of."""
    return [_held(ref) for ref in believed(client, note=note)]


def everything(client: Client, *, note: Callable[[str], None]) -> list[Held]:
    """Return every source of which some layer has a good blob."""
    found = recorded(client, note=note)
    good = {digest: _size(client, digest) for digest in sorted({one.digest for one in found})}
    return [one for one in found if good[one.digest] is not None]


def chosen(client: Client, wanted: Iterable[Wanted], *, remedy: str = "") -> list[Held]:
    """Return what was asked for, with every source that it has.

    Args:
        client: looks into its layers.
        wanted: what names, URLs or a lockfile ask for.
        remedy: the command that fetches it; by default one that names each.

    Raises:
        NotPresent: some of it is in no store.
    """
    held: list[Held] = []
    missing: list[Wanted] = []
    for one in wanted:
        digest = client.obtainer.known_digest(one)
        size = _size(client, digest) if digest is not None else None
        if digest is None or size is None:
            missing.append(one)
            continue
        held += [_of_source(client, source, Held(source, digest, size), one) for source in one.sources]
    if missing:
        raise _not_present(client, missing, remedy)
    return held


def _of_source(client: Client, source: Source, held: Held, wanted: Wanted) -> Held:
    """Return what is held of a source, with what a ref recorded of it."""
    ref = find_ref(source, client.obtainer.layers(), pin=wanted.pin, note=lambda _: None)
    if ref is not None and ref.digest == held.digest:
        held = _held(ref)
    file = source.hub_file
    if file is None or file.is_commit or held.commit:
        return held
    # A lockfile's commit is the revision of a further source of the same file.
    others = [other for one in wanted.alternatives if (other := one.hub_file) is not None and other.is_commit]
    commits = [other.revision for other in others if (other.repo, other.file) == (file.repo, file.file)]
    return replace(held, commit=commits[0] if commits else "")


def _held(ref: Ref) -> Held:
    return Held(ref.source, ref.digest, ref.size, ref.commit, ref.etag)


def _pin_of(source: Source, client: Client) -> Pin:
    entry = client.entry_of(source)
    return source.pin if entry is None else entry.pin


def opener(client: Client) -> Callable[[Digest], OpenBlob]:
    """Return what opens a blob, verified, of whichever layer has a good one."""

    def open_blob(digest: Digest) -> OpenBlob:
        hit = client.obtainer.find(digest)
        if hit is None:
            raise StoreError(place=str(digest), reason="was removed from the store this moment. Try again")
        return hit.blob

    return open_blob


def _size(client: Client, digest: Digest) -> int | None:
    """Return the size of a blob of which some layer has a good copy, or None."""
    hit = client.obtainer.find(digest)
    if hit is None:
        return None
    with hit.blob as blob:
        return blob.size


def _not_present(client: Client, missing: Sequence[Wanted], remedy: str) -> NotPresent:
    names = [one.name for one in missing]
    digests = [str(one.pin).replace("none", "digest unknown") for one in missing]
    shown = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
    return NotPresent(
        name=shown,
        digest=digests[0] if len(digests) == 1 else ", ".join(digests[:3]) + (", …" if len(digests) > 3 else ""),
        searched=[str(layer.root) for layer in client.obtainer.layers()],
        offline=client.config.offline,
        unbelieved=[why for one in missing if not one.pin.is_full for why in client.obtainer.unbelieved(one)],
        remedy=remedy or "weightstore prefetch " + " ".join(f"'{name}'" for name in names),
    )
