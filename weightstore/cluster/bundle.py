"""Bundles on the side that gets them: :class:`Bundle` reads one, :func:`plan_import` decides, :func:`carry_out` acts.

A bundle is untrusted: it brings bytes, which prove themselves, and no word of it about where they come from is
believed. What lockfiles of this side say of them is (:func:`vouch`).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Self

from weightstore.cluster.index import parse_index
from weightstore.cluster.manifest import parse_manifest
from weightstore.cluster.tar import BLOBS, INDEX_FILE, LAYOUT_FILE, Member, Members, scan
from weightstore.cluster.volumes import Volumes
from weightstore.digest import Digest
from weightstore.errors import Cancelled, InvalidBundle, InvalidInput, InvalidRecord, NoSpace
from weightstore.records import Fields, Ref
from weightstore.store.blobs import BLOCK
from weightstore.store.image import DOCUMENT_LIMIT, INDEX_LIMIT
from weightstore.store.layout import translated
from weightstore.store.parts import Part
from weightstore.store.publish import publish
from weightstore.store.refs import write_ref

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from weightstore.catalog.lockfile import Lockfile
    from weightstore.client import Client
    from weightstore.cluster.index import IndexEntry, ModelIndex

Status = Literal["import", "imported", "present", "damaged", "missing"]
_LAYOUT_LIMIT = 4096


class Bundle:
    """A bundle, open for reading: the files of one, in order, and what its index says is in it.

    ``cut`` tells how it ends early; it is empty where the bundle is whole.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open the files and look at every header, before anything of it is used.

        Raises:
            InvalidBundle: it is none, or holds something that no bundle does.
            InvalidInput: a file cannot be opened, or is none of its volumes.
        """
        self.files = Volumes(paths)
        try:
            members = self._scan()
            self.cut = members.cut
            if not self.cut and (stranger := self.files.beyond(members.end)) is not None:
                raise InvalidInput(f"{stranger}: begins behind the end of {self.name}, and is no volume of it")
            self.index = self._read_index(members.by_name)
            self.members = self._weights(members.by_name)
        except BaseException:
            self.files.close()
            raise

    def _scan(self) -> Members:
        try:
            return scan(self.files)
        except InvalidBundle:
            if self.files.short is None:
                raise
        self.files.end_with_short()  # what is before it may still be right
        members = scan(self.files)
        return members if members.cut else replace(members, cut="what follows belongs somewhere else")

    def _read_index(self, members: Mapping[str, Member]) -> ModelIndex:
        layout = self._small(members, LAYOUT_FILE, _LAYOUT_LIMIT)
        data = self._small(members, INDEX_FILE, INDEX_LIMIT)
        try:
            version = Fields(layout, what=LAYOUT_FILE, place=self.files.name).take("imageLayoutVersion", str)
            if version.partition(".")[0] != "1":
                raise self.error(f"is an OCI image layout of version {version[:20]}, and not 1")
            index = parse_index(data, place=self.files.name)
        except InvalidRecord as error:
            raise self.error(error.reason) from None
        return replace(index, entries=(*index.entries, *self._told_by_manifests(index, members)), foreign=())

    def _told_by_manifests(self, index: ModelIndex, members: Mapping[str, Member]) -> Iterator[IndexEntry]:
        """Yield what manifests tell of weights that the index says nothing of: other tools keep only the manifests."""
        known = set(index.by_digest)
        for descriptor in index.foreign:
            member = members.get(BLOBS + str(descriptor["digest"]).removeprefix("sha256:"))
            if member is None or member.size > DOCUMENT_LIMIT:
                continue
            data = self.files.read_at(member.offset, member.size)
            if f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor["digest"]:
                raise self.error(f"{member.name} has other content than its name says")
            try:
                entries = parse_manifest(data, place=f"{self.name}: {member.name}")
            except InvalidRecord as error:
                raise self.error(error.reason) from None
            for entry in entries:
                if entry.digest not in known:
                    known.add(entry.digest)
                    yield entry

    def _small(self, members: Mapping[str, Member], name: str, limit: int) -> bytes:
        member = members.get(name)
        if member is None:
            raise self.error(f"has no {name}{f', and {self.cut}' if self.cut else ''}")
        if member.size > limit:
            raise self.error(f"{name} has {member.size} bytes, which is more than {limit}")
        return self.files.read_at(member.offset, member.size)

    def _weights(self, members: Mapping[str, Member]) -> dict[Digest, Member]:
        """Return the members that the index names as weights, after a look at all others."""
        entries = self.index.by_digest
        found: dict[Digest, Member] = {}
        for member in members.values():
            digest = member.digest
            if digest is None:
                continue
            entry = entries.get(digest)
            if entry is None:
                if member.size > DOCUMENT_LIMIT:
                    raise self.error(f"{member.name} is not in its index, and too large for a manifest")
                continue
            if entry.size != member.size:
                raise self.error(f"{member.name} has {member.size} bytes, and {entry.size} by its index")
            found[digest] = member
        return found

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def size(self) -> int:
        return self.files.size

    @property
    def problem(self) -> str:
        """What is wrong with the bundle as a whole: it ends early, or lacks what its index names."""
        lacking = [entry for entry in self.index.entries if entry.digest not in self.members]
        if self.cut:
            hint = "" if self.files.count == 1 else ", or its volumes are not all there or not in order"
            if self.files.short is not None:
                hint = ", and other volumes are longer"
            return f"is cut short: {self.cut}{hint}"
        return f"lacks {lacking[0].digest}, which its index names" if lacking else ""

    @property
    def blamed(self) -> str:
        """The file in which the problem is: of volumes the one that is shorter than others, else where they end."""
        return str(self.files.short or (self.files.paths[-1] if self.cut else self.name))

    def error(self, reason: str) -> InvalidBundle:
        return InvalidBundle(place=self.files.name, reason=reason)

    def content(self, member: Member) -> Iterator[bytes]:
        """Yield a member's bytes as they are, whatever they are."""
        offset, end = member.offset, member.offset + member.size
        while offset < end and (data := self.files.read_at(offset, min(BLOCK, end - offset))):
            yield data
            offset += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.files.close()


