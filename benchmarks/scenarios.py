"""What is measured: one function a scenario, each returning its table with the bars of the issue."""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import tools
from benchmarks.hooked import hook
from benchmarks.lab import MIB, row_of, seconds_row
from benchmarks.loading import load
from benchmarks.measure import (
    MeasurementFailed,
    Sample,
    Series,
    emptied,
    interleave,
    run_herd,
    run_program,
    run_python,
    run_tool,
)
from benchmarks.mirrored import clients, serve
from benchmarks.table import Bar, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.lab import Lab
    from benchmarks.tools import Tool

ONE_FILE_TOOLS = (
    tools.OURS,
    tools.TORCH_HUB,
    tools.CURL,
    tools.ARIA2C_8,
    tools.HTTP_GET,
    tools.POOCH,
    tools.SHA256,
)
BARE = ("-c", "pass")
NAMING = """
import sys, time
import weightstore
start = time.perf_counter()
weightstore.get_weight("ResNet50_Weights.IMAGENET1K_V2")
print(time.perf_counter() - start)
if "torch" in sys.modules:
    sys.exit("torch was imported")
"""


def big(lab: Lab) -> Table:
    file = lab.file(lab.scale.big_bytes)
    series = lab.measure(ONE_FILE_TOOLS, lambda tool: lab.fetch(tool, [file]))
    return Table(
        "big",
        f"One file of {_size(file.size_bytes)}, cold, over http",
        "s",
        tuple(seconds_row(tool, series[tool]) for tool in ONE_FILE_TOOLS),
        reference="torch.hub",
        bars=(Bar("ours", 0.85, "torch.hub", aim=0.7), Bar("ours", 0.15, "pooch")),
        columns=("peak memory",),
        note="Ours is hashed, synced to disk and published in an empty store; no peer syncs.",
    )


def tls(lab: Lab) -> Table:
    title = f"The same over https, {_size(lab.scale.big_bytes)}"
    bars = (Bar("ours", 1.0, "torch.hub"),)
    if lab.origin.ca_file is None:
        absent = Series(failure="not installed (trustme)")
        rows = tuple(seconds_row(tool, absent) for tool in ONE_FILE_TOOLS)
        return Table("tls", title, "s", rows, "torch.hub", bars, ("peak memory",))
    file = lab.file(lab.scale.big_bytes)
    series = lab.measure(ONE_FILE_TOOLS, lambda tool: lab.fetch(tool, [file], tls=True))
    rows = tuple(seconds_row(tool, series[tool]) for tool in ONE_FILE_TOOLS)
    return Table("tls", title, "s", rows, "torch.hub", bars, ("peak memory",))


def capped(lab: Lab) -> Table:
    file = lab.file(lab.scale.middle_bytes)
    compared = (tools.OURS, tools.OURS_ONE, tools.TORCH_HUB, tools.ARIA2C_8, tools.ARIA2C_16)
    series = lab.measure(compared, lambda tool: lab.fetch(tool, [file], capped=True))
    return Table(
        "capped",
        f"One file of {_size(file.size_bytes)} from a server that caps each connection at 20 MiB/s",
        "s",
        tuple(seconds_row(tool, series[tool]) for tool in compared),
        reference="torch.hub",
        bars=(Bar("ours", 1 / 7, "ours-1", faster=True),),
        columns=("peak memory",),
    )


def uncapped200(lab: Lab) -> Table:
    file = lab.file(lab.scale.middle_bytes)
    compared = (tools.OURS, tools.OURS_ONE)
    series = lab.measure(compared, lambda tool: lab.fetch(tool, [file]))
    return Table(
        "uncapped200",
        f"The same file of {_size(file.size_bytes)} without the cap: what being ready for one costs",
        "s",
        tuple(seconds_row(tool, series[tool]) for tool in compared),
        reference="ours-1",
        bars=(Bar("ours", 1.0, "ours-1", spread_counts=True),),
        columns=("peak memory",),
    )


def many(lab: Lab) -> Table:
    files = lab.small_files()
    compared = (tools.OURS, tools.TORCH_HUB, tools.CURL_PARALLEL, tools.ARIA2C_MANY, tools.HTTP_GET, tools.POOCH)
    series = lab.measure(compared, lambda tool: lab.fetch(tool, files))
    return Table(
        "many",
        f"{len(files)} files of {_size(lab.scale.small_bytes)}, cold",
        "s",
        tuple(seconds_row(tool, series[tool]) for tool in compared),
        reference="torch.hub",
        bars=(Bar("ours", 0.8, "torch.hub"), Bar("ours", 0.5, "aria2c-many")),
        columns=("peak memory",),
        note="torch.hub, pooch and http_get fetch in sequence: their interfaces take one file.",
    )


