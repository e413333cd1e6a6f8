"""Files on the Hub as values: read as they are written, and never a way out of their repository."""

import hashlib
import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weightstore.errors import InvalidSource
from weightstore.hub import MAIN, HubFile, HubToken, is_commit
from weightstore.source import Source, parse_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KINDS = ["models", "datasets", "spaces", "kernels", "buckets"]

names = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,10}[A-Za-z0-9_])?", fullmatch=True).filter(
    lambda name: "--" not in name and ".." not in name and name not in KINDS
)
repos = names | st.builds("{}/{}".format, names, names)
revisions = st.sampled_from([MAIN, "refs/pr/1", "v1.0+cu121", COMMIT]) | names
steps = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\") | st.just(" "), min_size=1
).filter(lambda step: step not in {".", ".."})
files = st.lists(steps, min_size=1, max_size=4).map("/".join)
hub_files = st.builds(HubFile, repos, revisions, files)


@given(hub_files)
def test_a_file_is_read_as_it_was_written(file: HubFile) -> None:
    assert HubFile.parse(str(file)) == file


@given(hub_files)
def test_a_file_is_a_source_and_its_canonical_form_is_the_same(file: HubFile) -> None:
    source = Source(str(file))
    assert source.hub_file == file
    assert source.display == source.url
    assert Source(source.display).key == source.key
    assert parse_source(str(file))[0] == source


@given(hub_files)
def test_two_files_are_one_source_only_where_they_are_the_same(file: HubFile) -> None:
    assert Source(str(file)) != Source(str(file.at("an/other")))
    assert Source(str(file)).key == hashlib.sha256(str(file).encode()).hexdigest()


@given(hub_files)
def test_another_revision_is_of_the_same_file(file: HubFile) -> None:
    other = file.at(COMMIT)
    assert (other.repo, other.file, other.revision, other.is_commit) == (file.repo, file.file, COMMIT, True)


@given(st.text())
@example("org/model@main/../x")
@example("org/model@main/a/%2e%2e/x")
@example("org/model@main/a%2F..%2Fx")
@example("org/model@..%2F..%2Fapi/x")
@example("../model@main/x")
@example("org/..@main/x")
@example("org/model@main//etc/passwd")
@example("org/model@main/a%00b")
@example("org/model@main/%FF")
@example("org/model@main/a%5C..%5Cb")
@example("@main/x")
@example("org/model@/x")
def test_whatever_is_read_stays_inside_its_repository(text: str) -> None:
    try:
        file = HubFile.parse("hf://" + text)
    except InvalidSource:
        return
    assert posixpath.normpath(file.file) == file.file
    assert not file.file.startswith(("/", ".."))
    assert "\\" not in file.file
    assert ".." not in file.repo.split("/")
    assert ".." not in file.revision
    assert HubFile.parse(str(file)) == file


@pytest.mark.parametrize(
    ("text", "repo", "revision", "file"),
    [
        ("hf://org/model/model.safetensors", "org/model", "main", "model.safetensors"),
        ("hf://org/model@v1/a/b.bin", "org/model", "v1", "a/b.bin"),
        ("hf://org/model@refs%2Fpr%2F1/b.bin", "org/model", "refs/pr/1", "b.bin"),
        ("hf://gpt2@main/model.safetensors", "gpt2", "main", "model.safetensors"),
        ("hf://gpt2@main/onnx/model.onnx", "gpt2", "main", "onnx/model.onnx"),
        ("hf://org/model/a%20b.pth", "org/model", "main", "a b.pth"),
    ],
)
def test_what_is_left_out_is_the_main_branch(text: str, repo: str, revision: str, file: str) -> None:
    assert HubFile.parse(text) == HubFile(repo, revision, file)


@pytest.mark.parametrize(
    "text",
    [
        "hf://org/model",
        "hf://org/model@main",
        "hf://org/model@main/",
        "hf://model.safetensors",
        "hf://",
        "hf://org/model/x?download=true",
        "hf://org/model/x#sha256=deadbeef",
        "https://huggingface.co/org/model/resolve/main/x",
        "hf://or--g/model/x",
        "hf://org/model@a..b/x",
        *(f"hf://{kind}/org/model/x" for kind in KINDS),
    ],
)
def test_what_names_no_file_of_a_model_is_refused(text: str) -> None:
    with pytest.raises(InvalidSource):
        HubFile.parse(text)


def test_a_pin_stands_beside_a_file() -> None:
    source, pin = parse_source(f"HF://org/model/x.bin#sha256={'a' * 64}")
    assert (source.display, pin.hex) == ("hf://org/model@main/x.bin", "a" * 64)


def test_a_commit_is_forty_lower_case_digits() -> None:
    assert is_commit(COMMIT)
    assert not any(is_commit(text) for text in ("", "main", COMMIT.upper(), COMMIT[:-1], COMMIT + "0", COMMIT + "\n"))


def test_a_token_is_not_shown() -> None:
    assert "s3cret" not in repr(HubToken("HF_TOKEN", text="s3cret"))
