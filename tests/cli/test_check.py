"""``weightstore check``."""

from __future__ import annotations

import json
import subprocess
import sys


def _overwrite(path, data):
    path.chmod(0o644)
    path.write_bytes(data)


def test_all_present_is_exit_code_0_and_asks_nobody(site, run):
    run("lock", "toys/*")
    asked = len(site.server.requests)
    result = run("check", "weights.lock")
    assert result.stdout.splitlines() == [
        f"present\ttoys/Other_Weights.C\t{len(site.data('C'))}\tstore",
        f"present\ttoys/Small_Weights.B\t{len(site.data('B'))}\tstore",
    ]
    assert result.stderr == "2 files, 103.0 kB: all present, verified and readable\n"
    assert len(site.server.requests) == asked


def test_quiet_says_nothing_where_all_is_well(site, run):
    run("lock", "toys/*")
    result = run("check", "-q", "weights.lock")
    assert (result.stdout, result.stderr) == ("", "")


def test_what_is_absent_exits_with_4_and_says_how_to_get_it(site, run):
    run("lock", "toys/*")
    site.blob("B").unlink()
    result = run("check", "weights.lock", code=4)
    assert "absent\ttoys/Small_Weights.B" in result.stdout
    assert f"error: toys/Small_Weights.B is absent from every store (sha256:{site.digest('B')})" in result.stderr
    assert "weightstore prefetch --locked weights.lock" in result.stderr
    run("prefetch", "--locked", "weights.lock")
    run("check", "weights.lock")


def test_damage_exits_with_5_leaves_the_file_and_is_mended_as_it_says(site, run):
    run("lock", "toys/*")
    _overwrite(site.blob("B"), site.data("B")[::-1])
    site.blob("C").unlink()
    result = run("check", "-q", "weights.lock", code=5)
    assert result.stdout == ""
    assert result.stderr.count("error: ") == 2
    assert "toys/Small_Weights.B is damaged in store: its content is sha256:" in result.stderr
    assert site.blob("B").exists()
    run("prefetch", "--locked", "weights.lock")
    run("check", "weights.lock")


def test_a_truncated_blob_is_of_another_size(site, run):
    run("lock", "small")
    _overwrite(site.blob("B"), b"short")
    assert "is of another size in store: it has 5 bytes" in run("check", "weights.lock", code=5).stderr


def test_json_tells_all_of_each_entry(site, run, tmp_path):
    run("lock", "toys/*")
    text = (tmp_path / "weights.lock").read_text().replace("size = 52000\n", 'size = 52000\nasked_by = "timm"\n')
    (tmp_path / "weights.lock").write_text(text)
    site.blob("B").unlink()
    report = json.loads(run("check", "--json", "weights.lock", code=4).stdout)
    counts = {name: report[name] for name in ("present", "absent", "damaged", "wrong_size", "unreadable", "exit_code")}
    assert counts == {"present": 1, "absent": 1, "damaged": 0, "wrong_size": 0, "unreadable": 0, "exit_code": 4}
    present, absent = report["entries"]
    assert present == {
        "name": "toys/Other_Weights.C",
        "source": site.url("C"),
        "digest": f"sha256:{site.digest('C')}",
        "size_bytes": 52000,
        "status": "present",
        "layer": "store",
        "path": str(site.blob("C")),
        "asked_by": "timm",
        "detail": None,
        "lockfile": "weights.lock",
    }
    assert (absent["status"], absent["layer"], absent["path"], absent["asked_by"]) == ("absent", None, None, None)


def test_the_library_that_asked_is_a_column_where_one_is_recorded(site, run, tmp_path):
    run("lock", "small")
    with (tmp_path / "weights.lock").open("a") as file:
        file.write('asked_by = "timm"\n')
    assert run("check", "weights.lock").stdout.endswith("\tstore\ttimm\n")


def test_several_lockfiles_are_checked_and_the_one_with_problems_is_named(site, run):
    run("lock", "small", "-o", "a.lock")
    run("lock", "other", "-o", "b c.lock")
    site.blob("C").unlink()
    result = run("check", "a.lock", "b c.lock", code=4)
    assert "1 of 2 files present" in result.stderr
    assert "run: weightstore prefetch --locked 'b c.lock'\n" in result.stderr


def test_a_lockfile_that_cannot_be_read_is_exit_code_8(run, tmp_path):
    run("check", "absent.lock", code=8)
    (tmp_path / "bad.lock").write_text("version = 2")
    run("check", "bad.lock", code=8)
    run("check", code=2)


def test_an_empty_lockfile_asks_for_nothing(run, tmp_path):
    (tmp_path / "empty.lock").write_text("version = 1\n")
    assert "0 files, 0 B: all present" in run("check", "empty.lock").stderr


def test_a_check_imports_nothing_of_the_network_and_no_catalog(site, run):
    run("lock", "small")
    code = (
        "import sys; from weightstore.cli.commands import cli\n"
        "try: cli(['check', 'weights.lock', '-q'])\n"
        "finally: print(sorted({'requests', 'urllib3', 'rich', 'weightstore.client', 'weightstore.catalog.registry',\n"
        "    'concurrent.futures'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
