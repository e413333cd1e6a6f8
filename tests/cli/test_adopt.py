"""``adopt``: what it prints and exits with."""

from __future__ import annotations

import json
import os

import pytest


@pytest.fixture
def home(site, tmp_path):
    """A TORCH_HOME with a file that the catalog knows."""
    checkpoints = tmp_path / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / site.url("A").rpartition("/")[2]).write_bytes(site.data("A"))
    return tmp_path / "torch"


def test_what_a_catalog_knows_is_adopted_and_then_stored_by_its_name(site, run, home):
    result = run("adopt", home)
    assert result.stdout.startswith("adopted ")
    assert "1 file: 1 adopted" in result.stderr
    assert "50.0 kB new in the store" in result.stderr
    assert run("path", "Small_Weights.A", "--offline").stdout == f"{site.blob('A')}\n"
    run("view", "check", home)
    assert "1 in the store already" in run("adopt", home).stderr


def test_a_dry_run_does_nothing(site, run, home):
    result = run("adopt", "--dry-run", home)
    assert result.stdout.startswith("adopt ")
    assert "50.0 kB to be new in the store" in result.stderr
    assert not site.home.exists()
    assert not list(home.rglob(".weightstore*"))


def test_what_fails_verification_exits_with_5_and_stays(site, run, home):
    wrong = home / "hub/checkpoints/wrong-deadbeef.pth"
    wrong.write_bytes(b"wrong")
    result = run("adopt", home, code=5)
    assert f"wrong    {wrong}" in result.stdout
    assert "1 adopted, 1 wrong" in result.stderr
    assert wrong.read_bytes() == b"wrong"


def test_what_nothing_is_known_of_is_listed_and_adopted_with_a_lockfile(site, run, home):
    run("prefetch", "Small_Weights.B")
    run("lock", "-o", "weights.lock", "Small_Weights.B")
    run("rm", "-y", "--forget", "Small_Weights.B")
    (home / "hub/checkpoints/renamed.pth").write_bytes(site.data("B"))
    assert "unknown " in run("adopt", "-n", home).stdout
    report = json.loads(run("adopt", home, "--locked", "weights.lock", "--json").stdout)
    assert {one["detail"] for one in report["files"]} >= {"weights.lock"}
    assert {one["status"] for one in report["files"]} == {"adopted"}
    assert site.blob("B").exists()


def test_room_that_is_freed_is_told(site, run, home):
    run("prefetch", "Small_Weights.A")
    assert "50.0 kB that the store had already take room once" in run("adopt", home).stderr


def test_kept_files_are_copied_and_links_contradict_that(site, run, home):
    (name,) = os.listdir(home / "hub/checkpoints")
    run("adopt", "--keep", home)
    assert not (home / "hub/checkpoints" / name).is_symlink()
    assert site.blob("A").exists()
    assert "give one of them" in run("adopt", "--keep", "--link", home, code=2).stderr


def test_a_store_is_not_adopted(site, run, home):
    run("adopt", home)
    assert "lies in the store" in run("adopt", site.home, code=8).stderr


def test_a_directory_that_is_not_there_exits_with_8(site, run):
    assert "no such directory" in run("adopt", "absent", code=8).stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_cannot_be_replaced_is_left_and_exits_with_8(site, run, home):
    (home / "hub/checkpoints").chmod(0o555)
    try:
        assert run("adopt", home, code=8).stdout.startswith("left ")
    finally:
        (home / "hub/checkpoints").chmod(0o755)


def test_names_are_shown_without_what_a_terminal_would_obey(site, run, home):
    (home / "hub/checkpoints/x\x1b]0;title\x07.pth").write_bytes(b"x")
    (home / "hub/checkpoints/y\nadopted z.pth").write_bytes(b"y")
    shown = run("adopt", "-n", home).stdout
    assert "\x1b" not in shown
    assert "x\\x1b]0;title\\x07.pth" in shown
    assert len(shown.splitlines()) == 3
