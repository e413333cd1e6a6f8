"""What the hook answers from: a client, what is locked, how files are placed, where to write down what was asked."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.parse import unquote, urlsplit

from weightstore.digest import Digest
from weightstore.errors import NotPresent, StoreError, TransferError, WeightStoreError
from weightstore.interop.hook.asking import asking_library
from weightstore.interop.recording import locked_entry
from weightstore.records import Ref, Wanted
from weightstore.source import Source, parse_source
from weightstore.store.blobs import OpenBlob, hash_descriptor, open_verified
from weightstore.store.layers import find_ref
from weightstore.store.receipts import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightstore.catalog.lockfile import Lockfile
    from weightstore.client import Client
    from weightstore.config import Link
    from weightstore.interop.recording import Recorder
    from weightstore.obtain import Located
    from weightstore.transfer.progress import Meter

# What a general download function is asked for may be anything; these are weights.
_EXTENSIONS = (
    ".pth",
    ".pt",
    ".bin",
    ".safetensors",
    ".ckpt",
    ".pth.tar",
    ".pt.tar",
    ".pkl",
    ".pickle",
    ".npz",
    ".onnx",
    ".msgpack",
    ".h5",
    ".gguf",
    ".model",
    ".weights",
    ".caffemodel",
)


_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


class _UrlError(URLError):
    """An URLError that takes no arguments, as the next in line of our errors."""

    def __init__(self) -> None:
        super().__init__("")


class NotPresentAtUrl(NotPresent, _UrlError):
    """:class:`NotPresent` to those who know weightstore, and what urllib raises to those who do not."""


class TransferFailed(TransferError, _UrlError):  # type: ignore[misc]  # its reason is text, an URLError's anything
    """:class:`TransferError` to those who know weightstore, and what urllib raises to those who do not."""


class Session:
    """One setting of the hook. Safe to use from many threads."""

    def __init__(
        self,
        client: Client,
        *,
        lockfiles: Iterable[Lockfile] = (),
        link: Link = "auto",
        recorder: Recorder | None = None,
        note: Callable[[str], None],
    ) -> None:
        self.client = client
        self.locked = {entry.source.key: entry for lockfile in lockfiles for entry in lockfile.entries}
        self.link = link
        self.recorder = recorder
        self.note = note
        # Of each repository that a snapshot is being made of, the branch that was asked for.
        self.snapshots: dict[str, str] = {}

    @property
    def is_offline(self) -> bool:
        return self.client.config.offline

    def serves(self, url: str, *, certain: bool = False) -> bool:
        """Tell whether a URL is answered from the store: it can be read, and is weights by its name or by a record.

        ``certain`` says that it is weights, whatever it is called.
        """
        try:
            source, pin = parse_source(url.partition("#")[0])
        except WeightStoreError:
            return False
        if source.scheme not in {"http", "https", "file"} or not source.file_name:
            return False
        if certain or pin.is_pinned or source.key in self.locked:
            return True
        path = unquote(urlsplit(source.url).path).lower()
        return path.endswith(_EXTENSIONS) or self.ref_of(source) is not None

    def locks(self, url: str) -> bool:
        """Tell whether a lockfile names a URL that is served."""
        return parse_source(url.partition("#")[0])[0].key in self.locked

    def forbids(self, url: object) -> bool:
        """Tell whether a request that is not answered from the store would leave this machine, while offline."""
        if not (self.is_offline and isinstance(url, str)):
            return False
        parts = urlsplit(url)
        return parts.scheme.lower() in {"http", "https", "ftp"} and (parts.hostname or "") not in _HERE

    def forbidden(self, url: str) -> URLError:
        """Return the error of such a request. A password in the URL is not shown."""
        return URLError(f"offline mode forbids to ask {urlsplit(url).hostname} for it")

    def ref_of(self, source: Source) -> Ref | None:
        """Return what the layers recorded of a source."""
        wanted = Wanted(source.display, source, source.pin)
        return find_ref(source, self.client.obtainer.layers(), pin=wanted.pin, note=self.note)

    def look(self, url: str) -> tuple[Wanted, Located]:
        """Return what a URL asks for, and where it is. A hit costs no catalog.

        Raises:
            InvalidInput, Drift: it cannot be used.
        """
        source, pin = parse_source(url.partition("#")[0])
        locked = self.locked.get(source.key)
        wanted = locked.wanted() if locked is not None else Wanted(source.display, source, pin)
        located = self.client.obtainer.locate(wanted)
        if located.hit is None and locked is None:
            better = self.client.wanted(source.url)
            if better != wanted:
                wanted, located = better, self.client.obtainer.locate(better)
        return wanted, located

    def obtain(self, wanted: Wanted, *, meter: Meter) -> OpenBlob:
        """Return a blob that no layer has, fetched; open and verified.

        Raises:
            NotPresentAtUrl, TransferFailed: it is not to be had.
            WeightStoreError: as for :meth:`Client.path`.
        """
        try:
            obtained = self.client.obtainer.obtain(wanted, meter=meter, stop=threading.Event())
        except NotPresent as error:
            missing = NotPresentAtUrl(**{**error.fields, "notes": (*error.notes, *self._hints(wanted))})
            missing.reason = str(missing)
            raise missing from None
        except TransferError as error:
            raise TransferFailed(source=error.source, reason=error.reason) from error
        blob = open_verified(obtained.path, obtained.digest, self.client.receipts)
        if blob is None:
            raise StoreError(place=str(obtained.path), reason="was removed by somebody else just now. Try again")
        return blob

    def digest_of(self, fd: int) -> Digest:
        """Return the digest of an open file: from this user's receipts, or hashed, and noted for the next time."""
        receipts = self.client.receipts
        found = os.fstat(fd)
        digest = receipts.digest_of(identity_of(found))
        if digest is None:
            hasher, _ = hash_descriptor(fd)
            digest = Digest(hasher.hexdigest())
            if identity_of(os.fstat(fd)) == identity_of(found):
                receipts.record(digest, found)
        return digest

    def _hints(self, wanted: Wanted) -> list[str]:
        if self.locked or wanted.pin.is_pinned:
            return []
        return ["if a lockfile names it, say so to the run: weightstore run --locked FILE -- …"]

    def record(self, wanted: Wanted, digest: Digest, size: int, *, commit: str = "") -> None:
        """Write down that somebody asked for this, if a record is kept."""
        if self.recorder is None:
            return
        name = wanted.qualified_name or wanted.name
        if not wanted.qualified_name and (entry := self.client.entry_of(wanted.source)) is not None:
            name = entry.qualified_name
        known = self.locked.get(wanted.source.key)
        entry_to_lock = locked_entry(
            known.name if known is not None else name,
            wanted.source,
            digest,
            size,
            asked_by=asking_library(),
            commit=commit,
        )
        if entry_to_lock is not None:
            try:
                self.recorder.add(entry_to_lock)
            except OSError as error:
                self.note(f"{wanted.name} could not be recorded: {error.strerror}")
