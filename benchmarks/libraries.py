"""How each Python library is called. Runs in a worker; what a library needs is imported before the clock starts.

The peers are optional, so they are imported by name: one that is absent is a row that says "not installed".
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.job import Job, Target
    from weightstore.client import Client

HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Operation:
    """A prepared call: ``run`` is timed, ``paths`` says afterwards where the files are."""

    run: Callable[[], object]
    paths: Callable[[], list[Path]]


def ours(job: Job) -> Operation:
    """A prefetch into an empty store: hashed, synced, published."""
    return _prefetch(job, {"WEIGHTSTORE_MIRRORS": job.mirror} if job.mirror else {})


def ours_one_connection(job: Job) -> Operation:
    return _prefetch(job, {"WEIGHTSTORE_CONNECTIONS_PER_FILE": "1"})


def ours_hit(job: Job) -> Operation:
    """``path`` of a blob that is there; the first call of the process makes the client as well."""
    new_client = _client_factory(job, {})
    pinned = [_pinned(target) for target in job.targets]
    clients: list[Client] = []

    def run() -> list[Path]:
        if not clients:
            clients.append(new_client())
        return [clients[0].path(source) for source in pinned]

    return Operation(run, run)


def torch_hub(job: Job) -> Operation:
    hub = importlib.import_module("torch.hub")

    def run() -> None:
        for target in job.targets:
            hub.download_url_to_file(target.url, str(job.into / target.name), target.sha256, progress=False)

    return Operation(run, lambda: _by_name(job))


def hub_load(job: Job) -> Operation:
    """``load_state_dict_from_url`` of a cached checkpoint, with the loading."""
    hub = importlib.import_module("torch.hub")
    (target,) = job.targets
    path = Path(hub.get_dir()) / "checkpoints" / target.name
    path.read_bytes()  # into the page cache
    return Operation(lambda: hub.load_state_dict_from_url(target.url, progress=False), lambda: [path])


def hub_load_hooked(job: Job) -> Operation:
    """The same with the hook on, which was turned on before the clock starts."""
    importlib.import_module("weightstore").enable()
    return hub_load(job)


def torch_hub_cached(job: Job) -> Operation:
    """``load_state_dict_from_url`` as a whole, but for the loading: existence check, download when absent."""
    torch: Any = importlib.import_module("torch")
    hub = importlib.import_module("torch.hub")
    torch.load = lambda *_, **__: {}  # random bytes cannot be loaded, and loading is not what is measured

    def run() -> None:
        for target in job.targets:
            hub.load_state_dict_from_url(target.url, str(job.into), check_hash=True, progress=False)

    return Operation(run, lambda: _by_name(job))


def pooch(job: Job) -> Operation:
    library = importlib.import_module("pooch")
    _import_early("requests", "netrc")
    library.get_logger().setLevel(logging.ERROR)

    def run() -> None:
        for target in job.targets:
            library.retrieve(target.url, f"sha256:{target.sha256}", fname=target.name, path=job.into)

    return Operation(run, lambda: _by_name(job))


def http_get(job: Job) -> Operation:
    """huggingface_hub's transfer by itself: no cache, size compared and nothing else."""
    file_download = _file_download()

    def run() -> None:
        for target in job.targets:
            with (job.into / target.name).open("wb") as file:
                file_download.http_get(target.url, file, expected_size=target.size_bytes)

    return Operation(run, lambda: _by_name(job))


def hf_hub_download(job: Job) -> Operation:
    """huggingface_hub with its cache and its lock, against URLs that look like the hub's."""
    file_download = _file_download()
    paths: list[Path] = []

    def run() -> None:
        paths.clear()
        for target in job.targets:
            parts = urlsplit(target.url)
            repository = parts.path.removeprefix("/").partition("/resolve/")[0]
            path = file_download.hf_hub_download(
                repository, target.name, cache_dir=job.into, endpoint=f"{parts.scheme}://{parts.netloc}"
            )
            paths.append(Path(path))

    return Operation(run, lambda: paths)


def sha256_alone(job: Job) -> Operation:
    """The floor under every verified download: the origin's own file, hashed from the page cache."""

    def run() -> None:
        buffer = memoryview(bytearray(HASH_CHUNK_BYTES))
        for target in job.targets:
            digest = hashlib.sha256()
            with (job.local / target.name).open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    digest.update(buffer[:count])
            if digest.hexdigest() != target.sha256:
                msg = f"{target.name} has changed on the origin"
                raise RuntimeError(msg)

    return Operation(run, lambda: [job.local / target.name for target in job.targets])


LIBRARIES: dict[str, Callable[[Job], Operation]] = {
    "ours": ours,
    "ours-1": ours_one_connection,
    "ours-hit": ours_hit,
    "torch.hub": torch_hub,
    "torch.hub-cached": torch_hub_cached,
    "hub-load": hub_load,
    "hub-load-hooked": hub_load_hooked,
    "pooch": pooch,
    "http_get": http_get,
    "hf_hub_download": hf_hub_download,
    "sha256": sha256_alone,
}


def _prefetch(job: Job, settings: dict[str, str]) -> Operation:
    new_client = _client_factory(job, settings)
    pinned = [_pinned(target) for target in job.targets]
    clients: list[Client] = []

    def run() -> None:
        clients.append(new_client())
        clients[-1].prefetch(pinned)

    return Operation(run, lambda: [clients[-1].path(source) for source in pinned])


def _client_factory(job: Job, settings: dict[str, str]) -> Callable[[], Client]:
    from weightstore.client import Client  # here, so that the peers' workers do not import it
    from weightstore.config import Config

    for package in ("weightstore.store", "weightstore.transfer"):
        module = importlib.import_module(package)
        for found in pkgutil.walk_packages(module.__path__, f"{package}."):
            importlib.import_module(found.name)
    _import_early("weightstore.batch", "filelock", "platformdirs", "requests", "netrc")
    environ = {
        "WEIGHTSTORE_CONFIG": os.devnull,  # not what whoever runs this has configured
        "WEIGHTSTORE_HOME": str(job.into / "store"),
        "WEIGHTSTORE_STATE": str(job.into / "state"),
        "WEIGHTSTORE_MAX_CONNECTIONS": "16",
        **settings,
    }
    return lambda: Client(Config.from_environ(environ))


def _import_early(*names: str) -> None:
    """Imports what a library would import in its first download, inside the clock; skips what is not there."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)


def _pinned(target: Target) -> str:
    return f"{target.url}#sha256={target.sha256}"


def _file_download() -> Any:
    """huggingface_hub's module with its HTTP stack: httpx2 since 2.0, httpx before."""
    _import_early("httpx", "httpcore", "httpx2", "httpcore2", "truststore", "h11", "anyio.streams.tls")
    return importlib.import_module("huggingface_hub.file_download")


def _by_name(job: Job) -> list[Path]:
    return [job.into / target.name for target in job.targets]
