"""From what people type to entries: every form that the table in names.py promises, and what is said of all others."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weightstore.catalog.entries import Entry
from weightstore.catalog.names import resolve, task_matches
from weightstore.catalog.registry import Catalogs
from weightstore.errors import InvalidInput, UnknownName

BUILT_IN = Catalogs()

ANIMALS: dict[str, Any] = {
    "Ape_Weights": {
        "builder": "ape",
        "task": "primate-detection",
        "default": "V2",
        "aliases": {"OLD": "V1"},
        "entries": {
            "V1": {"source": "https://zoo/ape1.pth"},
            "V2": {"source": "https://zoo/ape2.pth"},
            "v2": {"source": "https://zoo/small.pth"},
        },
    },
    "Owl_Weights": {"entries": {"A": {"source": "https://zoo/owl.pth"}}},
    "ResNet50_Weights": {
        "builder": "resnet50",
        "default": "ZOO",
        "task": "classification",
        "entries": {"ZOO": {"source": "https://zoo/r.pth"}, "IMAGENET1K_V1": {"source": "https://zoo/r1.pth"}},
    },
}


def write(path: Path, namespace: str, enums: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, "namespace": namespace, "enums": enums}), "utf-8")
    return path


def install(site: Path, namespace: str, enums: dict[str, Any]) -> None:
    """Lay out an installed package with a catalog, which cannot be imported."""
    (site / f"{namespace}_pkg").mkdir(parents=True)
    (site / f"{namespace}_pkg" / "__init__.py").write_text("raise ImportError\n", "utf-8")
    write(site / f"{namespace}_pkg" / "catalog.json", namespace, enums)
    info = site / f"{namespace}_pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {namespace}_pkg\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(
        f"[weightstore.catalogs]\n{namespace} = {namespace}_pkg:catalog.json\n", "utf-8"
    )


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogs:
    """TorchVision's catalog and those of two installed packages, ``park`` and ``zoo``, which share a name."""
    site = tmp_path / "site"
    install(site, "zoo", ANIMALS)
    install(site, "park", {name: ANIMALS[name] for name in ("Owl_Weights",)})
    monkeypatch.syspath_prepend(site)
    return Catalogs()


def names(text: str, catalogs: Catalogs = BUILT_IN, **options: Any) -> list[str]:
    return [entry.name for entry in resolve([text], catalogs, **options)]


def qualified(text: str, catalogs: Catalogs) -> list[str]:
    return [entry.qualified_name for entry in resolve([text], catalogs)]


def failure(text: str, catalogs: Catalogs = BUILT_IN) -> UnknownName:
    with pytest.raises(UnknownName) as caught:
        resolve([text], catalogs)
    assert caught.value.name == text
    return caught.value


# -- one name, one entry ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ResNet50_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("ResNet50_Weights.IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet50_Weights.DEFAULT", "ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet50_Weights", "ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet50:IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("resnet50:DEFAULT", "ResNet50_Weights.IMAGENET1K_V2"),
        ("torchvision/resnet50", "ResNet50_Weights.IMAGENET1K_V2"),
        ("torchvision/resnet50:IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("torchvision/ResNet50_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("torchvision/ResNet50_Weights", "ResNet50_Weights.IMAGENET1K_V2"),
        ("quantized_resnet50", "ResNet50_QuantizedWeights.IMAGENET1K_FBGEMM_V2"),
        # case is not significant
        ("RESNET50", "ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet50_weights.imagenet1k_v1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("ResNet50_Weights.default", "ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet50_weights", "ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet50:imagenet1k_v1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("TorchVision/ResNet50", "ResNet50_Weights.IMAGENET1K_V2"),
    ],
)
def test_name_means_one_entry(text: str, expected: str) -> None:
    assert names(text) == [expected]


def test_every_name_of_the_built_in_catalog_means_itself() -> None:
    entries = resolve([], BUILT_IN, everything=True)

    for entry in entries:
        assert resolve([entry.name], BUILT_IN) == [entry]
        assert resolve([entry.qualified_name.lower()], BUILT_IN) == [entry]
        assert resolve([f"{entry.builder}:{entry.member}"], BUILT_IN) == [entry]
        assert names(entry.builder)[0].startswith(entry.enum + ".")


def test_alias_of_a_member_means_the_member(zoo: Catalogs) -> None:
    assert names("Ape_Weights.OLD", zoo) == ["Ape_Weights.V1"]
    assert names("ape:OLD", zoo) == ["Ape_Weights.V1"]


