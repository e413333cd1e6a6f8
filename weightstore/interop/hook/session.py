"""What the hook answers from: a client, what is locked, how files are placed, where to write down what was asked."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.parse import quote, unquote, urlsplit

from weightstore.digest import Pin
from weightstore.errors import NotPresent, StoreError, TransferError, WeightStoreError
from weightstore.interop.hook.asking import asking_library
from weightstore.interop.hook.found import Found
from weightstore.interop.recording import locked_entry
from weightstore.records import Ref, Wanted
from weightstore.source import Source, parse_source
from weightstore.store.blobs import OpenBlob, open_verified
from weightstore.store.layers import find_ref
from weightstore.store.refs import list_refs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightstore.catalog.lockfile import Lockfile
    from weightstore.client import Client
    from weightstore.config import Link
    from weightstore.digest import Digest
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


_KEPT_IN_URLS = "%:/?#[]@!$&'()*+,;=-._~"
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


class _UrlError(URLError):
    """An URLError that takes no arguments, as the next in line of our errors."""

    def __init__(self) -> None:
        super().__init__("")


class NotPresentAtUrl(NotPresent, _UrlError):
    """:class:`NotPresent` to those who know weightstore, and what urllib raises to those who do not."""


class TransferFailed(TransferError, _UrlError):  # type: ignore[misc]  # its reason is text, an URLError's anything
    """:class:`TransferError` to those who know weightstore, and what urllib raises to those who do not."""


def is_named_like_weights(url: str) -> bool:
    """Tell whether the name in a URL is one that checkpoints have."""
    try:
        return unquote(urlsplit(url).path).lower().endswith(_EXTENSIONS)
    except ValueError:
        return False


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
        self.found = Found(client.config.state, note=note)
        # Of each repository's commit that a snapshot is being made of, the branches that were asked for.
        self.snapshots: dict[tuple[str, str], list[str]] = {}

    @property
    def is_offline(self) -> bool:
        return self.client.config.offline

    def source_of(self, url: object) -> Source | None:
        """Return the source that a URL is, or None where it is none that is served: of another scheme, or no URL."""
        if not isinstance(url, str):
            return None
        try:
            # What urllib accepts and we want encoded.
            source, _ = parse_source(quote(url.partition("#")[0], safe=_KEPT_IN_URLS))
        except WeightStoreError:
            return None
        return source if source.scheme in {"http", "https", "file"} else None

    def serves(self, url: object, *, certain: bool = False) -> Source | None:
        """Return the source that a URL is if it is answered from the store: it is weights, by its name or by a record.

        ``certain`` says that it is weights, whatever it is called.
        """
        source = self.source_of(url)
        if source is None or certain:
            return source
        is_weights = source.pin.is_pinned or source.key in self.locked or is_named_like_weights(source.url)
        return source if is_weights or self.ref_of(source) is not None else None

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
        obtainer = self.client.obtainer
        return find_ref(source, obtainer.layers(), pin=wanted.pin, note=self.note, counts=obtainer.counts)

    def look(self, source: Source, pin: Pin | None = None) -> tuple[Wanted, Located]:
        """Return what a source asks for, and where it is. A hit costs no catalog.

        Args:
            source: what is asked for.
            pin: what the caller knows of the digest, where the source's own name says nothing.

        Raises:
            InvalidInput, Drift: it cannot be used.
        """
        locked = self.locked.get(source.key)
        if locked is not None:
            wanted = replace(locked.wanted(), source=source)
            return wanted, self.client.obtainer.locate(wanted)
        own = source.pin if source.pin.is_pinned else pin or Pin()
        wanted = Wanted(source.display, source, own)
        located = self.client.obtainer.locate(wanted)
        if located.hit is None:
            better = self.client.wanted(source.url)
            if better.pin.agrees_with(own):
                better = replace(better, pin=better.pin.narrower(own))
            if better != wanted:
                wanted, located = better, self.client.obtainer.locate(better)
        return wanted, located

    def is_of_another(self, digest: Digest, source: Source) -> bool:
        """Tell whether some store has recorded this as the content of another source."""
        layouts = [layer.layout for layer in self.client.obtainer.layers() if layer.layout is not None]
        refs = (ref for layout in layouts for ref in list_refs(layout) if isinstance(ref, Ref))
        return any(ref.digest == digest and ref.source != source for ref in refs)

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
