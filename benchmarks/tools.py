"""The tools compared: what each is called, what it needs, and how it is started."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.job import Job


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool and how to call it: ``command`` builds the command line of a program, None means a worker.

    ``needs`` are modules for a worker, programs otherwise. ``worker`` is the module that knows the tool.
    """

    key: str
    label: str
    needs: tuple[str, ...]
    command: Callable[[Job], list[str]] | None = None
    worker: str = "benchmarks.worker"

    def missing(self) -> str | None:
        """The first thing needed that is not installed, or None."""
        find = _has_module if self.command is None else shutil.which
        return next((need for need in self.needs if not find(need)), None)


def curl(job: Job) -> list[str]:
    """One process for any number of files; curl verifies nothing."""
    listing = job.into / "curl.conf"
    lines = [f'url = "{target.url}"\noutput = "{job.into / target.name}"\n' for target in job.targets]
    listing.write_text("".join(lines))
    authority = ["--cacert", str(job.ca_file)] if job.ca_file else []
    return ["curl", "-q", "-sSf", "-Z", "--parallel-max", "16", *authority, "-K", str(listing)]


def aria2c(job: Job, *, connections: int = 1, parallel: int = 1) -> list[str]:
    """Ranges of 1 MiB and up over ``connections``, ``parallel`` files at a time, digests compared.

    No preallocation: of aria2c's ways on ext4 the fastest (64 MiB: none 0.36 s, falloc 0.60, prealloc 0.59).
    """
    listing = job.into / "aria2c.txt"
    lines = [f"{target.url}\n  out={target.name}\n  checksum=sha-256={target.sha256}\n" for target in job.targets]
    listing.write_text("".join(lines))
    authority = [f"--ca-certificate={job.ca_file}"] if job.ca_file else []
    return [
        "aria2c", "--no-conf=true", "--quiet=true", "--file-allocation=none", "--min-split-size=1M",
        f"--max-connection-per-server={connections}", f"--split={connections}",
        f"--max-concurrent-downloads={parallel}", f"--dir={job.into}", *authority, f"--input-file={listing}",
    ]  # fmt: skip


OURS = Tool("ours", "weightstore", ("weightstore.client",))
OURS_ONE = Tool("ours-1", "weightstore, one connection", ("weightstore.client",))
OURS_HIT = Tool("ours-hit", "weightstore", ("weightstore.client",))
TORCH_HUB = Tool("torch.hub", "torch.hub", ("torch",))
TORCH_HUB_CACHED = Tool("torch.hub-cached", "torch.hub", ("torch",))
HUB_LOAD = Tool("hub-load", "torch.hub", ("torch",))
HUB_LOAD_HOOKED = Tool("hub-load-hooked", "torch.hub, the hook on", ("torch",))
POOCH = Tool("pooch", "pooch", ("pooch",))
HTTP_GET = Tool("http_get", "huggingface_hub http_get (unverified)", ("huggingface_hub",))
HF_HUB_DOWNLOAD = Tool("hf_hub_download", "huggingface_hub hf_hub_download", ("huggingface_hub",))
SHA256 = Tool("sha256", "SHA-256 alone, no download", ())
CURL = Tool("curl", "curl (unverified)", ("curl",), curl)
CURL_PARALLEL = Tool("curl", "curl -Z (unverified)", ("curl",), curl)
ARIA2C_8 = Tool("aria2c-8", "aria2c -x8", ("aria2c",), lambda job: aria2c(job, connections=8))
ARIA2C_16 = Tool("aria2c-16", "aria2c -x16", ("aria2c",), lambda job: aria2c(job, connections=16))
ARIA2C_MANY = Tool("aria2c-many", "aria2c -j16", ("aria2c",), lambda job: aria2c(job, parallel=16))

LOAD_OURS = Tool("load-ours", "weightstore", ("torchvision",), worker="benchmarks.loaders")
LOAD_TORCHVISION = Tool("load-torchvision", "TorchVision, torch.hub", ("torchvision",), worker="benchmarks.loaders")
LOAD_SAFETENSORS = Tool(
    "load-safetensors", "TorchVision, safetensors", ("torchvision", "safetensors"), worker="benchmarks.loaders"
)


def script(name: str) -> Path | None:
    """The console script beside this interpreter, which is the one that ``python -c pass`` stands for."""
    path = Path(sys.executable).parent / name
    return path if path.exists() else None


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its package is not there either
        return False