def test_case_is_significant_where_it_tells_names_apart(zoo: Catalogs) -> None:
    assert names("Ape_Weights.V2", zoo) == ["Ape_Weights.V2"]
    assert names("Ape_Weights.v2", zoo) == ["Ape_Weights.v2"]
    assert names("ape:v1", zoo) == ["Ape_Weights.V1"]


def test_name_that_only_case_could_tell_apart_must_be_spelled_exactly(tmp_path: Path) -> None:
    enums = {
        name: {"builder": builder, "default": "A", "entries": {"A": {"source": f"https://zoo/{builder}.pth"}}}
        for name, builder in (("Net_Weights", "net"), ("NET_Weights", "NET"))
    }
    twins = Catalogs([write(tmp_path / "twins.json", "twins", enums)])

    assert names("Net_Weights.A", twins) == names("net", twins) == ["Net_Weights.A"]
    assert names("NET_Weights", twins) == names("NET:a", twins) == ["NET_Weights.A"]
    assert "no catalog knows 'net_weights'" in str(failure("net_weights", twins))
    assert "no catalog knows 'Net'" in str(failure("Net", twins))


def test_member_that_only_case_could_tell_apart_must_be_spelled_exactly(tmp_path: Path) -> None:
    entries = {"Big": {"source": "https://zoo/1.pth"}, "BIG": {"source": "https://zoo/2.pth"}}
    twins = Catalogs([write(tmp_path / "twins.json", "twins", {"Net_Weights": {"entries": entries}})])

    assert names("net_weights.Big", twins) == ["Net_Weights.Big"]
    assert set(failure("Net_Weights.big", twins).suggestions) == {"Net_Weights.BIG"}
    assert "Net_Weights.DEFAULT" not in failure("Net_Weights.DEFAULT", twins).suggestions


def test_names_are_resolved_in_order_and_once() -> None:
    found = resolve(["vgg16", "resnet50", "VGG16_Weights.DEFAULT", "resnet50:IMAGENET1K_V1", "vgg16"], BUILT_IN)

    assert [entry.name for entry in found] == [
        "VGG16_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "ResNet50_Weights.IMAGENET1K_V1",
    ]
    assert resolve([], BUILT_IN) == []
    assert len(resolve((name for name in ["vgg16"]), BUILT_IN)) == 1


# -- globs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet*", [f"ResNet{n}_Weights.IMAGENET1K_V{v}" for n, v in ((101, 2), (152, 2), (18, 1), (34, 1), (50, 2))]),
        ("RESNET?8", ["ResNet18_Weights.IMAGENET1K_V1"]),
        ("resnet[13]*", [f"ResNet{n}_Weights.IMAGENET1K_V{v}" for n, v in ((101, 2), (152, 2), (18, 1), (34, 1))]),
        ("ResNet5*_Weights", ["ResNet50_Weights.IMAGENET1K_V2"]),
        ("resnet50:*", ["ResNet50_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2"]),
        ("resnet5?:default", ["ResNet50_Weights.IMAGENET1K_V2"]),
        ("ResNet50_Weights.*", ["ResNet50_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2"]),
        ("resnet50_weights.*v1", ["ResNet50_Weights.IMAGENET1K_V1"]),
        ("ResNet5*_Weights.DEFAULT", ["ResNet50_Weights.IMAGENET1K_V2"]),
        ("torchvision/resnet5?", ["ResNet50_Weights.IMAGENET1K_V2"]),
        ("Torch*/resnet5?", ["ResNet50_Weights.IMAGENET1K_V2"]),
        ("*/resnet50", ["ResNet50_Weights.IMAGENET1K_V2"]),
    ],
)
def test_glob_means_all_that_matches(text: str, expected: list[str]) -> None:
    assert names(text) == expected


def test_glob_over_entries_matches_members_that_are_no_default() -> None:
    found = names("ViT_*_Weights.*")

    assert len(found) == 10
    assert {"ViT_B_16_Weights.IMAGENET1K_V1", "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1"} <= set(found)


def test_glob_over_builders_means_their_defaults() -> None:
    found = resolve(["*"], BUILT_IN)

    assert len(found) == 121
    assert all(entry.is_default for entry in found)
    assert set(names("*:default")) == {entry.name for entry in found} == set(names("*.DEFAULT"))


