from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.store.conftest import Put, damage, digest_of
from weightstore.errors import CannotReplace, StoreError
from weightstore.store.blobs import list_blobs, open_verified
from weightstore.store.layout import Layout
from weightstore.store.parts import Part, list_parts
from weightstore.store.publish import PartLost, publish
from weightstore.store.receipts import Receipts, identity_of

DATA = b"weights" * 1000
KEY = "sha256-" + digest_of(DATA).hex


def filled(layout: Layout, data: bytes = DATA) -> Part:
    part = Part.create(layout, KEY)
    os.write(part.fd, data)
    return part


def test_a_published_blob_is_named_by_content_read_only_and_the_only_name(put: Put, layout: Layout) -> None:
    path = put(DATA)

    assert path == layout.blobs / digest_of(DATA).hex
    assert path.read_bytes() == DATA
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o444
    assert found.st_nlink == 1
    assert list(layout.tmp.iterdir()) == []


def test_publishing_writes_a_receipt_that_attests(put: Put, receipts: Receipts) -> None:
    path = put(DATA)
    assert receipts.attests(digest_of(DATA), identity_of(path.stat()))


def test_the_second_writer_uses_the_first_ones_blob(put: Put) -> None:
    first = put(DATA).stat().st_ino
    assert put(DATA).stat().st_ino == first


def test_a_damaged_blob_in_the_way_goes_to_quarantine(put: Put, layout: Layout) -> None:
    damage(put(DATA))

    path = put(DATA)

    assert path.read_bytes() == DATA
    aside = [entry for entry in layout.quarantine.iterdir() if not entry.name.endswith(".json")]
    assert [entry.read_bytes() for entry in aside] == [b"something else"]


def test_a_link_in_the_way_is_put_aside_and_never_followed(layout: Layout, put: Put, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    layout.blob(digest_of(DATA)).symlink_to(outside)

    path = put(DATA)

    assert not path.is_symlink()
    assert path.read_bytes() == DATA
    assert outside.read_bytes() == b"mine"


def test_a_part_of_another_size_than_was_hashed_is_not_published(layout: Layout, receipts: Receipts) -> None:
    part = filled(layout)
    with pytest.raises(StoreError, match="changed while it was written"):
        publish(part, digest_of(DATA), size=len(DATA) + 1, receipts=receipts)
    assert list_blobs(layout) == {}


def test_a_part_that_is_gone_is_not_published(layout: Layout, receipts: Receipts) -> None:
    part = filled(layout)
    part.path.unlink()
    with pytest.raises(PartLost):
        publish(part, digest_of(DATA), size=len(DATA), receipts=receipts)
    assert list_blobs(layout) == {}


def test_what_is_published_is_the_file_that_was_hashed_whatever_bears_its_name(
    layout: Layout, receipts: Receipts
) -> None:
    part = filled(layout)
    mine = os.fstat(part.fd).st_ino
    part.path.rename(layout.tmp / "elsewhere")
    part.path.write_bytes(b"evil" * (len(DATA) // 4))

    path = publish(part, digest_of(DATA), size=len(DATA), receipts=receipts)

    assert path.read_bytes() == DATA
    assert path.stat().st_ino == mine
    assert part.path.read_bytes().startswith(b"evil"), "what is not ours is not removed"


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS])
def test_without_hard_links_the_part_is_renamed(
    layout: Layout, receipts: Receipts, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", refuse)
    for _ in range(2):  # the second finds the first one's blob
        path = publish(filled(layout), digest_of(DATA), size=len(DATA), receipts=receipts)
        assert path.read_bytes() == DATA
        assert list_parts(layout) == []


def test_without_hard_links_a_damaged_blob_is_put_aside_too(
    layout: Layout, receipts: Receipts, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(put(DATA))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = publish(filled(layout), digest_of(DATA), size=len(DATA), receipts=receipts)
    assert path.read_bytes() == DATA


def test_another_failure_of_link_is_an_error_and_publishes_nothing(
    layout: Layout, receipts: Receipts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(StoreError, match="input/output"):
        publish(filled(layout), digest_of(DATA), size=len(DATA), receipts=receipts)
    assert list_blobs(layout) == {}


def test_a_damaged_blob_that_cannot_be_moved_is_an_error_that_says_so(
    layout: Layout, receipts: Receipts, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(put(DATA))
    part = filled(layout)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "rename", refuse)  # as a sticky directory does with another's file
    with pytest.raises(CannotReplace, match="verify --repair"):
        publish(part, digest_of(DATA), size=len(DATA), receipts=receipts)


def test_many_writers_and_readers_never_see_a_wrong_byte(layout: Layout, receipts: Receipts, tmp_path: Path) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]
    problems: list[BaseException] = []

    def write(offset: int) -> None:
        try:
            for step in range(40):
                data = contents[(step + offset) % len(contents)]
                publish(filled(layout, data), digest_of(data), size=len(data), receipts=receipts)
        except BaseException as error:
            problems.append(error)

    def read() -> None:
        mine = Receipts(tmp_path / "other")  # another user: no receipts, every byte is hashed
        try:
            for step in range(200):
                digest = digest_of(contents[step % len(contents)])
                opened = open_verified(layout.blob(digest), digest, mine, always_hash=True)
                if opened is not None:
                    opened.close()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(offset,)) for offset in range(4)]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert set(list_blobs(layout)) == {digest_of(data) for data in contents}
    assert list_parts(layout) == []
