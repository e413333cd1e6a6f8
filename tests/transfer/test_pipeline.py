"""Bytes are hashed while they are written; what breaks on either side reaches the one who writes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from weightstore.digest import Digest
from weightstore.errors import NoSpace, StoreError
from weightstore.transfer.pipeline import HashingWriter

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
def test_a_full_disk_is_no_space() -> None:
    fd = os.open("/dev/full", os.O_RDWR)
    try:
        writer = HashingWriter(fd)
        with pytest.raises(NoSpace):
            writer.write(BLOCK)
        writer.suspend()
    finally:
        os.close(fd)
