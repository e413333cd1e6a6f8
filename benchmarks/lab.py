"""Where a run takes place: the origin, the work directory, the sizes, and how one measurement is made there."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.job import Job, Model, Target
from benchmarks.measure import Sample, Series, emptied, interleave, run_tool
from benchmarks.table import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.origin import Origin, ServedFile
    from benchmarks.tools import Tool

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is downloaded and how often."""

    rounds: int
    big_bytes: int = 1024 * MIB
    huge_bytes: int = 4096 * MIB
    middle_bytes: int = 200 * MIB
    small_bytes: int = MIB
    small_files: int = 200
    herd_bytes: int = 100 * MIB
    herd_processes: int = 16
    herd_rounds: int = 3
    clients: int = 100
    hits: int = 50
    starts_per_round: int = 4
    # ViT-H/14 with the weights whose crop is that of the others, 224: the default ones take 518.
    models: tuple[Model, ...] = (
        Model("resnet50", "IMAGENET1K_V2"),
        Model("vit_b_16", "IMAGENET1K_V1"),
        Model("vit_l_16", "IMAGENET1K_V1"),
        Model("vit_h_14", "IMAGENET1K_SWAG_LINEAR_V1"),
        Model("convnext_large", "IMAGENET1K_V1"),
    )


def quick_scale(rounds: int) -> Scale:
    """Sizes that show in a minute whether every tool still works; the times mean nothing."""
    return Scale(
        rounds=rounds,
        big_bytes=64 * MIB,
        huge_bytes=256 * MIB,
        middle_bytes=40 * MIB,
        small_files=20,
        herd_bytes=10 * MIB,
        herd_processes=4,
        herd_rounds=1,
        clients=10,
        hits=5,
        starts_per_round=1,
        models=(Model("resnet18", "IMAGENET1K_V1"),),
    )


@dataclass(slots=True)
class Lab:
    """Everything a scenario needs. ``say`` reports progress."""

    origin: Origin
    workdir: Path
    environ: Mapping[str, str]
    scale: Scale
    say: Callable[[str], None]
    _files: dict[tuple[str, int], ServedFile] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def file(self, size_bytes: int, *, stem: str = "weights", sparse: bool = False) -> ServedFile:
        """The origin's file of that name and size, made when first asked for."""
        key = (stem, size_bytes)
        if key not in self._files:
            self._files[key] = self.origin.add(stem, size_bytes, sparse=sparse)
        return self._files[key]

    def small_files(self) -> list[ServedFile]:
        count = self.scale.small_files
        return [self.file(self.scale.small_bytes, stem=f"small-{number:03}") for number in range(count)]

    def job(
        self,
        files: Iterable[ServedFile],
        into: Path,
        *,
        capped: bool = False,
        tls: bool = False,
        hub: bool = False,
        repeats: int = 0,
    ) -> Job:
        def url(file: ServedFile) -> str:
            return self.origin.hub_url(file) if hub else self.origin.url(file, capped=capped, tls=tls)

        targets = tuple(Target(url(file), file.name, file.sha256, file.size_bytes) for file in files)
        return Job(targets, into, self.origin.files, repeats, self.origin.ca_file if tls else None)

    def env(self, job: Job) -> dict[str, str]:
        """The environment of a process: no proxies, caches in its own directory, the origin's CA over TLS."""
        inherited = {name: value for name, value in self.environ.items() if not _steers_a_tool(name)}
        authority = {"SSL_CERT_FILE": str(job.ca_file), "REQUESTS_CA_BUNDLE": str(job.ca_file)}
        return {
            **inherited,
            "HF_HOME": str(job.into / "hf"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TORCH_HOME": str(job.into / "torch"),
            "WEIGHTSTORE_CONFIG": os.devnull,
            "WEIGHTSTORE_HOME": str(job.into / "store"),
            "WEIGHTSTORE_STATE": str(job.into / "state"),
            **(authority if job.ca_file else {}),
        }

    def new_directory(self) -> Path:
        return self.workdir / f"out-{next(self._numbers)}"

    def fetch(
        self, tool: Tool, files: Iterable[ServedFile], *, capped: bool = False, tls: bool = False
    ) -> Callable[[], Sample]:
        """One cold download into a directory of its own, to be called once a round."""
        wanted = list(files)

        def run() -> Sample:
            with emptied(self.new_directory()) as into:
                job = self.job(wanted, into, capped=capped, tls=tls)
                return run_tool(tool, job, self.env(job))

        return run

    def measure(
        self,
        tools: Iterable[Tool],
        contender: Callable[[Tool], Callable[[], Sample]],
        *,
        rounds: int | None = None,
        warmups: int = 1,
    ) -> dict[Tool, Series]:
        """Interleaves the tools that are installed; the series of the others says what is missing."""
        wanted = list(tools)
        missing = {tool: need for tool in wanted if (need := tool.missing())}
        contenders = {tool.key: contender(tool) for tool in wanted if tool not in missing}
        counted = self.scale.rounds if rounds is None else rounds
        series = interleave(contenders, rounds=counted, warmups=warmups, say=self.say)
        return {
            tool: Series(failure=f"not installed ({missing[tool]})") if tool in missing else series[tool.key]
            for tool in wanted
        }


def seconds_row(tool: Tool, series: Series) -> Row:
    """A row of times with the peak of memory as its extra cell (workers only)."""
    peaks = [sample.peak_rss_bytes for sample in series.samples if sample.peak_rss_bytes is not None]
    peak = f"{max(peaks) / MIB:.0f} MiB" if peaks else ""
    values = tuple(sample.seconds for sample in series.samples)
    return Row(tool.key, tool.label, values, missing=_reason(series), extra=(peak,))


def row_of(tool: Tool, series: Series, value: Callable[[Sample], float | None]) -> Row:
    values = tuple(number for sample in series.samples if (number := value(sample)) is not None)
    return Row(tool.key, tool.label, values, missing=_reason(series))


def _reason(series: Series) -> str | None:
    if series.failure is None or series.failure.startswith("not installed"):
        return series.failure
    return f"failed: {series.failure}"


def _steers_a_tool(name: str) -> bool:
    # A user's Python keeps compiled modules.
    if name == "PYTHONDONTWRITEBYTECODE":
        return True
    prefixes = ("WEIGHTSTORE_", "HF_", "TORCH_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_")
    return name.startswith(prefixes) or name.lower().endswith("_proxy")
