from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.store.conftest import gone, journal_of, leave_part
from weightstore.errors import Cancelled
from weightstore.store.flight import flight
from weightstore.store.layout import Layout
from weightstore.store.locks import BestLock, FileLock, RangeLock
from weightstore.store.parts import Part

KEY = "sha256-" + "ab" * 32


@contextlib.contextmanager
def held(layout: Layout) -> Iterator[None]:
    """Hold the flight's lock, as another process does."""
    lock = BestLock(layout, KEY)
    assert lock.try_acquire() == "held"
    yield
    lock.release()


def fly(
    layout: Layout,
    *,
    arrived: Callable[[], str | None] = lambda: None,
    locks: bool = True,
    stall_s: float = 60,
    stop: threading.Event | None = None,
    waits: list[str] | None = None,
) -> str | None:
    with flight(
        layout,
        KEY,
        arrived=arrived,
        locks=locks,
        stall_s=stall_s,
        stop=stop or threading.Event(),
        on_wait=(waits if waits is not None else []).append,
    ) as found:
        return found


@pytest.mark.parametrize("locks", [True, False])
def test_with_nobody_ahead_it_is_our_turn(layout: Layout, locks: bool) -> None:
    assert fly(layout, locks=locks) is None


@pytest.mark.parametrize("locks", [True, False])
def test_what_arrived_is_handed_over(layout: Layout, locks: bool) -> None:
    assert fly(layout, arrived=lambda: "blob", locks=locks) == "blob"


def test_only_one_flies_at_a_time(layout: Layout) -> None:
    flying = 0
    most = 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal flying, most
        with flight(
            layout, KEY, arrived=lambda: None, locks=True, stall_s=60, stop=threading.Event(), on_wait=lambda _: None
        ):
            with guard:
                flying += 1
                most = max(most, flying)
            time.sleep(0.02)
            with guard:
                flying -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_waiter_says_for_whom_and_takes_what_arrives(layout: Layout) -> None:
    waits: list[str] = []
    arrivals = iter([None, None, None, "blob"])
    with held(layout), Part.create(layout, KEY):
        found = fly(layout, arrived=lambda: next(arrivals), waits=waits)
    assert found == "blob"
    assert waits == [f"process {os.getpid()} on {os.uname().nodename}"]


def test_a_waiter_before_the_first_byte_says_so(layout: Layout) -> None:
    waits: list[str] = []
    arrivals = iter([None, None, "blob"])
    with held(layout):
        assert fly(layout, arrived=lambda: next(arrivals), waits=waits) == "blob"
    assert waits == ["another process that is about to download it"]


def test_a_holder_that_does_not_write_is_overtaken(layout: Layout) -> None:
    began = time.monotonic()
    with held(layout):
        assert fly(layout, stall_s=0.2) is None
    assert time.monotonic() - began < 5


def test_a_holder_that_writes_is_waited_for(layout: Layout) -> None:
    part = Part.create(layout, KEY)
    done = threading.Event()

    def grow() -> None:
        for _ in range(12):
            os.write(part.fd, b"x" * 1000)
            time.sleep(0.05)
        done.set()

    with held(layout):
        grower = threading.Thread(target=grow)
        grower.start()
        assert fly(layout, arrived=lambda: "blob" if done.is_set() else None, stall_s=0.3) == "blob"
        grower.join()
    part.discard()


def test_waiting_can_be_stopped(layout: Layout) -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with held(layout), pytest.raises(Cancelled):
        fly(layout, stop=stop)


def test_without_locks_a_growing_part_is_waited_for(layout: Layout) -> None:
    waits: list[str] = []
    arrivals = iter([None, None, "blob"])
    with Part.create(layout, KEY):
        assert fly(layout, locks=False, arrived=lambda: next(arrivals), waits=waits) == "blob"
    assert waits


def test_without_locks_an_abandoned_part_is_not_waited_for(layout: Layout) -> None:
    leave_part(layout, b"x", journal=journal_of(b"x", owner=gone()))
    assert fly(layout, locks=False) is None


@pytest.mark.parametrize("kind", [RangeLock, FileLock, BestLock])
def test_a_lock_excludes_others_until_it_is_let_go(layout: Layout, kind: type[BestLock]) -> None:
    first, second, other = kind(layout, KEY), kind(layout, KEY), kind(layout, "sha256-" + "cd" * 32)
    assert first.try_acquire() == "held"
    assert second.try_acquire() == "busy"
    assert other.try_acquire() == "held"
    first.release()
    assert second.try_acquire() == "held"
    second.release()
    second.release()
    other.release()


@pytest.mark.parametrize("kind", [RangeLock, FileLock])
def test_a_lock_ends_with_its_process(layout: Layout, kind: type[RangeLock]) -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        theirs = kind(layout, KEY)
        os.write(write_end, theirs.try_acquire().encode())
        time.sleep(60)
        os._exit(0)
    assert os.read(read_end, 10) == b"held"
    mine = kind(layout, KEY)
    assert mine.try_acquire() == "busy"
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert mine.try_acquire() == "held"
    mine.release()
    os.close(read_end)
    os.close(write_end)


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int, *names: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in names:
        monkeypatch.setattr(fcntl, name, fail)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EIO, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_lock_that_cannot_be_had_means_going_without(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_locks(monkeypatch, number, "fcntl", "flock")
    assert fly(layout, stall_s=5) is None


def test_without_range_locks_a_lock_file_is_taken(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch, errno.EINVAL, "fcntl")
    lock = BestLock(layout, KEY)
    assert lock.try_acquire() == "held"
    assert FileLock(layout, KEY).try_acquire() == "busy"
    lock.release()
    monkeypatch.setattr(sys, "platform", "plan9")
    assert not RangeLock.is_known()


def test_another_users_closed_lock_file_means_going_without(layout: Layout) -> None:
    (layout.locks / "flights").mkdir()
    assert RangeLock(layout, KEY).try_acquire() == "impossible"
    assert fly(layout, stall_s=5) is None


def test_a_lock_directory_that_is_gone_means_going_without(layout: Layout) -> None:
    layout.locks.rmdir()
    layout.locks.write_bytes(b"")
    assert fly(layout, stall_s=5) is None
