from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.conftest import gone, journal_of, leave_part
from weightstore.records import Owner
from weightstore.store.layout import Layout
from weightstore.store.owner import is_alive, is_gone, this_process
from weightstore.store.parts import Part, file_time, is_abandoned, list_parts, owner_of, read_journal, take_over

KEY = "sha256-" + "ab" * 32
DATA = os.urandom(200_000)


def taken(layout: Layout, *, stall_s: float = 60) -> list[tuple[bytes, int]]:
    found = []
    for part, journal, hasher in take_over(layout, KEY, stall_s=stall_s):
        assert hasher.hexdigest() == journal.digest.hex
        found.append((os.pread(part.fd, 1 << 20, 0), part.path.stat().st_ino))
        part.discard()
    return found


def test_a_part_of_a_dead_process_is_taken_over_in_place(layout: Layout) -> None:
    path = leave_part(layout, DATA, journal=journal_of(DATA, offset=150_000, owner=gone()))
    inode = path.stat().st_ino
    assert taken(layout) == [(DATA[:150_000], inode)]
    assert list(layout.tmp.iterdir()) == []


def test_a_part_that_only_seems_dead_is_copied_because_its_owner_may_still_write(layout: Layout) -> None:
    elsewhere = Owner("other-host", 7, "another-boot", "pid:[1]", 5)
    path = leave_part(layout, DATA, journal=journal_of(DATA, owner=elsewhere))
    still_open = os.open(path, os.O_WRONLY)
    os.utime(path, (1, 1))
    try:
        for part, _, _ in take_over(layout, KEY, stall_s=60):
            os.pwrite(still_open, b"the old owner wakes up", 0)
            assert os.pread(part.fd, len(DATA), 0) == DATA
            part.discard()
            break
        else:
            pytest.fail("nothing was taken over")
    finally:
        os.close(still_open)


def test_a_growing_part_of_another_machine_is_left_alone(layout: Layout) -> None:
    leave_part(layout, DATA, journal=journal_of(DATA, owner=Owner("other-host", 7, "another-boot", "pid:[1]", 5)))
    assert taken(layout) == []
    assert len(list_parts(layout)) == 1


def test_a_part_that_this_process_is_writing_is_left_alone(layout: Layout) -> None:
    with Part.create(layout, KEY) as part:
        os.write(part.fd, DATA)
        part.checkpoint(journal_of(DATA))
        os.utime(part.path, (1, 1))
        assert taken(layout, stall_s=0) == []


def test_a_part_that_this_process_left_is_taken_over(layout: Layout) -> None:
    leave_part(layout, DATA, journal=journal_of(DATA))
    assert [data for data, _ in taken(layout)] == [DATA]


def test_a_part_without_journal_cannot_be_resumed(layout: Layout) -> None:
    path = leave_part(layout, DATA, journal=None)
    os.utime(path, (1, 1))
    assert taken(layout) == []


def test_a_part_that_was_tampered_with_is_thrown_away(layout: Layout) -> None:
    path = leave_part(layout, DATA, journal=journal_of(DATA, owner=gone()))
    with path.open("r+b") as file:
        file.write(b"!")
    assert taken(layout) == []
    assert list_parts(layout) == []


def test_a_part_shorter_than_its_journal_says_is_left_for_the_collector(layout: Layout) -> None:
    elsewhere = Owner("other-host", 7, "another-boot", "pid:[1]", 5)
    path = leave_part(layout, DATA, journal=journal_of(DATA, owner=elsewhere))
    os.truncate(path, 10)
    os.utime(path, (1, 1))
    assert taken(layout) == []
    assert path.exists()


def test_a_dead_process_s_part_that_cannot_be_resumed_is_cleared_away(layout: Layout) -> None:
    leave_part(layout, DATA, journal=journal_of(DATA, offset=0, owner=gone()))
    assert taken(layout) == []
    assert list(layout.tmp.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 10, b"[1]"])
