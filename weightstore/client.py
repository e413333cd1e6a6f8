"""The façade: names in, verified paths out. Everything that the command line does, for programs.

>>> from weightstore import Client
>>> client = Client()                                   # doctest: +SKIP
>>> client.path("resnet50")                             # doctest: +SKIP
PosixPath('/home/me/.cache/weightstore/blobs/sha256/11ad3fa6…')
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, runtime_checkable

from weightstore.catalog.entries import best_known_first
from weightstore.catalog.names import resolve
from weightstore.catalog.registry import Catalogs
from weightstore.config import Config
from weightstore.digest import Digest, Pin
from weightstore.errors import Drift, InvalidInput, StoreError, UnknownName
from weightstore.obtain import Known, Located, Obtainer, obtained_from
from weightstore.records import Ref, Wanted
from weightstore.source import Source, is_source, parse_source
from weightstore.store.blobs import OpenBlob, list_blobs, open_verified
from weightstore.store.derived import Vouched, list_derived
from weightstore.store.receipts import Receipts, identity_of
from weightstore.transfer.progress import Meter, Silent

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.batch import Plan, Progress, Report
    from weightstore.catalog.entries import Catalog, Entry
    from weightstore.catalog.lockfile import Locked, Lockfile
    from weightstore.formats.checkpoint import Checkpoint
    from weightstore.landing import Obtained
    from weightstore.signing.vouchers import Word
    from weightstore.store.layers import Layer

Note = Callable[[str], None]


@runtime_checkable
class HasWants(Protocol):
    """What knows by itself what is to be fetched for it: a member of a weights enum."""

    def wants(self) -> list[Wanted]:
        """Return one file, or every shard."""
        ...


Name: TypeAlias = "str | Wanted | HasWants | Enum"
"""A weights name, a URL or a path; or a member of a weights enum, ours or TorchVision's."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One blob of one layer, as ``weightstore ls`` shows it.

    ``names`` are the catalog names whose source was seen to have this digest; ``last_used`` is in seconds since the
    epoch, to the hour, and only of this user where the file system keeps no access times. Of a converted checkpoint
    ``made_from`` is the digest, and ``names`` and ``refs`` are those, of what it was made from. ``title`` is the file
    name in the layer's index of what no ref names, as of a file that a mirror had without a source.
    """

    digest: Digest
    size: int
    layer: str
    path: Path
    last_used: float
    refs: tuple[Ref, ...]
    names: tuple[str, ...]
    made_from: Digest | None = None
    title: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One place that was consulted, and what it answered."""

    place: str
    answer: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a name leads where it leads: the digest and how it is known, and every place in the order asked.

    ``word`` is the signed index that tells the digest, where one does, and ``ref`` the record, where one does.
    """

    wanted: Wanted
    digest: Digest | None
    known_by: Known
    steps: tuple[Step, ...]
    path: Path | None
    word: Word | None = None
    ref: Ref | None = None

    @property
    def is_signed(self) -> bool:
        """Whether the digest is known by a record of what somebody had signed."""
        return self.ref is not None and self.ref.via == "signed"


class Client:
    """Finds, fetches and tells about weights, with one configuration. Safe to use from many threads."""

    def __init__(self, config: Config | None = None, *, note: Note | None = None) -> None:
        """Make a client; nothing is read or opened yet.

        Args:
            config: the settings; by default those of the environment and the configuration files.
            note: called with one sentence about each thing worth knowing that is no error: a damaged copy that was
                passed over, a layer that is missing, a mirror that fails. By default they go to the ``weightstore``
                logger as warnings.
        """
        self.config = config or Config.load()
        self.note = self._note = _once(note or _warn)
        self.catalogs = Catalogs(self.config.catalogs, note=self._note)
        self.receipts = Receipts(self.config.state)
        self.vouched = Vouched(self.config.state)
        self.obtainer = Obtainer(self.config, self.receipts, note=self._note)

    # -- names --------------------------------------------------------------------------------------------------

    def entries(self, names: Iterable[str] = (), *, task: str | None = None, everything: bool = False) -> list[Entry]:
        """Return the catalog entries that names and globs mean (see :mod:`weightstore.catalog.names`).

        A whole name that no catalog has is looked up among those that somebody signed whom ``allowed_signers`` allows
        to: in what is remembered, and in the mirrors' signed indexes (see :mod:`weightstore.naming`).

        Raises:
            UnknownName: a name that no catalog has, with the nearest ones.
            InvalidInput: a URL or path.
        """
        names = list(names)
        for name in names:
            if is_source(name):
                source, _ = parse_source(name)
                raise InvalidInput(f"{source}: the name of weights in a catalog is needed, not a URL or path")
        try:
            return resolve(names, self.catalogs, task=task, everything=everything, otherwise=self._signed)
        except UnknownName as error:
            if error.name not in names or not _is_file(error.name):
                raise
            raise UnknownName(name=error.name, hint=f"no catalog knows it. For the file write ./{error.name}") from None

    def _signed(self, name: str, error: UnknownName) -> list[Entry]:
        if self.config.allowed_signers is None:
            return []
        from weightstore.naming import signed_entries  # start-up: only where somebody signs

        return signed_entries(name, error, obtainer=self.obtainer, pin_of=self._pin_of)

    def _pin_of(self, source: Source) -> Pin:
        known = self.entry_of(source)
        return known.pin if known is not None and known.pin.is_pinned else source.pin

    def wanted(self, name: Name, *, sha256: str | None = None) -> Wanted:
        """Return what one weights name, URL or path asks for. A glob must mean exactly one.

        Args:
            name: a weights name, a URL or a path (``/…``, ``./…``), with an optional ``#sha256=<hex>``; or a member of
                a weights enum, ours or TorchVision's.
            sha256: the digest, or its first 8 or more digits, where the caller knows it.

        Raises:
            UnknownName, InvalidSource, InvalidDigest: the name, the source or the digest cannot be used.
            Drift: ``sha256`` contradicts what the name says.
        """
        found = self.wants(name)
        if len(found) != 1:
            raise InvalidInput(f"{name!r} means {len(found)} weights, and exactly one is needed")
        return _pinned(found[0], sha256)

    def wants(self, name: Name) -> list[Wanted]:
        """Return all that some weights ask for: one file, or every shard. Errors as for :meth:`wanted`."""
        if isinstance(name, Wanted):
            return [name]
        if isinstance(name, Enum) and not isinstance(name, HasWants):
            return [replace(one, name=str(name)) for one in self.wants(_url_of(name))]
        if not isinstance(name, str):
            return name.wants()
        if not is_source(name):
            return [wanted for entry in self.entries([name]) for wanted in entry.wants()]
        source, pin = parse_source(name)
        known = self.entry_of(source)
        if known is None:
            return [Wanted(source.display, source, pin)]
        # A URL that a catalog knows gets the catalog's pin, so that both ways lead to one blob.
        wanted = known.wanted()
        if not pin.agrees_with(wanted.pin):
            raise Drift(
                name=source.display,
                recorded=f"{wanted.pin} in the catalog ({known.name})",
                found=f"{pin} in the URL",
                remedy="One of the two is wrong.",
            )
        return [replace(wanted, name=source.display, source=source, pin=pin.narrower(wanted.pin), qualified_name="")]

    def entry_of(self, source: Source) -> Entry | None:
        """Return the entry of a catalog near at hand that comes from a source, or None."""
        return self._entry_in(self.catalogs.near(), source)

    def _entry_in(self, catalogs: Iterable[Catalog], source: Source) -> Entry | None:
        for catalog in catalogs:
            if (entry := catalog.entry_of_source(source)) is not None:
                return entry
        return None

    def gather(
        self,
        names: Iterable[Name] = (),
        *,
        task: str | None = None,
        everything: bool = False,
        sha256: str | None = None,
        lockfile: Lockfile | None = None,
    ) -> list[Wanted]:
        """Return everything that names, globs, URLs, a task and a lockfile ask for, in that order.

        Raises:
            UnknownName, InvalidInput: something that cannot be resolved.
            Drift: the lockfile and the catalog disagree.
        """
        wanted = self.chosen(names, task=task, everything=everything, sha256=sha256, lockfile=lockfile)
        return wanted if lockfile is None else [*wanted, *(entry.wanted() for entry in lockfile.entries)]

    def chosen(
        self,
        names: Iterable[Name] = (),
        *,
        task: str | None = None,
        everything: bool = False,
        sha256: str | None = None,
        lockfile: Lockfile | None = None,
    ) -> list[Wanted]:
        """Return what names, globs, URLs and a task ask for, as a lockfile pins it that has it.

        Errors as for :meth:`gather`.
        """
        if lockfile is not None:
            self.check_drift(lockfile)
        names = list(names)
        weights = [name for name in names if isinstance(name, str) and not is_source(name)]
        locked = {name: one for name in weights if lockfile is not None and (one := lockfile.named(name)) is not None}
        wanted: list[Wanted] = []
        # With a task the catalog is needed, which knows what they are for.
        sought = weights if task is not None else [name for name in weights if name not in locked]
        if sought or task is not None or everything:
            found = self.entries(sought, task=task, everything=everything)
            wanted += [one for entry in found for one in entry.wants()]
        if task is None:
            wanted += [entry.wanted() for entry in locked.values()]
        for name in names:
            if not isinstance(name, str) or is_source(name):
                wanted += self.wants(name)
        if lockfile is not None:
            wanted = [lockfile.pinned(one) for one in wanted]
        if sha256 is not None:
            if len(wanted) != 1:
                raise InvalidInput(f"--sha256 is the digest of one file, and {len(wanted)} are asked for")
            wanted = [_pinned(wanted[0], sha256)]
        return wanted

    def check_drift(self, lockfile: Lockfile) -> None:
        """Make sure that no catalog has moved away from what is locked.

        Raises:
            Drift: a locked name has another source now, or a pin that its locked digest does not match.
        """
        for locked in lockfile.entries:
            if is_source(locked.name):
                continue
            try:
                (entry,) = resolve([locked.name], self.catalogs)
            except (UnknownName, InvalidInput, ValueError):
                continue  # locked from a catalog that is not installed here: the lockfile says all that is needed
            if entry.source != locked.source or not entry.pin.matches(locked.digest):
                raise Drift(
                    name=locked.name,
                    recorded=f"{locked.digest} from {locked.source} in the lockfile",
                    found=f"{entry.pin} from {entry.source} in the catalog",
                    remedy="If the catalog is right, lock again with --update.",
                )

    # -- bytes --------------------------------------------------------------------------------------------------

    def path(self, name: Name, *, sha256: str | None = None, fetch: bool = True, meter: Meter | None = None) -> Path:
        """Return the path of verified weights; they are fetched first where no layer has them.

        A hit opens no socket, takes no lock and writes nothing in the store. The file is read-only and named by its
        digest; do not write to it.

        Args:
            name: a weights name (``resnet50``, ``ResNet50_Weights.IMAGENET1K_V2``), a URL or a path.
            sha256: the digest, or its first 8 or more hexadecimal digits, where the caller knows it.
            fetch: whether to fetch what is missing.
            meter: watches the download.

        Raises:
            NotPresent: nothing has it, and we are offline or ``fetch`` is False.
            SourceNotFound: it is a file on this machine that is not there, and nothing has it.
            UnknownName, InvalidInput: the name cannot be used.
            IntegrityError, TransferError: no source gave the right bytes.
            NoSpace, StoreError: it cannot be stored.
        """
        return self._obtain(self.wanted(name, sha256=sha256), fetch=fetch, meter=meter).path

    def open(
        self, name: Name, *, sha256: str | None = None, fetch: bool = True, meter: Meter | None = None
    ) -> BinaryIO:
        """Return verified weights open for reading, at their start: the very file that was verified.

        Whoever swaps the file afterwards changes nothing for the holder. Arguments and errors as for :meth:`path`.
        """
        blob = self.open_blob(self.wanted(name, sha256=sha256), fetch=fetch, meter=meter)
        return io.BufferedReader(io.FileIO(blob.detach(), "rb", closefd=True))

    def open_blob(self, wanted: Wanted, *, fetch: bool = True, meter: Meter | None = None) -> OpenBlob:
        """Return a verified blob, its descriptor open. Errors as for :meth:`path`."""
        hit = self.obtainer.locate(wanted).hit
        if hit is not None:
            return hit.blob
        obtained = self._obtain(wanted, fetch=fetch, meter=meter)
        found = open_verified(obtained.path, obtained.digest, self.receipts)
        if found is None:
            raise StoreError(place=str(obtained.path), reason="was removed by somebody else just now. Try again")
        return found

    def _obtain(self, wanted: Wanted, *, fetch: bool, meter: Meter | None) -> Obtained:
        located = self.obtainer.locate(wanted)
        if located.hit is not None:
            return obtained_from(located.hit)
        if not fetch:
            raise self.obtainer.not_present(wanted, located)
        return self.obtainer.obtain(wanted, meter=meter or Silent(), stop=threading.Event())

    def inspect(self, name: Name, *, sha256: str | None = None) -> Checkpoint:
        """Return what a checkpoint holds: names, shapes, types and places of its tensors. Needs no torch.

        What a store has is read there, verified, and a local path where it is. Anything else is looked into where it
        comes from, by asking for ranges: that brings some kilobytes, which are not verified, and stores nothing.
        Nothing is unpickled, whatever the file says.

        Args:
            name: a weights name, a URL or a path.
            sha256: the digest, or its first 8 or more hexadecimal digits, where the caller knows it.

        Raises:
            NotPresent: no store has it, and we are offline.
            InvalidCheckpoint: the file is no checkpoint.
            UnknownName, InvalidInput: the name cannot be used.
            TransferError: it cannot be read, or the server does not serve ranges.
        """
        from weightstore.inspection import inspect

        wanted = self.wanted(name, sha256=sha256)
        return inspect(wanted, obtainer=self.obtainer, note=self._note, stop=threading.Event()).checkpoint

    def is_present(self, name: Name, *, sha256: str | None = None) -> bool:
        """Tell whether verified weights are in some layer."""
        hit = self.obtainer.locate(self.wanted(name, sha256=sha256)).hit
        if hit is not None:
            hit.blob.close()
        return hit is not None

    def plan(self, wanted: Iterable[Wanted], *, asking: bool = False) -> Plan:
        """Return what a prefetch of these would do. Opens no socket.

        When ``asking``, the mirrors are asked for their signed indexes where no digest is known, as the prefetch will
        ask them; never offline, nor where ``allowed_signers`` is not set.
        """
        from weightstore.batch import make_plan

        return make_plan(wanted, obtainer=self.obtainer, asking=asking)

    def prefetch(
        self,
        names: Iterable[Name] = (),
        *,
        task: str | None = None,
        everything: bool = False,
        lockfile: Lockfile | None = None,
        plan: Plan | None = None,
        progress: Progress | None = None,
        jobs: int | None = None,
        stop: threading.Event | None = None,
    ) -> Report:
        """Fetch many weights side by side, and report on each; one that fails does not keep the others from coming.

        Args:
            names: weights names, globs, URLs and paths.
            task: the DEFAULT weights of every builder of a task.
            everything: all entries of all catalogs.
            lockfile: everything that it locks, by full digest.
            plan: what :meth:`plan` returned, instead of all of these.
            progress: watches the downloads.
            jobs: so many files side by side; by default as configured.
            stop: set it to stop; the downloads keep what they have for the next run.

        Raises:
            UnknownName, InvalidInput, Drift: the request cannot be used.
            NoSpace: it will not fit; found before anything is fetched.
        """
        from weightstore.batch import NoProgress, run_plan

        if plan is None:
            wanted = self.gather(names, task=task, everything=everything, lockfile=lockfile)
            plan = self.plan(wanted)
        return run_plan(
            plan,
            obtainer=self.obtainer,
            jobs=jobs or self.config.jobs,
            progress=progress or NoProgress(),
            stop=stop or threading.Event(),
        )

    def lock(self, report: Report) -> list[Locked]:
        """Return lockfile entries for everything that a prefetch found or fetched."""
        from weightstore.catalog.lockfile import Locked as LockedEntry

        entries = []
        for result in report.results:
            if result.obtained is None:
                continue
            wanted, obtained = result.item.wanted, result.obtained
            commit = self.obtainer.known_commit(wanted, obtained.digest)
            entries += [
                LockedEntry(name, wanted.source, obtained.digest, obtained.size, commit=commit)
                for name in result.item.qualified_names
            ]
        return entries

    # -- telling ------------------------------------------------------------------------------------------------

    def stored(self) -> list[Stored]:
        """Return every blob of every layer, but for the manifests and configs of indexes, today's and earlier ones."""
        return [stored for layer in self.obtainer.layers() for stored in self._stored_in(layer)]

    def _stored_in(self, layer: Layer) -> list[Stored]:
        if layer.layout is None:
            return []
        from weightstore.store.gc import refs_by_digest  # start-up: not for a hit
        from weightstore.store.image import documents_in, titles_by_index

        refs = refs_by_digest(layer.layout)
        made_from = {one.digest: one.source for one in list_derived(layer.layout)}
        catalogs = self.catalogs.all() if refs else []
        found = []
        titles = titles_by_index(layer.layout)
        blobs = list_blobs(layer.layout)
        sizes = {digest: stat.st_size for digest, stat in blobs.items()}
        documents = documents_in(layer.layout, sizes, weights=[*refs, *made_from])
        for digest, stat in sorted(blobs.items()):
            if digest in documents:
                continue
            used = max(stat.st_atime, stat.st_mtime, self.receipts.last_used(digest, identity_of(stat)) or 0)
            origin = made_from.get(digest) if digest not in refs else None
            mine = tuple(refs.get(origin or digest, ()))
            known = [entry for ref in mine if (entry := self._entry_in(catalogs, ref.source)) is not None]
            called = tuple(entry.name for entry in best_known_first(known))
            title = titles.get(origin or digest, "") if not mine else ""
            path = layer.layout.blob(digest)
            found.append(Stored(digest, stat.st_size, layer.name, path, used, mine, called, origin, title))
        return found

    def why(self, name: Name, *, sha256: str | None = None) -> Explanation:
        """Explain where a name leads: each place asked, in order, and what it answered.

        Opens no socket, unless no digest is known, ``allowed_signers`` is set and a mirror may be asked for its signed
        index, as a fetch would ask it; never offline.
        """
        wanted = self.wanted(name, sha256=sha256)
        located = self.obtainer.locate(wanted, asking=True)
        steps = self._heard(wanted, located)
        path = None
        if located.hit is not None:
            with located.hit.blob as blob:
                path = blob.path
        for layer in self.obtainer.layers():
            label = f"store {layer.root}" if layer.writable else f"layer {layer.root}"
            if layer.layout is None:
                steps.append(Step(label, "there is no store yet" if layer.writable else "there is no store"))
            elif located.digest is None:
                known = self.obtainer.unbelieved(wanted, [layer])
                steps.append(Step(label, "; ".join(known) or "has no ref for this source"))
            elif located.hit is not None and located.hit.layer == layer:
                steps.append(Step(label, "has it, verified"))
                break
            else:
                steps.append(Step(label, "does not have it"))
        if located.digest is None:
            signed = [one for one in self.obtainer.unbelieved(wanted) if not any(one in step.answer for step in steps)]
            steps += [Step("what was signed, as you remember it", one) for one in signed]
        if path is None:
            chosen = self.obtainer.route(wanted, located)
            for candidate in chosen.candidates:
                forbidden = self.config.offline and candidate.source.scheme != "file"
                steps.append(
                    Step(
                        f"{candidate.kind} {candidate.source}",
                        "not asked: offline" if forbidden else "would be asked",
                    )
                )
            steps += [Step(*skipped.split(": ", 1)) for skipped in chosen.skipped]
        return Explanation(wanted, located.digest, located.known_by, tuple(steps), path, located.word, located.ref)

    def _heard(self, wanted: Wanted, located: Located) -> list[Step]:
        """Return what signed indexes say, where they are what counts: no pin and no record tells the digest."""
        vouchers = self.obtainer.vouchers()
        if vouchers is None or located.known_by not in {"signature", "nothing"}:
            return []
        if located.word is not None and located.word.mirror is None:
            return [Step("signed index read earlier", located.word.told(wanted))]
        return [Step(f"signed index of mirror {word.mirror}", word.told(wanted)) for word in vouchers.words(wanted)]


