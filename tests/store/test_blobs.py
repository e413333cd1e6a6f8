from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.store.conftest import Put, damage, digest_of
from weightstore.errors import BlobDamaged
from weightstore.store.blobs import digests_beginning, hash_descriptor, list_blobs, open_verified
from weightstore.store.layout import Layout
from weightstore.store.receipts import Receipts, identity_of

DATA = os.urandom(3_000_000)
DIGEST = digest_of(DATA)


def test_what_is_opened_is_what_was_verified(put: Put, receipts: Receipts) -> None:
    path = put(DATA)
    with open_verified(path, DIGEST, receipts) or pytest.fail("absent") as blob:
        path.unlink()
        path.write_bytes(b"swapped after verification")
        assert os.read(blob.fd, len(DATA) + 1) == DATA
        assert blob.size == len(DATA)


def test_a_detached_descriptor_is_the_callers(put: Put, receipts: Receipts) -> None:
    blob = open_verified(put(DATA), DIGEST, receipts)
    assert blob is not None
    fd = blob.detach()
    blob.close()
    assert os.read(fd, 4) == DATA[:4]
    os.close(fd)


def test_a_blob_that_is_not_there_is_absent(layout: Layout, receipts: Receipts) -> None:
    assert open_verified(layout.blob(DIGEST), DIGEST, receipts) is None


def test_one_flipped_bit_is_noticed(put: Put, receipts: Receipts) -> None:
    path = put(DATA)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(2_000_000)
        file.write(bytes([DATA[2_000_000] ^ 1]))
    with pytest.raises(BlobDamaged, match="damaged"):
        open_verified(path, DIGEST, receipts)


def test_a_truncated_blob_is_noticed(put: Put, receipts: Receipts) -> None:
    path = put(DATA)
    os.truncate(path, len(DATA) - 1)
    with pytest.raises(BlobDamaged):
        open_verified(path, DIGEST, receipts)


def test_a_change_that_restores_mtime_is_noticed_by_ctime(put: Put, receipts: Receipts) -> None:
    path = put(DATA)
    before = path.stat()
    damage(path, DATA[:-1] + b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BlobDamaged):
        open_verified(path, DIGEST, receipts)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_not_a_regular_file_is_damage(layout: Layout, receipts: Receipts, make: object) -> None:
    make(layout.blob(DIGEST))  # type: ignore[operator]
    with pytest.raises(BlobDamaged, match="regular"):
        open_verified(layout.blob(DIGEST), DIGEST, receipts)


def test_a_symbolic_link_is_damage_even_to_the_right_bytes(layout: Layout, receipts: Receipts, tmp_path: Path) -> None:
    (tmp_path / "right").write_bytes(DATA)
    layout.blob(DIGEST).symlink_to(tmp_path / "right")
    with pytest.raises(BlobDamaged, match="symbolic link"):
        open_verified(layout.blob(DIGEST), DIGEST, receipts)


def test_a_receipt_spares_the_second_hash(put: Put, tmp_path: Path) -> None:
    path = put(DATA)
    mine = Receipts(tmp_path / "mine")
    hashed: list[int] = []
    for _ in range(2):
        opened = open_verified(path, DIGEST, mine, on_bytes=hashed.append)
        assert opened is not None
        opened.close()
    assert sum(hashed) == len(DATA)


def test_always_hashing_ignores_the_receipt(put: Put, receipts: Receipts) -> None:
    hashed: list[int] = []
    opened = open_verified(put(DATA), DIGEST, receipts, on_bytes=hashed.append, always_hash=True)
    assert opened is not None
    opened.close()
    assert sum(hashed) == len(DATA)


def test_a_receipt_that_others_could_write_is_not_believed(put: Put, receipts: Receipts, tmp_path: Path) -> None:
    path = put(DATA)
    assert receipts.attests(DIGEST, identity_of(path.stat()))
    (tmp_path / "state" / "receipts").chmod(0o622)
    assert not receipts.attests(DIGEST, identity_of(path.stat()))


