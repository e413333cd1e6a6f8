"""Search expressions: what each condition means, how the answers are sorted, and what does not parse."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weightstore.catalog.entries import Entry
from weightstore.catalog.query import Condition, parse_query, search, value_of
from weightstore.catalog.registry import Catalogs
from weightstore.errors import InvalidQuery
from weightstore.source import Source

BUILT_IN = list(Catalogs().near()[0].entries())


def entry(enum: str, **about: Any) -> Entry:
    return Entry(namespace="zoo", enum=enum, member="V1", source=Source("https://host/x.pth"), **about)


SMALL = entry(
    "Small_Weights",
    builder="small",
    task="classification",
    size=10_000_000,
    num_params=2_500_000,
    gops=0.5,
    licence="MIT",
    categories=("cat", "dog"),
    metrics={"ImageNet-1K": {"acc@1": 70.0, "acc@5": 90}, "Pets": {"acc@1": 80.5}},
    is_default=True,
)
LARGE = entry(
    "Large_Weights",
    builder="large",
    task="classification",
    size=500_000_000,
    num_params=100_000_000,
    gops=50,
    licence="BSD-3-Clause",
    categories=("a", "b", "c"),
    metrics={"ImageNet-1K": {"acc@1": 88.25, "acc@5": None}},
    related={"unquantized": "X", "backend": "fbgemm"},
)
FLOW = entry("Flow_Weights", task="optical-flow", metrics={"Sintel": {"epe": 1.5, "1px": 90}, "Kitti": {"epe": 5}})
BARE = entry("Bare_Weights")
ALL = [SMALL, LARGE, FLOW, BARE]


def found(query: str, entries: list[Entry] = ALL, sort: str | None = None) -> list[str]:
    return [one.enum.removesuffix("_Weights").lower() for one in search(entries, query, sort=sort)]


# -- conditions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # every ordering, on both sides of its limit
        ("acc@1=80.5", {"small"}),
        ("acc@1==80.5", {"small"}),
        ("acc@1!=80.5", {"large"}),
        ("acc@1<80.5", set()),
        ("acc@1<80.6", {"small"}),
        ("acc@1<=80.5", {"small"}),
        ("acc@1<=80.4", set()),
        ("acc@1>80.5", {"large"}),
        ("acc@1>=80.5", {"small", "large"}),
        ("acc@1>=88.26", set()),
        ("acc@1>80%", {"small", "large"}),
        ("ACC@1>85", {"large"}),
        # what is not known matches nothing
        ("acc@5>0", {"small"}),
        ("acc@5!=0", {"small"}),
        ("size>0", {"small", "large"}),
        # the best of several data sets
        ("epe<2", {"flow"}),
        ("epe>2", set()),
        ("1px>=90", {"flow"}),
        # units
        ("size<100MB", {"small"}),
        ("size<=10MB", {"small"}),
        ("size<10MB", set()),
        ("size=10000000", {"small"}),
        ("size>9.5MiB", {"small", "large"}),
        ("size>9.6MiB", {"large"}),
        ("size>1kB", {"small", "large"}),
        ("params<=2.5M", {"small"}),
        ("params=2500k", {"small"}),
        ("params<0.1B", {"small"}),
        ("params>=0.1G", {"large"}),
        ("num_params<1e7", {"small"}),
        ("gflops<1", {"small"}),
        ("gops<1", {"small"}),
        ("classes=3", {"large"}),
        ("classes>=0", {"small", "large"}),
        # texts
        ("task=classification", {"small", "large"}),
        ("task=flow", {"flow"}),
        ("task~flo", {"flow"}),
        ("task!=classification", {"flow", "bare"}),
        ("licence=mit", {"small"}),
        ("license=MIT", {"small"}),
        ("licence~bsd", {"large"}),
        ("licence=unknown", {"flow", "bare"}),
        ("licence!=MIT", {"large", "flow", "bare"}),
        ("dataset=imagenet-1k", {"small", "large"}),
        ("dataset=imagenet", set()),
        ("dataset~imagenet", {"small", "large"}),
        ("dataset!=pets", {"large", "flow", "bare"}),
        ("name=small_weights.v1", {"small"}),
        ("name~_weights", {"small", "large", "flow", "bare"}),
        ("enum=Flow_Weights", {"flow"}),
        ("builder=small", {"small"}),
        ("model~arg", {"large"}),
        ("namespace=ZOO", {"small", "large", "flow", "bare"}),
        ("backend=fbgemm", {"large"}),
        # yes or no
        ("default=yes", {"small"}),
        ("default=1", {"small"}),
        ("default=no", {"large", "flow", "bare"}),
        ("default!=TRUE", {"large", "flow", "bare"}),
        ("default!=false", {"small"}),
        ("quantized=yes", {"large"}),
        ("quantized=0", {"small", "flow", "bare"}),
        # words, blanks and several conditions
        ("", {"small", "large", "flow", "bare"}),
        ("flow", {"flow"}),
        ("FLOW_", {"flow"}),
        ("nothing", set()),
        ("large acc@1>80", {"large"}),
        ("acc@1>75 size<100MB task=classification", {"small"}),
        ("acc@1>75 size<1MB", set()),
        ("'acc@1 > 85'", {"large"}),
        ('"size < 100 MB"', {"small"}),
    ],
)
def test_query_finds_the_entries_for_which_it_holds(query: str, expected: set[str]) -> None:
    assert set(found(query)) == expected


def test_query_parses_to_conditions() -> None:
    assert parse_query("acc@1>80 license=='BSD 3' resnet") == [
        Condition("acc@1", ">", "80"),
        Condition("licence", "=", "BSD 3"),
        Condition("name", "~", "resnet"),
    ]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("acc@1>", "nothing to compare with. Write conditions without blanks: acc@1>80"),
        ("acc@1 > 80", "is not a condition like acc@1>80"),
        (">80", "is not a condition"),
        ("acc@1>high", "'high' is not a number for acc@1"),
        ("acc@1=>80", "'>80' is not a number"),
        ("size<big", "'big' is not a number for size"),
        ("size<-1", "'-1' is not a number for size"),
        ("size<1e400", "is not a number for size"),
        ("params<5x", "'5x' is not a number for params"),
        ("params<M", "'M' is not a number for params"),
        ("acc@1~80", "acc@1 is a number, and compares with"),
        ("size~8", "size is a number"),
        ("task>classification", "task is text, and compares with =, != and ~"),
        ("licence<=MIT", "licence is text"),
        ("default>yes", "default is yes or no"),
        ("default~yes", "default is yes or no"),
        ("default=maybe", "'maybe' is neither yes nor no"),
        ("name='unclosed", "No closing quotation"),
        ("acc@2>80", "'acc@2' is neither a field nor a metric. Known are: 1px, acc@1, acc@5, epe, size,"),
        ("colour>80", "'colour' is neither a field nor a metric"),
    ],
)
def test_query_that_does_not_parse_says_why(query: str, reason: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        search(ALL, query)
    assert reason in str(caught.value)


def test_number_that_is_none_is_found_nowhere() -> None:
    assert found("acc@1<nan") == found("acc@1>nan") == []


def test_value_of_an_entry_is_a_field_a_flag_or_a_metric() -> None:
    assert value_of(SMALL, "SIZE") == 10_000_000
    assert value_of(SMALL, "num_params") == 2_500_000
    assert value_of(SMALL, "acc@1") == 80.5
    assert (value_of(SMALL, "default"), value_of(LARGE, "default")) == (1, 0)
    assert value_of(BARE, "classes") is None
    assert value_of(BARE, "acc@1") is None


# -- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "sort", "expected"),
    [
        ("", None, ["bare", "flow", "large", "small"]),
        ("", "name", ["bare", "flow", "large", "small"]),
        ("", "-name", ["small", "large", "flow", "bare"]),
        ("acc@1>0", None, ["large", "small"]),
        ("task=classification acc@1>0", None, ["large", "small"]),
        ("acc@1>0", "-acc@1", ["small", "large"]),
        ("size>0", None, ["large", "small"]),  # a field is a limit, not what one looks for: by name
        ("size>0", "size", ["small", "large"]),
        ("size>0", "-size", ["large", "small"]),
        ("acc@1>0", "params", ["small", "large"]),
        ("acc@1>0", "num_params", ["small", "large"]),
        ("acc@1>0", "-GOPS", ["large", "small"]),
        ("acc@1>0", "classes", ["large", "small"]),
        ("licence~b", "license", ["large"]),
        # what has no value comes last, in the order it came
        ("", "acc@1", ["large", "small", "flow", "bare"]),
        ("", "-acc@1", ["small", "large", "flow", "bare"]),
        ("", "size", ["small", "large", "flow", "bare"]),
        ("", "task", ["bare", "large", "small", "flow"]),
        ("", "default", ["small", "large", "flow", "bare"]),
        ("", "-quantized", ["small", "flow", "bare", "large"]),
    ],
)
def test_answers_are_sorted(query: str, sort: str | None, expected: list[str]) -> None:
    assert found(query, sort=sort) == expected


def test_least_error_comes_first() -> None:
    worse = entry("Worse_Weights", metrics={"Sintel": {"epe": 2}, "Kitti": {"fl_all": 17.5}})
    better = entry("Better_Weights", metrics={"Sintel": {"epe": 1}, "Kitti": {"fl_all": 4.5}})

    assert found("epe<9", [worse, FLOW, better]) == ["better", "flow", "worse"]
    assert found("", [worse, better], sort="fl_all") == ["better", "worse"]
    assert found("", [better, worse], sort="-fl_all") == ["worse", "better"]


@pytest.mark.parametrize("sort", ["colour", "-", "--size", "acc@1>80"])
def test_unknown_order_is_refused(sort: str) -> None:
    with pytest.raises(InvalidQuery, match="is neither a field nor a metric"):
        search(ALL, "", sort=sort)


def test_no_entries_are_found_among_none() -> None:
    assert search([], "size<1") == []
    assert search(iter(ALL), "small") == [SMALL]


# -- the built-in catalog ---------------------------------------------------------------------------------------------


def test_example_of_the_manual_finds_real_weights() -> None:
    answers = search(BUILT_IN, "acc@1>80 size<100MB task=classification")

    accuracies = [one.metric("acc@1") for one in answers]
    assert len(answers) == 10
    assert accuracies == sorted((value for value in accuracies if value is not None), reverse=True)
    assert accuracies[-1] is not None
    assert accuracies[-1] > 80
    assert all(one.size is not None and one.size < 100_000_000 for one in answers)
    assert {"classification"} <= {one.task for one in answers} <= {"classification", "video-classification"}


def test_flow_models_are_sorted_by_their_least_error() -> None:
    answers = search(BUILT_IN, "epe<1.9")

    assert [one.metric("epe") for one in answers] == [1.3822, 1.4411, 1.819]


words = st.builds(
    lambda name, sign, value: f"{name}{sign}{value}",
    st.sampled_from(["acc@1", "size", "params", "default", "task", "licence", "1px", "colour", "", "a b"]),
    st.sampled_from(["", "=", "==", "!=", "<", "<=", ">", ">=", "~", "=<", "<>"]),
    st.sampled_from(["", "80", "80%", "-1", "10MB", "5M", "nan", "inf", "1e999", "yes", "MIT", "'", "⁵", "٣"])
    | st.text(),
)


@given(st.text() | st.lists(words, max_size=3).map(" ".join), st.none() | st.text(max_size=6) | words)
@example("size<1e308t", None)
@example("params<1e308b", "-")
@example("\\", None)
@example("a\0=b", "\0")
def test_any_text_is_a_query_or_invalid(query: str, sort: str | None) -> None:
    try:
        answers = search(ALL, query, sort=sort)
    except InvalidQuery:
        return
    assert all(one in ALL for one in answers)
    assert len({one.enum for one in answers}) == len(answers)
