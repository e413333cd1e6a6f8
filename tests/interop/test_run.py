"""``weightstore run``: programs that have never heard of weightstore, and their children, and what they asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import weightstore
from tests.interop.conftest import NO_SOCKETS, Checkpoint, Place
from weightstore.errors import InvalidRecord
from weightstore.interop import autoload
from weightstore.interop.recording import Recorder, read_spool
from weightstore.interop.running import RunSettings, environment, site_directory

Run = Callable[..., "subprocess.CompletedProcess[str]"]

LOAD = """
import sys
from torch.hub import load_state_dict_from_url
print(sorted(load_state_dict_from_url(sys.argv[1], progress=False)))
"""
OPEN = """
import sys
from urllib.request import urlopen
print(len(urlopen(sys.argv[1]).read()), flush=True)
"""
"""The same without torch, which takes seconds to import."""
WITH_VARIABLE = f"""
import os, subprocess, sys
url, name, value = sys.argv[1:]
subprocess.run([sys.executable, "-c", {OPEN!r}, url], env={{**os.environ, name: value}}, check=True)
"""
IN_WORKERS = """
import sys
import multiprocessing
from torch.hub import load_state_dict_from_url

def work(url):
    return sorted(load_state_dict_from_url(url, progress=False))

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        print(pool.map(work, [sys.argv[1]] * 4))
"""
RANK = """
import os, sys
from torch.hub import load_state_dict_from_url
state = load_state_dict_from_url(sys.argv[1], model_dir=sys.argv[2], progress=False)
open(os.path.join(sys.argv[2], f"rank {os.environ['RANK']} {len(state)}"), "w").close()
"""


def lockfile(path: Path) -> list[tuple[str, str, str]]:
    entries = weightstore.Lockfile.read(path).entries
    return [(entry.source.display, entry.digest.hex, entry.asked_by) for entry in entries]


# -- serving ----------------------------------------------------------------------------------------------------------


def test_an_unchanged_program_gets_its_weights_from_the_store(run: Run, place: Place, net: Checkpoint) -> None:
    first, second = run(LOAD, net.url), run(LOAD, net.url, options=("--offline",))

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert second.stdout == "['bias', 'weight']\n"
    assert place.bodies(net) == 1
    assert (place.store / "blobs" / "sha256" / net.digest).exists()


def test_offline_no_socket_is_opened(run: Run, place: Place, net: Checkpoint) -> None:
    run(OPEN, net.url)
    missing = place.serve({"weight": torch.zeros(3)})

    done = run(NO_SOCKETS + LOAD, net.url, options=("--offline",))
    failed = run(NO_SOCKETS + OPEN, missing.url, options=("--offline",))

    assert done.returncode == 0, done.stderr
    assert failed.returncode == 1
    assert "a socket was asked for" not in failed.stderr
    assert f"weightstore prefetch '{missing.url}'" in failed.stderr


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_are_served(run: Run, place: Place, net: Checkpoint, start: str) -> None:
    done = run(IN_WORKERS, net.url, start)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str([["bias", "weight"]] * 4)
    assert place.bodies(net) == 1


def test_eight_ranks_make_one_download(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "weightstore", "run", "--record", str(tmp_path / "weights.lock"), "--"]
    command += [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8"]
    command += [str(tmp_path / "rank.py"), net.url, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)

    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "cache").glob("rank *")} == {f"rank {number} 2" for number in range(8)}
    assert place.bodies(net) == 1
    assert lockfile(tmp_path / "weights.lock") == [(net.url, net.digest, "rank.py")]


def test_a_script_that_calls_python_is_served(run: Run, place: Place, net: Checkpoint) -> None:
    text = f"""
