from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.store.conftest import SOURCE, Put, damage, digest_of
from weightstore.digest import Pin
from weightstore.errors import BlobDamaged, CannotReplace, InvalidRecord, NotAStore, StoreError
from weightstore.records import Ref
from weightstore.source import Source
from weightstore.store.layers import find_blob, find_ref, open_layers
from weightstore.store.layout import Layout, create_layout
from weightstore.store.quarantine import put_aside
from weightstore.store.receipts import Receipts
from weightstore.store.refs import forget_ref, list_refs, read_ref, write_ref
from weightstore.store.verify import verify_store

DATA = b"weights"
DIGEST = digest_of(DATA)


def place(layout: Layout, data: bytes, *, name: bytes | None = None) -> Path:
    path = layout.blob(digest_of(name if name is not None else data))
    path.write_bytes(data)
    path.chmod(0o444)
    return path


def ref(digest_data: bytes = DATA, source: Source = SOURCE) -> Ref:
    return Ref(source, digest_of(digest_data), len(digest_data), datetime(2026, 1, 2, tzinfo=UTC))


def test_the_first_layer_that_has_it_answers(tmp_path: Path, layout: Layout, receipts: Receipts) -> None:
    site, project = create_layout(tmp_path / "site"), create_layout(tmp_path / "project")
    for one in (project, layout):
        place(one, DATA)
    layers = open_layers(layout.root, [site.root, project.root], note=pytest.fail)
    hit = find_blob(DIGEST, layers, receipts, note=pytest.fail)
    assert hit is not None
    assert hit.layer.root == project.root
    hit.blob.close()


def test_a_damaged_copy_in_a_read_only_layer_is_skipped_and_left(
    tmp_path: Path, layout: Layout, receipts: Receipts
) -> None:
    site = create_layout(tmp_path / "site")
    bad = place(site, b"bad", name=DATA)
    place(layout, DATA)
    notes: list[str] = []
    hit = find_blob(DIGEST, open_layers(layout.root, [site.root], note=pytest.fail), receipts, note=notes.append)
    assert hit is not None
    assert hit.layer.writable
    hit.blob.close()
    assert bad.read_bytes() == b"bad"
    assert len(notes) == 1
    assert "skipped" in notes[0]


def test_a_damaged_copy_in_the_store_goes_to_quarantine(layout: Layout, receipts: Receipts) -> None:
    place(layout, b"bad", name=DATA)
    notes: list[str] = []
    assert find_blob(DIGEST, open_layers(layout.root, [], note=pytest.fail), receipts, note=notes.append) is None
    assert "moved to" in notes[0]
    reasons = [path for path in layout.quarantine.iterdir() if path.suffix == ".json"]
    assert DIGEST.hex in reasons[0].read_text()


def test_a_layer_that_is_no_store_is_noted_and_skipped(tmp_path: Path, layout: Layout) -> None:
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "store.json").write_text('{"layout": 7}')
    notes: list[str] = []
    layers = open_layers(layout.root, [tmp_path / "missing", tmp_path / "newer"], note=notes.append)
    assert layers[-1].writable
    assert [layer.root for layer in layers if layer.layout] == [layout.root]
    assert len(notes) == 2


def test_a_writable_root_of_another_version_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"layout": 7}')
    with pytest.raises(NotAStore):
        open_layers(tmp_path, [], note=pytest.fail)


