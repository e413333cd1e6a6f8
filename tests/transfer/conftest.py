"""Downloads against servers that misbehave: a transport with short time-outs, a meter that remembers, a client."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.hostile import HostileServer
from tests.servers.tls import Certificates, make_certificates
from weightstore.client import Client
from weightstore.config import Config
from weightstore.digest import Pin
from weightstore.source import Source
from weightstore.store.layout import Layout
from weightstore.transfer.connections import Connections
from weightstore.transfer.download import Limits, download
from weightstore.transfer.http import HttpTransport
from weightstore.transfer.retry import RetryPolicy
from weightstore.transfer.transport import Transport


@dataclass
class Remembering:
    """A meter that remembers what it was told."""

    starts: list[tuple[int, int | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    received: int = 0
    on_advance: Callable[[int], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, source: str, *, offset: int, total: int | None) -> None:
        self.starts.append((offset, total))

    def advance(self, size: int) -> None:
        with self._lock:
            self.received += size
        if self.on_advance is not None:
            self.on_advance(self.received)

    def note(self, message: str) -> None:
        self.notes.append(message)


class Fetch:
    """Calls `download` and returns the content of the part, which is discarded."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.transport: Transport = HttpTransport(
            connect_timeout_s=5, read_timeout_s=5, pool_size=16, user_agent="test", trust_env=False
        )
        self.connections = Connections(16)
        self.meter = Remembering()

    def __call__(
        self,
        source: str,
        pin: Pin | None = None,
        *,
        retries: int = 3,
        limits: Limits | None = None,
        stop: threading.Event | None = None,
        key: str | None = None,
    ) -> bytes:
        asked = Source.parse(source)
        done = download(
            asked,
            pin or Pin(),
            layout=self.layout,
            key=key or f"source-{asked.key}",
            transport=self.transport,
            limits=limits or Limits(),
            connections=self.connections,
            retry=RetryPolicy(attempts=retries, base_s=0.001),
            stop=stop or threading.Event(),
            meter=self.meter,
        )
        content = done.part.path.read_bytes()
        done.part.discard()
        assert done.size == len(content)
        assert done.digest.hex == hashlib.sha256(content).hexdigest()
        return content

    def parts(self) -> list[Path]:
        """What lies in tmp/."""
        return sorted(self.layout.tmp.iterdir())


@pytest.fixture
def fetch(layout: Layout) -> Iterator[Fetch]:
    fetch = Fetch(layout)
    yield fetch
    assert isinstance(fetch.transport, HttpTransport)
    fetch.transport.close()


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


@pytest.fixture
def other_host() -> Iterator[HostileServer]:
    """A second server, at another address."""
    with HostileServer(host="127.0.0.2") as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"), more_names=("weights.example",))


@pytest.fixture
def notes() -> list[str]:
    """What the clients of this test had to say."""
    return []


@pytest.fixture
def make_client(config: Config, notes: list[str]) -> Callable[..., Client]:
    """Return clients of one store; the settings given are changed, and nothing is tried twice unless they say so."""

    def make(**changes: object) -> Client:
        return Client(config.but(**{"retries": 0, **changes}), note=notes.append)

    return make


@pytest.fixture(scope="session")
def data() -> bytes:
    """A small file."""
    return random.Random(1).randbytes(700_000)


@pytest.fixture(scope="session")
def big() -> bytes:
    """A file for which further connections are worth while, of an odd size."""
    return random.Random(2).randbytes((12 << 20) + 1)
