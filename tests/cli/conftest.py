"""A command line with a store, a catalog and an origin of its own."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.servers.hostile import HostileServer
from weightstore.cli import cli


@dataclass(frozen=True)
class Site:
    """One user's set-up: where things lie, what is served, and what the catalog calls it."""

    home: Path
    state: Path
    catalog: Path
    server: HostileServer
    contents: dict[str, bytes]

    def data(self, member: str) -> bytes:
        return self.contents[member]

    def digest(self, member: str) -> str:
        return hashlib.sha256(self.contents[member]).hexdigest()

    def blob(self, member: str) -> Path:
        return self.home / "blobs" / "sha256" / self.digest(member)

    def url(self, member: str) -> str:
        return self.server.url(f"/{member.lower()}-{self.digest(member)[:8]}.pth")

    @property
    def bodies_sent(self) -> int:
        return sum(request.body_bytes_sent > 0 for request in self.server.requests)


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Three small weights, ``Small_Weights.A`` and ``.B`` and ``Other_Weights.C``, and an empty place for a store."""
    contents = {name: random.Random(name).randbytes(50_000 + 1000 * index) for index, name in enumerate("ABC")}
    site = Site(tmp_path / "store", tmp_path / "state", tmp_path / "catalog.json", server, contents)
    for member, data in contents.items():
        server.serve(site.url(member).removeprefix(server.url("")), data)

    def entry(member: str, accuracy: float) -> dict[str, Any]:
        return {
            "source": site.url(member),
            "pin": site.digest(member)[:8],
            "size": len(site.data(member)),
            "size_exact": True,
            "metrics": {"Toys": {"acc@1": accuracy}},
            "num_params": 12_345_678,
            "gops": 1.5,
            "categories": "toys",
            "transforms": {"class": "toys.transforms.Shrink", "kwargs": {"size": 32}},
        }

    document = {
        "schema": 1,
        "namespace": "toys",
        "categories": {"toys": ["bear", "car", "doll"]},
        "enums": {
            "Small_Weights": {
                "builder": "small",
                "task": "toy-classification",
                "default": "B",
                "entries": {"A": entry("A", 70.5), "B": entry("B", 75.25)},
            },
            "Other_Weights": {
                "builder": "other",
                "task": "toy-detection",
                "default": "C",
                "entries": {"C": entry("C", 60.0)},
            },
        },
    }
    site.catalog.write_text(json.dumps(document))
    settings = {"HOME": site.home, "STATE": site.state, "CATALOGS": site.catalog, "CONFIG": "/nonexistent"}
    for name, value in settings.items():
        monkeypatch.setenv(f"WEIGHTSTORE_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    return site


Run = Callable[..., Result]


@pytest.fixture
def run(site: Site) -> Run:
    """Run a command line in this process; the exit code must be ``code``."""

    def invoke(*arguments: str | Path, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, [str(one) for one in arguments], prog_name="weightstore")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result

    return invoke


@pytest.fixture
def spawn(site: Site) -> Callable[..., subprocess.Popen[str]]:
    """Start a command line in a process of its own."""

    def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": dict(os.environ)}
        command = [sys.executable, "-m", "weightstore", *(str(one) for one in arguments)]
        return subprocess.Popen(command, **{**defaults, **options})

    return start
