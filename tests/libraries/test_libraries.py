"""Libraries that have never heard of weightstore get their weights from the store: offline, and unmodified.

Each program runs twice, in processes in which nothing can be reached: once with views in the place of its libraries'
caches, and once under ``weightstore run``, with empty caches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torchvision

from tests.libraries.programs import CORE, OTHERS, Program, torchvision_model
from tests.libraries.shelf import ROOT, Shelf, Way, by_hook, by_nothing, by_view, loaded_by, run_program

pytestmark = pytest.mark.timeout(300)  # each starts Python with torch three times

WAYS: Mapping[str, Callable[[Shelf, Program], Way]] = {"view": by_view, "hook": by_hook}
MODELS = [torchvision_model(name) for name in torchvision.models.list_models()]


def check(program: Program, shelf: Shelf) -> None:
    """Check that a program loads exactly what the store holds for it, by every way."""
    shelf.fill(program)
    expected = {
        name: digest
        for made in shelf.made
        for name, digest in made.tensors.items()
        if not name.startswith(program.unused or ("\0",))
    }
    assert expected
    for way, start in WAYS.items():
        if program.only_by in {"", way}:
            loaded = loaded_by(program, start(shelf, program), shelf.directory)
            if program.renames:
                assert sorted(loaded.values()) == sorted(expected.values()), way
            else:
                assert loaded == expected, way


@pytest.mark.parametrize("program", CORE, ids=lambda program: program.name)
def test_weights_come_from_the_store(program: Program, shelf: Shelf) -> None:
    check(program, shelf)


@pytest.mark.libraries
@pytest.mark.parametrize("program", OTHERS, ids=lambda program: program.name)
def test_weights_of_other_libraries_come_from_the_store(program: Program, shelf: Shelf) -> None:
    check(program, shelf)


@pytest.mark.libraries
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("program", MODELS, ids=lambda program: program.name)
def test_every_model_of_torchvision_gets_its_weights_from_the_store(program: Program, shelf: Shelf) -> None:
    check(program, shelf)


def test_the_page_of_libraries_has_them_all() -> None:
    documented = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/reference/libraries.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted({program.package for program in [*CORE, *OTHERS]})


# -- that these tests can fail ----------------------------------------------------------------------------------------


def test_without_the_store_the_network_is_asked_and_cannot_be_reached(shelf: Shelf) -> None:
    program = torchvision_model("squeezenet1_1")
    done = run_program(program, by_nothing(shelf), shelf.directory)
    assert done.returncode != 0
    assert "NetworkAsked: the network was asked for: (('download.pytorch.org', 443)" in done.stderr


def test_what_the_store_lacks_is_missed_by_name_and_with_the_command_that_fetches_it(shelf: Shelf) -> None:
    program = torchvision_model("squeezenet1_1")
    done = run_program(program, by_hook(shelf, program), shelf.directory)
    assert done.returncode != 0
    assert "weightstore prefetch 'https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth'" in done.stderr


def test_weights_that_were_not_loaded_are_told_apart(shelf: Shelf) -> None:
    program = torchvision_model("squeezenet1_1")
    shelf.fill(program)
    untouched = replace(program, use="from torchvision.models import squeezenet1_1\nmodel = squeezenet1_1()")
    loaded = loaded_by(untouched, by_hook(shelf, program), shelf.directory)
    (made,) = shelf.made
    assert loaded.keys() == made.tensors.keys()
    assert not set(loaded.values()) & set(made.tensors.values())