def _pinned(wanted: Wanted, sha256: str | None) -> Wanted:
    if sha256 is None:
        return wanted
    pin = Pin(sha256.lower().removeprefix("sha256:"))
    if not pin.is_pinned:
        raise InvalidInput("the digest is empty")
    if pin.is_full and wanted.source.pin == wanted.pin and not wanted.qualified_name and _is_source_name(wanted):
        return replace(wanted, pin=pin)  # digits in a file name may be something else; what is said in full counts
    if not pin.agrees_with(wanted.pin):
        raise Drift(
            name=wanted.name, recorded=str(wanted.pin), found=f"{pin} asked for", remedy="One of the two is wrong."
        )
    return replace(wanted, pin=pin.narrower(wanted.pin))


def _is_source_name(wanted: Wanted) -> bool:
    return wanted.name == wanted.source.display


def _url_of(member: Enum) -> str:
    url = getattr(member.value, "url", None)
    if not isinstance(url, str):
        raise InvalidInput(f"{member!r} is no weights: it has no URL")
    return url


def _is_file(name: str) -> bool:
    try:
        return os.path.isfile(name)
    except ValueError:  # a NUL in the name
        return False


def _once(note: Note) -> Note:
    """Return a note that says each thing once."""
    told: set[str] = set()

    def tell(message: str) -> None:
        if message not in told:
            told.add(message)
            note(message)

    return tell


def _warn(message: str) -> None:
    import logging  # start-up: only when there is something to tell

    logging.getLogger("weightstore").warning("%s", message)
