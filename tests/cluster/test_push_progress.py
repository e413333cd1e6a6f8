"""What a push shows while it runs: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from tests.cli.conftest import Run, Site
from tests.cli.test_interrupt import Terminal
from tests.servers.pipe import Pipe
from tests.servers.registry import DockerRegistry
from weightstore.cluster.mirror.registry import PIECE

pytestmark = pytest.mark.needs("docker-registry")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with DockerRegistry() as registry, Pipe(registry.address) as pipe:
        yield pipe


def test_a_terminal_gets_a_bar_for_each_file_and_one_for_all(
    site: Site, run: Run, spawn: Callable[..., object], pipe: Pipe
) -> None:
    pipe.bytes_per_s = 40_000_000
    for name in ("one", "two"):
        run("prefetch", site.server.serve(f"/{name}.pth", random.Random(name).randbytes(2 * PIECE + 7)))
    terminal = Terminal(spawn, "mirror", "push", f"oci://{pipe.address}/w", "--all")
    for text in (b"one.pth", b"two.pth", b"total 0/2", b"total 1/2"):
        terminal.wait_for(text)
    code, shown = terminal.end()
    assert code == 0
    assert "2 pushed" in shown
    assert "Traceback" not in shown


def test_ctrl_c_stops_a_push_and_the_next_says_from_where_it_goes_on(
    site: Site, run: Run, spawn: Callable[..., object], pipe: Pipe
) -> None:
    pipe.bytes_per_s = 40_000_000
    run("prefetch", site.server.serve("/large.pth", os.urandom(6 * PIECE)))
    terminal = Terminal(spawn, "mirror", "push", f"oci://{pipe.address}/w", "--all")
    pipe.wait_for(3 * PIECE // 2)
    terminal.ctrl_c()
    code, shown = terminal.end()
    assert code == 130
    assert "stopped" in shown
    assert "Traceback" not in shown
    pipe.bytes_per_s = None
    told = run("mirror", "push", f"oci://{pipe.address}/w", "--all").stderr
    assert "resume    " in told
    assert " MB of 100.7 MB are there" in told
    assert "1 pushed" in told
