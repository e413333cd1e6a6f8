"""``view``: what it prints, refuses and exits with."""

from __future__ import annotations

import json
import os
import re

import pytest


def test_a_view_of_everything_is_told_with_how_to_use_it(site, run, tmp_path):
    run("prefetch", "Small_Weights.*", "Other_Weights.C")
    result = run("view", "torch-hub", "hub", "--link", "symlink")
    assert result.stdout == f"export TORCH_HOME={tmp_path}/hub\n"
    assert "3 names lead to 153.0 kB in the store" in result.stderr
    assert "3 added, 0 replaced, 0 removed; 0 files of others kept" in result.stderr
    name = site.url("A").rpartition("/")[2]
    assert os.readlink(f"hub/hub/checkpoints/{name}") == str(site.blob("A"))


def test_a_view_has_only_what_is_asked_for(site, run):
    run("prefetch", "Small_Weights.*", "Other_Weights.C")
    run("view", "torch-hub", "hub", "Small_Weights.A", site.url("C"))
    assert len(os.listdir("hub/hub/checkpoints")) == 2
    run("lock", "-o", "weights.lock", "Small_Weights.B")
    run("view", "torch-hub", "hub", "--locked", "weights.lock")
    assert os.listdir("hub/hub/checkpoints") == [site.url("B").rpartition("/")[2]]


def test_what_no_store_has_exits_with_4_and_tells_what_to_run(site, run):
    run("prefetch", "Small_Weights.A")
    run("lock", "-o", "weights.lock", "Small_Weights.B")
    run("rm", "-y", "Small_Weights.B")
    result = run("view", "torch-hub", "hub", "toys/Small_Weights.*", "Other_Weights.C", code=4)
    assert "weightstore prefetch 'Small_Weights.B' 'Other_Weights.C'" in result.stderr
    assert "prefetch --locked weights.lock" in run("view", "torch-hub", "x", "--locked", "weights.lock", code=4).stderr
    assert not os.path.exists("hub")


def test_a_dry_run_prints_the_plan_and_does_nothing(site, run):
    run("prefetch", "Small_Weights.A")
    name = site.url("A").rpartition("/")[2]
    result = run("view", "torch-hub", "hub", "--dry-run")
    assert f"added     hub/checkpoints/{name}" in result.stdout
    assert "would lead" in result.stderr
    assert not os.path.exists("hub")
    assert json.loads(run("view", "torch-hub", "hub", "-n", "--json").stdout)["entries"][0]["change"] == "added"


def test_two_sources_of_one_name_are_refused(site, run):
    for folder, data in (("/one", b"1"), ("/two", b"2")):
        run("prefetch", site.server.serve(f"{folder}/model.pth", data))
    result = run("view", "torch-hub", "hub", code=2)
    assert site.server.url("/one/model.pth") in result.stderr
    assert site.server.url("/two/model.pth") in result.stderr
    run("view", "torch-hub", "hub", site.server.url("/one/model.pth"))
    run("view", "fvcore", "fv")  # where their paths differ


def test_what_a_kind_cannot_show_is_counted(site, run):
    run("prefetch", "Small_Weights.*", "Other_Weights.C")
    result = run("view", "huggingface", "hf")
    assert re.search(r"note: not in this view: http://\S+\.pth, and 2 more: it is not on the Hub", result.stderr)
    assert "export HF_HUB_OFFLINE=1" in result.stdout


def test_everything_and_names_contradict_each_other(site, run):
    assert "--all is everything" in run("view", "torch-hub", "hub", "--all", "small", code=2).stderr


def test_a_good_view_checks_with_0_and_an_older_one_with_1(site, run, tmp_path):
    run("prefetch", "Small_Weights.A")
    run("view", "torch-hub", "hub")
    assert "2 of 2 names good" in run("view", "check", "hub").stderr
    run("prefetch", "Small_Weights.B")
    result = run("view", "check", "hub", code=1)
    assert result.stdout.startswith("not in view ")
    assert f"weightstore view torch-hub {tmp_path}/hub" in result.stderr


def test_a_dangling_name_checks_with_5_and_is_put_right_by_what_is_told(site, run, tmp_path):
    run("prefetch", "Small_Weights.A")
    run("view", "torch-hub", "hub", "Small_Weights.A", "--link", "symlink")
    run("rm", "-y", "Small_Weights.A")
    report = json.loads(run("view", "check", "hub", "--json", code=5).stdout)
    assert [one["status"] for one in report["findings"] if one["status"] != "ok"] == ["dangling"]
    source = site.url("A")
    again = f"weightstore view torch-hub {tmp_path}/hub {source}"
    assert report["remedies"] == [f"weightstore prefetch {source}", again]
    for remedy in report["remedies"]:
        run(*remedy.split()[1:])
    run("view", "check", "hub")


def test_a_blob_that_was_written_through_is_repaired_by_what_is_told(site, run):
    run("prefetch", "Small_Weights.A")
    run("view", "torch-hub", "hub", "--link", "symlink")
    name = f"hub/hub/checkpoints/{site.url('A').rpartition('/')[2]}"
    os.chmod(name, 0o644)
    with open(name, "wb") as file:
        file.write(b"overwritten")
    result = run("view", "check", "hub", code=5)
    assert "written through" in result.stdout
    for remedy in result.stderr.partition("To put it right:\n")[2].splitlines():
        run(*remedy.split()[1:])
    run("view", "check", "hub")


@pytest.mark.parametrize("command", ["rm -y Small_Weights.A", "gc --max-size 0 --grace 0s --dry-run"])
def test_removing_blobs_tells_of_the_views_that_lose_names(site, run, tmp_path, command):
    run("prefetch", "Small_Weights.A")
    run("view", "torch-hub", "hub", "--link", "symlink")
    run("view", "torch-hub", "copies", "--link", "copy")
    result = run(*command.split())
    assert f"note: 1 name of the view {tmp_path}/hub without a blob" in result.stderr
    assert "copies" not in result.stderr


def test_a_list_of_views_that_cannot_be_read_costs_nothing_but_the_note(site, run):
    run("prefetch", "Small_Weights.A")
    run("view", "torch-hub", "hub", "--link", "symlink")
    (site.state / "views").write_bytes(b"\xff\xfe")
    assert "without a blob" not in run("rm", "-y", "Small_Weights.A").stderr


def test_a_directory_that_is_no_view_cannot_be_checked(site, run, tmp_path):
    assert "is no view" in run("view", "check", tmp_path, code=8).stderr


def test_a_message_shows_names_without_what_a_terminal_would_obey(site, run, tmp_path):
    run("prefetch", "Small_Weights.A")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/x\x1b]0;title\x07.pth").write_bytes(b"x")
    told = run("view", "torch-hub", "theirs", code=8).stderr
    assert "\x1b" not in told
    assert "x\\x1b]0;title\\x07.pth" in told
