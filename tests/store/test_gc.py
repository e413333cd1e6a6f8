from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.conftest import SOURCE, Put, digest_of, gone, journal_of, leave_part
from weightstore.digest import Digest
from weightstore.errors import StoreError
from weightstore.records import Ref
from weightstore.store.blobs import list_blobs
from weightstore.store.gc import File, Inventory, Removal, plan_removals, refs_by_digest, remove, take_inventory
from weightstore.store.layout import Layout
from weightstore.store.parts import Part, list_parts
from weightstore.store.receipts import Receipts
from weightstore.store.refs import write_ref

HOUR = 3600.0


def collect(layout: Layout, receipts: Receipts, **options: object) -> list[Removal]:
    removals = plan_removals(take_inventory(layout, receipts), **({"grace_s": 0.0} | options))  # type: ignore[arg-type]
    outcomes = remove(layout, removals)
    assert [outcome.problem for outcome in outcomes] == [""] * len(outcomes)
    return list(removals)


def refer(layout: Layout, data: bytes) -> None:
    write_ref(layout, Ref(SOURCE, digest_of(data), len(data), datetime.now(UTC)))


def test_a_blob_that_nobody_names_goes_and_one_with_a_ref_stays(put: Put, layout: Layout, receipts: Receipts) -> None:
    put(b"named")
    put(b"unnamed")
    refer(layout, b"named")
    collect(layout, receipts)
    assert set(list_blobs(layout)) == {digest_of(b"named")}


def test_a_lockfile_keeps_its_blobs(put: Put, layout: Layout, receipts: Receipts) -> None:
    put(b"locked")
    assert collect(layout, receipts, keep=frozenset({digest_of(b"locked")}), max_size=0) == []


def test_the_grace_period_protects_what_is_new(put: Put, layout: Layout, receipts: Receipts) -> None:
    put(b"new")
    leave_part(layout, b"part", journal=journal_of(b"part", owner=gone()))
    assert collect(layout, receipts, grace_s=HOUR, max_size=0) == []


def test_the_part_of_a_dead_process_goes_with_its_journal(layout: Layout, receipts: Receipts) -> None:
    leave_part(layout, b"part", journal=journal_of(b"part", owner=gone()))
    (removal,) = collect(layout, receipts)
    assert removal.reason == "its owner is gone"
    assert list(layout.tmp.iterdir()) == []


def test_the_part_of_a_running_process_stays_whatever_the_grace(layout: Layout, receipts: Receipts) -> None:
    with Part.create(layout, "sha256-" + "ab" * 32) as part:
        part.checkpoint(journal_of(b""))
        os.utime(part.path, (1, 1))
        assert collect(layout, receipts) == []
        part.discard()


def test_a_part_without_journal_goes_when_it_has_not_grown(layout: Layout, receipts: Receipts) -> None:
    path = leave_part(layout, b"part", journal=None)
    renamed = path.with_name(path.name.replace(f".{os.getpid()}.", ".99999999."))
    path.rename(renamed)
    os.utime(renamed, (1, 1))
    collect(layout, receipts)
    assert list_parts(layout) == []


def test_leftovers_of_records_go_and_young_ones_stay(layout: Layout, receipts: Receipts) -> None:
    (layout.tmp / ".x.json.1.aa.new").write_bytes(b"half")
    (layout.tmp / "orphan.journal").write_bytes(b"{}")
    for entry in layout.tmp.iterdir():
        os.utime(entry, (1, 1))
    (layout.tmp / ".y.json.1.aa.new").write_bytes(b"being written")
    collect(layout, receipts, grace_s=60)
    assert [entry.name for entry in layout.tmp.iterdir()] == [".y.json.1.aa.new"]


def test_quarantine_is_kept_for_a_month(layout: Layout, receipts: Receipts) -> None:
    for name, age in (("old", 31), ("young", 29)):
        (layout.quarantine / name).write_bytes(b"bad")
        moment = time.time() - age * 86400
        os.utime(layout.quarantine / name, (moment, moment))
    collect(layout, receipts)
    assert [entry.name for entry in layout.quarantine.iterdir()] == ["young"]


def test_beyond_the_size_limit_the_least_recently_used_go(layout: Layout, receipts: Receipts) -> None:
    inventory = Inventory(
        now=10_000,
        files=tuple(_blob(number, size=100, used_at=float(number)) for number in range(5)),
        referenced=frozenset(Digest(f"{number:064x}") for number in range(5)),
    )
    removals = plan_removals(inventory, grace_s=60, max_size=250)
    assert [removal.file.digest for removal in removals] == [Digest(f"{number:064x}") for number in (0, 1, 2)]


def _blob(number: int, *, size: int, used_at: float) -> File:
    path = Path(f"/store/blobs/sha256/{number:064x}")
    return File("blob", path, size, used_at, used_at, 1, number, digest=Digest(f"{number:064x}"))


