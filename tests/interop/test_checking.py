"""``check``: is all of a lockfile here, verified and readable?"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import weightstore
from tests.soak.test_places import ADA, GROUP, as_user
from weightstore.catalog.lockfile import Locked, Lockfile
from weightstore.config import Config
from weightstore.digest import Digest
from weightstore.interop.checking import check
from weightstore.source import Source
from weightstore.store.layout import Layout, create_layout
from weightstore.store.receipts import Receipts

DATA = b"weights" * 10_000


def locked(data: bytes, name: str = "net") -> Locked:
    source = Source(f"https://x.org/{name}.pth")
    return Locked(name, source, Digest(hashlib.sha256(data).hexdigest()), len(data), "timm")


def put(layout: Layout, data: bytes, receipts: Receipts | None = None, *, content: bytes | None = None) -> Path:
    """Lay a blob into a store as another user's download would, or one whose content is something else."""
    digest = Digest(hashlib.sha256(data).hexdigest())
    path = layout.blob(digest)
    path.write_bytes(data if content is None else content)
    if receipts is not None:
        receipts.record(digest, path.stat(), by_us=True)
    return path


class Watched:
    """Counts what is hashed."""

    def __init__(self) -> None:
        self.total = 0
        self.hashed = 0

    def _advance(self, size: int) -> None:
        self.hashed += size

    @contextmanager
    def __call__(self, total):
        self.total += total
        yield self._advance


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_what_has_a_receipt_is_present_without_being_hashed(config, layout, receipts, watched):
    path = put(layout, DATA, receipts)
    (found,) = check(Lockfile((locked(DATA),)), config=config, watch=watched)
    assert (found.status, found.layer, found.path, found.detail) == ("present", "store", path, "")
    assert watched.total == 0


def test_what_has_none_is_hashed_once(config, layout, watched):
    put(layout, DATA)
    lockfile = Lockfile((locked(DATA),))
    for _ in range(2):
        assert [one.status for one in check(lockfile, config=config, watch=watched)] == ["present"]
    assert (watched.total, watched.hashed) == (len(DATA), len(DATA))


def test_rehash_hashes_whatever_the_receipts_say(config, layout, receipts, watched):
    put(layout, DATA, receipts)
    check(Lockfile((locked(DATA),)), config=config, rehash=True, watch=watched)
    assert watched.hashed == len(DATA)


def test_one_blob_under_two_names_is_hashed_once_and_told_twice(config, layout, watched):
    put(layout, DATA)
    found = check(Lockfile((locked(DATA, "a"), locked(DATA, "b"))), config=config, watch=watched)
    assert [(one.locked.name, one.status) for one in found] == [("a", "present"), ("b", "present")]
    assert watched.hashed == len(DATA)


@pytest.mark.parametrize("has_receipt", [False, True])
def test_other_content_of_the_same_length_is_damaged_and_left_where_it_is(config, layout, receipts, has_receipt):
    path = put(layout, DATA, receipts if has_receipt else None)
    before = path.stat()
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    (found,) = check(Lockfile((locked(DATA),)), config=config)
    assert (found.status, found.path) == ("damaged", path)
    assert hashlib.sha256(DATA[::-1]).hexdigest() in found.detail
    assert path.exists()


def test_a_truncated_file_is_told_without_hashing_it(config, layout, watched):
    put(layout, DATA, content=DATA[:-1])
    (found,) = check(Lockfile((locked(DATA),)), config=config, watch=watched)
    assert found.status == "wrong-size"
    assert f"{len(DATA) - 1} bytes, and {len(DATA)} are locked" in found.detail
    assert watched.hashed == 0


def test_a_lockfile_with_a_wrong_size_is_blamed_where_the_content_is_known(config, layout, receipts):
    put(layout, DATA, receipts)
    (found,) = check(Lockfile((replace(locked(DATA), size=5),)), config=config)
    assert found.status == "wrong-size"
    assert "the lockfile is wrong" in found.detail


def test_what_no_layer_has_is_absent_also_where_there_is_no_store(config, tmp_path):
    notes: list[str] = []
    elsewhere = config.but(layers=(tmp_path / "nothing",))
    (found,) = check(Lockfile((locked(DATA),)), config=elsewhere, note=notes.append)
    assert (found.status, found.layer, found.path) == ("absent", "", None)
    assert not found.is_present
    assert "there is no store" in notes[0]
    assert not config.home.exists()


def test_the_first_layer_with_a_good_copy_answers(config, layout, tmp_path):
    layer = create_layout(tmp_path / "layer")
    put(layer, DATA)
    put(layout, DATA)
    with_layer = config.but(layers=(layer.root,))
    (found,) = check(Lockfile((locked(DATA),)), config=with_layer)
    assert (found.status, found.layer) == ("present", str(layer.root))


@pytest.mark.parametrize("damage", [DATA[::-1], DATA[:9]], ids=["content", "size"])
def test_a_bad_copy_in_a_layer_does_not_matter_where_another_has_a_good_one(config, layout, tmp_path, damage):
    layer = create_layout(tmp_path / "layer")
    put(layer, DATA, content=damage)
    put(layout, DATA)
    (found,) = check(Lockfile((locked(DATA),)), config=config.but(layers=(layer.root,)))
    assert (found.status, found.layer) == ("present", "store")


def test_a_symbolic_link_in_the_place_of_a_blob_is_damage(config, layout, tmp_path):
    (tmp_path / "other").write_bytes(DATA)
    layout.blob(locked(DATA).digest).symlink_to(tmp_path / "other")
    (found,) = check(Lockfile((locked(DATA),)), config=config)
    assert found.status == "damaged"
    assert "symbolic link" in found.detail


def test_a_directory_in_the_place_of_a_blob_is_no_blob(config, layout):
    layout.blob(locked(DATA).digest).mkdir()
    (found,) = check(Lockfile((locked(DATA),)), config=config)
    assert not found.is_present


@pytest.mark.needs("root")
def test_what_this_user_may_not_read_is_unreadable():
    with tempfile.TemporaryDirectory() as name:  # pytest's own lie behind closed doors
        place = Path(name)
        place.chmod(0o755)
        layer = create_layout(place / "layer", "world")
        path = put(layer, DATA)
        path.chmod(0o600)
        config = Config(home=place / "none", state=place / "state", layers=(layer.root,))
        lockfile = Lockfile((locked(DATA), locked(b"another", "other")))
        assert [one.status for one in check(lockfile, config=config)] == ["present", "absent"]

        def work() -> None:
            found, absent = check(lockfile, config=config)
            assert (found.status, found.layer, found.path) == ("unreadable", str(layer.root), path)
            assert "denied" in found.detail
            assert absent.status == "absent"

        as_user(ADA, [GROUP], work)


def test_check_is_public():
    assert weightstore.check is check
    assert weightstore.Checked.__name__ == "Checked"
