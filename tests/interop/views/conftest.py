"""A store with blobs and refs of URLs that nobody serves, and views of it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from weightstore.client import Client
from weightstore.config import Config
from weightstore.digest import Digest
from weightstore.interop.views.build import Built, build, recover
from weightstore.interop.views.directory import Decision, decide
from weightstore.interop.views.holdings import everything, opener
from weightstore.interop.views.plan import plan_view
from weightstore.records import Ref
from weightstore.source import Source
from weightstore.store.layout import Layout, create_layout
from weightstore.store.parts import Part
from weightstore.store.publish import publish
from weightstore.store.refs import write_ref

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NO_SOCKETS = """
import sys
def refuse(event, arguments):
    if event in {"socket.__new__", "socket.connect", "socket.getaddrinfo"}:
        raise AssertionError("a socket was opened")
sys.addaudithook(refuse)
"""


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


@dataclass
class Shelf:
    """A user's store, and ways to fill it and to make views of it."""

    config: Config
    layout: Layout

    @property
    def client(self) -> Client:
        return Client(self.config.but(offline=True), note=lambda _: None)

    def keep(self, data: bytes) -> Path:
        """Store a blob; return its path."""
        part = Part.create(self.layout, f"sha256-{digest_of(data).hex}")
        os.write(part.fd, data)
        return publish(part, digest_of(data), size=len(data), receipts=self.client.receipts)

    def put(self, url: str, data: bytes, *, commit: str = "", etag: str = "", seen_at: datetime = NOON) -> Path:
        """Store what a URL serves, as a download would; return the blob's path."""
        path = self.keep(data)
        source = Source(url)
        ref = Ref(source, digest_of(data), len(data), seen_at, commit=commit, etag=etag)
        write_ref(self.layout, ref)
        return path

    def decide(self, kind: str, directory: Path, *, link: str = "auto") -> Decision:
        client = self.client
        plan = plan_view(kind, everything(client, note=lambda _: None))
        stores = [layer.root for layer in client.obtainer.layers()]
        return decide(plan, directory, scope="all", link=link, receipts=client.receipts, stores=stores)

    def view(self, kind: str, directory: Path, *, link: str = "auto", beside: bool = True) -> Built:
        client = self.client
        recover(directory)
        decision = self.decide(kind, directory, link=link)
        return build(decision, open_blob=opener(client), receipts=client.receipts, beside=beside)


@pytest.fixture
def shelf(config: Config) -> Shelf:
    return Shelf(config, create_layout(config.home))


Offline = Callable[..., str]


@pytest.fixture
def offline(tmp_path: Path) -> Offline:
    """Run a program that has never heard of weightstore, with an environment, where no socket can be opened."""

    def run(code: str, **environment: str | Path) -> str:
        inherited = {
            name: value for name, value in os.environ.items() if name in {"PATH", "PYTHONPATH", "HOME", "LANG"}
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", NO_SOCKETS + code],
            env=inherited | {name: str(value) for name, value in environment.items()},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def tree(root: Path) -> dict[str, str]:
    """Return every name below a directory, with where it leads, or what it holds."""
    return {
        str(path.relative_to(root)): f"-> {os.readlink(path)}" if path.is_symlink() else path.read_bytes().hex()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
