"""One model made ready in a fresh process: ``python -m benchmarks.model_worker WAY``, with the task on standard input.

Imports come before the clock. Then the model is made and put into eval mode, and then it is called once; each is timed,
and the peak of memory is read after each.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20


def main() -> None:
    way = sys.argv[1]
    task = json.loads(sys.stdin.readline())
    torch = importlib.import_module("torch")
    importlib.import_module("torchvision")
    make = WAYS[way](task)
    size = task["crop"]
    image = torch.rand(1, 3, size, size)
    before = _peak_bytes()
    start = time.perf_counter()
    model = make().eval()
    ready = time.perf_counter()
    peak_ready = _peak_bytes()
    with torch.inference_mode():
        model(image)
    done = time.perf_counter()
    print(
        json.dumps(
            {
                "seconds": ready - start,
                "first_seconds": done - ready,
                "peak_rss_bytes": peak_ready - before,
                "peak_first_bytes": _peak_bytes() - before,
            }
        )
    )


def ours(task: dict[str, Any]) -> Callable[[], Any]:
    """The blob by its digest, as from any mirror: the real checkpoint's name would not fit random numbers."""
    weightstore = importlib.import_module("weightstore")
    for name in ("model", "building", "head", "state_dict", "tensors", "opening", "conversion"):
        importlib.import_module(f"weightstore.loading.{name}")
    importlib.import_module("weightstore.shortcuts").default_client()
    weights = f"https://models.example.org/{task['name']}.pth#sha256={task['sha256']}"
    return lambda: weightstore.get_model(task["name"], weights=weights)


def torchvision(task: dict[str, Any]) -> Callable[[], Any]:
    """The builder with its member, whose file lies in torch.hub's cache."""
    models = importlib.import_module("torchvision.models")
    builder = models.get_model_builder(task["name"])
    member = models.get_model_weights(task["name"]).DEFAULT
    return lambda: builder(weights=member, progress=False)


def safetensors(task: dict[str, Any]) -> Callable[[], Any]:
    """As timm loads: build the model, load the file, copy it in."""
    builder = importlib.import_module("torchvision.models").get_model_builder(task["name"])
    load_file = importlib.import_module("safetensors.torch").load_file

    def make() -> Any:
        model = builder()
        model.load_state_dict(load_file(task["safetensors"]))
        return model

    return make


WAYS = {"ours": ours, "torchvision": torchvision, "safetensors": safetensors}


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    msg = "/proc/self/status has no VmHWM"
    raise RuntimeError(msg)


if __name__ == "__main__":
    main()
