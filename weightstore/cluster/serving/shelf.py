"""What is served: the blobs of all layers, verified when they are opened, and what refs tell of them."""

from __future__ import annotations

import asyncio
import functools
import os
import stat
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from weightstore.cluster.serving.figures import Figures
from weightstore.errors import InvalidRecord
from weightstore.interop.views.holdings import believed
from weightstore.store.image import INDEX_NAME
from weightstore.store.refs import read_ref_of_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weightstore.client import Client
    from weightstore.cluster.serving.pulling import Puller
    from weightstore.digest import Digest
    from weightstore.records import Ref, Sharing
    from weightstore.store.blobs import OpenBlob
    from weightstore.store.layout import Layout

_T = TypeVar("_T")
# Files that were never hashed before are hashed here, one thread each; what has a receipt does not wait for them long.
_THREADS = 8
# What came or went within the clock tick of a directory's time is seen after so long at the latest.
_REREAD_AFTER_S = 30.0
_UNSERVED = frozenset({"file"})  # paths on this machine are no business of others


class Shelf:
    """The stores of one client, asked from one event loop: the disk is read in threads."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.figures = Figures()
        self.puller: Puller | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="serve")
        self._opening: weakref.WeakValueDictionary[Digest, asyncio.Lock] = weakref.WeakValueDictionary()
        self._kept: dict[str, tuple[object, float, object]] = {}
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Read the stores anew when something is asked for next: something came."""
        with self._lock:
            self._kept.clear()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def call(self, function: Callable[[], _T]) -> _T:
        """Run what may wait for a disk in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def open(self, digest: Digest) -> OpenBlob | None:
        """Return a good copy of a blob, open; None where no layer has one. One that is damaged counts as none.

        With pull-through, it is fetched first where a mirror gives it.
        """
        blob = await self.open_held(digest)
        if blob is None and self.puller is not None and await self.puller.fetch_blob(digest):
            blob = await self.open_held(digest)
        return blob

    async def open_held(self, digest: Digest) -> OpenBlob | None:
        """Return a good copy of a blob that some layer has, open, or None."""
        lock = self._opening.setdefault(digest, asyncio.Lock())
        async with lock:  # a hundred clients that ask for what was never hashed have it hashed once
            return await self.call(functools.partial(self._open, digest))

    def _open(self, digest: Digest) -> OpenBlob | None:
        hit = self.client.obtainer.find(digest)
        return hit.blob if hit is not None else None

    def has(self, digest: Digest) -> bool:
        """Tell whether some layer has a file of this name. Whether it is good is found out when it is opened."""
        return any(_is_regular(layout.blob(digest)) for layout in self.layouts())

    def layouts(self) -> list[Layout]:
        """Return the stores, in the order in which they are asked."""
        return [layer.layout for layer in self.client.obtainer.layers() if layer.layout is not None]

    @property
    def sharing(self) -> Sharing:
        layouts = self.layouts()
        return layouts[-1].sharing if layouts else "private"

    def ref_of_key(self, key: str) -> Ref | None:
        """Return what the first layer recorded of the source with this key. Damaged refs are noted and passed by."""
        for layout in self.layouts():
            try:
                ref = read_ref_of_key(layout, key)
            except InvalidRecord as damage:
                self.client.note(str(damage))
                continue
            if ref is not None:
                return ref if is_served(ref) else None
        return None

    def refs(self) -> list[Ref]:
        """Return the refs that may be believed and served, one a source."""
        return [ref for ref in believed(self.client, note=self.client.note) if is_served(ref)]

    def kept(self, name: str, make: Callable[[], _T]) -> _T:
        """Return what ``make`` returned since the stores last changed."""
        with self._lock:
            state, now = self._state(), time.monotonic()
            known = self._kept.get(name)
            if known is None or known[0] != state or now - known[1] > _REREAD_AFTER_S:
                known = self._kept[name] = (state, now, make())
            return known[2]  # type: ignore[return-value]  # of whoever uses the name

    def _state(self) -> object:
        found: list[object] = []
        for layout in self.layouts():
            for place in (layout.blobs, layout.refs, layout.root / INDEX_NAME):
                try:
                    seen = os.stat(place)
                except OSError:
                    found.append(None)
                else:
                    found.append((seen.st_ino, seen.st_mtime_ns))
        return found


def is_served(ref: Ref) -> bool:
    """Tell whether others may know of a ref."""
    return ref.source.scheme not in _UNSERVED


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
