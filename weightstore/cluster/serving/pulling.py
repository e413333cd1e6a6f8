"""Pull-through: what no layer has is fetched when it is asked for, once for all, and then served as everything else."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import quote

from weightstore.client import Client
from weightstore.cluster.serving.repositories import LISTING_LIMIT, parse_listing
from weightstore.digest import Pin
from weightstore.errors import AccessDenied, Cancelled, DigestMismatch, SizeMismatch, SourceNotFound, WeightStoreError
from weightstore.hub import HubFile, is_commit
from weightstore.records import Wanted
from weightstore.source import Source
from weightstore.transfer.policy import blob_in
from weightstore.transfer.progress import Silent
from weightstore.transfer.remote import RemoteFile
from weightstore.transfer.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightstore.cluster.serving.repositories import Listing
    from weightstore.cluster.serving.shelf import Shelf
    from weightstore.digest import Digest
    from weightstore.landing import Obtained
    from weightstore.transfer.transport import Declared

# Clients ask for optional files again and again: what was refused is not asked for anew so long, up to so many.
_REFUSED_FOR_S = 60.0
_REFUSALS = 10_000
# So many kinds of faults are told: how many there are is for those to say who are at fault.
_MOST_TOLD = 1000
_DIGITS = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")
# So long a branch means what it did, and so many lists of files are kept.
_FRESH_S = 60.0
_LISTINGS = 256


class Puller:
    """Fetches by digest from the configured mirrors, and by source from the Hub. Nothing else can be asked for.

    The Hub is asked without the token of the user who serves: what only they may see is not for all.
    """

    def __init__(self, shelf: Shelf) -> None:
        config = shelf.client.config
        self._shelf = shelf
        self._client = Client(config.but(order=("layers", "origin"), retries=1, hub_token=None), note=shelf.client.note)
        self._mirrors = config.mirrors if "mirrors" in config.order else ()
        self._asks_origin = "origin" in config.order and not config.offline
        self._threads = ThreadPoolExecutor(config.jobs, thread_name_prefix="pull")
        self._asking = ThreadPoolExecutor(config.jobs, thread_name_prefix="ask")  # questions do not wait for downloads
        self._fetching: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._refused: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()
        self._listings: dict[tuple[str, str], tuple[float, Listing]] = {}
        self._branches: dict[tuple[str, str], str] = {}
        self._stop = threading.Event()

    def close(self) -> None:
        """End what is being fetched. What has come so far is kept for the next time."""
        self._stop.set()
        self._client.obtainer.interrupt()
        for threads in (self._threads, self._asking):
            threads.shutdown(wait=False, cancel_futures=True)

    async def fetch_blob(self, digest: Digest) -> bool:
        """Fetch a blob from the first mirror that gives it; tell whether it is here now."""
        # No ref is made of it: where it comes from is not known, and that a mirror has it is no fact worth telling.
        return await self._fetch(
            str(digest),
            [
                (f"mirror {mirror}: ", Wanted(str(digest), blob_in(mirror, digest), Pin.of(digest), is_recorded=False))
                for mirror in self._mirrors
            ],
        )

    async def fetch_file(self, source: Source) -> bool:
        """Fetch a file of the Hub; tell whether it is here now."""
        return self._asks_origin and await self._fetch(source.display, [("", Wanted(source.display, source, Pin()))])

    async def listing(self, repo: str, revision: str) -> Listing | None:
        """Return what the Hub says that a revision is; None where it does not tell, and has not told before."""
        if not self._asks_origin:
            return None
        name = f"list {repo}@{revision}"
        lock = self._fetching.setdefault(name, asyncio.Lock())
        async with lock:
            at, known = self._listings.get((repo, revision), (float("-inf"), None))
            if known is not None and (is_commit(revision) or time.monotonic() - at < _FRESH_S):
                return known
            if self._is_refused(name):
                return known
            loop = asyncio.get_running_loop()
            try:
                listing = await loop.run_in_executor(self._asking, self._list, repo, revision)
            except (SourceNotFound, AccessDenied):  # the Hub's two ways to say that there is none for us
                self._listings.pop((repo, revision), None)
                self._remember_refusal(name)
                return None
            except WeightStoreError as error:
                self._refuse(name, error)
                return known
            for one in (revision, listing.commit):
                self._listings[repo, one] = time.monotonic(), listing
            if revision != listing.commit:
                self._branches[repo, listing.commit] = revision
            for table in (self._listings, self._branches):
                while len(table) > _LISTINGS:
                    table.pop(next(iter(table)))
            return listing

    def branch_of(self, repo: str, commit: str) -> str:
        """Return a branch that the Hub said means a commit; empty where it did not."""
        return self._branches.get((repo, commit), "")

    def _list(self, repo: str, revision: str) -> Listing:
        path = f"api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"
        source = Source(str(HubFile(repo, revision, "any")))
        data = self._client.obtainer.transports().hub(source).api(path, limit=LISTING_LIMIT)
        return parse_listing(data, place=f"{repo}@{revision}")

    async def look(self, source: Source) -> tuple[Declared, int] | None:
        """Return what the Hub says of a file, and its size, without fetching it; None where it does not give it."""
        if not self._asks_origin or self._is_refused(source.display):
            return None
        return await asyncio.get_running_loop().run_in_executor(self._asking, self._look, source)

    def _look(self, source: Source) -> tuple[Declared, int] | None:
        transports = self._client.obtainer.transports()
        try:
            file = RemoteFile(
                source,
                transport=transports.transport_for(source),
                connections=transports.connections,
                retry=RetryPolicy(attempts=1),
                slow_s=self._client.config.read_timeout_s,
                stop=self._stop,
            )
        except WeightStoreError as error:
            self._refuse(source.display, error)
            return None
        return (file.declared, file.size) if file.declared is not None else None

    async def _fetch(self, name: str, places: Sequence[tuple[str, Wanted]]) -> bool:
        if not places:
            return False
        lock = self._fetching.setdefault(name, asyncio.Lock())
        async with lock:
            if self._is_refused(name):
                return False
            # Who asked may leave: the fetch goes on, for whoever asks next.
            obtained = await asyncio.get_running_loop().run_in_executor(self._threads, self._obtain, name, places)
        if obtained is not None and obtained.via == "origin":  # and not brought by who asked just before
            self._shelf.figures.blobs["pulled"] += 1
        return obtained is not None

    def _obtain(self, name: str, places: Sequence[tuple[str, Wanted]]) -> Obtained | None:
        for place, wanted in places:
            try:
                obtained = self._client.obtainer.obtain(wanted, meter=Silent(), stop=self._stop)
            except Cancelled:
                return None
            except WeightStoreError as error:
                self._tell(place, error)
            else:
                self._shelf.forget()
                return obtained
        self._remember_refusal(name)
        return None

    def _is_refused(self, name: str) -> bool:
        return time.monotonic() - self._refused.get(name, float("-inf")) < _REFUSED_FOR_S

    def _refuse(self, name: str, error: WeightStoreError) -> None:
        self._tell("", error)
        self._remember_refusal(name)

    def _tell(self, place: str, error: WeightStoreError) -> None:
        """Tell each kind of fault of a place once; not to have everything is none.

        Without the name, which a stranger chose: what was told is remembered.
        """
        if isinstance(error, SourceNotFound):
            return
        fault = _fault(error)
        kind = (place, _DIGITS.sub("", fault))
        if kind not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(kind)
            self._shelf.client.note(f"could not be pulled: {place}{fault}")

    def _remember_refusal(self, name: str) -> None:
        while len(self._refused) >= _REFUSALS:
            self._refused.pop(next(iter(self._refused)), None)
        self._refused[name] = time.monotonic()


def _fault(error: WeightStoreError) -> str:
    """Return what a place did, without what was asked of it."""
    if isinstance(error, DigestMismatch):
        return "gave other bytes than those of the digest"
    if isinstance(error, SizeMismatch):
        return f"gave {error.actual} bytes, and it should be {error.expected}"
    return getattr(error, "reason", "") or type(error).__name__
