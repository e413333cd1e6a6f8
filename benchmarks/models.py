"""From a file that lies there to a model that is ready: ours beside TorchVision's builder and timm's way."""

from __future__ import annotations

import hashlib
import importlib
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import REPOSITORY, MeasurementFailed, Sample, Series, interleave
from benchmarks.table import Bar, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.lab import Lab

MIB = 1 << 20
LABELS = {
    "ours": "weightstore",
    "torchvision": "TorchVision + torch.hub cache",
    "safetensors": "builder + safetensors, as timm",
}
# How much sooner ours has to be ready.
LIMITS = {"resnet50": 5, "vit_b_16": 15, "vit_l_16": 30, "convnext_large": 30, "vit_h_14": 50}
NAMING_MS = 5


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model's checkpoint in each place where one of the ways looks for it."""

    name: str
    size_bytes: int
    task: str
    env: dict[str, str]


def prepare(lab: Lab, name: str) -> Prepared:
    """Makes a checkpoint of random numbers, with the right names and shapes, as TorchVision publishes its own."""
    torch = importlib.import_module("torch")
    models = importlib.import_module("torchvision.models")
    root = lab.workdir / "models"
    member = models.get_model_weights(name).DEFAULT
    file = root / "torch" / "hub" / "checkpoints" / member.url.rpartition("/")[2]
    file.parent.mkdir(parents=True, exist_ok=True)
    converted = root / f"{name}.safetensors"
    env = lab.env_for(root)
    if not file.exists():
        state = models.get_model(name).state_dict()
        torch.save(state, file)
        importlib.import_module("safetensors.torch").save_file(state, converted)
        del state
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    _publish(file, sha256, env)
    crop = dict(getattr(member.transforms, "keywords", {}))["crop_size"]
    task = {"name": name, "crop": crop, "sha256": sha256, "safetensors": str(converted)}
    return Prepared(name, file.stat().st_size, json.dumps(task), env)


def _publish(file: Path, sha256: str, env: dict[str, str]) -> None:
    from weightstore.client import Client
    from weightstore.config import Config

    config = Config(home=Path(env["WEIGHTSTORE_HOME"]), state=Path(env["WEIGHTSTORE_STATE"]))
    Client(config).path(f"file://{file}", sha256=sha256)


def _contender(prepared: Prepared, way: str) -> Callable[[], Sample]:
    def run() -> Sample:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.model_worker", way],
            input=f"{prepared.task}\n",
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env=prepared.env,
        )
        if done.returncode:
            raise MeasurementFailed((done.stderr.strip().splitlines() or ["exit status"])[-1])
        return Sample(**json.loads(done.stdout.splitlines()[-1]))

    return run


def load(lab: Lab, name: str) -> Table:
    """Ready and first call of one model."""
    prepared = prepare(lab, name)
    series = interleave({way: _contender(prepared, way) for way in LABELS}, rounds=lab.scale.rounds, say=lab.say)
    rows = [_row(way, series[way], prepared.size_bytes) for way in LABELS]
    sums = [
        Row(
            f"{row.key}-sum",
            f"{row.label}, with the first call",
            tuple(sample.seconds + (sample.first_seconds or 0.0) for sample in series[row.key].samples),
            missing=row.missing,
            extra=("", "", ""),
        )
        for row in rows
    ]
    limit = LIMITS.get(name, 1)
    return Table(
        f"load-{name}",
        f"{name}, {prepared.size_bytes / 1e6:.0f} MB: from the cached file to a model in eval mode",
        "s",
        (*rows, *sums),
        reference="torchvision",
        bars=(
            Bar("ours", 1 / limit, "torchvision", faster=True),
            Bar("ours-sum", 1.0, "torchvision-sum"),
        ),
        columns=("first call, s", "peak memory ÷ checkpoint, ready", "after the first call"),
        note="Random numbers in the right shapes. The page cache is warm, imports come before the clock, and our blob "
        "has its receipt: it is asked for by URL and digest, as the real file's name would not fit. Peak memory is "
        "beyond what the process had after its imports; a first call needs some for itself.",
    )


def _row(way: str, series: Series, size_bytes: int) -> Row:
    samples = series.samples
    if not samples:
        return Row(way, LABELS[way], missing=f"failed: {series.failure}", extra=("", "", ""))
    first = statistics.median(sample.first_seconds or 0.0 for sample in samples)
    ready, called = (
        max((getattr(sample, key) or 0) for sample in samples) / size_bytes
        for key in ("peak_rss_bytes", "peak_first_bytes")
    )
    extra = (f"{first:.3f}", f"{ready:.2f}", f"{called:.2f}")
    return Row(way, LABELS[way], tuple(sample.seconds for sample in samples), extra=extra)


def naming(lab: Lab) -> Table:
    """Importing the package beside bare Python."""
    env = _with_bytecode(lab)
    code = {"import": "import weightstore", "bare": "pass"}
    contenders: dict[str, Callable[[], Sample]] = {key: _program(text, env) for key, text in code.items()}
    rounds = lab.scale.rounds * lab.scale.starts_per_round
    series = interleave(contenders, rounds=rounds, say=lambda _: None)
    rows = tuple(
        Row(key, f"python -c '{code[key]}'", tuple(1e3 * sample.seconds for sample in series[key].samples))
        for key in contenders
    )
    return Table(
        "naming",
        "Importing weightstore",
        "ms",
        rows,
        reference="bare",
        bars=(Bar("import", 3, "bare"),),
        note="Whole processes.",
    )


def get_weight(lab: Lab) -> Table:
    """Naming weights in a process that has imported the package."""
    env = _with_bytecode(lab)
    code = (
        "import time, weightstore; start = time.perf_counter(); "
        "weights = weightstore.get_weight('ResNet50_Weights.IMAGENET1K_V2'); "
        "weights.url, weights.meta, weights.transforms; "
        "seconds = time.perf_counter() - start; import sys; assert 'torch' not in sys.modules; print(seconds)"
    )

    def run() -> Sample:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
        if done.returncode:
            raise MeasurementFailed(done.stderr.strip().splitlines()[-1])
        return Sample(float(done.stdout))

    rounds = lab.scale.rounds * lab.scale.starts_per_round
    series = interleave({"get_weight": run}, rounds=rounds, say=lambda _: None)["get_weight"]
    values = tuple(1e3 * sample.seconds for sample in series.samples)
    return Table(
        "get_weight",
        "weightstore.get_weight(name), the first in a process, without torch",
        "ms",
        (Row("get_weight", "weightstore", values, missing=series.failure),),
        bars=(Bar("get_weight", NAMING_MS),),
    )


def _with_bytecode(lab: Lab) -> dict[str, str]:
    """An environment in which Python keeps compiled modules, as it does for everybody who does not forbid it."""
    return {name: value for name, value in lab.env_for(lab.workdir).items() if name != "PYTHONDONTWRITEBYTECODE"}


def _program(code: str, env: dict[str, str]) -> Callable[[], Sample]:
    from benchmarks.measure import run_program

    return lambda: run_program([sys.executable, "-c", code], env)
