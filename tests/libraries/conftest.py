"""Tests with libraries that are installed for them alone, and which programs with weights are laid out for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libraries.shelf import Shelf


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs ``make libraries``, unless it is asked for by its marker."""
    if "libraries" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("libraries")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """A store with nothing in it. What is put into it is some GB, and goes when the test ends."""
    yield Shelf(tmp_path)
    for entry in tmp_path.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
