"""Signing a mirror: what its index says of sources, put under a signature by whoever keeps it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.cluster.index import ModelIndex, parse_index
from weightstore.cluster.mirror.pull import index_of_place, pinned_by_catalog
from weightstore.cluster.mirror.signature import files_of
from weightstore.cluster.words import all_count, take_words, why_no_word
from weightstore.errors import InvalidInput, InvalidRecord, NotAStore, StoreError
from weightstore.records import Wanted
from weightstore.signing.document import (
    DOCUMENT_LIMIT,
    LAST_VERSION,
    SIGNATURE,
    SIGNED_INDEX,
    SignedEntry,
    SignedIndex,
    Statement,
)
from weightstore.signing.sshsig import NAMESPACE, BadSignature, Signature, sign
from weightstore.signing.trusted import inside, read_documents
from weightstore.store.blobs import list_blobs, open_verified
from weightstore.store.gc import refs_by_digest
from weightstore.store.image import INDEX_NAME, read_index_file
from weightstore.store.layout import open_layout, read_limited, translated, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from weightstore.catalog.entries import Catalog
    from weightstore.client import Client
    from weightstore.cluster.index import IndexEntry
    from weightstore.cluster.mirror.place import Place
    from weightstore.digest import Digest
    from weightstore.records import Ref
    from weightstore.source import Source
    from weightstore.store.layout import Layout
    from weightstore.store.receipts import Receipts

_KEY_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Signed:
    """A mirror's index that was signed: where it is, what it says, and by which key.

    ``left_out`` are the sources that it does not vouch for, with why not.
    """

    place: str
    index: SignedIndex
    fingerprint: str
    left_out: tuple[tuple[Source, str], ...] = ()


def _silent(_: str) -> None:
    """Tell nobody."""


def sign_mirror(
    root: Path,
    *,
    make_signature: Callable[[bytes], bytes],
    now: datetime,
    expires: datetime,
    receipts: Receipts,
    catalogs: Iterable[Catalog] = (),
    counts: Callable[[Ref], bool] = all_count,
    words: Iterable[Ref] = (),
    note: Callable[[str], None] = _silent,
    on_bytes: Callable[[int], None] | None = None,
) -> Signed:
    """Sign what the index of a mirror in a directory says of sources.

    Every blob that is vouched for is verified first. A source that several entries claim is left out, and so is what
    the store has and its index does not tell: the index is what whoever signs it has looked at. So is what the store
    has recorded by a mirror's word or by a key that does not ``count`` for this user: that would be believed anew.
    ``words`` are what this user says of sources by a lockfile, recorded first.

    Raises:
        InvalidInput: the mirror has no index, or the key cannot be used.
        BlobDamaged: a blob is not what its name says; nothing is signed.
        NotAStore, InvalidRecord, StoreError: the directory cannot be used, or its index names what is not there.
    """
    layout = open_layout(root)
    if layout is None:
        raise NotAStore(place=str(root), reason="there is no store, and so no mirror")
    catalogs = tuple(catalogs)
    take_words(layout, words, counts=counts, note=note)
    entries = _entries(layout, receipts, catalogs, on_bytes)
    doubted = _doubted(layout, catalogs, counts)
    entries = tuple(entry for entry in entries if (entry.source, entry.digest) not in doubted)
    made = _statement(entries, make_signature=make_signature, now=now, expires=expires, highest=_version_there(layout))
    path = layout.root / SIGNED_INDEX
    with translated(path):
        # Who reads between the two finds that they do not belong together, and reads again.
        write_record(path, made.document, mode=0o444, scratch=layout.tmp, durable=True)
        write_record(layout.root / SIGNATURE, made.signature, mode=0o444, scratch=layout.tmp, durable=True)
    return Signed(str(path), made.index, made.fingerprint, _left_out(layout, doubted))


def sign_place(
    place: Place,
    *,
    client: Client,
    make_signature: Callable[[bytes], bytes],
    now: datetime,
    expires: datetime,
    trusted: bool = False,
    words: Iterable[Ref] = (),
) -> Signed:
    """Sign what the index of a mirror in a bucket or a registry says of sources, and bring the signature there.

    Others may write there, so its index is not believed: only that is signed of which this machine knows the digest by
    itself or by this user's ``words``, unless the index is ``trusted``. What it knows to be otherwise is left out in
    any case. The place is asked whether the blobs are there; they are not read, and whoever fetches them verifies them.

    Raises:
        InvalidInput: there is nothing that can be signed for, or the key cannot be used.
        SourceNotFound, InvalidRecord, TransferError: the mirror has no index, or cannot be read or written.
    """
    index = index_of_place(place, client=client)
    there = place.present({entry.digest: entry.size for entry in index.entries}, None)  # and not by its index's word
    said = {ref.source: ref.digest for ref in words}
    entries, left_out = [], []
    for source, entry in index.by_source.items():
        why_not = _why_not(source, entry, there, said.get(source), client=client, trusted=trusted)
        if why_not:
            left_out.append((source, why_not))
        else:
            entries.append(_signed(source, entry, client.catalogs.near()))
    if not entries:
        why = f": {left_out[0][0]} {left_out[0][1]}" if left_out else ""
        raise InvalidInput(f"{place.display} has nothing that can be signed for{why}")
    documents = read_documents(place.source, transport=client.obtainer.transports().transport_for(place.source))
    highest = _version_of(documents[0], place.display) if documents is not None else 0
    made = _statement(tuple(entries), make_signature=make_signature, now=now, expires=expires, highest=highest)
    place.write_beside(files_of(made))
    return Signed(inside(place.source, SIGNED_INDEX).display, made.index, made.fingerprint, tuple(left_out))


def _why_not(
    source: Source,
    entry: IndexEntry,
    there: Collection[Digest],
    said: Digest | None,
    *,
    client: Client,
    trusted: bool,
) -> str:
    """Return why a source is not signed for; empty if it may be. ``said`` is its digest by this user's own word."""
    wanted = pinned_by_catalog(Wanted(source.display, source, source.pin, entry.size), client)
    known = client.obtainer.known_digest(wanted)
    if said is not None and known not in {None, said}:
        return f"is known here as {known}, and the lockfile says {said}"
    known = known or said
    if (known is not None and known != entry.digest) or not wanted.pin.matches(entry.digest):
        return f"is known here as {known or wanted.pin}, and the mirror's index says {entry.digest}"
    if entry.digest not in there:
        return "is in the mirror's index, and its blob is not in the mirror"
    if known is None and not trusted:
        return (
            "has no digest that is known here, and the mirror's word is not enough. Fetch it first, give a lockfile "
            "with --locked, or believe the mirror with --trust-mirror"
        )
    return ""