def test_a_damaged_journal_is_as_good_as_none(layout: Layout, content: bytes) -> None:
    path = leave_part(layout, DATA, journal=journal_of(DATA, owner=gone()))
    path.with_suffix(".journal").write_bytes(content)
    (part,) = list_parts(layout)
    assert read_journal(part) is None
    assert taken(layout) == []


def test_the_most_advanced_part_comes_first(layout: Layout) -> None:
    leave_part(layout, DATA, journal=journal_of(DATA, offset=1000, owner=gone()))
    leave_part(layout, DATA, journal=journal_of(DATA, offset=150_000, owner=gone()))
    assert [len(data) for data, _ in taken(layout)] == [150_000, 1000]


def test_one_process_wins_a_part(layout: Layout) -> None:
    leave_part(layout, DATA, journal=journal_of(DATA, owner=gone()))
    first = take_over(layout, KEY, stall_s=60)
    second = take_over(layout, KEY, stall_s=60)
    part, _, _ = next(first)
    assert list(second) == []
    part.discard()


def test_a_link_named_like_a_part_is_no_part(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(DATA)
    (layout.tmp / f"{KEY}.host.1.00000000.part").symlink_to(tmp_path / "victim")
    assert list_parts(layout) == []


def test_a_discarded_part_leaves_nothing(layout: Layout) -> None:
    part = Part.create(layout, KEY)
    part.checkpoint(journal_of(DATA))
    part.discard()
    part.discard()
    assert list(layout.tmp.iterdir()) == []


def test_a_part_carries_its_writer_in_its_name(layout: Layout) -> None:
    with Part.create(layout, KEY):
        (seen,) = list_parts(layout, KEY)
        assert seen.place.startswith(this_process().host + "-")
        assert seen.pid == os.getpid()
        assert owner_of(seen).pid == os.getpid()
    assert list_parts(layout, "sha256-" + "00" * 32) == []


def test_a_store_without_tmp_has_no_parts(layout: Layout) -> None:
    layout.tmp.rmdir()
    assert list_parts(layout) == []
    assert file_time(layout) > 0


def test_a_running_process_is_alive_and_an_ended_one_gone() -> None:
    code = "from weightstore.store.owner import this_process as t; o = t(); print(o.pid, o.started); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        pid, started = map(int, child.stdout.readline().split())
        here = this_process()
        owner = Owner(here.host, pid, here.boot, here.pid_namespace, started)
        assert is_alive(owner)
        assert not is_gone(owner)
        reused = Owner(here.host, pid, here.boot, here.pid_namespace, started + 1)
        assert is_gone(reused)  # the same number, another process
        child.kill()
        # Not yet reaped, it is a zombie: it writes no more.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(owner)
    assert is_gone(owner)


def test_processes_of_another_boot_or_namespace_are_not_judged() -> None:
    here = this_process()
    for stranger in (
        Owner(here.host, 2**22 - 3, "another-boot", here.pid_namespace, 1),
        Owner(here.host, 2**22 - 3, here.boot, "pid:[1]", 1),
        Owner(here.host, 2**22 - 3),
    ):
        assert not is_gone(stranger)
        assert not is_alive(stranger)


def test_init_is_alive_though_we_may_not_signal_it() -> None:
    here = this_process()
    assert is_alive(Owner(here.host, 1, here.boot, here.pid_namespace, 0))


def test_a_live_owner_may_be_slow(layout: Layout) -> None:
    parent = this_process()
    alive = Owner(parent.host, 1, parent.boot, parent.pid_namespace, 0)
    leave_part(layout, DATA, journal=journal_of(DATA, owner=alive))
    (seen,) = list_parts(layout)
    assert not is_abandoned(seen, now=seen.mtime + 100, stall_s=60)
    assert is_abandoned(seen, now=seen.mtime + 1000, stall_s=60)