def test_an_unreadable_blob_is_noted_and_the_next_layer_asked(
    tmp_path: Path, layout: Layout, receipts: Receipts, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = create_layout(tmp_path / "site")
    blocked = place(site, DATA)
    place(layout, DATA)
    real_open = os.open

    def refuse(path: str, *arguments: int, **options: int) -> int:
        if Path(path) == blocked:
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    notes: list[str] = []
    hit = find_blob(DIGEST, open_layers(layout.root, [site.root], note=pytest.fail), receipts, note=notes.append)
    assert hit is not None
    hit.blob.close()
    assert "Permission denied" in notes[0]


def test_a_ref_counts_only_where_the_pin_allows_it(layout: Layout) -> None:
    write_ref(layout, ref())
    layers = open_layers(layout.root, [], note=pytest.fail)
    assert find_ref(SOURCE, layers, pin=Pin(), note=pytest.fail) == ref()
    assert find_ref(SOURCE, layers, pin=Pin(DIGEST.hex[:8]), note=pytest.fail) == ref()
    assert find_ref(SOURCE, layers, pin=Pin("0" * 8), note=pytest.fail) is None


def test_a_damaged_ref_is_noted_and_passed_by(layout: Layout) -> None:
    layout.ref(SOURCE).write_bytes(b"{")
    notes: list[str] = []
    assert find_ref(SOURCE, open_layers(layout.root, [], note=pytest.fail), pin=Pin(), note=notes.append) is None
    assert "damaged ref" in notes[0]


def test_what_a_mirror_served_is_believed_only_where_a_pin_agrees(layout: Layout) -> None:
    write_ref(layout, replace(ref(), via="mirror"))
    layers = open_layers(layout.root, [], note=pytest.fail)
    assert find_ref(SOURCE, layers, pin=Pin(), note=pytest.fail) is None
    assert find_ref(SOURCE, layers, pin=Pin(DIGEST.hex[:8]), note=pytest.fail) is not None


def test_what_the_origin_served_is_not_overwritten_by_a_mirror(layout: Layout) -> None:
    write_ref(layout, ref())
    write_ref(layout, replace(ref(b"other"), via="mirror"))
    assert read_ref(layout, SOURCE) == ref()
    write_ref(layout, ref(b"other"))
    assert read_ref(layout, SOURCE) == ref(b"other")


def test_refs_come_back_as_written_and_can_be_forgotten(layout: Layout) -> None:
    write_ref(layout, ref())
    assert read_ref(layout, SOURCE) == ref()
    assert list(list_refs(layout)) == [ref()]
    assert forget_ref(layout, SOURCE)
    assert not forget_ref(layout, SOURCE)
    assert list(list_refs(layout)) == []


def test_an_equal_ref_keeps_the_first_sighting(layout: Layout) -> None:
    write_ref(layout, ref())
    write_ref(layout, Ref(SOURCE, DIGEST, len(DATA), datetime.now(UTC)))
    assert read_ref(layout, SOURCE) == ref()


def test_an_equal_ref_of_a_newer_commit_is_written(layout: Layout) -> None:
    old, new = replace(ref(), commit="a" * 40, etag="e" * 64), replace(ref(), commit="b" * 40, etag="e" * 64)
    for one in (ref(), old, new):
        write_ref(layout, one)
        assert read_ref(layout, SOURCE) == one
    write_ref(layout, ref())
    assert read_ref(layout, SOURCE) == new, "what says less says nothing new"


def test_what_was_adopted_tells_a_commit_only_where_none_was_known(layout: Layout) -> None:
    adopted = replace(ref(), via="adopted", commit="a" * 40, seen_at=datetime(2027, 1, 1, tzinfo=UTC))
    write_ref(layout, ref())
    write_ref(layout, adopted)
    known = replace(ref(), commit="a" * 40)
    assert read_ref(layout, SOURCE) == known, "it is still what the origin was seen to serve"
    write_ref(layout, replace(adopted, commit="b" * 40))
    assert read_ref(layout, SOURCE) == known


def test_a_damaged_ref_is_replaced(layout: Layout) -> None:
    layout.ref(SOURCE).write_bytes(b"{")
    write_ref(layout, ref())
    assert read_ref(layout, SOURCE) == ref()


def test_a_ref_under_another_sources_name_is_damage(layout: Layout) -> None:
    write_ref(layout, ref(source=Source("https://other.example/x")))
    layout.ref(Source("https://other.example/x")).rename(layout.ref(SOURCE))
    with pytest.raises(InvalidRecord, match="another source"):
        read_ref(layout, SOURCE)
    assert [type(found) for found in list_refs(layout)] == [InvalidRecord]


def test_a_ref_may_not_be_a_link(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "ref.json").write_bytes(ref().encode())
    layout.ref(SOURCE).symlink_to(tmp_path / "ref.json")
    with pytest.raises(InvalidRecord, match="cannot be read"):
        read_ref(layout, SOURCE)


def test_refs_of_a_store_that_is_not_there_are_none(tmp_path: Path) -> None:
    assert list(list_refs(Layout(tmp_path / "none"))) == []
    assert read_ref(Layout(tmp_path / "none"), SOURCE) is None


def test_a_ref_that_cannot_be_written_is_a_store_error(layout: Layout) -> None:
    layout.refs.rmdir()
    layout.refs.write_bytes(b"")
    with pytest.raises(StoreError):
        write_ref(layout, ref())


def test_verify_finds_the_one_damaged_blob_and_puts_it_aside(put: Put, layout: Layout, receipts: Receipts) -> None:
    for number in range(6):
        put(b"%d" % number * 10_000)
    bad = layout.blob(digest_of(b"3" * 10_000))
    damage(bad)
    counted: list[int] = []

    checked = verify_store(layout, receipts, on_bytes=counted.append)

    assert {one.digest.hex for one in checked if one.verdict == "damaged"} == {bad.name}
    assert sum(one.verdict == "good" for one in checked) == 5
    assert not bad.exists()
    assert sum(counted) > 50_000


def test_verify_notices_damage_that_a_receipt_would_hide(put: Put, layout: Layout, receipts: Receipts) -> None:
    path = put(DATA)
    damage(path)
    receipts.record(DIGEST, path.stat(), by_us=True)  # as bit rot looks: same stat, other bytes
    (checked,) = verify_store(layout, receipts)
    assert checked.verdict == "damaged"


def test_verify_can_only_look(put: Put, layout: Layout, receipts: Receipts) -> None:
    path = put(DATA)
    damage(path)
    (checked,) = verify_store(layout, receipts, quarantine=False)
    assert checked.verdict == "damaged"
    assert path.exists()


def test_verify_reports_what_it_cannot_read_or_move(
    put: Put, layout: Layout, receipts: Receipts, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(DATA)
    damage(path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        (checked,) = verify_store(layout, receipts)
    assert checked.verdict == "damaged"
    assert "administrator" in checked.detail
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", refuse)
        (checked,) = verify_store(layout, receipts)
    assert checked.verdict == "unreadable"


def test_a_good_blob_that_took_a_damaged_ones_place_is_not_put_aside(put: Put, layout: Layout) -> None:
    path = put(DATA)
    damage(path, b"bad")
    judged = path.stat()
    kept_open = os.open(path, os.O_RDONLY)  # the inode number is not given away while somebody holds it
    path.unlink()
    put(DATA)
    found = BlobDamaged(place=str(path), expected=str(DIGEST), actual="sha256:…")
    found.judged = judged
    assert put_aside(layout, path, found) is None
    assert path.read_bytes() == DATA
    os.close(kept_open)


def test_the_wrong_file_moved_aside_in_a_race_is_put_back(
    put: Put, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(DATA)
    judged = path.stat()
    real_rename = os.rename

    def race(source: Path, target: Path) -> None:
        real_rename(path, layout.tmp / "bad")  # another process repaired the blob at this moment
        path.write_bytes(b"good")
        real_rename(source, target)

    monkeypatch.setattr(os, "rename", race)
    found = BlobDamaged(place=str(path), expected=str(DIGEST), actual="sha256:…")
    found.judged = judged
    assert put_aside(layout, path, found) is None
    assert path.read_bytes() == b"good"


def test_putting_aside_what_is_gone_is_nothing(layout: Layout) -> None:
    found = BlobDamaged(place="x", expected="y", actual="z")
    assert put_aside(layout, layout.blob(DIGEST), found) is None


def test_putting_aside_without_a_quarantine_is_refused(put: Put, layout: Layout) -> None:
    path = put(DATA)
    layout.quarantine.rmdir()
    layout.quarantine.write_bytes(b"")
    with pytest.raises(CannotReplace):
        put_aside(layout, path, BlobDamaged(place="x", expected="y", actual="z"))
