"""``weightstore scan``."""

from __future__ import annotations

import json
import os
import pty
import tomllib

import pytest


@pytest.fixture
def code(site, tmp_path):
    """A program that asks for what the site serves, for another URL of it, and for something from its command line."""
    path = tmp_path / "train.py"
    path.write_text(
        "from toys.models import Small_Weights, other\n"
        "import torch\n"
        "weights = Small_Weights.B\n"
        "model = other(weights='DEFAULT')\n"
        f"state = torch.hub.load_state_dict_from_url({site.url('A')!r})\n"
        "more = other(weights=args.weights)\n"
    )
    return path


NAMES = ["toys/Small_Weights.B", "toys/Other_Weights.C"]


def test_each_finding_is_a_line_with_place_target_code_and_note(site, run, code):
    result = run("scan", "train.py")
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["train.py:3", NAMES[0], "Small_Weights.B", ""],
        ["train.py:4", NAMES[1], "other(weights='DEFAULT')", ""],
        ["train.py:5", site.url("A"), f"torch.hub.load_state_dict_from_url('{site.url('A')}')"[:55] + "…", ""],
        ["train.py:6", "", "other(weights=args.weights)", "only known when it runs"],
    ]
    assert "1 file: 3 checkpoints found, 1 unresolved\n" in result.stderr
    assert "weightstore run --record weights.lock" in result.stderr
    assert not site.server.requests


def test_names_are_what_prefetch_takes(site, run, code):
    result = run("scan", "--names", "train.py")
    names = result.stdout.split()
    assert names == [*NAMES, site.url("A")]
    assert "train.py:6: unresolved: other(weights=args.weights)" in result.stderr
    assert run("scan", "--names", "-q", "train.py").stderr == ""
    run("prefetch", *names)
    for member in "ABC":
        assert site.blob(member).exists()


def test_lock_fetches_and_locks_what_was_found_and_keeps_what_was_locked(site, run, code, tmp_path):
    (tmp_path / "other.py").write_text("import weightstore\nweightstore.path('toys/Small_Weights.A')\n")
    run("scan", "other.py", "--lock", "weights.lock")
    result = run("scan", "train.py", "-o", "weights.lock")
    assert "weights.lock: written, 4 entries" in result.stderr
    text = (tmp_path / "weights.lock").read_text()
    locked = {entry["name"]: entry["digest"] for entry in tomllib.loads(text)["weights"]}
    expected = {NAMES[0]: "B", NAMES[1]: "C", "toys/Small_Weights.A": "A", site.url("A"): "A"}
    assert locked == {name: f"sha256:{site.digest(member)}" for name, member in expected.items()}
    assert "args" not in text
    assert "weights.lock: unchanged" in run("scan", "train.py", "-o", "weights.lock").stderr
    run("check", "weights.lock")


def test_lock_that_cannot_be_fetched_is_not_written(site, run, code, tmp_path):
    assert "was not written" in run("scan", "train.py", "--lock", "weights.lock", "--offline", code=4).stderr
    assert not (tmp_path / "weights.lock").exists()


def test_nothing_found_is_nothing_to_lock(run, tmp_path):
    (tmp_path / "empty.py").touch()
    result = run("scan", "empty.py", "--lock", "weights.lock")
    assert (result.stdout, result.stderr) == ("", "1 file: 0 checkpoints found, 0 unresolved\n")
    assert not (tmp_path / "weights.lock").exists()


def test_strict_exits_with_1_for_what_is_unresolved_or_does_not_parse(site, run, code, tmp_path):
    run("scan", "train.py")
    run("scan", "--strict", "train.py", code=1)
    code.write_text(code.read_text().replace("args.weights", "'DEFAULT'"))
    run("scan", "--strict", "train.py")
    (tmp_path / "broken.py").write_text("def f(:")
    assert "note: broken.py:1: does not parse: invalid syntax" in run("scan", "--strict", ".", code=1).stderr


def test_json_tells_all_of_each_finding(site, run, code, tmp_path):
    (tmp_path / "broken.py").write_text("def f(:")
    report = json.loads(run("scan", "--json", "train.py", "broken.py").stdout)
    assert report["findings"][0] == {
        "file": "train.py",
        "line": 3,
        "cell": None,
        "code": "Small_Weights.B",
        "target": NAMES[0],
        "note": None,
        "asked_by": "toys",
    }
    assert report["findings"][-1]["target"] is None
    assert report["findings"][-1]["note"] == "only known when it runs"
    assert report["targets"] == [*NAMES, site.url("A")]
    assert (report["unresolved"], report["files"], report["lockfile"]) == (1, 2, None)
    assert report["unread"] == [{"place": "broken.py:1", "reason": "does not parse: invalid syntax"}]


def test_a_file_that_is_not_there_is_a_wrong_argument(run):
    assert "no such file" in run("scan", "absent.py", code=2).stderr
    run("scan", code=2)


def test_control_characters_in_code_do_not_reach_the_terminal(site, run, tmp_path):
    (tmp_path / "a\x1b[31m.py").write_text(
        "import torch\ntorch.hub.load_state_dict_from_url('https://x.org/\x1b]0;title')"
    )
    result = run("scan", ".")
    assert "\x1b" not in result.stdout + result.stderr


def test_on_a_terminal_what_is_unresolved_says_why_in_its_place(site, spawn, code):
    leader, follower = pty.openpty()
    process = spawn("scan", "train.py", stdout=follower, env={**os.environ, "COLUMNS": "90", "TERM": "dumb"})
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:  # EIO: the other side is closed
        pass
    os.close(leader)
    process.communicate()
    lines = shown.decode().splitlines()
    assert lines[0].split() == ["WHERE", "WEIGHTS"]
    assert lines[1].split() == ["train.py:3", NAMES[0]]
    assert lines[4].rstrip() == "train.py:6  ? only known when it runs"