def herd(lab: Lab) -> Table:
    processes, size_bytes = lab.scale.herd_processes, lab.scale.herd_bytes
    file = lab.file(size_bytes, stem="herd")
    compared = (tools.OURS, tools.TORCH_HUB_CACHED, tools.HF_HUB_DOWNLOAD, tools.POOCH)
    copies: dict[Tool, list[float]] = {tool: [] for tool in compared}
    gets: dict[Tool, list[int]] = {tool: [] for tool in compared}

    def contender(tool: Tool) -> Callable[[], Sample]:
        def run() -> Sample:
            since = lab.origin.request_count()
            with emptied(lab.new_directory()) as into:
                job = lab.job([file], into, hub=tool is tools.HF_HUB_DOWNLOAD)
                sample = run_herd(tool, job, lab.env(job), processes=processes)
            traffic = lab.origin.traffic(since=since, size_bytes=size_bytes)
            copies[tool].append(traffic.body_bytes / size_bytes)
            gets[tool].append(max(traffic.full_gets, round(traffic.body_bytes / size_bytes)))
            return sample

        return run

    series = lab.measure(compared, contender, rounds=lab.scale.herd_rounds, warmups=0)
    rows = []
    for tool in compared:
        timed = seconds_row(tool, series[tool])
        cells = (f"{max(copies[tool]):.2f}", f"{statistics.median(timed.values):.2f}") if timed.values else ("", "")
        counts = tuple(float(count) for count in gets[tool]) if timed.values else ()
        rows.append(replace(timed, values=counts, extra=cells))
    return Table(
        "herd",
        f"{processes} processes want one cold file of {_size(size_bytes)} at the same moment",
        "GETs",
        tuple(rows),
        bars=(Bar("ours", 1),),
        columns=("bytes sent ÷ size", "s until the last has it"),
        note="GETs of the whole body in the server's log; ranges count by their bytes. The highest of the rounds.",
        worst=True,
    )


def warm(lab: Lab) -> Table:
    file = lab.file(lab.scale.herd_bytes, stem="herd")
    pairs = {
        tools.OURS_HIT: tools.OURS,
        tools.TORCH_HUB_CACHED: tools.TORCH_HUB_CACHED,
        tools.POOCH: tools.POOCH,
    }
    with emptied(lab.new_directory()) as kept:

        def contender(tool: Tool) -> Callable[[], Sample]:
            job = lab.job([file], kept / tool.key, repeats=lab.scale.hits)

            def run() -> Sample:
                if not job.into.exists():  # the warm-up round: fetch it, in a process of its own
                    job.into.mkdir()
                    run_tool(pairs[tool], replace(job, repeats=0), lab.env(job))
                return run_tool(tool, job, lab.env(job))

            return run

        series = lab.measure(pairs, contender)
    rows = []
    for tool in pairs:
        first = [sample.seconds * 1e3 for sample in series[tool].samples]
        row = row_of(tool, series[tool], lambda sample: (sample.repeat_seconds or 0.0) * 1e3)
        rows.append(replace(row, extra=(f"{statistics.median(first):.2f}" if first else "",)))
    return Table(
        "warm",
        f"A hit through the Python API, file of {_size(file.size_bytes)}, loading not included",
        "ms",
        tuple(rows),
        reference="torch.hub-cached",
        bars=(Bar("ours-hit", 1.0),),
        columns=("ms, first call of a process",),
        note="torch.hub looks whether the name exists and verifies nothing; pooch hashes the whole file. Our first "
        "call makes the client as well.",
    )


def startup(lab: Lab) -> Table:
    file = lab.file(lab.scale.small_bytes, stem="small-000")
    with emptied(lab.new_directory()) as into:
        job = lab.job([file], into)
        env = lab.env(job)
        arguments = {
            "ours-help": ("weightstore", "--help"),
            "ours-path": ("weightstore", "path", f"{job.targets[0].url}#sha256={file.sha256}"),
            "hf-help": ("hf", "--help"),
        }
        labels = {
            "ours-help": "weightstore --help",
            "ours-path": "weightstore path NAME, a hit",
            "hf-help": "hf --help",
        }
        missing = {key: f"not installed ({command[0]})" for key, command in arguments.items()}
        contenders: dict[str, Callable[[], Sample]] = {}
        for key, (name, *rest) in arguments.items():
            program = tools.script(name)
            if program is None:
                continue
            del missing[key]
            contenders[f"bare:{key}"] = _program((sys.executable, *BARE), env)
            contenders[key] = _program((str(program), *rest), env)
        try:
            if "ours-path" not in missing:
                run_tool(tools.OURS, job, env)
        except MeasurementFailed as failure:
            missing["ours-path"] = f"failed: {failure}"
            del contenders["ours-path"], contenders["bare:ours-path"]
        rounds = lab.scale.rounds * lab.scale.starts_per_round
        series = interleave(contenders, rounds=rounds, say=lab.say)
    rows = [_startup_row(key, labels[key], series, missing.get(key)) for key in arguments]
    bare = tuple(value for row in rows for value in row.beside or ())
    return Table(
        "startup",
        "Starting a command",
        "ms",
        (*rows, Row("bare", "python -c pass", bare)),
        reference="bare",
        bars=(Bar("ours-help", 5, "bare"), Bar("ours-path", 8, "bare")),
        note="Whole processes; each is compared with the bare Python started just before it.",
    )