def test_enum_without_builder_or_default_is_reached_by_its_entries_only(zoo: Catalogs) -> None:
    assert qualified("zoo/Owl_Weights.A", zoo) == ["zoo/Owl_Weights.A"]
    assert qualified("zoo/Owl*.*", zoo) == ["zoo/Owl_Weights.A"]
    assert qualified("zoo/*", zoo) == ["zoo/Ape_Weights.V2", "zoo/ResNet50_Weights.ZOO"]
    assert failure("zoo/Owl_Weights", zoo).name == "zoo/Owl_Weights"
    assert "matches no weights" in str(failure("zoo/Owl*Weights", zoo))


@pytest.mark.parametrize("text", ["nosuchnet*", "*nosuch*.*", "nosuch/*", "resnet50:nosuch*", "[", "*default"])
def test_glob_that_matches_nothing_is_an_unknown_name(text: str) -> None:
    assert "matches no weights. Quote globs" in str(failure(text))


# -- catalogs ---------------------------------------------------------------------------------------------------------


def test_namespace_chooses_the_catalog(zoo: Catalogs) -> None:
    assert qualified("zoo/resnet50", zoo) == ["zoo/ResNet50_Weights.ZOO"]
    assert qualified("ZOO/ResNet50_Weights.imagenet1k_v1", zoo) == ["zoo/ResNet50_Weights.IMAGENET1K_V1"]
    assert qualified("torchvision/resnet50", zoo) == ["torchvision/ResNet50_Weights.IMAGENET1K_V2"]


def test_bare_name_means_the_built_in_entry_before_those_of_packages(zoo: Catalogs) -> None:
    assert qualified("resnet50", zoo) == ["torchvision/ResNet50_Weights.IMAGENET1K_V2"]
    assert qualified("ResNet50_Weights.ZOO", zoo) == ["zoo/ResNet50_Weights.ZOO"]
    assert qualified("ape", zoo) == ["zoo/Ape_Weights.V2"]


def test_bare_name_means_the_entry_of_a_named_file_before_the_built_in_one(tmp_path: Path) -> None:
    mine = Catalogs([write(tmp_path / "mine.json", "mine", ANIMALS)])

    assert qualified("resnet50", mine) == ["mine/ResNet50_Weights.ZOO"]
    assert qualified("resnet18", mine) == ["torchvision/ResNet18_Weights.IMAGENET1K_V1"]


def test_glob_means_the_entries_of_all_catalogs(zoo: Catalogs) -> None:
    assert qualified("resnet50*", zoo) == ["torchvision/ResNet50_Weights.IMAGENET1K_V2", "zoo/ResNet50_Weights.ZOO"]
    assert qualified("Owl_Weights.*", zoo) == ["park/Owl_Weights.A", "zoo/Owl_Weights.A"]


def test_name_in_two_packages_must_be_qualified(zoo: Catalogs) -> None:
    error = failure("Owl_Weights.A", zoo)

    assert str(error) == ("'Owl_Weights.A': is in several catalogs. Say which: park/Owl_Weights.A, zoo/Owl_Weights.A")
    assert qualified("park/Owl_Weights.A", zoo) == ["park/Owl_Weights.A"]


def test_unknown_namespace_lists_those_there_are(zoo: Catalogs) -> None:
    error = failure("zo/resnet50", zoo)

    assert "there is no catalog 'zo'. Known are: " in str(error)
    assert {"park", "torchvision", "zoo"} <= set(str(error).rpartition(": ")[2].split(", "))


# -- names that nobody has --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("resnet5O", "resnet50"),
        ("resnt50", "resnet50"),
        ("resnet-50", "resnet50"),
        ("torchvision/resnet5O", "resnet50"),
        ("VIT_B16", "vit_b_16"),
        ("ResNet50_Weight.IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet5O_Weights.IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet50Weights", "ResNet50_Weights"),
        ("ResNet50_Weights.IMAGENET1KV2", "ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet50_Weights.IMAGENET1K_V3", "ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet50_weights.imagenet1kv1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("resnet50:IMAGENET1KV2", "resnet50:IMAGENET1K_V2"),
        ("RESNET50:V1", "resnet50:IMAGENET1K_V1"),
        ("resnet50.IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet50_Weights.zzzzzzzz", "ResNet50_Weights.IMAGENET1K_V1"),
        ("resnet50:zzzzzzzz", "resnet50:IMAGENET1K_V1"),
    ],
)
def test_mistyped_name_suggests_the_nearest(text: str, first: str) -> None:
    error = failure(text)

    assert first in error.suggestions[:2]
    assert 1 <= len(error.suggestions) <= 3
    assert f"no catalog knows {text!r}. Did you mean {error.suggestions[0]}" in str(error)
    assert all(resolve([suggestion], BUILT_IN) for suggestion in error.suggestions)


