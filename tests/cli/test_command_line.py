"""What holds for the whole command line: errors, shared options, pipes, start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from weightstore import errors
from weightstore.cli.commands import EXIT_CODES

HEAVY = {"requests", "urllib3", "rich", "filelock", "torch", "http", "email", "ssl", "socket", "asyncio", "numpy"}
MODULES = """
import sys
sys.argv = ["weightstore", *sys.argv[1:]]
import atexit
atexit.register(lambda: print("MODULES", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr))
from weightstore.cli import main
main()
"""


def _imported_by(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *arguments], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("MODULES ")[2].split())


def test_help_imports_click_and_next_to_nothing_else(site):
    imported = _imported_by("--help")
    assert not imported & (HEAVY | {"platformdirs", "dataclasses", "json", "hashlib", "pathlib"})


def test_a_hit_imports_nothing_of_the_network_and_draws_nothing(site, run):
    run("prefetch", "small")
    assert not _imported_by("path", "small") & HEAVY


def test_a_table_in_a_pipe_does_without_rich(site, run):
    run("prefetch", "small")
    assert "rich" not in _imported_by("ls")


def test_every_error_has_a_documented_exit_code():
    codes = {code for code, _ in EXIT_CODES}
    pending = [errors.WeightStoreError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        assert kind.exit_code in codes


def test_the_version_is_printed(run):
    from weightstore import __version__

    assert run("--version").stdout == run("-V").stdout == f"weightstore {__version__}\n"


def test_shared_options_stand_before_or_after_the_command(site, run, tmp_path):
    run("--home", tmp_path / "elsewhere", "prefetch", "small")
    assert len(json.loads(run("ls", "--home", tmp_path / "elsewhere", "--json").stdout)["blobs"]) == 1
    assert len(json.loads(run("--json", "--home", tmp_path / "elsewhere", "ls").stdout)["blobs"]) == 1
    run("--offline", "prefetch", "other", code=4)


def test_an_unknown_command_suggests_the_nearest(run):
    assert "Did you mean prefetch" in run("prefech", code=2).stderr
    run("zzz", code=2)


def test_a_wrong_setting_is_one_message(run, monkeypatch):
    monkeypatch.setenv("WEIGHTSTORE_JOBS", "many")
    stderr = run("ls", code=2).stderr
    assert stderr.startswith("error: WEIGHTSTORE_JOBS: jobs:")
    assert "Traceback" not in stderr


def test_search_into_head_is_silent(site):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m weightstore search | head -1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_a_defect_is_not_swallowed_and_says_where_to_report_it(site):
    code = """
import weightstore.client
def broken(*_, **__): raise ZeroDivisionError("a defect")
weightstore.client.Client.stored = broken
import sys; sys.argv = ["weightstore", "ls"]
from weightstore.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError: a defect" in done.stderr
    assert "Please report it" in done.stderr


@pytest.mark.parametrize("seconds", [0.25, 12.3, 75, 7500])
def test_durations_are_short(seconds):
    from weightstore.cli import units

    assert len(units.duration(seconds)) <= 8


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (102_540_417, "102.5 MB"), (2.5e12, "2.5 TB")],
)
def test_sizes_are_shown_in_powers_of_ten(size, text):
    from weightstore.cli import units

    assert units.size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "just now"),
        (600, "10 min ago"),
        (7200 * 1.5, "3 h ago"),
        (86400 * 9, "9 days ago"),
        (86400 * 90, "3 months ago"),
    ],
)
def test_times_are_shown_roughly(seconds, text):
    from weightstore.cli import units

    assert units.ago(seconds) == text
