from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from weightstore.store.durability import GroupSync, start_write_back, sync_directory


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_directory_that_cannot_be_synced_is_only_sometimes_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if number == errno.EINVAL:
        sync_directory(tmp_path)
    else:
        with pytest.raises(OSError, match="error"):
            sync_directory(tmp_path)


def test_threads_that_wait_are_synced_together_and_each_gets_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [os.open(tmp_path / str(number), os.O_CREAT | os.O_RDWR) for number in range(6)]
    synced: list[tuple[str, int]] = []
    errors: list[OSError] = []
    first_is_syncing, go_on = threading.Event(), threading.Event()

    def sync(fd: int) -> None:
        synced.append((threading.current_thread().name, fd))
        if fd == files[0]:
            first_is_syncing.set()
            go_on.wait(10)
        if fd == files[3]:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", sync)
    group = GroupSync()

    def work(fd: int) -> None:
        try:
            group(fd)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(fd,), name=str(fd)) for fd in files]
    threads[0].start()
    first_is_syncing.wait(10)
    for thread in threads[1:]:
        thread.start()
    deadline = time.monotonic() + 10
    while len(group._waiting) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    go_on.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    for fd in files:
        os.close(fd)

    assert sorted(fd for _, fd in synced) == files
    assert len({leader for leader, _ in synced}) == 2, "one for the first, one for all that came meanwhile"
    assert [error.errno for error in errors] == [errno.EIO]


def test_write_back_can_be_started_on_any_file(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "x", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 100_000)
    start_write_back(fd, 0, 0)
    os.close(fd)
