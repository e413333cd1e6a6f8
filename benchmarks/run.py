"""``python -m benchmarks.run``: measures, prints the tables, and writes the page and the numbers."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from benchmarks import report
from benchmarks.lab import Lab, Scale, quick_scale
from benchmarks.origin import serve
from benchmarks.report import Circumstances
from benchmarks.scenarios import SCENARIOS
from tests.servers.nginx import find_nginx

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
DEFAULT_RESULTS = ROOT / "benchmarks" / "results.json"
# Measured: while others kept both cores busy torch.hub took 2.5 to 3.5 s for 1 GiB, a minute later 1.6 to 2.0 s.
QUIET_LOAD = 0.5
PEERS = ("torch", "torchvision", "safetensors", "pooch", "huggingface_hub", "requests", "urllib3")
PROGRAMS = {"nginx": ("nginx", "-v"), "aria2c": ("aria2c", "--version"), "curl": ("curl", "--version")}


def main() -> None:
    arguments = _parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, _leave)  # so that nginx and the files go when a job system ends the run
    selected = arguments.only or list(SCENARIOS)
    scale = quick_scale(arguments.rounds or 1) if arguments.quick else Scale(arguments.rounds or 5)
    tables = []
    load_before = os.getloadavg()[0]
    if load_before > QUIET_LOAD:
        _say(f"The machine is busy (load average {load_before:.1f}): ratios will be unsteady.")
    with tempfile.TemporaryDirectory(prefix="weightstore-bench-", dir=arguments.workdir) as name:
        workdir = Path(name)
        machine = _machine(workdir)
        if find_nginx() is None:
            sys.exit("the benchmark needs nginx (apt-get install nginx-light)")
        with serve(workdir / "origin") as origin:
            lab = Lab(origin, workdir, os.environ, scale, _say)
            for key in selected:
                _say(key)
                tables.append(SCENARIOS[key](lab))
                print(report.markdown(tables[-1]), flush=True)
    circumstances = Circumstances(machine, _today(), scale.rounds, load_before, _versions())
    print(circumstances)
    for line in report.missed(tables):
        print(f"- {line}")
    is_complete = not arguments.quick and selected == list(SCENARIOS)
    page = arguments.docs or (DEFAULT_PAGE if is_complete else None)
    results = arguments.results or (DEFAULT_RESULTS if is_complete else None)
    if page is not None:
        report.write_between_markers(page, report.page(tables, circumstances))
    if results is not None:
        report.write_json(results, tables, circumstances)
    if not is_complete:
        print("Part of a run, or a quick one: the page in docs and results.json stay as they are.")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", type=_scenarios, metavar="KEY,KEY", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--rounds", type=int, help="counted rounds (default 5, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="small files: does it still work; the times mean nothing")
    parser.add_argument("--workdir", type=Path, help="where files are made and fetched to (default: temporary)")
    parser.add_argument("--docs", type=Path, help=f"page to write (default, full runs only: {_relative(DEFAULT_PAGE)})")
    parser.add_argument("--results", type=Path, help=f"JSON (default, full runs only: {_relative(DEFAULT_RESULTS)})")
    return parser.parse_args(argv)


def _scenarios(text: str) -> list[str]:
    keys = text.split(",")
    unknown = [key for key in keys if key not in SCENARIOS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return keys


def _machine(workdir: Path) -> str:
    memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30))
    return f"{len(os.sched_getaffinity(0))} cores, {memory_gib} GiB, {_file_system(workdir)}"


def _file_system(path: Path) -> str:
    """The type of the longest mount point above ``path``."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [(len(fields[1]), fields[2]) for fields in mounts if path.resolve().is_relative_to(fields[1])]
    return max(above)[1]


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    for peer in PEERS:
        try:
            versions[peer] = importlib.metadata.version(peer)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, command in PROGRAMS.items():
        program = find_nginx() if name == "nginx" else shutil.which(command[0])
        if program is None:
            continue
        shown = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
        found = re.search(r"\d+(\.\d+)+", shown.stdout + shown.stderr)
        versions[name] = found[0] if found else "unknown"
    return versions


def _today() -> str:
    return dt.datetime.now(tz=dt.UTC).date().isoformat()


def _relative(path: Path) -> Path:
    return path.relative_to(ROOT)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _leave(_signal: int, _frame: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    main()
