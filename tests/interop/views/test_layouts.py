"""Where names go in views: pure functions over sources, judged by the rules of torch.hub and iopath."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.interop.views.conftest import NOON, digest_of
from weightstore.errors import InvalidInput, InvalidSource
from weightstore.interop.views.layouts import KINDS, Entry, Held, Link, Text, is_inside
from weightstore.interop.views.plan import plan_view
from weightstore.source import Source

COMMIT, OTHER = "a" * 40, "b" * 40
ETAG = "c" * 40


def held(url: str, data: bytes = b"x", **facts: object) -> Held:
    return Held(Source(url), digest_of(data), len(data), **facts)


def paths(kind: str, *sources: Held) -> list[str]:
    return [entry.path for entry in plan_view(kind, sources).entries]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://h.example/models/resnet18-f37072fd.pth", "hub/checkpoints/resnet18-f37072fd.pth"),
        ("https://h.example/a%20b.pth", "hub/checkpoints/a%20b.pth"),
        ("https://h.example/model.pth?download=true", "hub/checkpoints/model.pth"),
        ("https://h.example/model.pth;v=2", "hub/checkpoints/model.pth"),
    ],
)
def test_torch_hub_names_are_the_last_segment_as_torch_takes_it(url, path):
    assert paths("torch-hub", held(url)) == [path]
    assert os.path.basename(urlparse(url).path) == path.rpartition("/")[2]


@pytest.mark.parametrize("url", ["https://h.example/", "https://h.example/a/..", "https://h.example/" + "x" * 256])
def test_a_url_without_a_usable_name_is_passed_over(url):
    plan = plan_view("torch-hub", [held(url)])
    assert plan.entries == ()
    assert [one.source for one in plan.passed_over] == [Source(url)]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://dl.example/detectron2/137/model_final.pkl", "detectron2/137/model_final.pkl"),
        ("https://dl.example/model.pkl", "model.pkl"),
        ("https://dl.example//twice/model.pkl", "twice/model.pkl"),
        ("https://dl.example/a/model.pkl?v=2", "a/model.pkl?v=2"),
    ],
)
def test_iopath_names_are_the_path_without_the_host(url, path):
    assert paths("fvcore", held(url)) == [path]


def test_names_that_iopath_makes_up_by_chance_are_passed_over():
    plan = plan_view("fvcore", [held("https://dl.example/" + "x" * 251)])
    assert plan.entries == ()
    assert "random" in plan.passed_over[0].reason


def test_hub_files_lie_under_their_commit_and_their_branch():
    plan = plan_view("huggingface", [held("hf://org/m@main/sub/w.bin", commit=COMMIT, etag=ETAG)])
    assert [entry.path for entry in plan.entries] == [f"models--org--m/blobs/{ETAG}"]
    (link,) = plan.links
    assert (link.path, link.target) == (f"models--org--m/snapshots/{COMMIT}/sub/w.bin", f"../../../blobs/{ETAG}")
    assert plan.texts == (Text("models--org--m/refs/main", COMMIT),)


def test_without_an_etag_a_hub_blob_is_named_by_its_digest():
    assert paths("huggingface", held(f"hf://org/m@{COMMIT}/w.bin")) == [f"models--org--m/blobs/{digest_of(b'x').hex}"]


def test_an_etag_that_another_ref_recorded_of_the_same_content_counts():
    both = [held("hf://org/m@main/w.bin", commit=COMMIT, etag=ETAG), held(f"hf://org/m@{COMMIT}/w.bin")]
    assert paths("huggingface", *both) == [f"models--org--m/blobs/{ETAG}"]


def test_an_etag_that_claims_to_be_another_digest_is_not_believed():
    lie = held("hf://org/m@main/w.bin", commit=COMMIT, etag="d" * 64)
    assert paths("huggingface", lie) == [f"models--org--m/blobs/{digest_of(b'x').hex}"]


def test_a_hub_file_of_an_unknown_commit_is_passed_over():
    plan = plan_view("huggingface", [held("hf://org/m@main/w.bin")])
    assert plan.entries == ()
    assert "which commit main meant" in plan.passed_over[0].reason


def test_a_branch_that_moved_means_the_commit_that_was_seen_last():
    earlier = held("hf://org/m@main/a.bin", b"a", commit=OTHER, seen_at=NOON)
    later = held("hf://org/m@main/b.bin", b"b", commit=COMMIT, seen_at=NOON + timedelta(hours=1))
    plan = plan_view("huggingface", [later, earlier])
    assert plan.texts == (Text("models--org--m/refs/main", COMMIT),)
    assert {link.path.split("/")[2] for link in plan.links} == {COMMIT, OTHER}
    assert [one.source for one in plan.passed_over] == [earlier.source]


def test_two_sources_with_one_name_and_other_content_are_refused_and_all_are_named():
    sources = [
        held("https://one.example/model.pth", b"1"),
        held("https://two.example/model.pth", b"2"),
        held("https://one.example/other.pth", b"1"),
        held("https://two.example/x/other.pth", b"2"),
    ]
    with pytest.raises(InvalidInput) as caught:
        plan_view("torch-hub", sources)
    for source in sources:
        assert str(source.source) in str(caught.value)
    assert "--locked" in str(caught.value)


def test_two_sources_with_one_name_and_the_same_content_share_it():
    assert len(paths("torch-hub", held("https://one.example/m.pth"), held("https://two.example/m.pth"))) == 1


def test_a_name_that_is_a_directory_of_another_is_refused():
    with pytest.raises(InvalidInput, match=r"as a directory https://two\.example/a/b"):
        plan_view("fvcore", [held("https://one.example/a"), held("https://two.example/a/b", b"2")])


@pytest.mark.parametrize("kind", KINDS)
@given(
    url=st.one_of(
        st.from_regex(r"https://[a-z]{1,5}(/[^\s#]{0,12}){0,5}", fullmatch=True),
        st.from_regex(r"hf://[a-z]{1,4}/[a-z]{1,4}(@[a-z./%]{0,9})?(/[^\s#?]{0,12}){1,4}", fullmatch=True),
        st.lists(st.sampled_from(["..", ".", "%2e%2e", "a", "", "%2F", "\\", "~", "%00"]), max_size=6).map(
            lambda steps: "https://h/" + "/".join(steps)
        ),
    )
)
def test_no_source_has_a_name_outside_of_the_view(kind, url):
    try:
        one = held(url, commit=COMMIT)
    except InvalidSource:
        return
    plan = plan_view(kind, [one])
    root = Path("/view")
    for piece in plan.pieces():
        where = os.path.normpath(root / piece.path)
        assert where.startswith("/view/")
        assert where == str(root / piece.path), "no step is empty, . or .."
        assert is_inside(piece.path)
        if isinstance(piece, Link):
            assert os.path.normpath((root / piece.path).parent / piece.target).startswith("/view/")
    assert all(isinstance(piece, Entry | Link | Text) for piece in plan.pieces())
