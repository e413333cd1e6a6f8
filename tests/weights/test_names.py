"""Builders and enums by name: registration, namespaces, what packages announce, what catalogs describe."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weightstore
from weightstore.weights.entry import Weights
from weightstore.weights.enum import WeightsEnum
from weightstore.weights.registry import Models


class Tiny_Weights(WeightsEnum):  # noqa: N801
    V1 = Weights("https://example.org/tiny.pth", dict, {})
    DEFAULT = V1


def tiny(*, weights: Optional[Tiny_Weights] = None, width: int = 1) -> Any:  # noqa: UP045 - as upstream writes it
    return weights, width


names = st.text("abcXYZ_09", min_size=1, max_size=12)


@given(name=names, namespace=st.sampled_from(["", "geo", "Geo"]))
def test_a_model_is_found_by_its_name_in_any_case(name: str, namespace: str) -> None:
    models = Models()
    models.register_model(name, namespace=namespace)(tiny)
    full = f"{namespace}/{name}" if namespace else name
    for asked in (full, full.upper(), full.lower(), name.swapcase()):
        assert models.get_model_builder(asked) is tiny
    assert models.list_models() == [full.lower()]


@given(name=names)
def test_a_name_is_taken_whatever_its_case(name: str) -> None:
    models = Models()
    models.register_model(name)(tiny)
    with pytest.raises(ValueError, match="An entry is already registered under the name"):
        models.register_model(name.swapcase())(tiny)


def test_two_packages_may_have_a_model_of_one_name() -> None:
    models = Models()
    for namespace in ("geo", "med"):
        models.register_model("net", namespace=namespace)(tiny)
    with pytest.raises(ValueError, match="geo/net, med/net"):
        models.get_model_builder("net")
    assert models.get_model("med/net", width=3) == (None, 3)


def test_an_annotation_that_is_text_leads_to_the_enum() -> None:
    assert tiny.__annotations__["weights"] == "Optional[Tiny_Weights]"
    models = Models()
    models.register_model()(tiny)
    assert models.get_model_weights("tiny") is models.get_model_weights(tiny) is Tiny_Weights


def test_a_builder_without_weights_has_no_enum() -> None:
    def bare(width: int = 1) -> int:
        return width

    def vague(weights: int = 1) -> int:
        return weights

    with pytest.raises(ValueError, match="missing the 'weights' argument"):
        weightstore.get_model_weights(bare)
    with pytest.raises(ValueError, match="couldn't be retrieved"):
        weightstore.get_model_weights(vague)


def test_an_enum_in_memory_is_found_by_its_name() -> None:
    assert weightstore.get_weight("Tiny_Weights.DEFAULT") is Tiny_Weights.V1
    assert weightstore.get_weight("tests/Tiny_Weights.V1") is Tiny_Weights.V1
    with pytest.raises(KeyError):
        weightstore.get_weight("Tiny_Weights.V2")


# -- packages that announce what they have -----------------------------------------------------------------------------

PACKAGE = """
from weightstore import Weights, WeightsEnum

class Forest_Weights(WeightsEnum):
    V1 = Weights("https://example.org/forest.pth", dict, {"in_chans": 13})

def forest(*, weights: Forest_Weights | None = None):
    return weights
"""
ASK = """
import sys, weightstore
assert "woods" not in sys.modules
print(weightstore.list_models(include="*forest*"), "woods" in sys.modules)
print(weightstore.get_weight("woods/Forest_Weights.V1").meta.in_chans)
print(weightstore.get_model_builder("woods/forest")(weights=None), weightstore.get_model_weights("woods/forest"))
"""


def test_what_a_package_announces_is_imported_when_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "woods.py").write_text(PACKAGE)
    about = tmp_path / "woods-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: woods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[weightstore.enums]\nwoods/Forest_Weights = woods:Forest_Weights\n"
        "[weightstore.builders]\nwoods/forest = woods:forest\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(weightstore.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["['woods/forest'] False", "13", "None <enum 'Forest_Weights'>"]


# -- enums that a catalog describes ------------------------------------------------------------------------------------

CATALOG = {
    "schema": 1,
    "namespace": "ada",
    "enums": {
        "TinyNet_Weights": {
            "default": "PETS_V1",
            "entries": {
                "PETS_V1": {"source": "https://example.org/tinynet-0123abcd.pth", "size": 7, "size_exact": True},
                "SMALL": {
                    "source": "https://example.org/small-1.pth",
                    "shards": ["https://example.org/small-2.pth"],
                    "unquantized": "TinyNet_Weights.PETS_V1",
                },
            },
        }
    },
}


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ada.json").write_text(json.dumps(CATALOG))
    monkeypatch.setenv("WEIGHTSTORE_CATALOGS", str(tmp_path / "ada.json"))


@pytest.mark.usefixtures("catalog")
def test_an_enum_is_made_of_a_catalog() -> None:
    member = weightstore.get_weight("ada/TinyNet_Weights.DEFAULT")
    assert (str(member), member.size, member.pin.hex) == ("TinyNet_Weights.PETS_V1", 7, "0123abcd")
    assert weightstore.get_weight("TinyNet_Weights.PETS_V1") is member
    small = type(member)["SMALL"]
    assert small.meta["unquantized"] is member
    assert [wanted.name for wanted in small.wants()] == ["TinyNet_Weights.SMALL[1/2]", "TinyNet_Weights.SMALL[2/2]"]
    assert "TinyNet_Weights.PETS_V1" in repr(small.meta)


@pytest.mark.usefixtures("catalog")
def test_its_members_are_pickled_by_name_for_processes_that_know_the_catalog() -> None:
    member = weightstore.get_weight("ada/TinyNet_Weights.PETS_V1")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(member, protocol)
        assert pickle.loads(data) is member
        code = f"import pickle; print(pickle.loads({data!r}).url)"
        if protocol == pickle.HIGHEST_PROTOCOL:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert (done.stdout.strip(), done.stderr) == (member.url, "")
            environment = {key: value for key, value in os.environ.items() if key != "WEIGHTSTORE_CATALOGS"}
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
            )
            assert "no catalog knows 'ada/TinyNet_Weights.PETS_V1'" in done.stderr


def test_two_entries_that_are_equal_are_found_as_themselves() -> None:
    class Twin_Weights(WeightsEnum):  # noqa: N801
        A = Weights("https://example.org/a.pth", dict, {"num_params": 1})
        B = Weights("https://example.org/a.pth", dict, {"num_params": 1})

    assert Twin_Weights(Twin_Weights.B.value) is Twin_Weights.B
    assert Twin_Weights(Weights("https://example.org/a.pth", dict, {"num_params": 1})) is Twin_Weights.A


def test_metadata_joins_dicts_and_its_lists_join_lists() -> None:
    meta = weightstore.torchvision.ResNet18_Weights.DEFAULT.meta
    assert (meta | {"recipe": "mine"})["recipe"] == ({"recipe": "its"} | meta | {"recipe": "mine"})["recipe"] == "mine"
    assert len(meta["categories"] + ["mine"]) == len(["mine"] + meta["categories"]) == 1001
    changed = meta.copy()
    changed["recipe"] = "mine"
    assert meta["recipe"] != "mine"


def test_models_of_a_module_at_the_top_are_listed_by_it() -> None:
    def lonely() -> None: ...

    lonely.__module__ = "mynet"
    models = Models()
    models.register_model("lonely")(lonely)
    models.register_model()(tiny)
    assert models.list_models(types.ModuleType("mynet")) == ["lonely"]
    assert models.list_models(types.ModuleType(tiny.__module__.rpartition(".")[0])) == ["tiny"]
