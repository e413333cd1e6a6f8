"""Giving blobs further names: each way, what is left of a failure, and what a reader of the name sees."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.views.conftest import digest_of
from weightstore.errors import StoreError
from weightstore.interop.placing import is_blob, place
from weightstore.store.blobs import OpenBlob, open_verified
from weightstore.store.layout import Layout, create_layout
from weightstore.store.parts import Part
from weightstore.store.publish import publish
from weightstore.store.receipts import Receipts, identity_of

DATA = os.urandom(3 << 20)


def blob_in(layout: Layout, receipts: Receipts) -> OpenBlob:
    part = Part.create(layout, f"sha256-{digest_of(DATA).hex}")
    os.write(part.fd, DATA)
    path = publish(part, digest_of(DATA), size=len(DATA), receipts=receipts)
    blob = open_verified(path, digest_of(DATA), receipts)
    assert blob is not None
    return blob


@pytest.fixture
def blob(layout: Layout, receipts: Receipts) -> Iterator[OpenBlob]:
    with blob_in(layout, receipts) as blob:
        yield blob


@pytest.fixture
def with_reflinks(tmp_path: Path) -> Iterator[Path]:
    """A directory on a small XFS, which has reflinks."""
    image, place = tmp_path / "image", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
    place.mkdir()
    if subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False, capture_output=True).returncode:
        pytest.skip("root may not mount a file system of its own here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("link", ["symlink", "hardlink"])
def test_a_link_is_the_blob_itself(blob, tmp_path, link):
    name = tmp_path / "model.pth"
    assert place(blob, name, link=link) == link
    assert is_blob(name, blob)
    assert name.is_symlink() == (link == "symlink")
    assert stat.S_IMODE(name.stat().st_mode) == 0o444


def test_a_symbolic_link_is_absolute(blob, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place(blob, Path("model.pth"), link="symlink")
    assert os.readlink("model.pth") == str(blob.path)


def test_a_copy_is_a_file_of_its_own_with_permissions_by_the_umask(blob, tmp_path):
    name = tmp_path / "model.pth"
    before = os.umask(0o027)
    try:
        assert place(blob, name, link="copy") == "copy"
    finally:
        os.umask(before)
    assert name.read_bytes() == DATA
    assert not is_blob(name, blob)
    assert stat.S_IMODE(name.stat().st_mode) == 0o640


def test_a_copy_is_noted_and_need_not_be_hashed_again(blob, tmp_path, receipts):
    place(blob, tmp_path / "model.pth", link="copy", receipts=receipts)
    assert receipts.attests(blob.digest, identity_of(os.lstat(tmp_path / "model.pth")))


@pytest.mark.parametrize("link", ["auto", "symlink", "hardlink", "copy"])
def test_what_had_the_name_is_replaced_and_nothing_else_is_left(blob, tmp_path, link):
    directory = tmp_path / "cache"
    directory.mkdir()
    (directory / "model.pth").write_bytes(b"old")
    place(blob, directory / "model.pth", link=link)
    assert (directory / "model.pth").read_bytes() == DATA
    assert os.listdir(directory) == ["model.pth"]


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a tmpfs, which has no reflinks")
def test_without_reflinks_auto_makes_a_symbolic_link_and_reflink_is_refused(receipts, tmp_path):
    layout = create_layout(Path("/dev/shm") / f"weightstore-test-{os.getpid()}")
    try:
        with blob_in(layout, receipts) as blob:
            directory = layout.root / "cache"
            directory.mkdir()
            assert place(blob, directory / "model.pth") == "symlink"
            with pytest.raises(StoreError, match="no reflinks"):
                place(blob, directory / "model.pth", link="reflink")
            assert os.listdir(directory) == ["model.pth"]
            with pytest.raises(StoreError, match="no hard link"):
                place(blob, tmp_path / "model.pth", link="hardlink")
            assert place(blob, tmp_path / "model.pth", link="copy") == "copy"
            assert (tmp_path / "model.pth").read_bytes() == DATA
    finally:
        subprocess.run(["rm", "-rf", str(layout.root)], check=True)


@pytest.mark.needs("root", "mount", "mkfs.xfs")
def test_with_reflinks_auto_shares_the_bytes_until_somebody_writes(with_reflinks, receipts):
    layout = create_layout(with_reflinks / "store")
    with blob_in(layout, receipts) as blob:
        name = with_reflinks / "model.pth"
        used = os.statvfs(with_reflinks).f_bfree
        assert place(blob, name) == "reflink"
        os.sync()
        assert used - os.statvfs(with_reflinks).f_bfree < len(DATA) // os.statvfs(with_reflinks).f_frsize
        assert name.read_bytes() == DATA
        name.write_bytes(b"trained further")
        assert blob.path.read_bytes() == DATA


def test_a_directory_that_is_not_there_is_a_clear_error(blob, tmp_path):
    with pytest.raises(StoreError, match="No such file"):
        place(blob, tmp_path / "absent" / "model.pth")


def test_a_directory_in_the_way_is_an_error_and_leaves_nothing(blob, tmp_path):
    (tmp_path / "cache" / "model.pth").mkdir(parents=True)
    with pytest.raises(StoreError):
        place(blob, tmp_path / "cache" / "model.pth")
    assert os.listdir(tmp_path / "cache") == ["model.pth"]


def test_a_blob_that_was_swapped_is_not_linked(blob, tmp_path):
    os.unlink(blob.path)
    blob.path.write_bytes(b"another")
    with pytest.raises(StoreError, match="Try again"):
        place(blob, tmp_path / "model.pth", link="hardlink")
    assert not (tmp_path / "model.pth").exists()