@dataclass(frozen=True, slots=True)
class Incoming:
    """One of a bundle's weights, and what is or became of it; ``detail`` says what was wrong."""

    entry: IndexEntry
    status: Status
    path: Path | None = None
    detail: str = ""


def plan_import(bundle: Bundle, *, client: Client) -> list[Incoming]:
    """Return what an import would do. Blobs that a layer has are verified, and need not be imported.

    Raises:
        InvalidBundle: something in it is larger than the configuration allows.
        NoSpace: it will not fit.
    """
    plan = []
    limit = client.config.max_size
    for entry in bundle.index.entries:
        if limit is not None and entry.size > limit:
            raise bundle.error(f"{entry.title} has {entry.size} bytes, and max_size is {limit}")
        hit = client.obtainer.find(entry.digest)
        if hit is not None:
            with hit.blob as blob:
                plan.append(Incoming(entry, "present", blob.path))
        elif entry.digest in bundle.members:
            plan.append(Incoming(entry, "import"))
        else:
            plan.append(Incoming(entry, "missing", detail="the bundle ends before it" if bundle.cut else "not in it"))
    needed = sum(one.entry.size for one in plan if one.status == "import")
    home = next(place for place in [client.config.home, *client.config.home.parents] if place.exists())
    found = os.statvfs(home)
    if (free := found.f_bavail * found.f_frsize) < needed:
        raise NoSpace(place=str(client.config.home), needed=needed, free=free, reason="too little free space")
    return plan


def carry_out(
    plan: Iterable[Incoming], bundle: Bundle, *, client: Client, stop: threading.Event, on_bytes: Callable[[int], None]
) -> Iterator[Incoming]:
    """Do what was planned, and yield what became of each. What is not what its name says is never published.

    Raises:
        NoSpace, StoreError: the store cannot be written.
        Cancelled: ``stop`` was set; what was imported stays.
    """
    for one in plan:
        if one.status != "import":
            yield one
            continue
        if stop.is_set():
            raise Cancelled
        yield _import(one, bundle, client=client, stop=stop, on_bytes=on_bytes)


def _import(
    one: Incoming, bundle: Bundle, *, client: Client, stop: threading.Event, on_bytes: Callable[[int], None]
) -> Incoming:
    layout = client.obtainer.writable()
    hasher = hashlib.sha256()
    size = 0
    part = Part.create(layout, f"sha256-{one.entry.digest.hex}")
    try:
        with translated(part.path), open(part.fd, "wb", buffering=0, closefd=False) as file:
            for data in bundle.content(bundle.members[one.entry.digest]):
                if stop.is_set():
                    raise Cancelled
                hasher.update(data)
                size += _write_all(file.fileno(), data)
                on_bytes(len(data))
        actual = Digest(hasher.hexdigest())
        if actual != one.entry.digest:
            part.discard()
            hint = "; the volumes are not in order, or not of one bundle" if bundle.files.count > 1 else ""
            return replace(one, status="damaged", detail=f"its content is {actual}{hint}")
        path = publish(part, actual, size=size, receipts=client.receipts)
    except BaseException:
        part.discard()
        raise
    return replace(one, status="imported", path=path)


def _write_all(fd: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return len(data)


def vouch(client: Client, lockfiles: Iterable[Lockfile], here: Mapping[Digest, int], *, now: datetime) -> int:
    """Record what lockfiles say of the sources of blobs that are here, given with sizes; return of how many they speak.

    What a bundle says of sources is not recorded: it would be believed under a pin of eight digits, and these can be
    forged.
    """
    vouched: set[Digest] = set()
    for lockfile in lockfiles:
        for locked in lockfile.entries:
            if here.get(locked.digest) != locked.size:
                continue
            layout = client.obtainer.writable()
            ref = Ref(locked.source, locked.digest, locked.size, now.astimezone(UTC), "mirror", commit=locked.commit)
            write_ref(layout, ref)
            if (pinned := ref.pinned_source) is not None and pinned != ref.source:
                write_ref(layout, replace(ref, source=pinned))
            vouched.add(locked.digest)
    return len(vouched)


def contradictions(bundle: Bundle, lockfiles: Iterable[Lockfile]) -> Iterator[str]:
    """Yield a sentence for each source that has other content in the bundle than lockfiles say."""
    claimed = bundle.index.by_source
    for lockfile in lockfiles:
        for locked in lockfile.entries:
            entry = claimed.get(locked.source)
            if entry is not None and entry.digest != locked.digest:
                yield f"{locked.name} is {locked.digest} by the lockfile, and {entry.digest} by the bundle"