@pytest.mark.parametrize("text", ["qqqqqqqqqqqq", "torchvision/", ":", ".", "/x/", "no:such", "no.such"])
def test_name_like_no_other_says_how_to_list_them(text: str) -> None:
    error = failure(text)

    assert error.suggestions == ()
    assert "weightstore search" in str(error) or "there is no catalog" in str(error)


def test_suggestions_come_from_all_catalogs(zoo: Catalogs) -> None:
    assert failure("apee", zoo).suggestions == ("ape",)
    assert failure("Ape_Weights.V3", zoo).suggestions[0] in {"Ape_Weights.V1", "Ape_Weights.V2"}


@pytest.mark.parametrize("text", ["", "x" * 301])
def test_name_of_no_sensible_length_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not empty, and not longer than 300"):
        resolve([text], BUILT_IN)


@given(
    st.text(max_size=20)
    | st.from_regex(r"[Rr]es[Nn]et(50|18)?(_Weights)?[.:/*?\[\]]?[A-Z0-9_*?\[]{0,6}", fullmatch=True)
)
@example("[!")
@example("*" * 300)
@example("resnet50:")
@example("resnet50.")
@example("\ud800")
def test_any_text_is_a_name_or_an_error_of_ours(text: str) -> None:
    try:
        found = resolve([text], BUILT_IN)
    except (UnknownName, InvalidInput) as error:
        assert error.exit_code in {2, 3}  # noqa: PT017 - of two kinds
        return
    assert found
    assert all(isinstance(entry, Entry) for entry in found)


# -- tasks and everything ---------------------------------------------------------------------------------------------


def test_everything_is_every_entry() -> None:
    assert len(resolve([], BUILT_IN, everything=True)) == 166


def test_everything_is_of_every_catalog(zoo: Catalogs) -> None:
    found = {entry.qualified_name for entry in resolve([], zoo, everything=True)}

    assert {"zoo/Owl_Weights.A", "park/Owl_Weights.A", "torchvision/ResNet50_Weights.IMAGENET1K_V2"} <= found


def test_everything_of_a_task() -> None:
    found = resolve([], BUILT_IN, task="optical-flow", everything=True)

    assert {entry.task for entry in found} == {"optical-flow"}
    assert len(found) == 8
    assert any(not entry.is_default for entry in found)


def test_task_alone_means_the_default_of_each_of_its_builders() -> None:
    found = resolve([], BUILT_IN, task="optical-flow")

    assert [entry.name for entry in found] == ["Raft_Large_Weights.C_T_SKHT_V2", "Raft_Small_Weights.C_T_V2"]


def test_task_covers_its_kinds(zoo: Catalogs) -> None:
    found = {entry.task for entry in resolve([], BUILT_IN, task="segmentation")}

    assert found == {"semantic-segmentation", "instance-segmentation"}
    assert "zoo/Ape_Weights.V2" in {entry.qualified_name for entry in resolve([], zoo, task="detection")}


def test_task_narrows_names() -> None:
    found = resolve(["*resnet50*"], BUILT_IN, task="detection")

    assert found
    assert all(entry.task.endswith("detection") and "resnet50" in entry.builder for entry in found)


@pytest.mark.parametrize("names_asked", [[], ["resnet50"]])
def test_task_that_nobody_knows_lists_those_there_are(names_asked: list[str]) -> None:
    with pytest.raises(UnknownName, match=r"no such weights\. Tasks are: .*classification, .*optical-flow") as caught:
        resolve(names_asked, BUILT_IN, task="juggling")
    assert caught.value.name == "juggling"


@pytest.mark.parametrize(
    ("task", "asked", "matches"),
    [
        ("detection", "detection", True),
        ("detection", "Detection", True),
        ("semantic-segmentation", "segmentation", True),
        ("semantic-segmentation", "semantic_segmentation", True),
        ("semantic-segmentation", "Semantic Segmentation", True),
        ("segmentation", "semantic-segmentation", False),
        ("semantic-segmentation", "semantic", False),
        ("semantic-segmentation", "tation", False),
        ("", "detection", False),
        ("detection", "", False),
    ],
)
def test_task_is_matched_whole_or_by_its_last_words(task: str, asked: str, *, matches: bool) -> None:
    assert task_matches(task, asked) is matches