import subprocess, sys
command = '"$0" -c "$1" "$2"'
subprocess.run(["sh", "-c", command, sys.executable, {OPEN!r}, sys.argv[1]], check=True)
"""
    done = run(text, net.url)

    assert done.returncode == 0, done.stderr
    assert (place.store / "blobs" / "sha256" / net.digest).exists()


def test_urllib_alone_is_served(run: Run, place: Place, net: Checkpoint) -> None:
    text = "import sys, urllib.request; print(len(urllib.request.urlopen(sys.argv[1]).read()), 'torch' in sys.modules)"
    done = run(text, net.url)

    assert done.stdout == f"{len(net.data)} False\n", done.stderr
    assert (place.store / "blobs" / "sha256" / net.digest).exists()


def test_a_locked_run_takes_what_is_locked(run: Run, place: Place, tmp_path: Path) -> None:
    net = place.serve({"weight": torch.ones(2)}, pinned=False)
    recorded = run(OPEN, net.url, options=("--record", str(tmp_path / "weights.lock")))
    assert recorded.returncode == 0, recorded.stderr
    place.server.replace("/net.pth", bytes(len(net.data)))
    again = tmp_path / "other store"

    done = run(OPEN, net.url, options=("--home", str(again), "--locked", str(tmp_path / "weights.lock")))

    assert done.returncode == 1
    assert net.digest in done.stderr


def test_a_variable_leaves_a_process_out(run: Run, place: Place, net: Checkpoint) -> None:
    assert run(WITH_VARIABLE, net.url, "WEIGHTSTORE_HOOK", "off").returncode == 0
    assert not place.store.exists()


# -- a program like any other -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [(), ("--record", "weights.lock")])
def test_the_exit_code_is_the_programs(run: Run, tmp_path: Path, record: tuple[str, ...]) -> None:
    assert run("raise SystemExit(7)", options=record, cwd=tmp_path).returncode == 7
    killed = run("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", options=record, cwd=tmp_path)
    assert killed.returncode in {-signal.SIGTERM, 128 + signal.SIGTERM}


@pytest.mark.parametrize("record", [(), ("--record", "weights.lock")])
def test_what_cannot_be_run_is_told_as_env_does(tmp_path: Path, record: tuple[str, ...]) -> None:
    (tmp_path / "text").write_text("no program")
    command = [sys.executable, "-m", "weightstore", "run", *record, "--"]
    codes = {}
    for name in ("no-such-command", "./text"):
        done = subprocess.run([*command, name], capture_output=True, text=True, check=False, cwd=tmp_path)
        codes[name] = done.returncode
        assert done.stderr.startswith(f"error: {name}: "), done.stderr
    assert codes == {"no-such-command": 127, "./text": 126}
    assert not (tmp_path / "weights.lock").exists()


def test_arguments_and_standard_input_reach_the_program(run: Run) -> None:
    done = run("import sys; print(sys.argv[1:], sys.stdin.read())", "--json", "--home", "x", "-q", input="text")
    assert done.stdout == "['--json', '--home', 'x', '-q'] text\n"


def test_a_python_file_runs_by_this_python(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys; print(sys.executable)")
    command = [sys.executable, "-m", "weightstore", "run", "--", str(tmp_path / "train.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == sys.executable


def test_nothing_to_run_is_a_usage_error(run: Run) -> None:
    done = subprocess.run([sys.executable, "-m", "weightstore", "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "weightstore run -- python train.py" in done.stderr


def test_another_sitecustomize_still_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import builtins; builtins.customized = __file__\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    done = run("import builtins, sys; print(builtins.customized); print([p for p in sys.path if 'interop' in p])")

    assert done.stdout == f"{tmp_path / 'site' / 'sitecustomize.py'}\n[]\n", done.stderr


def test_a_process_without_weights_imports_nothing_of_ours(run: Run) -> None:
    done = run("import sys, json, urllib.request; print(sorted(m for m in sys.modules if m.startswith('weightstore')))")
    assert done.stdout == "['weightstore_start']\n", done.stderr


def test_an_interpreter_without_weightstore_is_told(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "fake" / "torch").mkdir(parents=True)
    (tmp_path / "fake" / "torch" / "__init__.py").touch()
    (tmp_path / "fake" / "torch" / "hub.py").touch()
    variables = environment(RunSettings(), {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "fake")})
    command = [sys.executable, "-S", "-c", "import site, sitecustomize, torch.hub; print('runs')"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.stdout == "runs\n"
    assert done.stderr.startswith("weightstore: ")
    assert "do not come from the store" in done.stderr


def test_a_wrong_setting_is_told_and_the_program_runs(run: Run, net: Checkpoint, tmp_path: Path) -> None:
    done = run(WITH_VARIABLE, net.url, "WEIGHTSTORE_JOBS", "x")
    assert done.returncode == 0
    assert "weightstore: downloads do not come from the store: WEIGHTSTORE_JOBS" in done.stderr


# -- recording --------------------------------------------------------------------------------------------------------


def test_everything_asked_for_is_recorded_with_who_asked(
    run: Run, place: Place, net: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "somelibrary.py").write_text(
        "from torch.hub import load_state_dict_from_url\n"
        "def build(url): return load_state_dict_from_url(url, progress=False)\n"
    )
    other = place.serve({"w": torch.ones(1)}, name="backbone")
    text = (
        "import sys, somelibrary, urllib.request\n"
        "somelibrary.build(sys.argv[1])\n"
        "urllib.request.urlopen(sys.argv[2]).read()\n"
    )
    done = run(text, net.url, other.url, options=("--record", "weights.lock"), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert sorted(lockfile(tmp_path / "weights.lock")) == sorted(
        [(net.url, net.digest, "somelibrary"), (other.url, other.digest, "train.py")]
    )
    assert "weights.lock: 2 checkpoints recorded (somelibrary, train.py), 2 in all" in done.stderr


def test_what_was_in_a_cache_already_is_recorded_too(run: Run, place: Place, net: Checkpoint, tmp_path: Path) -> None:
    place.checkpoints.mkdir(parents=True)
    (place.checkpoints / net.name).write_bytes(net.data)
    done = run(LOAD, net.url, options=("--record", "weights.lock", "--offline"), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert lockfile(tmp_path / "weights.lock") == [(net.url, net.digest, "train.py")]


def test_a_record_adds_to_the_lockfile_and_keeps_the_rest(
    run: Run, place: Place, net: Checkpoint, tmp_path: Path
) -> None:
    first = place.serve({"w": torch.ones(1)}, name="first")
    for checkpoint in (first, net):
        assert run(OPEN, checkpoint.url, options=("--record", "weights.lock"), cwd=tmp_path).returncode == 0

    assert {source for source, _, _ in lockfile(tmp_path / "weights.lock")} == {first.url, net.url}


def test_a_recorded_run_can_be_prefetched_and_repeated_elsewhere(
    run: Run, place: Place, net: Checkpoint, tmp_path: Path
) -> None:
    run(OPEN, net.url, options=("--record", "weights.lock"), cwd=tmp_path)
    elsewhere = weightstore.Client(weightstore.Config(home=tmp_path / "compute", state=tmp_path / "their state"))
    report = elsewhere.prefetch(lockfile=weightstore.Lockfile.read(tmp_path / "weights.lock"))
    assert not report.failures
    place.server.stop()

    options = ("--offline", "--home", str(tmp_path / "compute"), "--locked", "weights.lock")
    done = run(NO_SOCKETS + OPEN, net.url, options=options, cwd=tmp_path)

    assert done.stdout == f"{len(net.data)}\n", done.stderr


def test_what_a_killed_program_asked_for_is_recorded(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        OPEN + "sys.stdout.flush()\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-m", "weightstore", "run", "--record", "weights.lock", "--", "train.py", net.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.returncode == 128 + signal.SIGKILL
    assert lockfile(tmp_path / "weights.lock") == [(net.url, net.digest, "train.py")]


def test_termination_is_passed_on_and_recorded(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(OPEN + "import time; time.sleep(60)\n")
    command = [sys.executable, "-m", "weightstore", "run", "--record", "weights.lock", "--", "train.py", net.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as program:
        assert program.stdout is not None
        while not program.stdout.readline():
            time.sleep(0.01)
        program.terminate()
        assert program.wait(timeout=30) == 128 + signal.SIGTERM

    assert lockfile(tmp_path / "weights.lock") == [(net.url, net.digest, "train.py")]


def test_recording_in_process_writes_when_it_is_turned_off(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    from torch.hub import load_state_dict_from_url

    with weightstore.enabled(record=tmp_path / "weights.lock"):
        load_state_dict_from_url(net.url, progress=False)
        assert not (tmp_path / "weights.lock").exists()

    ((source, digest, _),) = lockfile(tmp_path / "weights.lock")
    assert (source, digest) == (net.url, net.digest)


def test_a_record_that_cannot_be_written_is_told_before_anything_runs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "damaged.lock").write_text("nonsense")
    for name, code in (("no/such/directory/weights.lock", 2), ("damaged.lock", 8)):
        done = run("print('ran')", options=("--record", name), cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""


def test_a_spool_is_read_strictly_and_a_torn_line_is_not(tmp_path: Path) -> None:
    digest = weightstore.Digest("0" * 64)
    entry = weightstore.Locked("net", weightstore.Source("https://example.org/net.pth"), digest, 5, "timm")
    recorder = Recorder(tmp_path)
    recorder.add(entry)
    recorder.add(entry)
    (file,) = tmp_path.iterdir()
    assert file.read_bytes().count(b"\n") == 1
    with file.open("ab") as torn:
        torn.write(b'{"name": "ne')
    assert read_spool(tmp_path) == ([entry], [])

    (tmp_path / "1.asked").write_text('{"name": 5}\n')
    with pytest.raises(InvalidRecord, match="line of a recorded run"):
        read_spool(tmp_path)


def test_two_digests_of_one_source_are_told(tmp_path: Path) -> None:
    source = weightstore.Source("https://example.org/net.pth")
    entries = [weightstore.Locked("net", source, weightstore.Digest(digit * 64), 5) for digit in "01"]
    for entry in entries:
        Recorder(tmp_path).add(entry)

    found, (note,) = read_spool(tmp_path)

    assert found == entries[:1]
    assert "in one run" in note


# -- autoload ---------------------------------------------------------------------------------------------------------


def test_autoload_serves_an_environment_until_it_is_off(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    load = f"import site, sys; site.addsitedir({str(packages)!r})\n" + OPEN
    autoload.turn_on(packages)
    assert autoload.is_on(packages)
    done = place.python(load, net.url)
    assert done.returncode == 0, done.stderr
    assert (place.store / "blobs" / "sha256" / net.digest).exists()

    autoload.turn_off(packages)
    autoload.turn_off(packages)

    assert not autoload.is_on(packages)
    assert list(packages.iterdir()) == []


def test_autoload_of_an_uninstalled_weightstore_does_nothing(place: Place, tmp_path: Path) -> None:
    autoload.turn_on(tmp_path)
    (line,) = tmp_path.iterdir()
    line.write_text(line.read_text().replace(str(site_directory()), "/no/such/directory"))

    done = place.python(f"import site; site.addsitedir({str(tmp_path)!r}); print('runs')")

    assert (done.stdout, done.stderr) == ("runs\n", "")


def test_autoload_status_speaks_of_this_environment() -> None:
    command = [sys.executable, "-m", "weightstore", "autoload", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    is_on = autoload.is_on(Path(sysconfig.get_path("purelib")))
    assert f'"autoload": "{"on" if is_on else "off"}"' in done.stdout
    assert done.returncode == (0 if is_on else 1)