def _statement(
    entries: tuple[SignedEntry, ...],
    *,
    make_signature: Callable[[bytes], bytes],
    now: datetime,
    expires: datetime,
    highest: int,
) -> Statement:
    # By the clock, so that a mirror that was made anew goes on beyond what its users have seen.
    version = max(int(now.timestamp()), highest + 1)
    if version > LAST_VERSION:
        raise InvalidInput(f"the signed index there has the last version that there is. Remove {SIGNED_INDEX} first")
    index = SignedIndex(version, expires.replace(microsecond=0), entries)  # as it is written
    document = index.encode()
    if len(document) > DOCUMENT_LIMIT:
        raise InvalidInput(f"the signed index would have more than {DOCUMENT_LIMIT} bytes")
    armour = make_signature(document)
    try:
        key = Signature.parse(armour).key
    except BadSignature as error:
        raise InvalidInput(f"the key made a signature that cannot be used: {error}. Use an Ed25519 key") from None
    return Statement(document, armour, index, key)


def _signed(source: Source, entry: IndexEntry, catalogs: Iterable[Catalog]) -> SignedEntry:
    """Return what is signed of a source, under its own name where the checkpoint has several."""
    own = (one.qualified_name for catalog in catalogs for one in catalog.entries_of_source(source))
    name = next((name for name in own if name in entry.aliases), entry.name)
    return SignedEntry(source, entry.digest, entry.size, name)


