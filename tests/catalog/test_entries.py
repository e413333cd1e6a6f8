"""A catalog's document as values, and what is said of a damaged one."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weightstore.catalog.entries import Catalog, Entry, is_error
from weightstore.catalog.query import search
from weightstore.catalog.registry import Catalogs
from weightstore.digest import Pin
from weightstore.errors import InvalidQuery, InvalidRecord
from weightstore.records import MAX_SIZE
from weightstore.source import Source

FULL = "0123456789abcdef" * 4
MINIMAL: dict[str, Any] = {"schema": 1, "namespace": "mine", "enums": {}}
COMPLETE: dict[str, Any] = {
    "schema": 1,
    "namespace": "my-zoo",
    "generated_from": "by hand",
    "categories": {"pets": ["cat", "dog"]},
    "enums": {
        "Net_Weights": {
            "builder": "net",
            "task": "classification",
            "default": "V2",
            "aliases": {"LATEST": "V2", "V0": "V1"},
            "legacy": {"weights": {"default": "Net_Weights.V1", "parameter": "pretrained"}},
            "entries": {
                "V1": {"source": "https://host/net-deadbeef.pth"},
                "V2": {
                    "source": "https://host/net.pth",
                    "alternatives": ["https://mirror/net.pth"],
                    "pin": FULL,
                    "size": 1000,
                    "size_exact": True,
                    "licence": "BSD-3-Clause",
                    "licence_url": "https://host/licence",
                    "recipe": "https://host/recipe",
                    "metrics": {"Pets": {"acc@1": 90.5, "epe": 2}, "Zoo": {"acc@1": 80, "acc@5": None, "epe": 1.5}},
                    "num_params": 42,
                    "gops": 1.5,
                    "min_size": [32, 64],
                    "categories": "pets",
                    "transforms": {"class": "my.presets.Net", "kwargs": {"crop_size": 224}},
                    "doc": "The better one.",
                    "unquantized": "Net_Weights.V1",
                    "backend": "fbgemm",
                    "extra": {"a": 1},
                },
            },
        },
        "Bare_Weights": {"entries": {"A": {"source": "https://host/bare.pth", "pin": None, "size": None}}},
    },
}


def catalog(document: dict[str, Any] | None = None, **changes: Any) -> Catalog:
    return Catalog((document or COMPLETE) | changes, place="zoo.json")


def changed(**changes: Any) -> Catalog:
    """The complete catalog with some fields of Net_Weights.V2 replaced."""
    document = copy.deepcopy(COMPLETE)
    document["enums"]["Net_Weights"]["entries"]["V2"] |= changes
    return catalog(document)


def changed_enum(**changes: Any) -> Catalog:
    document = copy.deepcopy(COMPLETE)
    document["enums"]["Net_Weights"] |= changes
    return catalog(document)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_entry_carries_all_that_its_catalog_says() -> None:
    assert catalog().entry("Net_Weights", "V2") == Entry(
        namespace="my-zoo",
        enum="Net_Weights",
        member="V2",
        source=Source("https://host/net.pth"),
        pin=Pin(FULL),
        builder="net",
        task="classification",
        size=1000,
        size_is_exact=True,
        alternatives=(Source("https://mirror/net.pth"),),
        licence="BSD-3-Clause",
        licence_url="https://host/licence",
        recipe="https://host/recipe",
        metrics={"Pets": {"acc@1": 90.5, "epe": 2}, "Zoo": {"acc@1": 80, "acc@5": None, "epe": 1.5}},
        num_params=42,
        gops=1.5,
        min_size=(32, 64),
        categories=("cat", "dog"),
        transforms=("my.presets.Net", {"crop_size": 224}),
        doc="The better one.",
        is_default=True,
        legacy={"weights": {"default": "Net_Weights.V1", "parameter": "pretrained"}},
        related={"unquantized": "Net_Weights.V1", "backend": "fbgemm", "extra": {"a": 1}},
    )


def test_entry_of_which_little_is_known_is_an_entry() -> None:
    assert catalog().entry("Bare_Weights", "A") == Entry(
        namespace="my-zoo", enum="Bare_Weights", member="A", source=Source("https://host/bare.pth")
    )


def test_pin_of_an_entry_is_the_stated_one_or_that_of_its_file_name() -> None:
    assert catalog().entry("Net_Weights", "V1").pin == Pin("deadbeef")
    assert changed(source="https://host/x-deadbeef.pth", pin=None).entry("Net_Weights", "V2").pin == Pin()
    assert changed(source="https://host/x-deadbeef.pth", pin="12345678").entry("Net_Weights", "V2").pin == Pin(
        "12345678"
    )


def test_names_of_an_entry() -> None:
    entry = catalog().entry("Net_Weights", "V1")

    assert (entry.name, entry.qualified_name) == ("Net_Weights.V1", "my-zoo/Net_Weights.V1")
    assert not entry.is_default


def test_catalogs_size_is_never_what_decides() -> None:
    wanted = catalog().entry("Net_Weights", "V2").wanted()

    assert (wanted.name, wanted.size, wanted.exact_size) == ("Net_Weights.V2", 1000, None)
    assert wanted.pin == Pin(FULL)
    assert wanted.sources == (Source("https://host/net.pth"), Source("https://mirror/net.pth"))


def test_best_value_of_a_metric_is_the_largest_and_of_an_error_the_least() -> None:
    entry = catalog().entry("Net_Weights", "V2")

    assert entry.metric("acc@1") == 90.5
    assert entry.metric("epe") == 1.5
    assert entry.metric("acc@5") is None
    assert entry.metric("miou") is None
    assert catalog().entry("Bare_Weights", "A").metric("acc@1") is None


@pytest.mark.parametrize("name", ["epe", "per_image_epe", "fl_all", "Fl-all", "RMSE", "val_loss", "top1-error"])
def test_metric_is_an_error(name: str) -> None:
    assert is_error(name)


@pytest.mark.parametrize("name", ["acc@1", "box_map", "miou", "pixel_acc", "kp_map", "recall", "flops", "", "closs"])
def test_metric_is_no_error(name: str) -> None:
    assert not is_error(name)


def test_catalog_lists_enums_members_builders_and_entries_in_order() -> None:
    zoo = catalog()

    assert list(zoo.enums()) == ["Net_Weights", "Bare_Weights"]
    assert list(zoo.members("Net_Weights")) == ["V1", "V2"]
    assert dict(zoo.builders) == {"net": "Net_Weights"}
    assert [entry.name for entry in zoo.entries()] == ["Net_Weights.V1", "Net_Weights.V2", "Bare_Weights.A"]
    assert (zoo.namespace, zoo.generated_from, zoo.place) == ("my-zoo", "by hand", "zoo.json")


@pytest.mark.parametrize(
    ("enum", "member", "name"),
    [
        ("Net_Weights", "V1", "V1"),
        ("Net_Weights", "DEFAULT", "V2"),
        ("Net_Weights", "LATEST", "V2"),
        ("Net_Weights", "V0", "V1"),
        ("Net_Weights", "V3", None),
        ("Net_Weights", "v1", None),
        ("Bare_Weights", "DEFAULT", None),
        ("Bare_Weights", "A", "A"),
    ],
)
def test_member_has_a_true_name(enum: str, member: str, name: str | None) -> None:
    assert catalog().member_name(enum, member) == name


@pytest.mark.parametrize(("enum", "member"), [("No_Weights", "V1"), ("Net_Weights", "V9")])
def test_entry_that_is_not_there_is_a_key_error(enum: str, member: str) -> None:
    with pytest.raises(KeyError):
        catalog().entry(enum, member)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/net.pth", "Net_Weights.V2"),
        ("https://user:pw@HOST:443/net.pth?X-Amz-Signature=1", "Net_Weights.V2"),
        ("https://host/bare.pth", "Bare_Weights.A"),
        ("https://mirror/net.pth", None),
        ("http://host/net.pth", None),
    ],
)
def test_entry_is_found_by_its_source(url: str, name: str | None) -> None:
    zoo = catalog()

    for _ in range(2):
        entry = zoo.entry_of_source(Source(url))
        assert (entry.name if entry else None) == name


def test_entry_is_found_by_its_source_beside_a_damaged_one_and_without_its_fragment() -> None:
    zoo = changed(source=None)
    pinned = changed(source="https://host/net.pth#sha256=deadbeef")

    assert zoo.entry_of_source(Source("https://host/net.pth")) is None
    assert zoo.entry_of_source(Source("https://host/bare.pth")) is not None
    assert pinned.entry_of_source(Source("https://host/net.pth")) == pinned.entry("Net_Weights", "V2")


def test_least_catalog_is_empty() -> None:
    assert list(catalog(MINIMAL).entries()) == []


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 2}, "schema 2; this weightstore reads schema 1"),
        ({"schema": None}, "schema None"),
        ({"schema": "1"}, "schema '1'"),
        ({"namespace": None}, "'namespace' is not a name"),
        ({"namespace": 5}, "'namespace' is not a name"),
        ({"namespace": ""}, "'namespace' is not a name"),
        ({"namespace": "a/b"}, "'namespace' is not a name"),
        ({"namespace": ".."}, "'namespace' is not a name"),
        ({"namespace": "a b"}, "'namespace' is not a name"),
        ({"enums": None}, "'enums' is not an object"),
        ({"enums": []}, "'enums' is not an object"),
        ({"enums": {1: {}}}, "'enums' is not an object"),
        ({"enums": {"X": 5}}, "'X' is not an object"),
        ({"enums": {"X": {}}}, "'X.entries' is not an object"),
        ({"categories": []}, "'categories' is not an object"),
        ({"categories": {"pets": "cats"}}, "categories.pets is not a list of strings"),
        ({"categories": {"pets": ["cat", 1]}}, "categories.pets is not a list of strings"),
    ],
)
def test_damaged_document_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        catalog(MINIMAL, **changes)
    assert str(caught.value).startswith(f"zoo.json: not a catalog: {reason}")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"builder": 5}, "Net_Weights.builder is not a string"),
        ({"task": ["a"]}, "Net_Weights.task is not a string"),
        ({"default": 5}, "Net_Weights.default is not a string"),
        ({"default": "V9"}, "Net_Weights: 'default' means 'V9', which is not an entry"),
        ({"aliases": []}, "'Net_Weights.aliases' is not an object"),
        ({"aliases": {"A": []}}, "Net_Weights: 'A' means [], which is not an entry"),
        ({"aliases": {"A": "V9"}}, "Net_Weights: 'A' means 'V9', which is not an entry"),
        ({"entries": []}, "'Net_Weights.entries' is not an object"),
        ({"entries": {"V1": {}, "V2": 5}}, "Net_Weights.V2 is not an object"),
    ],
)
def test_damaged_enum_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        changed_enum(**changes)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", None),
        ("source", 5),
        ("source", "host/x"),
        ("source", "ftp://bucket/x"),
        ("source", "https://host/x#sha256=1"),
        ("alternatives", "https://host/x"),
        ("alternatives", [5]),
        ("alternatives", ["https://host/x#sha256=deadbeef"]),
        ("pin", "dead"),
        ("pin", "DEADBEEF"),
        ("pin", 12345678),
        ("size", -1),
        ("size", MAX_SIZE + 1),
        ("size", 1.0),
        ("size", True),
        ("size", "1"),
        ("licence", 5),
        ("licence_url", []),
        ("recipe", {}),
        ("metrics", []),
        ("metrics", {"Pets": 5}),
        ("metrics", {"Pets": None}),
        ("metrics", {"Pets": {"acc@1": "high"}}),
        ("metrics", {"Pets": {"acc@1": True}}),
        ("metrics", {"Pets": {"acc@1": float("nan")}}),
        ("num_params", 1.5),
        ("num_params", True),
        ("gops", "1"),
        ("gops", float("inf")),
        ("min_size", 32),
        ("min_size", [32]),
        ("min_size", [32, 32, 32]),
        ("min_size", [32, "32"]),
        ("min_size", [True, 1]),
        ("categories", "birds"),
        ("categories", ["cat"]),
        ("transforms", "my.presets.Net"),
        ("transforms", {"kwargs": {}}),
        ("transforms", {"class": 5}),
        ("transforms", {"class": "x", "kwargs": []}),
        ("doc", 5),
    ],
)
def test_damaged_entry_is_named(name: str, value: object) -> None:
    zoo = changed(**{name: value})

    with pytest.raises(InvalidRecord) as caught:
        zoo.entry("Net_Weights", "V2")
    assert str(caught.value).startswith("zoo.json: not a catalog: Net_Weights.V2: ")
    assert zoo.entry("Net_Weights", "V1").member == "V1"


def test_damaged_legacy_defaults_are_named() -> None:
    with pytest.raises(InvalidRecord, match="'legacy' is not dict"):
        changed_enum(legacy=[1]).entry("Net_Weights", "V1")


@pytest.mark.parametrize("name", ["metrics", "transforms", "categories", "min_size", "alternatives", "doc", "gops"])
def test_null_is_as_good_as_absent(name: str) -> None:
    document = copy.deepcopy(COMPLETE)
    del document["enums"]["Net_Weights"]["entries"]["V2"][name]

    assert changed(**{name: None}).entry("Net_Weights", "V2") == catalog(document).entry("Net_Weights", "V2")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any) -> list[list[Any]]:
    """The path of everything inside of a JSON value."""
    if isinstance(value, dict):
        return [[key, *rest] for key in value for rest in ([], *places(value[key]))]
    if isinstance(value, list):
        return [[index, *rest] for index in range(len(value)) for rest in ([], *places(value[index]))]
    return []


@given(st.sampled_from(places(COMPLETE)), json_values)
@example(["enums", "Net_Weights", "entries", "V2", "source"], "~nobody-of-this-name/x")
@example(["enums", "Net_Weights", "entries", "V2", "num_params"], 10**400)
@example(["enums", "Net_Weights", "entries", "V2", "gops"], 10**400)
def test_catalog_with_anything_replaced_is_refused_or_can_be_searched(place: list[Any], value: object) -> None:
    document = copy.deepcopy(COMPLETE)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value

    try:
        entries = list(catalog(document).entries())
    except InvalidRecord as error:
        refused = str(error)
        assert refused.startswith("zoo.json: ")
        return
    for query in (
        "acc@1>1",
        "params>1k size>1 gflops>0.1",
        "licence~x task=a dataset=b backend=c default=yes",
        "epe<9",
    ):
        try:
            search(entries, query)
        except InvalidQuery:
            continue
    assert all(entry.qualified_name and entry.wanted() for entry in entries)


# -- the built-in one -------------------------------------------------------------------------------------------------


def test_built_in_catalog_is_sound_in_every_entry() -> None:
    (built_in,) = Catalogs().near()
    entries = list(built_in.entries())

    assert (len(entries), len(list(built_in.enums())), len(built_in.builders)) == (166, 121, 121)
    assert len({entry.qualified_name for entry in entries}) == 166
    assert all(entry.pin.is_pinned and entry.source.scheme == "https" for entry in entries)
    assert sum(entry.is_default for entry in entries) == 121


def test_built_in_catalog_is_what_its_file_says() -> None:
    path = Path(__file__).parents[2] / "weightstore" / "catalog" / "torchvision.json"
    document = json.loads(path.read_text("utf-8"))
    entry = Catalog(document, place="x").entry("ResNet50_Weights", "IMAGENET1K_V2")

    raw = document["enums"]["ResNet50_Weights"]["entries"]["IMAGENET1K_V2"]
    assert (entry.source.url, entry.pin.hex, entry.size) == (raw["source"], raw["pin"], raw["size"])
    assert entry.metrics == raw["metrics"]
    assert entry.categories[:2] == ("tench", "goldfish")
