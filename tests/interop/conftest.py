"""A server with checkpoints, caches of other libraries, and programs that have never heard of weightstore."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import weightstore
from tests.servers.hostile import HostileServer

NO_SOCKETS = """
import socket as _socket
class _Opened(BaseException):
    pass
def _refuse(*args, **kwargs):
    raise _Opened(f"a socket was asked for: {args}")
class _NoSocket(_socket.socket):
    def __init__(self, *args, **kwargs):
        _refuse(*args)
_socket.socket = _NoSocket
for _name in ("create_connection", "getaddrinfo", "gethostbyname", "socketpair", "create_server"):
    setattr(_socket, _name, _refuse)
"""
"""Run first, it makes every socket fail, in a way that no library catches."""


def saved(value: Any, *, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on the server, whose name carries the beginning of its digest."""

    url: str
    data: bytes
    state: dict[str, torch.Tensor]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything of one test lies."""

    store: Path
    state: Path
    torch_home: Path
    server: HostileServer

    @property
    def checkpoints(self) -> Path:
        return self.torch_home / "hub" / "checkpoints"

    def serve(self, state: dict[str, Any], *, pinned: bool = True, name: str = "net", **options: Any) -> Checkpoint:
        data = saved(state, **options)
        ending = f"-{hashlib.sha256(data).hexdigest()[:8]}.pth" if pinned else ".pth"
        return Checkpoint(self.server.serve(f"/{name}{ending}", data), data, state)

    def bodies(self, checkpoint: Checkpoint) -> int:
        """How often the server sent a checkpoint."""
        return sum(1 for request in self.server.requests if request.path.endswith(checkpoint.name))

    def python(self, text: str, *arguments: str, before: tuple[str, ...] = (), **options: Any) -> Any:
        """Run a program, perhaps behind another one, and return what became of it."""
        return subprocess.run(
            [*before, sys.executable, "-c", text, *arguments],
            capture_output=True,
            text=True,
            check=False,
            **options,
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with HostileServer() as server:
        found = Place(tmp_path / "store", tmp_path / "state", tmp_path / "torch", server)
        monkeypatch.setenv("WEIGHTSTORE_HOME", str(found.store))
        monkeypatch.setenv("WEIGHTSTORE_STATE", str(found.state))
        monkeypatch.setenv("WEIGHTSTORE_CONFIG", os.devnull)
        monkeypatch.setenv("WEIGHTSTORE_READ_TIMEOUT_S", "5")
        monkeypatch.setenv("TORCH_HOME", str(found.torch_home))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        yield found
        weightstore.disable()


@pytest.fixture
def net(place: Place) -> Checkpoint:
    return place.serve({"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)})


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``weightstore run`` with a program's text."""

    def start(text: str, *arguments: str, options: tuple[str, ...] = (), **more: Any) -> Any:
        program = tmp_path / "train.py"
        program.write_text(text)
        command = [sys.executable, "-m", "weightstore", "run", *options, "--", sys.executable, str(program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, **more)

    return start