@pytest.mark.parametrize("position", [3, 70, 100, -15])
def test_a_torn_receipt_is_not_believed(put: Put, receipts: Receipts, tmp_path: Path, position: int) -> None:
    path = put(DATA)
    file = tmp_path / "state" / "receipts"
    line = bytearray(file.read_bytes())
    line[position] ^= 1
    file.write_bytes(line)
    assert not receipts.attests(DIGEST, identity_of(path.stat()))


def test_receipts_of_several_writers_stand_side_by_side(put: Put, receipts: Receipts, tmp_path: Path) -> None:
    contents = [b"%d" % number for number in range(20)]
    paths = [put(data) for data in contents]
    other = Receipts(tmp_path / "state")
    for path, data in zip(paths, contents, strict=True):
        assert other.attests(digest_of(data), identity_of(path.stat()))
    receipts.forget(digest_of(b"7"))
    assert not other.attests(digest_of(b"7"), identity_of(paths[7].stat()))
    assert other.attests(digest_of(b"8"), identity_of(paths[8].stat()))


def test_a_long_history_is_shortened(put: Put, receipts: Receipts, tmp_path: Path) -> None:
    path = put(DATA)
    file = tmp_path / "state" / "receipts"
    file.write_bytes(file.read_bytes() * 8000)
    put(b"one more")
    assert file.stat().st_size < 1000
    assert receipts.attests(DIGEST, identity_of(path.stat()))


def test_a_state_directory_that_cannot_be_written_costs_only_time(put: Put, tmp_path: Path) -> None:
    path = put(DATA)
    (tmp_path / "file").write_bytes(b"")
    nowhere = Receipts(tmp_path / "file")
    opened = open_verified(path, DIGEST, nowhere)
    assert opened is not None
    opened.close()
    assert nowhere.last_used(DIGEST, identity_of(path.stat())) is None
    assert nowhere.sweep(older_than_s=0) == 0


def test_use_is_noted_by_the_hour(put: Put, receipts: Receipts, tmp_path: Path) -> None:
    path = put(DATA)
    file = tmp_path / "state" / "receipts"
    file.write_bytes(file.read_bytes().rpartition(b" ")[0] + b" 1\n")
    assert receipts.last_used(DIGEST, identity_of(path.stat())) == 1
    assert receipts.attests(DIGEST, identity_of(path.stat()))
    assert time.time() - (receipts.last_used(DIGEST, identity_of(path.stat())) or 0) < 60


def test_old_receipts_are_swept_and_forgotten_ones_are_gone(put: Put, receipts: Receipts) -> None:
    path = put(DATA)
    assert receipts.sweep(older_than_s=3600) == 0
    receipts.forget(DIGEST)
    assert not receipts.attests(DIGEST, identity_of(path.stat()))
    put(b"other")
    assert receipts.sweep(older_than_s=-10) == 1


def test_hashing_leaves_the_position_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        os.lseek(fd, 5, os.SEEK_SET)
        hasher, size = hash_descriptor(fd)
        assert (hasher.hexdigest(), size) == (DIGEST.hex, len(DATA))
        assert os.lseek(fd, 0, os.SEEK_CUR) == 5
    finally:
        os.close(fd)


def test_only_files_named_like_blobs_are_listed(put: Put, layout: Layout, tmp_path: Path) -> None:
    put(DATA)
    (layout.blobs / "README").write_bytes(b"")
    (layout.blobs / ("Z" * 64)).write_bytes(b"")
    (layout.blobs / ("0" * 64)).mkdir()
    (layout.blobs / ("1" * 64)).symlink_to(tmp_path)
    assert set(list_blobs(layout)) == {DIGEST}
    assert digests_beginning(layout, DIGEST.hex[:8]) == [DIGEST]
    assert digests_beginning(layout, "Z") == []