def naming(lab: Lab) -> Table:
    imports = {"import": "weightstore", "import-torchvision": "torchvision.models"}
    labels = {key: f"import {module}" for key, module in imports.items()}
    with emptied(lab.new_directory()) as into:
        env = lab.env(lab.job([], into))
        missing = (
            {} if tools.LOAD_TORCHVISION.missing() is None else {"import-torchvision": "not installed (torchvision)"}
        )
        contenders: dict[str, Callable[[], Sample]] = {}
        for key in [key for key in imports if key not in missing]:
            contenders[f"bare:{key}"] = _program((sys.executable, *BARE), env)
            contenders[key] = _program((sys.executable, "-c", labels[key]), env)
        contenders["name"] = lambda: Sample(float(run_python(("-c", NAMING), env)))
        series = interleave(contenders, rounds=lab.scale.rounds * lab.scale.starts_per_round, say=lab.say)
    rows = [_startup_row(key, labels[key], series, missing.get(key)) for key in imports]
    bare = tuple(value for row in rows for value in row.beside or ())
    named = series["name"]
    reason = f"failed: {named.failure}" if named.failure else None
    label = "weightstore.get_weight(NAME), after the import"
    return Table(
        "naming",
        "Naming weights, without torch",
        "ms",
        (*rows, Row("bare", "python -c pass", bare), Row("name", label, _milliseconds(named), missing=reason)),
        bars=(Bar("import", 3, "bare"), Bar("name", 5)),
        note="Whole processes, each compared with the bare Python started just before it; but for `get_weight`, the "
        "first in its process, which is measured inside. Compiled modules are cached, as a user's are.",
        beside="python -c pass",
    )


def memory(lab: Lab) -> Table:
    rows = []
    for size_bytes in (lab.scale.big_bytes, lab.scale.huge_bytes):
        is_huge = size_bytes == lab.scale.huge_bytes
        file = lab.file(size_bytes, sparse=is_huge)  # a hole costs no disk, and memory does not know
        fetch = lab.fetch(tools.OURS, [file])
        series = lab.measure([tools.OURS], {tools.OURS: fetch}.__getitem__, rounds=min(lab.scale.rounds, 2), warmups=0)
        row = row_of(tools.OURS, series[tools.OURS], lambda sample: (sample.peak_rss_bytes or 0) / MIB)
        rows.append(replace(row, key=f"ours-{size_bytes}", label=f"weightstore, {_size(size_bytes)}"))
    return Table(
        "memory",
        "Peak memory of the downloading process",
        "MiB",
        tuple(rows),
        bars=tuple(Bar(row.key, 64) for row in rows),
        note="Resident set at its highest, the interpreter and the shared libraries included.",
        worst=True,
    )


def _program(command: Sequence[str], env: dict[str, str]) -> Callable[[], Sample]:
    return lambda: run_program(command, env)


def _startup_row(key: str, label: str, series: dict[str, Series], missing: str | None) -> Row:
    if missing is not None:
        return Row(key, label, missing=missing)
    own, bare = series[key], series[f"bare:{key}"]
    if own.failure is not None:
        return Row(key, label, missing=f"failed: {own.failure}")
    return Row(key, label, _milliseconds(own), beside=_milliseconds(bare))


def _milliseconds(series: Series) -> tuple[float, ...]:
    return tuple(sample.seconds * 1e3 for sample in series.samples)


def _size(size_bytes: int) -> str:
    return f"{size_bytes >> 30} GiB" if size_bytes >= 1 << 30 else f"{size_bytes >> 20} MiB"


SCENARIOS: dict[str, Callable[[Lab], Table]] = {
    "big": big,
    "tls": tls,
    "capped": capped,
    "uncapped200": uncapped200,
    "many": many,
    "herd": herd,
    "warm": warm,
    "startup": startup,
    "memory": memory,
    "load": load,
    "naming": naming,
    "hook": hook,
    "serve": serve,
    "clients": clients,
}
