"""From a cached checkpoint to a model that is ready for eval: what is measured, and the bars of it."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks import tools
from benchmarks.lab import MIB, row_of
from benchmarks.loaders import SAFETENSORS
from benchmarks.measure import MeasurementFailed, Sample, Series, emptied, run_loader, run_python, run_tool
from benchmarks.report import number
from benchmarks.table import Bar, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.job import Job, Model
    from benchmarks.lab import Lab
    from benchmarks.tools import Tool

TOOLS = (tools.LOAD_OURS, tools.LOAD_TORCHVISION, tools.LOAD_SAFETENSORS)
# How many times faster than TorchVision's builder with its cache.
FASTER = {"resnet50": 5, "vit_b_16": 15, "vit_l_16": 30, "convnext_large": 30, "vit_h_14": 50}
SUM = "with the first pass"
PEAK = "peak memory until ready ÷ checkpoint"
NOTE = """\
The checkpoints have TorchVision's shapes and random values: TorchVision's builder made them, `torch.save` and
`save_file` wrote them. All tools get the member of TorchVision's enum, its URL replaced beforehand by that of the
file, which is named for its own digest: so TorchVision finds the file in `torch.hub`'s cache, which it does not
verify, and weightstore finds it in its store, offline, verified, with a receipt. Our first call makes the client and
reads the catalog as well. The third is how timm loads: the model at random, `load_file`, `load_state_dict`. All
imports are done and the file is in the page cache before the clock starts. The first pass is of one image at the
weights' crop, under `no_grad`; what it puts out is the same for all three, bit by bit. Memory is the resident set at
its highest less what was resident before the clock started. Pages of the checkpoint that are mapped count once they
are touched, mostly in the pass, which also takes memory for activations and for parts of torch that nothing needed
before."""


def load(lab: Lab) -> Table:
    rows: list[Row] = []
    bars: list[Bar] = []
    for model in lab.scale.models:
        lab.say(f"  {model.builder}")
        rows += _rows(lab, model)
        ours, theirs = (_key(tool, model) for tool in TOOLS[:2])
        if model.builder in FASTER:
            bars.append(Bar(ours, 1 / FASTER[model.builder], theirs, faster=True))
        bars += [Bar(ours, 1.0, theirs, of=SUM), Bar(ours, 1.1, of=PEAK)]
    return Table(
        "load",
        "From a cached checkpoint to a model ready for eval",
        "s",
        tuple(rows),
        bars=tuple(bars),
        columns=(
            "s, first pass",
            "s, both",
            "peak until ready, MiB",
            "÷ checkpoint",
            "with the pass, MiB",
            "÷ checkpoint",
        ),
        note=NOTE,
        beside="TorchVision",
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checkpoint where each tool looks for it."""

    job: Job
    env: dict[str, str]


def _rows(lab: Lab, model: Model) -> list[Row]:
    missing = {tool: need for tool in TOOLS if (need := tool.missing())}
    if tools.LOAD_TORCHVISION in missing:
        return [
            _row(tool, model, Series(failure=f"not installed ({missing.get(tool, 'torchvision')})")) for tool in TOOLS
        ]
    outputs: dict[str | None, str] = {}
    try:
        with prepared(lab, model) as made:

            def contender(tool: Tool) -> Callable[[], Sample]:
                def run() -> Sample:
                    sample = run_loader(tool, made.job, made.env)
                    if outputs.setdefault(sample.output, tool.key) != next(iter(outputs.values())):
                        msg = f"another output than {next(iter(outputs.values()))}'s"
                        raise MeasurementFailed(msg)
                    return sample

                return run

            series = lab.measure(TOOLS, contender)
    except MeasurementFailed as failure:
        return [_row(tool, model, Series(failure=f"no checkpoint: {failure}")) for tool in TOOLS]
    size_bytes = made.job.targets[0].size_bytes
    rows = [_row(tool, model, series[tool], size_bytes) for tool in TOOLS]
    theirs = rows[1].values
    return [replace(row, beside=theirs) if row.values and theirs and row is not rows[1] else row for row in rows]


@contextlib.contextmanager
def prepared(lab: Lab, model: Model) -> Iterator[Prepared]:
    """Makes a checkpoint and puts it into a store, ``torch.hub``'s cache and a file of safetensors; all go afterwards.

    torch.hub's file is a link to the store's: one set of pages in the cache.
    """
    with emptied(lab.new_directory()) as into:
        part = lab.origin.files / f"{model.builder}.part"
        files = (str(part), str(into / SAFETENSORS))
        run_python(("-m", "benchmarks.checkpoints", model.builder, *files), lab.env(lab.job([], into)))
        file = lab.origin.adopt(part, model.builder)
        try:
            job = replace(lab.job([file], into), model=model)
            env = lab.env(job)
            run_tool(tools.OURS, job, env)
        finally:
            lab.origin.remove(file)
        checkpoints = into / "torch" / "hub" / "checkpoints"
        checkpoints.mkdir(parents=True)
        (checkpoints / file.name).symlink_to(_blob(into / "store", file.sha256))
        yield Prepared(job, {**env, "WEIGHTSTORE_OFFLINE": "1"})


def _blob(store: Path, sha256: str) -> Path:
    found = [path for path in store.rglob(f"{sha256}*") if path.is_file() and path.stat().st_size > 1 << 20]
    if len(found) != 1:
        msg = f"{len(found)} blobs of the checkpoint in the store"
        raise MeasurementFailed(msg)
    return found[0]


def _row(tool: Tool, model: Model, series: Series, size_bytes: int = 0) -> Row:
    row = row_of(tool, series, lambda sample: sample.seconds)
    row = replace(row, key=_key(tool, model), label=f"{model.builder}: {tool.label}")
    if not row.values:
        return row
    passes = [sample.pass_seconds or 0.0 for sample in series.samples]
    sums = tuple(ready + first for ready, first in zip(row.values, passes, strict=True))
    ready_bytes = [sample.ready_rss_bytes or 0 for sample in series.samples]
    peak_bytes = statistics.median([sample.peak_rss_bytes or 0 for sample in series.samples])
    ratios = tuple(peak / size_bytes for peak in ready_bytes)
    extra = (
        number(statistics.median(passes)),
        number(statistics.median(sums)),
        f"{statistics.median(ready_bytes) / MIB:.0f}",
        f"{statistics.median(ratios):.2f}",
        f"{peak_bytes / MIB:.0f}",
        f"{peak_bytes / size_bytes:.2f}",
    )
    return replace(row, extra=extra, more={SUM: sums, PEAK: ratios})


def _key(tool: Tool, model: Model) -> str:
    return f"{tool.key}:{model.builder}"
