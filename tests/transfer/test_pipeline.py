"""Bytes are hashed while they are written; what breaks on either side reaches the one who writes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from weightstore.digest import Digest
from weightstore.errors import NoSpace, StoreError
from weightstore.transfer.pipeline import READ_SIZE, HashingWriter

BLOCK = bytes(range(256)) * 4096


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT, 0o600)
    yield fd
    os.close(fd)


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("expected", [None, 3 * len(BLOCK), 1 << 30], ids=["unknown", "small", "large"])
def test_what_is_written_is_hashed(fd: int, tmp_path: Path, expected: int | None) -> None:
    writer = HashingWriter(fd, expected=expected)
    for _ in range(3):
        writer.write(BLOCK)
    assert writer.finish() == digest_of(BLOCK * 3)
    assert (tmp_path / "part").read_bytes() == BLOCK * 3


def test_a_file_larger_than_a_write_back_comes_out_right(fd: int) -> None:
    writer = HashingWriter(fd)
    for _ in range(40):
        writer.write(BLOCK)
    assert writer.finish() == digest_of(BLOCK * 40)


def test_a_writer_goes_on_where_another_was_suspended(fd: int, tmp_path: Path) -> None:
    first = HashingWriter(fd)
    first.write(BLOCK)
    offset, digest, hasher = first.suspend()
    assert (offset, digest) == (len(BLOCK), digest_of(BLOCK))
    second = HashingWriter(fd, hasher=hasher, offset=offset)
    second.write(b"more")
    assert second.finish() == digest_of(BLOCK + b"more")
    assert (tmp_path / "part").read_bytes() == BLOCK + b"more"


def test_a_checkpoint_tells_what_is_on_disk(fd: int) -> None:
    told: list[tuple[int, Digest]] = []
    writer = HashingWriter(fd, checkpoint=lambda offset, digest: told.append((offset, digest)))
    for _ in range(70):
        writer.write(BLOCK)
    writer.finish()
    assert told[-1][0] >= 64 << 20
    assert told[-1][1] == digest_of(os.pread(fd, told[-1][0], 0))


@pytest.mark.parametrize("expected", [None, 1])
def test_an_error_of_a_checkpoint_reaches_the_writer(fd: int, expected: int | None) -> None:
    def fail(offset: int, digest: Digest) -> None:
        raise StoreError(place="tmp", reason="cannot be written")

    writer = HashingWriter(fd, checkpoint=fail, expected=expected)
    with pytest.raises(StoreError, match="cannot be written"):
        for _ in range(90):
            writer.write(BLOCK)
    if expected is None:
        with pytest.raises(StoreError, match="cannot be written"):
            writer.suspend()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("expected", [None, len(BLOCK)], ids=["in-two-threads", "in-one"])
def test_a_full_disk_is_no_space_by_the_end_at_the_latest(expected: int | None) -> None:
    fd = os.open("/dev/full", os.O_RDWR)
    writer = HashingWriter(fd, expected=expected)
    try:
        with pytest.raises(NoSpace):  # by whichever thread writes
            for _ in range(20):
                writer.write(BLOCK)
            writer.finish()
    finally:
        with contextlib.suppress(NoSpace):
            writer.suspend()
        os.close(fd)


def test_rooms_are_used_again_only_when_their_blocks_are_hashed(fd: int) -> None:
    writer = HashingWriter(fd)
    blocks = [os.urandom(READ_SIZE) for _ in range(40)]
    for block in blocks:
        room = writer.room()
        room[:] = block
        writer.write(room)
    assert writer.finish() == digest_of(b"".join(blocks))
    assert os.pread(fd, 50 * READ_SIZE, 0) == b"".join(blocks)


def test_room_is_set_aside_ahead_and_none_beyond_the_end(fd: int) -> None:
    size = 20 * READ_SIZE
    writer = HashingWriter(fd, expected=size)
    writer.write(BLOCK)
    writer.suspend()
    found = os.fstat(fd)
    assert found.st_size == len(BLOCK)
    if found.st_blocks * 512 > len(BLOCK) + 4096 * 2:  # the file system can
        assert size <= found.st_blocks * 512 < size + READ_SIZE


def test_ctrl_c_waits_until_nothing_writes_any_more(fd: int, tmp_path: Path) -> None:
    """A second Ctrl-C while the first is dealt with: what the descriptor is used for next is not written to."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(_offset: int, _digest: Digest) -> None:
        begun.set()
        go_on.wait(10)

    writer = HashingWriter(fd, checkpoint=slow)
    for _ in range(64):
        writer.write(BLOCK)  # the 64th is noted, slowly
    assert begun.wait(10)
    for _ in range(4):
        writer.write(BLOCK)
    interrupt = threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    let_go = threading.Timer(0.8, go_on.set)
    interrupt.start()
    let_go.start()
    with pytest.raises(KeyboardInterrupt):
        writer.suspend()
    assert go_on.is_set()
    before = (tmp_path / "part").stat()
    time.sleep(0.2)
    assert (tmp_path / "part").stat() == before
    assert not any(thread.name == "weightstore-hash" for thread in threading.enumerate())
    interrupt.join()
    let_go.join()
