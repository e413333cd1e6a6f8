"""What checking a view tells: each way in which a name can stop leading to its bytes."""

from __future__ import annotations

import os

import pytest

from weightstore.interop.views.check import check_view
from weightstore.interop.views.holdings import everything, recorded
from weightstore.interop.views.manifest import read_manifest
from weightstore.interop.views.plan import plan_view

URL = "https://h.example/models/a.pth"
NAME = "hub/checkpoints/a.pth"
COMMIT = "a" * 40


@pytest.fixture
def root(tmp_path):
    return tmp_path / "hub"


def statuses(shelf, root) -> dict[str, str]:
    client = shelf.client
    manifest = read_manifest(root)
    assert manifest is not None
    now = {one.source: one.digest for one in recorded(client, note=lambda _: None)}

    def plan():
        return plan_view(manifest.kind, everything(client, note=lambda _: None))

    found = check_view(root, manifest, current=now.get, plan=plan, receipts=client.receipts)
    return {one.path: one.status for one in found if one.status != "ok"}


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_a_new_view_is_good(shelf, root, link):
    shelf.put(URL, b"one")
    shelf.view("torch-hub", root, link=link)
    assert statuses(shelf, root) == {}


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_a_name_that_was_removed_is_missing(shelf, root, link):
    shelf.put(URL, b"one")
    shelf.view("torch-hub", root, link=link)
    (root / NAME).unlink()
    assert statuses(shelf, root) == {NAME: "missing"}


def test_a_link_whose_blob_is_gone_is_dangling(shelf, root):
    blob = shelf.put(URL, b"one")
    shelf.view("torch-hub", root, link="symlink")
    blob.unlink()
    assert statuses(shelf, root) == {NAME: "dangling"}


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_what_has_its_bytes_itself_is_good_without_its_blob(shelf, root, link):
    blob = shelf.put(URL, b"one")
    shelf.view("torch-hub", root, link=link)
    blob.unlink()
    assert statuses(shelf, root) == {}


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_a_file_that_was_written_through_its_name_is_told(shelf, root, link):
    shelf.put(URL, b"one")
    shelf.view("torch-hub", root, link=link)
    (root / NAME).chmod(0o644)
    (root / NAME).write_bytes(b"two")
    assert statuses(shelf, root)[NAME] == "written through"


def test_bytes_that_changed_behind_an_old_mtime_are_told(shelf, root):
    shelf.put(URL, b"one")
    shelf.view("torch-hub", root, link="copy")
    before = (root / NAME).stat()
    (root / NAME).write_bytes(b"two")
    os.utime(root / NAME, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert statuses(shelf, root) == {NAME: "written through"}


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_another_file_in_its_place_is_told(shelf, root, link):
    shelf.put(URL, b"one")
    shelf.view("torch-hub", root, link=link)
    (root / "other").write_bytes(b"two")
    (root / "other").replace(root / NAME)
    assert statuses(shelf, root) == {NAME: "replaced"}


def test_a_source_that_has_other_content_now_is_stale(shelf, root):
    shelf.put(URL, b"one")
    shelf.view("torch-hub", root)
    shelf.put(URL, b"two")
    assert statuses(shelf, root) == {NAME: "stale"}


def test_what_was_stored_since_is_not_in_the_view(shelf, root):
    shelf.view("torch-hub", root)
    shelf.put(URL, b"one")
    assert statuses(shelf, root) == {NAME: "not in view"}


def test_links_and_branches_that_changed_are_told(shelf, root):
    shelf.put("hf://org/m@main/w.bin", b"w", commit=COMMIT)
    shelf.view("huggingface", root)
    (root / "models--org--m/refs/main").write_text("b" * 40)
    (root / f"models--org--m/snapshots/{COMMIT}/w.bin").unlink()
    assert statuses(shelf, root) == {
        "models--org--m/refs/main": "stale",
        f"models--org--m/snapshots/{COMMIT}/w.bin": "missing",
    }
