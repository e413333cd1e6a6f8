"""Many blobs: plan what is missing, check that there is room, then fetch side by side."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import queue
import secrets
import stat
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from weightstore.errors import Cancelled, NoSpace, WeightStoreError
from weightstore.landing import Lander, Landing, Obtained
from weightstore.obtain import Obtainer, obtained_from
from weightstore.store.durability import allocate
from weightstore.transfer.progress import Meter, Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.obtain import Known
    from weightstore.records import Wanted
    from weightstore.signing.vouchers import Word

# How long Ctrl-C waits for connections that do not answer before leaving them to the end of the process.
_PATIENCE_S = 0.8
_TICK_S = 0.05
# So much of one processor, and Python's lock is what the threads wait for.
_BUSY = 0.7


@dataclass(frozen=True, slots=True)
class Item:
    """One blob of a plan. ``size`` is in bytes, None where nobody knows; ``obtained`` says where a present one lies.

    ``word`` is the signed index that tells the digest, where one does.
    """

    wanted: Wanted
    names: tuple[str, ...]
    size: int | None
    digest: Digest | None
    obtained: Obtained | None
    sources: tuple[str, ...] = ()
    qualified_names: tuple[str, ...] = ()
    known_by: Known = "nothing"
    word: Word | None = None

    @property
    def is_present(self) -> bool:
        return self.obtained is not None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a prefetch will do. Sizes in bytes; ``free`` is None where the file system does not tell."""

    items: tuple[Item, ...]
    free: int | None

    @property
    def missing(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if not item.is_present)

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes of the missing blobs whose size is known."""
        return sum(item.size or 0 for item in self.missing)

    @property
    def sizes_unknown(self) -> int:
        return sum(1 for item in self.missing if item.size is None)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one item. ``elapsed_s`` is 0 for one that was present."""

    item: Item
    status: Literal["present", "fetched", "failed", "cancelled"]
    obtained: Obtained | None = None
    error: WeightStoreError | None = None
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a prefetch did, item by item in the plan's order."""

    results: tuple[Result, ...]
    elapsed_s: float

    @property
    def bytes_received(self) -> int:
        return sum(result.obtained.received for result in self.results if result.obtained is not None)

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.status in {"failed", "cancelled"})


class Progress(Protocol):
    """Watches a prefetch. Called from several threads."""

    def begin(self, plan: Plan) -> None: ...
    def meter(self, item: Item) -> Meter: ...
    def done(self, result: Result) -> None: ...


class NoProgress:
    """A progress that shows nothing."""

    def begin(self, plan: Plan) -> None:
        pass

    def meter(self, item: Item) -> Meter:  # noqa: ARG002 - the protocol's signature
        return Silent()

    def done(self, result: Result) -> None:
        pass


def make_plan(wanted: Iterable[Wanted], *, obtainer: Obtainer, asking: bool = False) -> Plan:
    """Decide what is to be fetched. Two names of one source are one item.

    Reads the stores, and opens no socket; when ``asking``, mirrors are asked for what they signed, as a fetch would.
    """
    groups: dict[tuple[str, str], list[Wanted]] = {}
    for one in wanted:
        groups.setdefault((one.source.key, one.pin.hex), []).append(one)
    items = tuple(_item(group, obtainer, asking=asking) for group in groups.values())
    return Plan(items, _free_bytes(obtainer.config.home))


def _item(group: Sequence[Wanted], obtainer: Obtainer, *, asking: bool) -> Item:
    wanted = group[0]
    names = tuple(dict.fromkeys(one.name for one in group))
    qualified = tuple(dict.fromkeys(one.qualified_name or one.name for one in group))
    located = obtainer.locate(wanted, asking=asking)
    known_by, word = located.known_by, located.word
    if located.hit is not None:
        here = obtained_from(located.hit)
        return Item(
            wanted,
            names,
            here.size,
            here.digest,
            here,
            qualified_names=qualified,
            known_by=known_by,
            word=word,
        )
    chosen = obtainer.route(wanted, located)
    sources = tuple(candidate.source.display for candidate in chosen.candidates)
    size = wanted.size if wanted.size is not None else _local_size(wanted)
    if word is not None and word.claim is not None:
        size = word.claim.entry.size
    return Item(wanted, names, size, located.digest, None, sources, qualified, known_by, word)


def _local_size(wanted: Wanted) -> int | None:
    if wanted.source.scheme == "file":
        with contextlib.suppress(OSError):
            found = wanted.source.path.stat()
            return found.st_size if stat.S_ISREG(found.st_mode) else None
    return None


