"""Sixteen processes at once, cold, one file."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.hostile import HostileServer
from tests.servers.nginx import Nginx, find_nginx

PROCESSES = 16
CODE = """
import json, os, sys, time
plan = json.loads(sys.argv[1])
if plan["lie"]:
    import fcntl
    fcntl.flock = lambda *_: None
    fcntl.fcntl = lambda *_: 0
from pathlib import Path
import filelock, weightstore.transfer.http
from weightstore.client import Client
from weightstore.config import Config
client = Client(
    # One connection a file: on an overloaded machine the download may otherwise be split into ranges.
    Config(home=Path(plan["home"]), state=Path(plan["state"]), locks=plan["locks"], connections_per_file=1)
)
ready = Path(plan["gate"]) / str(os.getpid())
ready.touch()
while not (Path(plan["gate"]) / "go").exists():
    time.sleep(0.005)
print(client.path(plan["url"]))
"""


def run_herd(tmp_path: Path, url: str, *, locks: bool = True, lie: bool = False) -> list[Path]:
    gate = tmp_path / "gate"
    gate.mkdir()
    plan = {
        "home": str(tmp_path / "store"),
        "state": str(tmp_path / "state"),
        "url": url,
        "gate": str(gate),
        "locks": locks,
        "lie": lie,
    }
    herd = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, json.dumps(plan)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    while len(os.listdir(gate)) < PROCESSES:
        assert all(process.poll() is None for process in herd), [process.communicate() for process in herd]
    (gate / "go").touch()
    outcomes = [process.communicate(timeout=100) for process in herd]
    assert [process.returncode for process in herd] == [0] * PROCESSES, [error for _, error in outcomes]
    return [Path(out.strip()) for out, _ in outcomes]


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(100_000_000)


@pytest.mark.slow
@pytest.mark.needs("nginx")
@pytest.mark.parametrize("named", ["full digest", "prefix", "no pin"])
def test_sixteen_processes_make_one_get(tmp_path: Path, data: bytes, named: str) -> None:
    assert find_nginx()
    digest = hashlib.sha256(data).hexdigest()
    root = tmp_path / "root"
    root.mkdir()
    name = {"full digest": "model.pth", "prefix": f"model-{digest[:8]}.pth", "no pin": "model.pth"}[named]
    (root / name).write_bytes(data)
    with Nginx(root) as nginx:
        url = nginx.url(f"/{name}") + (f"#sha256={digest}" if named == "full digest" else "")
        paths = run_herd(tmp_path, url)
        rows = nginx.log(at_least=1)
    assert len([row for row in rows if row.method == "GET"]) == 1
    assert sum(row.body_bytes_sent for row in rows) == len(data)
    assert set(paths) == {tmp_path / "store" / "blobs" / "sha256" / digest}
    assert paths[0].read_bytes() == data


@pytest.mark.slow
@pytest.mark.parametrize(("locks", "lie"), [(False, False), (True, True)], ids=["locks off", "flock that lies"])
def test_without_working_locks_nobody_fails_and_no_byte_is_wrong(tmp_path: Path, locks: bool, lie: bool) -> None:
    data = os.urandom(20_000_000)
    digest = hashlib.sha256(data).hexdigest()
    with HostileServer() as server:
        url = server.serve("/model.pth", data) + f"#sha256={digest}"
        paths = run_herd(tmp_path, url, locks=locks, lie=lie)
        print("GETs:", len(server.requests))
    assert {path.name for path in paths} == {digest}
    assert paths[0].read_bytes() == data
    assert list((tmp_path / "store" / "tmp").iterdir()) == []