@given(
    blobs=st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1000)), max_size=12),
    limit=st.none() | st.integers(0, 5000),
    grace=st.floats(0, 1000),
    keep=st.sets(st.integers(0, 11)),
    named=st.sets(st.integers(0, 11)),
)
def test_no_plan_removes_what_is_kept_or_young(
    blobs: list[tuple[int, float]], limit: int | None, grace: float, keep: set[int], named: set[int]
) -> None:
    files = tuple(_blob(number, size=size, used_at=used) for number, (size, used) in enumerate(blobs))
    kept = frozenset(Digest(f"{number:064x}") for number in keep)
    referenced = frozenset(Digest(f"{number:064x}") for number in named)
    removals = plan_removals(Inventory(1000, files, referenced), keep=kept, grace_s=grace, max_size=limit)
    gone_ones = [removal.file for removal in removals]
    assert len(set(gone_ones)) == len(gone_ones)
    assert all(file.digest not in kept and 1000 - file.used_at >= grace for file in gone_ones)
    assert all(file.digest not in referenced for file in gone_ones) or limit is not None
    left = sum(file.size for file in files) - sum(file.size for file in gone_ones)
    removable = [file for file in files if file not in gone_ones and file.digest not in kept]
    if limit is not None and left > limit:
        assert all(1000 - file.used_at < grace for file in removable)


def test_a_file_that_changed_after_the_plan_stays(put: Put, layout: Layout, receipts: Receipts) -> None:
    path = put(b"old")
    removals = plan_removals(take_inventory(layout, receipts), grace_s=0)
    path.unlink()
    path.write_bytes(b"another")
    (outcome,) = remove(layout, removals)
    assert "changed" in outcome.problem
    assert path.read_bytes() == b"another"


def test_a_file_that_is_gone_already_is_no_problem(put: Put, layout: Layout, receipts: Receipts) -> None:
    path = put(b"old")
    removals = plan_removals(take_inventory(layout, receipts), grace_s=0)
    path.unlink()
    assert [outcome.problem for outcome in remove(layout, removals)] == [""]


def test_no_link_is_followed_out_of_the_store(put: Put, layout: Layout, receipts: Receipts, tmp_path: Path) -> None:
    path = put(b"data")
    removals = plan_removals(take_inventory(layout, receipts), grace_s=0)
    outside = tmp_path / "outside"
    layout.blobs.rename(outside)
    layout.blobs.symlink_to(outside)
    with pytest.raises(StoreError, match="not a directory of the store"):
        remove(layout, removals)
    assert (outside / path.name).read_bytes() == b"data"


def test_links_in_the_store_are_removed_themselves_and_their_targets_stay(
    layout: Layout, receipts: Receipts, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    link = layout.tmp / "link.journal"
    link.symlink_to(victim)
    os.utime(link, (1, 1), follow_symlinks=False)
    collect(layout, receipts)
    assert not link.is_symlink()
    assert victim.read_bytes() == b"precious"


def test_a_dry_run_lists_what_the_run_removes(put: Put, layout: Layout, receipts: Receipts) -> None:
    for number in range(4):
        put(b"%d" % number)
    inventory = take_inventory(layout, receipts)
    dry = plan_removals(inventory, grace_s=0, max_size=2)
    assert inventory.blob_bytes == 4
    remove(layout, dry)
    assert len(list_blobs(layout)) == 4 - len(dry)


def test_collecting_beside_a_running_download_takes_nothing_of_it(layout: Layout, receipts: Receipts, put: Put) -> None:
    with Part.create(layout, "sha256-" + digest_of(b"x").hex) as part:
        os.write(part.fd, b"x")
        collect(layout, receipts)
        assert part.path.exists()
        part.discard()


def named(kind: str, digest: Digest, **annotations: str) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": str(digest), "annotations": annotations}


@pytest.mark.parametrize("max_size", [None, 0])
def test_weights_that_only_the_index_names_stay(
    put: Put, layout: Layout, receipts: Receipts, max_size: int | None
) -> None:
    manifest = {"config": {"digest": str(digest_of(b"{}"))}, "layers": [{"digest": str(digest_of(b"layer"))}]}
    whole = json.dumps(manifest).encode()
    inner = json.dumps({"manifests": [named("manifest", digest_of(whole)), {"digest": "no digest"}]}).encode()
    outer = json.dumps({"manifests": [named("index", digest_of(inner))]}).encode()
    ours = named("manifest", digest_of(b"is not here"), **{"dev.weightstore.digest": str(digest_of(b"ours"))})
    index = {"manifests": [ours, named("index", digest_of(outer)), named("unknown", digest_of(b"strange"))]}
    kept = {b"{}", b"layer", whole, inner, outer, b"ours", b"strange"}
    for data in (*kept, b"unnamed"):
        put(data)
    (layout.root / "index.json").write_text(json.dumps(index))
    collect(layout, receipts, max_size=max_size)
    assert set(list_blobs(layout)) == {digest_of(data) for data in kept}


def test_beyond_the_size_limit_goes_what_the_index_names_and_a_source_has(
    put: Put, layout: Layout, receipts: Receipts
) -> None:
    put(b"fetchable")
    refer(layout, b"fetchable")
    ours = named("manifest", digest_of(b"is not here"), **{"dev.weightstore.digest": str(digest_of(b"fetchable"))})
    (layout.root / "index.json").write_text(json.dumps({"manifests": [ours]}))
    assert collect(layout, receipts) == []
    collect(layout, receipts, max_size=0)
    assert not list_blobs(layout)


def test_refs_are_found_by_digest(layout: Layout, put: Put) -> None:
    put(b"a")
    refer(layout, b"a")
    (layout.refs / ("0" * 64 + ".json")).write_bytes(b"damaged")
    assert [ref.source for ref in refs_by_digest(layout)[digest_of(b"a")]] == [SOURCE]