def _free_bytes(root: Path) -> int | None:
    for place in (root, *root.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            return found.f_bavail * found.f_frsize
    return None


def check_room(plan: Plan, tmp: Path) -> None:
    """Make sure that what is to be fetched will fit, by free space and by quota.

    Only trying tells a quota: the bytes are allocated for a moment, without being written, where the file system can.

    Raises:
        NoSpace: it will not fit.
    """
    needed = plan.bytes_to_fetch
    if not needed:
        return
    if plan.free is not None and needed > plan.free:
        raise NoSpace(place=str(tmp.parent), needed=needed, free=plan.free, reason="too little free space")
    problem = _try_allocating(tmp, needed)
    if problem in {errno.ENOSPC, errno.EDQUOT}:
        reason = "the quota would be exceeded" if problem == errno.EDQUOT else "too little free space"
        raise NoSpace(place=str(tmp.parent), needed=needed, free=plan.free, reason=reason)


def _try_allocating(tmp: Path, size: int) -> int:
    """Return the errno of allocating so many bytes in a directory, or 0. Nothing stays allocated."""
    path = tmp / f".room.{os.getpid()}.{secrets.token_hex(4)}.new"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return 0
    try:
        os.unlink(path)
        return allocate(fd, 0, size)
    except OSError:
        return 0
    finally:
        os.close(fd)


def run_plan(
    plan: Plan,
    *,
    obtainer: Obtainer,
    jobs: int,
    progress: Progress,
    stop: threading.Event,
) -> Report:
    """Fetch what is missing, ``jobs`` files side by side; one that fails does not keep the others from coming.

    When interrupted (KeyboardInterrupt) it stops the downloads, which keep their parts for the next run, and returns:
    the unfinished items are reported as cancelled.

    Raises:
        NoSpace: the plan does not fit, found before anything was fetched.
    """
    began = time.monotonic()
    progress.begin(plan)
    if plan.missing and not obtainer.config.offline:
        check_room(plan, obtainer.writable().tmp)
    left_behind = obtainer.left_behind() if plan.missing else frozenset[str]()
    results: dict[int, Result] = {}
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index, item in enumerate(plan.items):
        if item.is_present:
            results[index] = Result(item, "present", item.obtained)
            progress.done(results[index])
        else:
            todo.put(index)

    def finish(index: int, came: Result | Landing, began: float, meter: Meter) -> None:
        item = plan.items[index]
        if isinstance(came, Landing):
            landing = came

            def land() -> None:
                step = functools.partial(obtainer.land, landing, meter=meter, stop=stop)
                finish(index, _attempt(item, began, step, stop), began, meter)

            lander.take(landing, land)
            return
        results[index] = came
        progress.done(came)

    def work() -> None:
        while not stop.is_set():
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            item, began = plan.items[index], time.monotonic()
            meter = progress.meter(item)
            bring = functools.partial(obtainer.bring, item.wanted, meter=meter, stop=stop, left_behind=left_behind)
            finish(index, _attempt(item, began, bring, stop), began, meter)

    crew = _Crew(work, most=min(jobs, len(plan.missing)))
    lander = Lander(obtainer.receipts, more_to_come=crew.is_working)
    try:
        crew.run()
        lander.close()
    except KeyboardInterrupt:
        stop.set()
        obtainer.interrupt()
        crew.wait(_PATIENCE_S)
        lander.close(_PATIENCE_S)
    if any(result.status == "fetched" for result in results.values()):
        obtainer.sync_names()
    final = [
        results.get(index) or Result(item, "cancelled", error=Cancelled()) for index, item in enumerate(plan.items)
    ]
    return Report(tuple(final), time.monotonic() - began)


class _Crew:
    """Threads that do the same work side by side: two, and more while the processor has time to spare.

    Small files from a fast server keep it busy, and then further threads only hinder each other; from a distant one
    they wait for the network, and more of them wait at the same time.
    """

    def __init__(self, work: Callable[[], None], *, most: int) -> None:
        self._work = work
        self._most = most
        # Not the threads themselves: in Python 3.11 and 3.12 a join() that Ctrl-C interrupts takes a running thread for
        # one that has ended (https://github.com/python/cpython/issues/90882), and nobody would wait for it any more.
        self._ended: list[threading.Event] = []

    def run(self) -> None:
        """Return when all threads are done."""
        for _ in range(min(2, self._most)):
            self._hire()
        busy, at = time.process_time(), time.monotonic()
        while (running := next((ended for ended in self._ended if not ended.is_set()), None)) is not None:
            running.wait(_TICK_S)
            elapsed = time.monotonic() - at
            if elapsed < _TICK_S:
                continue
            if len(self._ended) < self._most and time.process_time() - busy < _BUSY * elapsed:
                self._hire()
            busy, at = time.process_time(), time.monotonic()

    def is_working(self) -> bool:
        """Tell whether some thread is still at work."""
        return not all(ended.is_set() for ended in self._ended)

    def _hire(self) -> None:
        ended = threading.Event()

        def work() -> None:
            try:
                self._work()
            finally:
                ended.set()

        self._ended.append(ended)
        threading.Thread(target=work, name=f"weightstore-{len(self._ended)}", daemon=True).start()

    def wait(self, patience_s: float) -> None:
        """Wait for the threads, but no longer."""
        deadline = time.monotonic() + patience_s
        for ended in self._ended:
            ended.wait(max(0.0, deadline - time.monotonic()))


def _attempt(
    item: Item, began: float, step: Callable[[], Obtained | Landing], stop: threading.Event
) -> Result | Landing:
    """Take a step towards an item: return what became of it, or its download that has yet to land."""
    try:
        came = step()
    except Cancelled as error:
        return Result(item, "cancelled", error=error, elapsed_s=time.monotonic() - began)
    except WeightStoreError as error:
        if isinstance(error, NoSpace) and error.needed is None:
            stop.set()  # the disk is full; with a size, it is one file that would not fit, or a server that lies
        return Result(item, "failed", error=error, elapsed_s=time.monotonic() - began)
    except Exception as error:  # noqa: BLE001 - a defect of ours in one item is reported as its failure, with its name
        failure = WeightStoreError(message=f"{item.wanted.name}: unexpected {type(error).__name__}: {error}")
        failure.__cause__ = error
        return Result(item, "failed", error=failure, elapsed_s=time.monotonic() - began)
    if isinstance(came, Landing):
        return came
    status: Literal["present", "fetched"] = "fetched" if came.via in {"mirror", "origin"} else "present"
    return Result(item, status, came, elapsed_s=time.monotonic() - began)
