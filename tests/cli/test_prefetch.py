"""``weightstore prefetch``: plans, progress, summaries, exit codes, interruption."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import time

import pytest

from tests.servers import behaviours as does


def test_names_are_fetched_and_summed_up(site, run):
    result = run("prefetch", "small", "other:C")
    assert site.blob("B").read_bytes() == site.data("B")
    assert site.blob("C").read_bytes() == site.data("C")
    assert "2 files to fetch, 103.0 kB;" in result.stderr
    assert "2 fetched, 0 present, 0 failed · 103.0 kB in " in result.stderr
    assert result.stdout == ""


def test_a_second_run_fetches_nothing(site, run):
    run("prefetch", "small")
    sent = site.bodies_sent
    result = run("prefetch", "small", "Small_Weights.A")
    assert site.bodies_sent == sent + 1
    assert "1 file to fetch, 50.0 kB; 1 already here" in result.stderr
    assert "1 fetched, 1 present, 0 failed" in result.stderr


def test_a_log_gets_plain_lines(site, run):
    lines = run("prefetch", "small").stderr.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "start", "fetched", "1"]
    assert not any("\x1b" in line for line in lines)


def test_a_log_names_a_url_once_a_line(site, run):
    for line in run("prefetch", site.server.serve("/plain.bin", b"plain")).stderr.splitlines():
        assert line.count("/plain.bin") <= 1


def test_a_size_is_about_so_much_only_where_the_catalog_rounded_it(site, run):
    assert "1 file to fetch, 50.0 kB;" in run("prefetch", "Small_Weights.A").stderr
    site.catalog.write_text(site.catalog.read_text().replace('"size_exact": true', '"size_exact": false'))
    assert "1 file to fetch, about 52.0 kB;" in run("prefetch", "other").stderr


def test_the_size_of_a_local_file_is_exact(run, tmp_path):
    (tmp_path / "local.pth").write_bytes(b"local bytes")
    assert "1 file to fetch, 11 B;" in run("prefetch", "./local.pth").stderr


def test_offline_nothing_is_announced_that_is_not_done(site, run, tmp_path):
    run("prefetch", "small")
    planned = run("prefetch", "toys/*", "-n", "--offline", code=4).stderr
    assert planned == "1 file missing, and offline mode forbids fetching; 1 already here\n"
    told = run("prefetch", "toys/*", "--offline", code=4).stderr
    assert told.startswith("error: ")  # no count before the one at the end
    assert told.endswith("0 fetched, 1 present, 1 failed\n")
    assert "to fetch" not in told
    (tmp_path / "local.pth").write_bytes(b"local bytes")
    told = run("prefetch", "other", "./local.pth", "--offline", code=4).stderr
    assert told.startswith("1 file to fetch, 11 B; 1 missing that offline mode forbids fetching")
    rows = [line.split("\t") for line in run("prefetch", "other", "-n", "--offline", code=4).stdout.splitlines()]
    assert [row[2:] for row in rows] == [["missing", "nowhere: offline"]]


def test_a_plan_of_what_is_here_says_so(site, run):
    run("prefetch", "small")
    assert "nothing to fetch" in run("prefetch", "small", "--dry-run").stderr


def test_globs_tasks_urls_and_paths_are_fetched(site, run, tmp_path):
    (tmp_path / "local.pth").write_bytes(b"local bytes")
    run("prefetch", "Small_Weights.*", site.url("C"), "./local.pth")
    assert len(list(site.blob("A").parent.iterdir())) == 4
    result = run("prefetch", "--task", "toy-detection", "--json")
    assert json.loads(result.stdout)["items"][0]["names"] == ["Other_Weights.C"]


def test_a_dry_run_prints_the_plan_and_fetches_nothing(site, run):
    run("prefetch", "small")
    result = run("prefetch", "toys/*", "--dry-run")
    assert [line.split("\t")[:3] for line in result.stdout.splitlines()] == [
        ["Small_Weights.B", "51000", "present"],
        ["Other_Weights.C", "52000", "fetch"],
    ]
    plan = json.loads(run("prefetch", "toys/*", "--dry-run", "--json").stdout)
    assert plan["dry_run"] is True
    assert plan["bytes_to_fetch"] == 52_000
    assert [item["status"] for item in plan["items"]] == ["present", "missing"]
    assert not site.blob("C").exists()


def test_json_is_one_documented_object(site, run):
    report = json.loads(run("prefetch", "small", "--json").stdout)
    (item,) = report["items"]
    assert {
        key: item[key] for key in ("names", "source", "status", "digest", "size_bytes", "path", "via", "error")
    } == {
        "names": ["Small_Weights.B"],
        "source": site.url("B"),
        "status": "fetched",
        "digest": f"sha256:{site.digest('B')}",
        "size_bytes": 51_000,
        "path": str(site.blob("B")),
        "via": "origin",
        "error": None,
    }
    assert report["fetched"] == 1
    assert report["received_bytes"] == 51_000
    assert report["exit_code"] == 0


def test_the_exit_code_is_that_of_the_worst_failure_and_the_others_come(site, run):
    path = site.url("A").removeprefix(site.server.url(""))
    site.server.serve(path, site.data("A"), does.status(404))
    result = run("prefetch", "Small_Weights.*", "--json", code=6)
    report = json.loads(result.stdout)
    assert {item["names"][0]: item["status"] for item in report["items"]} == {
        "Small_Weights.A": "failed",
        "Small_Weights.B": "fetched",
    }
    failed = next(item for item in report["items"] if item["status"] == "failed")
    assert failed["error"]["type"] == "SourceNotFound"
    assert failed["error"]["exit_code"] == 6
    assert "error: " in result.stderr


def test_wrong_bytes_are_exit_code_5_and_leave_no_blob(site, run):
    site.server.serve(site.url("A").removeprefix(site.server.url("")), b"something else")
    result = run("prefetch", "Small_Weights.A", "other", code=5)
    assert f"expected sha256:{site.digest('A')[:8]}" in result.stderr
    assert not site.blob("A").exists()
    assert site.blob("C").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["prefetch"], 2, "Nothing to fetch"),
        (["prefetch", "smalll"], 3, "Did you mean small"),
        (["prefetch", "small", "--offline"], 4, "offline mode forbids"),
        (["prefetch", "small", "other", "--sha256", "0" * 64], 2, "digest of one file"),
        (["prefetch", "small", "--sha256", "0" * 64], 5, "contradict|recorded"),
        (["prefetch", "small", "--max-size", "20kB"], 6, "more than the 20000"),
        (["prefetch", "small", "--max-size", "much"], 2, "not a size"),
        (["prefetch", "small", "-j", "0"], 2, "-j"),
        (["prefetch", "--locked", "absent.lock"], 8, "absent.lock"),
    ],
)
def test_what_cannot_be_done_says_so(run, arguments, code, message):
    stderr = run(*arguments, code=code).stderr
    assert any(part in stderr for part in message.split("|"))


def test_quiet_tells_errors_alone(site, run):
    assert run("prefetch", "small", "--quiet").stderr == ""
    site.server.serve(site.url("A").removeprefix(site.server.url("")), b"x", does.status(404))
    assert run("prefetch", "Small_Weights.A", "--quiet", code=6).stderr.count("error:") == 1


def test_what_does_not_fit_is_refused_before_anything_is_fetched(site, run):
    document = json.loads(site.catalog.read_text())
    document["enums"]["Small_Weights"]["entries"]["A"]["size"] = 10**17
    site.catalog.write_text(json.dumps(document))
    result = run("prefetch", "Small_Weights.*", "--json", code=7)
    assert "too little free space" in result.stderr
    assert json.loads(result.stdout)["error"]["type"] == "NoSpace"
    assert site.server.requests == []


def test_a_lockfile_is_fetched_by_its_full_digests(site, run, tmp_path):
    run("lock", "small")
    run("rm", "-y", "small")
    site.server.serve(site.url("B").removeprefix(site.server.url("")), site.data("B"))
    report = json.loads(run("prefetch", "--locked", "weights.lock", "--json").stdout)
    assert report["fetched"] == 1
    assert site.blob("B").exists()


@pytest.mark.parametrize("has_catalog", [True, False])
@pytest.mark.parametrize("name", ["toys/Small_Weights.B", "Small_Weights.B", "url"])
def test_a_name_that_the_given_lockfile_pins_goes_by_it(site, run, monkeypatch, tmp_path, has_catalog, name):
    run("lock", "small", "other")
    mirror = shutil.copytree(site.home, tmp_path / "mirror")
    settings = {"HOME": "mine", "STATE": "my-state", "MIRRORS": mirror, "ORDER": "layers,mirrors"}
    for setting, value in settings.items():
        monkeypatch.setenv(f"WEIGHTSTORE_{setting}", str(value))
    if not has_catalog:
        monkeypatch.setenv("WEIGHTSTORE_CATALOGS", "none")
    wanted = site.url("B") if name == "url" else name
    report = json.loads(run("prefetch", "--locked", "weights.lock", wanted, "--json").stdout)
    assert (report["fetched"], report["failed"], len(report["items"])) == (2, 0, 2)
    run("mirror", "pull", mirror, "--locked", "weights.lock", wanted)


def test_a_digest_that_contradicts_the_lockfile_is_an_error(site, run):
    run("lock", "small")
    run("prefetch", "--locked", "weights.lock", "small", "--sha256", "0" * 64, code=5)


@pytest.mark.parametrize("connections", [1, 4])
def test_ctrl_c_stops_cleanly_and_the_next_run_resumes(site, run, spawn, monkeypatch, connections):
    data = os.urandom(3_000_000)
    url = site.server.serve("/big.bin", data, does.rate_cap(1_000_000))
    monkeypatch.setenv("WEIGHTSTORE_CONNECTIONS_PER_FILE", str(connections))
    process = spawn("prefetch", url)
    deadline = time.monotonic() + 20
    while not any(site.home.glob("tmp/*.journal")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    assert "the next run resumes" in stderr
    assert "Traceback" not in stderr
    assert not any(site.home.glob("blobs/sha256/*"))
    site.server.serve("/big.bin", data)
    run("prefetch", url)
    assert [request.status for request in site.server.requests][-1] == 206
    (blob,) = site.home.glob("blobs/sha256/*")
    assert blob.read_bytes() == data
    assert not any(site.home.glob("tmp/*"))


def test_a_terminal_gets_live_bars_and_a_total(site, spawn, monkeypatch):
    for member in "AB":
        path = site.url(member).removeprefix(site.server.url(""))
        site.server.serve(path, site.data(member), does.rate_cap(60_000))
    leader, follower = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = spawn("prefetch", "Small_Weights.*", stderr=follower, env=environ)
    os.close(follower)
    drawn = b""
    with contextlib.suppress(OSError):  # EIO when the other side is closed
        while data := os.read(leader, 65536):
            drawn += data
    os.close(leader)
    assert process.wait(timeout=20) == 0
    process.communicate()
    text = drawn.decode()
    assert "total 0/2" in text
    assert "kB/s" in text
    assert "2 fetched, 0 present, 0 failed" in text
