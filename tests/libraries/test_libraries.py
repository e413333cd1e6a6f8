"""Libraries that have never heard of weightstore get their weights from the store: offline, and unmodified.

Each program runs twice, in processes in which every socket fails: once with views in the place of its libraries'
caches, and once under ``weightstore run``, with empty caches.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest
import torchvision

from tests.libraries.conftest import Fill
from tests.libraries.programs import CORE, OTHERS, Program, torchvision_model
from tests.libraries.shelf import Shelf, Way, by_hook, by_view, loaded_by

WAYS: Mapping[str, Callable[[Shelf], Way]] = {"view": by_view, "hook": by_hook}
MODELS = [torchvision_model(name) for name in torchvision.models.list_models()]


def check(program: Program, fill: Fill) -> None:
    """Check that a program has loaded exactly what the store holds for it, by every way."""
    shelf = fill(program)
    expected = {
        name: digest
        for made in shelf.made
        for name, digest in made.tensors.items()
        if not name.startswith(program.unused or ("\0",))
    }
    assert expected
    for way, start in WAYS.items():
        if program.only_by in {"", way}:
            loaded = loaded_by(program, start(shelf), shelf.directory)
            if program.renames:
                assert sorted(loaded.values()) == sorted(expected.values()), way
            else:
                assert loaded == expected, way


@pytest.mark.parametrize("program", CORE, ids=lambda program: program.name)
def test_weights_come_from_the_store(program: Program, fill: Fill) -> None:
    check(program, fill)


@pytest.mark.libraries
@pytest.mark.parametrize("program", OTHERS, ids=lambda program: program.name)
def test_weights_of_other_libraries_come_from_the_store(program: Program, fill: Fill) -> None:
    check(program, fill)


@pytest.mark.libraries
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("program", MODELS, ids=lambda program: program.name)
def test_every_model_of_torchvision_gets_its_weights_from_the_store(program: Program, fill: Fill) -> None:
    check(program, fill)
