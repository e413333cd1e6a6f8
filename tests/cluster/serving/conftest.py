"""A store with some weights in it, and the server on a port of its own."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from weightstore.client import Client
from weightstore.cluster.serving.server import Serving, make_app, serve
from weightstore.config import Config
from weightstore.digest import Digest
from weightstore.records import Ref
from weightstore.source import Source
from weightstore.store.layout import Layout, create_layout
from weightstore.store.refs import write_ref


@dataclass
class Served:
    """A server that runs: where it is, and what it logged and noted."""

    url: str
    log: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def put(layout: Layout, data: bytes) -> Digest:
    """Put bytes into a store, as a finished download lies there."""
    digest = Digest(hashlib.sha256(data).hexdigest())
    path = layout.blob(digest)
    path.write_bytes(data)
    path.chmod(0o444)
    return digest


def record(layout: Layout, source: str, data: bytes, **more: Any) -> Ref:
    """Put bytes into a store, and that a source has them."""
    digest = put(layout, data)
    ref = Ref(Source(source), digest, len(data), datetime(2026, 1, 1, tzinfo=UTC), **more)
    write_ref(layout, ref)
    return ref


@contextmanager
def running(config: Config, **settings: Any) -> Iterator[Served]:
    """Run a server in a thread, until the end of the block."""
    serving = Serving(port=0, **settings)
    served = Served("")
    started: Future[str] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        try:
            app = make_app(Client(config, note=served.notes.append), serving, log=served.log.append)
            loop.run_until_complete(serve(app, serving, started=started.set_result, stop=stop))
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
                return
            raise
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        served.url = started.result(timeout=20)
        yield served
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.fixture
def shared(tmp_path: Path) -> Layout:
    """The store that is served."""
    return create_layout(tmp_path / "shared")


@pytest.fixture
def shared_config(tmp_path: Path, shared: Layout) -> Config:
    return Config(home=shared.root, state=tmp_path / "server-state")


@pytest.fixture
def start(shared_config: Config) -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(settings.pop("config", shared_config), **settings))
