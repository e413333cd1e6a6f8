"""A store filled with the checkpoints of one program, its lockfile, and the ways by which a program comes to it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.libraries.inside import MARK
from tests.libraries.making import Made, read_listing
from tests.libraries.programs import Program, View
from weightstore.catalog.lockfile import Locked, Lockfile
from weightstore.digest import Digest
from weightstore.records import Ref
from weightstore.source import Source
from weightstore.store.layout import Layout, create_layout
from weightstore.store.parts import Part
from weightstore.store.publish import publish
from weightstore.store.receipts import Receipts
from weightstore.store.refs import write_ref

ROOT = Path(__file__).parents[2]
_CHUNK = 8 << 20
# By which variables a library finds a view; an empty value is the view's directory.
VIEWS: Mapping[View, Mapping[str, str]] = {
    "torch-hub": {"TORCH_HOME": ""},
    "huggingface": {"HF_HUB_CACHE": "", "HF_HUB_OFFLINE": "1"},
    "fvcore": {"FVCORE_CACHE": ""},
}


@dataclass(slots=True)
class Shelf:
    """A store, and a lockfile where one is needed.

    The names of many real checkpoints carry the first digits of their digests, which no random content has. What a
    lockfile says in full counts over digits in a name, so for these it is a lockfile that leads from the real source.
    """

    directory: Path
    made: list[Made] = field(default_factory=list)
    entries: list[Locked] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return create_layout(self.directory / "store")

    def options(self) -> list[str]:
        """Return what commands have to be told: the lockfile, or nothing where the store's records say enough."""
        if all(entry.source.pin.matches(entry.digest) for entry in self.entries):
            return []
        path = self.directory / "weights.lock"
        Lockfile(tuple(self.entries)).write(path)
        return ["--locked", str(path)]

    def fill(self, program: Program) -> None:
        """Make a program's checkpoints, and publish them."""
        workbench = self.directory / "made"
        workbench.mkdir()
        _run(
            [sys.executable, "-W", "ignore", "-m", "tests.libraries.making", program.name, str(workbench)],
            self.environment(),
        )
        for made in read_listing(workbench):
            self._put(made, workbench / made.file, asked_by=program.name)
        shutil.rmtree(workbench)

    def _put(self, made: Made, file: Path, *, asked_by: str) -> None:
        source = Source(made.source)
        digest, size = self._publish(file)
        etag = "" if source.hub_file is None else _etag(file, digest)
        write_ref(self.layout, Ref(source, digest, size, datetime.now(UTC), commit=made.commit, etag=etag))
        self.made.append(made)
        self.entries.append(Locked(source.display, source, digest, size, asked_by=asked_by, commit=made.commit))

    def _publish(self, file: Path) -> tuple[Digest, int]:
        content = hashlib.sha256()
        part = Part.create(self.layout, f"source-{file.stem:0>64}")
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                content.update(chunk)
                os.write(part.fd, chunk)
        digest = Digest(content.hexdigest())
        size = file.stat().st_size
        publish(part, digest, size=size, receipts=Receipts(self.directory / "state"))
        return digest, size

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that has nothing of this machine's user but the programs."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",  # tests that run beside these share the cores
            "WEIGHTSTORE_HOME": str(self.directory / "store"),
            "WEIGHTSTORE_STATE": str(self.directory / "state"),
        }


def _etag(file: Path, digest: Digest) -> str:
    """Return what the Hub calls a file: Git's object id of a small text, the SHA-256 of weights."""
    if file.stat().st_size > 100_000:
        return digest.hex
    data = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True, slots=True)
class Way:
    """How a program is started: what stands before ``python program.py``, and its environment."""

    prefix: tuple[str, ...]
    environment: Mapping[str, str]


def by_hook(shelf: Shelf, program: Program) -> Way:
    """Return the way through ``weightstore run``, with caches that are empty."""
    return Way(
        (sys.executable, "-m", "weightstore", "run", "--offline", *shelf.options(), "--"),
        _with_empty_caches(shelf),
    )


def by_view(shelf: Shelf, program: Program) -> Way:
    """Return the way of a program that knows nothing: its library's cache is a view, made before it starts."""
    directory = shelf.directory / "view"
    _run(
        [sys.executable, "-m", "weightstore", "view", program.view, str(directory), *shelf.options()],
        shelf.environment(),
    )
    return Way(
        (),
        {**_with_empty_caches(shelf), **{name: value or str(directory) for name, value in VIEWS[program.view].items()}},
    )


def by_nothing(shelf: Shelf) -> Way:
    """Return the way of a program on a machine without weightstore, with caches that are empty."""
    return Way((), _with_empty_caches(shelf))


def _with_empty_caches(shelf: Shelf) -> dict[str, str]:
    caches = shelf.directory / "caches"
    return {
        **shelf.environment(),
        "TORCH_HOME": str(caches / "torch"),
        "HF_HOME": str(caches / "huggingface"),
        "FVCORE_CACHE": str(caches / "fvcore"),
    }


def run_program(program: Program, way: Way, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is."""
    script = directory / "program.py"
    script.write_text(
        "from tests.libraries.inside import close_network, tell\n"
        "close_network()\n"
        f"{program.use}\n"
        f"tell({program.look})\n"
    )
    command = [*way.prefix, sys.executable, "-W", "ignore", str(script)]
    return subprocess.run(command, env=dict(way.environment), capture_output=True, text=True, check=False)


def loaded_by(program: Program, way: Way, directory: Path) -> dict[str, str]:
    """Run a program and return the digests of what it has loaded, by the tensors' names."""
    done = run_program(program, way, directory)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    found: dict[str, str] = json.loads(line.removeprefix(MARK))
    return found


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
