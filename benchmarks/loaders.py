"""From a checkpoint on disk to a model ready for eval, in a fresh process: ``python -m benchmarks.loaders TOOL``.

The job comes on standard input. The worker imports what the tool needs, reads the checkpoint once so that it lies in
the page cache, prints ``ready`` and waits for a line. Then it builds and loads the model, and runs it once.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import pkgutil
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.job import Job
from benchmarks.resident import peak_bytes, start_peak_again

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The checkpoint's place below a job's directory, for the tool that takes a file.
SAFETENSORS = "model.safetensors"


def weightstore(job: Job, member: Any) -> Callable[[], Any]:
    """``get_model`` from the store. As for the others, all that it will import is imported before the clock."""
    library = importlib.import_module("weightstore")
    for package in ("formats", "loading", "store", "weights"):
        module = importlib.import_module(f"weightstore.{package}")
        for found in pkgutil.walk_packages(module.__path__, f"{module.__name__}."):
            importlib.import_module(found.name)
    for name in ("weightstore.shortcuts", "tomllib"):
        importlib.import_module(name)
    _read(_hub_file(job))  # the store's, by another name: asking the library would leave it warmer than a first call
    return lambda: library.get_model(job.model.builder, weights=member).eval()


def torchvision(job: Job, member: Any) -> Callable[[], Any]:
    """TorchVision's builder with ``torch.hub``'s cache, which ``TORCH_HOME`` names."""
    build = importlib.import_module("torchvision.models").get_model_builder(job.model.builder)
    _read(_hub_file(job))
    return lambda: build(weights=member).eval()


def safetensors(job: Job, member: Any) -> Callable[[], Any]:  # noqa: ARG001 - the file is all it takes
    """TorchVision's model and a file of safetensors, the way ``timm.models.load_checkpoint`` goes."""
    build = importlib.import_module("torchvision.models").get_model_builder(job.model.builder)
    load_file = importlib.import_module("safetensors.torch").load_file
    path = job.into / SAFETENSORS
    _read(path)

    def run() -> Any:
        model = build()
        model.load_state_dict(load_file(path))
        return model.eval()

    return run


LOADERS: dict[str, Callable[[Job, Any], Callable[[], Any]]] = {
    "load-ours": weightstore,
    "load-torchvision": torchvision,
    "load-safetensors": safetensors,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loaders", description=__doc__)
    parser.add_argument("tool", choices=sorted(LOADERS))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    arguments = parser.parse_args()

    job = Job.parse(sys.stdin.readline())
    with contextlib.redirect_stdout(sys.stderr):
        torch: Any = importlib.import_module("torch")
        member = _member(job)
        load = LOADERS[arguments.tool](job, member)
        size = member.transforms.keywords["crop_size"]
        batch = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    print("ready", flush=True)
    sys.stdin.readline()

    before_bytes = start_peak_again()
    with contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        model = load()
        loaded = time.perf_counter()
        peak_ready_bytes = peak_bytes()
        pass_start = time.perf_counter()
        with torch.no_grad():
            output = model(batch)
        end = time.perf_counter()
    measured = {
        "seconds": loaded - start,
        "pass_seconds": end - pass_start,
        "peak_rss_bytes": peak_bytes() - before_bytes,
        "ready_rss_bytes": peak_ready_bytes - before_bytes,
        "output": hashlib.sha256(output.numpy().tobytes()).hexdigest(),
    }
    if arguments.json:
        print(json.dumps(measured))
    else:
        print(f"{arguments.tool}: {measured['seconds']:.3f} s, first pass {measured['pass_seconds']:.3f} s")


def _member(job: Job) -> Any:
    """Return TorchVision's member, its URL changed to that of the job's file, whose name carries the file's own digest.

    All tools get this member. Random weights cannot have the digest of the trained ones.
    """
    if job.model is None:
        sys.exit("the job names no model")
    models = importlib.import_module("torchvision.models")
    member = models.get_model_weights(job.model.builder)[job.model.member]
    member.value.url = _target_url(job)
    return member


def _target_url(job: Job) -> str:
    return job.targets[0].url


def _hub_file(job: Job) -> Path:
    return job.into / "torch" / "hub" / "checkpoints" / job.targets[0].name


def _read(path: Path) -> None:
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


if __name__ == "__main__":
    main()
