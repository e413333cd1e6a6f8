"""``weightstore bundle`` and ``weightstore have``: from a machine with a network to one without."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest


@pytest.fixture
def other(site, tmp_path, monkeypatch):
    """Go to the other side: another store and state, and an origin that is not there."""

    def go():
        monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "other"))
        monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / "other-state"))
        monkeypatch.setenv("WEIGHTSTORE_OFFLINE", "1")
        return tmp_path / "other"

    return go


def test_over_the_gap_and_used_by_name_on_the_other_side(site, run, other):
    run("lock", "toys/*")
    created = run("bundle", "create", "--locked", "weights.lock", "out.tar")
    assert created.stdout == "out.tar\n"
    assert "2 files, " in created.stderr
    home = other()
    imported = run("bundle", "import", "--locked", "weights.lock", "out.tar")
    assert sorted(imported.stdout.splitlines()) == [
        "imported toys/Other_Weights.C  52.0 kB",
        "imported toys/Small_Weights.B  51.0 kB",
    ]
    run("check", "weights.lock")
    assert run("path", "small").stdout == f"{home}/blobs/sha256/{site.digest('B')}\n"
    assert "Small_Weights.B\t51000" in run("ls").stdout
    assert run("verify").exit_code == 0


def test_without_a_lockfile_only_full_digests_find_what_came(site, run, other):
    run("prefetch", "small")
    run("bundle", "create", "small", "out.tar")
    other()
    assert "--locked" in run("bundle", "import", "out.tar").stderr
    run("path", "small", code=4)
    run("path", "small", "--sha256", site.digest("B"))


def test_have_keeps_the_bundle_to_what_is_lacking(site, run, other, tmp_path, monkeypatch):
    run("lock", "toys/*")
    with monkeypatch.context() as there:
        there.setenv("WEIGHTSTORE_HOME", str(tmp_path / "other"))
        run("prefetch", "small")
        (tmp_path / "have.json").write_text(run("have").stdout)
    report = json.loads(
        run("--json", "bundle", "create", "--locked", "weights.lock", "--have", "have.json", "out.tar").stdout
    )
    assert [one["digest"] for one in report["weights"]] == [f"sha256:{site.digest('C')}"]
    assert (report["spared"], report["spared_bytes"]) == (1, len(site.data("B")))
    assert report["bytes"] == (tmp_path / "out.tar").stat().st_size
    other()
    run("bundle", "import", "--locked", "weights.lock", "out.tar")
    run("check", "weights.lock")


def test_a_dry_run_imports_nothing(site, run, other):
    run("prefetch", "small")
    run("bundle", "create", "--all", "out.tar")
    home = other()
    assert run("bundle", "import", "--dry-run", "out.tar").stdout == "import   toys/Small_Weights.B  51.0 kB\n"
    assert not home.exists()


def test_a_cut_bundle_exits_with_5_keeps_what_was_right_and_is_resumed(site, run, other, tmp_path):
    run("lock", "toys/*")
    run("bundle", "create", "--locked", "weights.lock", "out.tar")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "out.tar").read_bytes()[:-20_000])
    home = other()
    result = run("bundle", "import", "cut.tar", code=5)
    assert "cut short" in result.stderr
    assert len(list((home / "blobs/sha256").iterdir())) == 1
    assert "1 imported" in run("bundle", "import", "--locked", "weights.lock", "out.tar").stderr
    run("check", "weights.lock")


def test_a_damaged_bundle_exits_with_5_and_says_what_is_wrong(site, run, other, tmp_path):
    run("prefetch", "small", "other")
    run("bundle", "create", "--all", "out.tar")
    data = (tmp_path / "out.tar").read_bytes()
    (tmp_path / "out.tar").write_bytes(data.replace(site.data("B"), site.data("B")[::-1]))
    other()
    result = run("--json", "bundle", "import", "out.tar", code=5)
    assert "error: toys/Small_Weights.B is damaged: its content is sha256:" in result.stderr
    assert {one["name"]: one["status"] for one in json.loads(result.stdout)["weights"]} == {
        "toys/Small_Weights.B": "damaged",
        "toys/Other_Weights.C": "imported",
    }


def test_a_damaged_blob_is_not_carried_away(site, run, tmp_path):
    run("prefetch", "small")
    site.blob("B").chmod(0o644)
    site.blob("B").write_bytes(site.data("B")[::-1])
    result = run("bundle", "create", "--all", "out.tar", code=5)
    assert site.digest("B") in result.stderr
    assert not list(tmp_path.glob("*out.tar*"))


def test_show_lists_a_bundle_and_tells_when_it_is_none(site, run, tmp_path):
    run("prefetch", "small")
    run("bundle", "create", "small", "out.tar")
    assert run("bundle", "show", "out.tar").stdout.startswith("toys/Small_Weights.B\t51000\tsha256:")
    shown = json.loads(run("--json", "bundle", "show", "out.tar").stdout)
    assert shown["weights"][0]["sources"] == [site.url("B")]
    assert "not a tar file" in run("bundle", "show", site.catalog, code=5).stderr


def test_what_is_not_stored_is_said_before_anything_is_written(site, run, tmp_path):
    result = run("bundle", "create", "small", "out.tar", code=4)
    assert "weightstore prefetch" in result.stderr
    assert not (tmp_path / "out.tar").exists()


def test_several_bundles_are_all_imported(site, run, other):
    run("prefetch", "small", "other")
    run("bundle", "create", "small", "a.tar")
    run("bundle", "create", "other", "b.tar")
    home = other()
    assert run("bundle", "show", "a.tar", "b.tar").stdout.count("sha256:") == 2
    assert "2 files: 2 to import" in run("bundle", "import", "--dry-run", "a.tar", "b.tar").stderr
    assert "2 files: 2 imported" in run("bundle", "import", "a.tar", "b.tar").stderr
    assert {path.name for path in (home / "blobs/sha256").iterdir()} == {site.digest(one) for one in "BC"}


def test_of_several_bundles_one_that_is_none_keeps_no_other_from_coming(site, run, other, tmp_path):
    run("prefetch", "small", "other")
    run("bundle", "create", "small", "a.tar")
    (tmp_path / "b.tar").write_bytes(bytes(10240))
    home = other()
    result = run("--json", "bundle", "import", "b.tar", "a.tar", code=5)
    told = json.loads(result.stdout)
    assert [one["status"] for one in told["weights"]] == ["imported"]
    assert told["error"]["type"] == "InvalidBundle"
    assert "b.tar" in told["error"]["message"]
    assert (home / "blobs/sha256" / site.digest("B")).exists()


def test_of_a_cut_bundle_json_tells_what_came_and_the_error(site, run, other, tmp_path):
    run("lock", "toys/*")
    run("bundle", "create", "--locked", "weights.lock", "out.tar")
    (tmp_path / "out.tar").write_bytes((tmp_path / "out.tar").read_bytes()[:-20_000])
    other()
    told = json.loads(run("--json", "bundle", "import", "out.tar", code=5).stdout)
    assert sorted(one["status"] for one in told["weights"]) == ["imported", "missing"]
    assert told["imported_bytes"] > 0
    assert "cut short" in told["error"]["message"]


def test_a_file_that_is_not_there_is_wrong_usage_and_no_damage(site, run):
    result = run("bundle", "import", "out.tar", code=2)
    assert "out.tar: cannot be opened: No such file" in result.stderr
    assert "get the bundle again" not in result.stderr


def test_pipes_are_refused_in_so_many_words(site, run, tmp_path):
    run("prefetch", "small")
    assert "./-" in run("bundle", "create", "small", "-", code=2).stderr
    assert not (tmp_path / "-").exists()
    assert "pipe" in run("bundle", "import", "-", code=2).stderr
    assert "pipe" in run("bundle", "show", "-", code=2).stderr


def test_wrong_usage_is_told(site, run):
    run("bundle", "create", "out.tar", code=2)
    run("bundle", "create", "--all", "small", "out.tar", code=2)
    run("prefetch", "small")
    assert "no directory" in run("bundle", "create", "--all", "nowhere/out.tar", code=2).stderr


def test_ctrl_c_leaves_no_half_bundle(site, run, spawn, tmp_path):
    size = 200 << 20
    with (tmp_path / "large.pth").open("wb") as file:  # sparse, and long enough to be interrupted
        file.truncate(size)
    run("prefetch", "./large.pth")
    process = spawn("bundle", "create", "--all", "out.tar")
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".out.tar*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert not list(tmp_path.glob("*out.tar*"))


@pytest.mark.needs("skopeo")
def test_skopeo_reads_a_bundle_and_finds_the_blob_under_its_digest(site, run, tmp_path):
    run("prefetch", "small", "other")
    run("bundle", "create", "--all", "out.tar")
    image = "oci-archive:out.tar:toys-Small_Weights.B"
    manifest = json.loads(subprocess.run(["skopeo", "inspect", "--raw", image], check=True, capture_output=True).stdout)
    assert manifest["layers"][0]["digest"] == f"sha256:{site.digest('B')}"
    command = ["skopeo", "copy", "--insecure-policy", image, f"dir:{tmp_path}/copied"]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "copied" / site.digest("B")).read_bytes() == site.data("B")


@pytest.mark.needs("skopeo")
def test_what_skopeo_has_copied_is_imported_by_its_manifest(site, run, other, tmp_path):
    run("prefetch", "small")
    run("bundle", "create", "--all", "out.tar")
    command = ["skopeo", "copy", "--insecure-policy", "oci-archive:out.tar", "oci-archive:again.tar:some-tag"]
    subprocess.run(command, check=True, capture_output=True)
    home = other()
    assert run("bundle", "import", "again.tar").stdout == "imported toys/Small_Weights.B  51.0 kB\n"
    assert (home / "blobs/sha256" / site.digest("B")).read_bytes() == site.data("B")


def test_a_killed_import_leaves_nothing_wrong_and_is_resumed(site, run, spawn, other, tmp_path):
    with (tmp_path / "large.pth").open("wb") as file:  # sparse, and long enough to be killed
        file.truncate(200 << 20)
    run("prefetch", "./large.pth", "small")
    run("bundle", "create", "--all", "out.tar")
    home = other()
    process = spawn("bundle", "import", "out.tar")
    deadline = time.monotonic() + 30
    while not list(home.glob("tmp/*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert len(list((home / "blobs/sha256").iterdir())) < 2
    run("bundle", "import", "out.tar")
    assert len(list((home / "blobs/sha256").iterdir())) == 2
    run("verify")


def test_two_imports_at_once_both_succeed(site, run, spawn, other, tmp_path):
    run("prefetch", "small", "other", "Small_Weights.A")
    run("bundle", "create", "--all", "out.tar")
    home = other()
    processes = [spawn("bundle", "import", "out.tar") for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    assert {path.name for path in (home / "blobs/sha256").iterdir()} == {site.digest(one) for one in "ABC"}
    assert not list(home.glob("tmp/*.part"))