def _entries(
    layout: Layout, receipts: Receipts, catalogs: Sequence[Catalog], on_bytes: Callable[[int], None] | None
) -> tuple[SignedEntry, ...]:
    data = read_index_file(layout)
    if data is None:
        raise InvalidInput(f"{layout.root} has no index yet. Write it: weightstore --home {layout.root} mirror index")
    found = parse_index(data, place=str(layout.root / "index.json")).by_source
    for entry in {entry.digest: entry for entry in found.values()}.values():
        path = layout.blob(entry.digest)
        blob = open_verified(path, entry.digest, receipts, on_bytes=on_bytes)
        if blob is None:
            raise StoreError(
                place=str(layout.root / INDEX_NAME),
                reason=f"names {entry.name or entry.title}, {entry.digest}, and that is not there. Push it again, or "
                f"write the index anew: weightstore --home {layout.root} mirror index",
            )
        blob.close()
    return tuple(_signed(source, entry, catalogs) for source, entry in found.items())


def _doubted(
    layout: Layout, catalogs: Iterable[Catalog], counts: Callable[[Ref], bool]
) -> dict[tuple[Source, Digest], str]:
    """Return what a store has recorded that is no word of the source for this user, with why not."""
    refs = (ref for found in refs_by_digest(layout).values() for ref in found)
    reasons = {(ref.source, ref.digest): why_no_word(ref, catalogs, counts=counts) for ref in refs}
    return {key: why for key, why in reasons.items() if why}


def _left_out(layout: Layout, doubted: Mapping[tuple[Source, Digest], str]) -> tuple[tuple[Source, str], ...]:
    """Return the sources that a store knows of and that its index does not tell, or not clearly, with why not."""
    data = read_index_file(layout)
    index = parse_index(data, place=str(layout.root / INDEX_NAME)) if data is not None else ModelIndex()
    told = {(source, entry.digest) for entry in index.entries for source in entry.sources}
    claims = Counter(source for entry in index.entries for source in entry.sources)
    anew = f"Write it anew, and sign again: weightstore --home {layout.root} mirror index"
    found = {source: "is claimed by several entries of the index" for source, count in claims.items() if count > 1}
    there = list_blobs(layout)
    for digest, refs in refs_by_digest(layout).items():
        for ref in refs:
            if ref.source.scheme == "file" or digest not in there:
                continue
            if (ref.source, digest) in doubted:
                found[ref.source] = doubted[ref.source, digest]
            elif (ref.source, digest) not in told:
                found[ref.source] = f"is in the store as {digest}, and its index does not say so. {anew}"
    return tuple(sorted(found.items(), key=lambda item: str(item[0])))


def _version_there(layout: Layout) -> int:
    path = layout.root / SIGNED_INDEX
    try:
        return _version_of(read_limited(path, DOCUMENT_LIMIT), str(path))
    except FileNotFoundError:
        return 0


def _version_of(document: bytes, place: str) -> int:
    try:
        return SignedIndex.parse(document, place=place).version
    except InvalidRecord:
        return 0


def signing_with(key: Path) -> Callable[[bytes], bytes]:
    """Return what signs with a key: ``ssh-keygen``, which knows agents and passphrases, or else a key file itself.

    ``key`` is a private key, or a public one whose private half an agent has.

    Raises:
        InvalidInput: there is no such key.
    """
    if not key.is_file():
        raise InvalidInput(f"{key}: there is no such key. Make one: ssh-keygen -t ed25519 -f {key}")
    if shutil.which("ssh-keygen") is not None:
        return lambda document: _by_ssh_keygen(document, key)
    return lambda document: sign(document, read_limited(key, _KEY_LIMIT), place=str(key))


def _by_ssh_keygen(document: bytes, key: Path) -> bytes:
    command = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", os.fspath(key)]
    done = subprocess.run(command, input=document, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise InvalidInput(f"{key}: ssh-keygen could not sign with it: {said[-1] if said else 'it does not say why'}")
    return done.stdout
