"""What the hook costs: a cached checkpoint with and without it, and a process that never asks for weights."""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import tools
from benchmarks.job import Model
from benchmarks.lab import row_of
from benchmarks.loading import prepared
from benchmarks.measure import MeasurementFailed, Sample, Series, interleave, run_program, run_tool
from benchmarks.table import Bar, Row, Table
from weightstore.interop.running import RunSettings, environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.lab import Lab
    from benchmarks.tools import Tool

MORE = "ms more"
MODEL = Model("resnet50", "IMAGENET1K_V2")
BARE = ("-c", "pass")
TOOLS = (tools.HUB_LOAD, tools.HUB_LOAD_HOOKED)


def hook(lab: Lab) -> Table:
    rows = [*_loads(lab), *_starts(lab)]
    return Table(
        "hook",
        "The hook: a cached checkpoint of 100 MB, and a process that asks for none",
        "ms",
        tuple(rows),
        bars=(Bar("hub-load-hooked", 3.0, of=MORE), Bar("start-hooked", 5.0, of=MORE)),
        columns=("ms, first call of a process", "ms more"),
        note="`torch.hub.load_state_dict_from_url` as a whole, loading included, in a process that has torch; the file "
        "is named for its digest, lies in torch.hub's cache as a link to the blob, and has a receipt. torch.hub itself "
        "verifies nothing. A process under `weightstore run` that never imports torch is `python -c pass` with the "
        "run's environment. What is more is the difference of the two of each round.",
    )


def _loads(lab: Lab) -> list[Row]:
    if need := tools.HUB_LOAD.missing():
        return [row_of(tool, Series(failure=f"not installed ({need})"), lambda _: None) for tool in TOOLS]
    try:
        with prepared(lab, MODEL) as ready:
            job = replace(ready.job, repeats=lab.scale.hits)

            def contender(tool: Tool) -> Callable[[], Sample]:
                return lambda: run_tool(tool, job, ready.env)

            series = lab.measure(TOOLS, contender)
    except MeasurementFailed as failure:
        return [row_of(tool, Series(failure=f"no checkpoint: {failure}"), lambda _: None) for tool in TOOLS]
    plain, hooked = (row_of(tool, series[tool], lambda sample: (sample.repeat_seconds or 0.0) * 1e3) for tool in TOOLS)
    first = [f"{statistics.median(one.seconds * 1e3 for one in series[tool].samples):.1f}" for tool in TOOLS]
    return [replace(plain, extra=(first[0], "")), _with_difference(hooked, plain, first[1])]


def _starts(lab: Lab) -> list[Row]:
    env = dict(lab.environ)
    both = {"start": env, "start-hooked": environment(RunSettings(), env)}
    contenders = {key: _start(one) for key, one in both.items()}
    series = interleave(contenders, rounds=lab.scale.rounds * lab.scale.starts_per_round, say=lab.say)
    labels = ("python -c pass", "python -c pass, under weightstore run")
    plain, hooked = (
        Row(key, label, tuple(sample.seconds * 1e3 for sample in series[key].samples))
        for key, label in zip(both, labels, strict=True)
    )
    return [replace(plain, extra=("", "")), _with_difference(hooked, plain, "")]


def _start(env: dict[str, str]) -> Callable[[], Sample]:
    return lambda: run_program((sys.executable, *BARE), env)


def _with_difference(row: Row, plain: Row, first: str) -> Row:
    if not row.values or len(row.values) != len(plain.values):
        return replace(row, extra=(first, ""))
    more = tuple(mine - its for mine, its in zip(row.values, plain.values, strict=True))
    return replace(row, extra=(first, f"{statistics.median(more):+.2f}"), more={MORE: more})
