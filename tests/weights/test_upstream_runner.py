"""The script that runs TorchVision's tests: it finds every difference, and only those."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torchvision", reason="runs TorchVision's classes and ours")

RUNNER = Path(__file__).parents[2] / "scripts" / "run_upstream_tests.py"
SAME = """
import pytest
from torchvision import models

def test_passes():
    assert models._api.get_weight("ResNet18_Weights.DEFAULT").name == "IMAGENET1K_V1"

def test_fails():
    assert not models.list_models()

@pytest.mark.skip
def test_is_skipped():
    pass
"""
OTHER = """
def test_is_torchvisions_own():
    assert models.WeightsEnum.__module__ == "torchvision.models._api"
"""


def run(tests: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUNNER), "--tests", str(tests), "test_models.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_equal_outcomes_are_no_difference(tmp_path: Path) -> None:
    (tmp_path / "test_models.py").write_text(SAME)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with ours: 1 failed, 1 passed, 1 skipped" in done.stdout
    assert "0 of 3 tests differ" in done.stdout


def test_each_difference_is_told(tmp_path: Path) -> None:
    (tmp_path / "test_models.py").write_text(SAME + OTHER)
    done = run(tmp_path, "--", "-k", "own or passes")
    assert done.returncode == 1, done.stdout + done.stderr
    told = "test_is_torchvisions_own: passed as it is, failed with ours"
    assert told in done.stdout
    assert "1 of 2 tests differ" in done.stdout


def test_no_tests_are_no_success(tmp_path: Path) -> None:
    (tmp_path / "test_models.py").write_text("")
    assert run(tmp_path).returncode == 2
