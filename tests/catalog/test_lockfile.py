"""Lockfiles: written the same by everyone, read strictly, and never changed by accident."""

import json
import os
import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weightstore.catalog.lockfile import _LIMIT, Locked, Lockfile
from weightstore.digest import Digest, Pin
from weightstore.errors import Drift, InvalidRecord, StoreError
from weightstore.records import MAX_SIZE
from weightstore.source import Source

HEX = "0123456789abcdef"
PLACE = "weights.lock"
A, B = Digest("a" * 64), Digest("b" * 64)
RESNET = Locked("torchvision/ResNet50_Weights.IMAGENET1K_V2", Source("https://host/r-11ad3fa6.pth"), A, 102540417)
VGG = Locked("torchvision/VGG16_Weights.IMAGENET1K_V1", Source("https://host/v.pth"), B, 5)

VALID = f"""version = 1

[[weights]]
name = "x"
source = "https://host/x"
digest = "{A}"
size = 5
"""

printable = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=20)
entries = st.builds(
    Locked,
    name=printable | st.sampled_from(["\"quoted\" 'name'", "back\\slash", "# no comment", "[[weights]]", "模型"]),
    source=st.sampled_from(
        ["https://host/x.pth", "https://[::1]:8080/a?b=c", "file:///data/a%20b", "http://h/è", "hf://o/m/x"]
    ).map(Source),
    digest=st.text(HEX, min_size=64, max_size=64).map(Digest),
    size=st.integers(0, MAX_SIZE),
    asked_by=st.just("") | printable,
    commit=st.just("") | st.text(HEX, min_size=40, max_size=40),
)
lockfiles = st.lists(entries, max_size=5, unique_by=lambda entry: entry.name).map(
    lambda found: Lockfile(tuple(sorted(found, key=lambda entry: entry.name)))
)


def read(data: str | bytes) -> Lockfile:
    return Lockfile.parse(data if isinstance(data, bytes) else data.encode(), place=PLACE)


def refusal(data: str | bytes) -> str:
    with pytest.raises(InvalidRecord) as caught:
        read(data)
    assert caught.value.place == PLACE
    return caught.value.reason


# -- round trips ------------------------------------------------------------------------------------------------------


@given(lockfiles)
def test_lockfile_is_read_as_it_was_written(lockfile: Lockfile) -> None:
    assert read(lockfile.encode()) == lockfile


@given(lockfiles, st.randoms())
def test_lockfile_is_written_the_same_in_whatever_order_it_was_filled(lockfile: Lockfile, random: object) -> None:
    shuffled = list(lockfile.entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert Lockfile(tuple(shuffled)).encode() == lockfile.encode()
    assert read(Lockfile(tuple(shuffled)).encode()).encode() == lockfile.encode()


def test_lockfile_looks_like_this() -> None:
    assert Lockfile((VGG, RESNET)).encode().decode() == (
        "# Written by `weightstore lock`. Check it in; fetch with `weightstore prefetch --locked`.\n"
        "version = 1\n"
        "\n"
        "[[weights]]\n"
        'name = "torchvision/ResNet50_Weights.IMAGENET1K_V2"\n'
        'source = "https://host/r-11ad3fa6.pth"\n'
        f'digest = "sha256:{"a" * 64}"\n'
        "size = 102540417\n"
        "\n"
        "[[weights]]\n"
        'name = "torchvision/VGG16_Weights.IMAGENET1K_V1"\n'
        'source = "https://host/v.pth"\n'
        f'digest = "sha256:{"b" * 64}"\n'
        "size = 5\n"
    )


def test_empty_lockfile_is_one() -> None:
    assert read(Lockfile().encode()) == Lockfile()
    assert read("version = 1\n") == Lockfile()
    assert read("version = 1\nweights = []\n") == Lockfile()


@given(st.text())
@example("\x7f\x00\x1f\x85\u2028\"\\'\n\r\t")
def test_any_name_is_written_as_toml_that_means_it(name: str) -> None:
    try:
        data = Lockfile((Locked(name, RESNET.source, A, 1),)).encode()
    except UnicodeEncodeError:
        assert any("\ud800" <= char <= "\udfff" for char in name)
        return
    assert tomllib.loads(data.decode())["weights"][0]["name"] == name


def test_lockfile_contains_no_credentials() -> None:
    secret = Locked("x", Source("https://user:s3cret@host/x?X-Amz-Signature=s3cret&v=1"), A, 1)

    data = Lockfile((secret,)).encode()

    assert b"s3cret" not in data
    assert read(data).entries == (secret,)
    assert read(data).entries[0].source.url == "https://host/x?v=1"


# -- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        VALID,
        VALID.replace("\n", "\r\n"),
        VALID.replace('"', "'"),
        VALID.replace("[[weights]]", "# the backbone\n[[ weights ]]  # see the paper").replace(" = ", "="),
        VALID.replace("size = 5", "size = 0x5"),
        VALID.replace("size = 5", "size = +5"),
        VALID.replace('"x"', '"\\u0078"'),
        VALID.replace('"x"', '"""x"""'),
        f'weights = [{{size = 5, digest = "{A}", source = "https://host/x", name = "x"}}]\nversion = 1\n',
        f'version = 1\n[[weights]]\nsize = 5\ndigest = "{A}"\n\n\nname = "x"\nsource = "https://host/x"',
    ],
)
def test_lockfile_edited_by_hand_means_the_same(text: str) -> None:
    assert read(text) == Lockfile((Locked("x", Source("https://host/x"), A, 5),))


def test_lockfile_merged_by_hand_is_put_in_order() -> None:
    text = VALID.replace('"x"', '"z"') + VALID.replace("version = 1\n", "").replace('"x"', '"a"')

    assert [entry.name for entry in read(text).entries] == ["a", "z"]


# -- strictness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "version None; this weightstore reads version 1"),
        ("version = 2", "version 2; this weightstore reads version 1"),
        ('version = "1"', "version '1'"),
        ("version = true", "version True"),
        ("version = 1.0", "version 1.0"),
        ("version = [1]", "version [1]"),
        ("version = 1\nversion = 1", "not TOML"),
        ("version = ", "not TOML"),
        ("version = 1\nextra = 2", "something other than 'version' and [[weights]]"),
        ("version = 1\n[tool]\nx = 1", "something other"),
        ("version = 1\nweights = 5", "something other"),
        ("version = 1\n[weights]\nname = 'x'", "something other"),
        ("version = 1\nweights = [5]", "entry 1: has name, source, digest and size, perhaps asked_by"),
        ("version = 1\n[[weights]]", "entry 1: has name"),
        (VALID + "extra = 1\n", "entry 1: has name"),
        (VALID + VALID.replace("version = 1\n", ""), "'x' is locked twice"),
        (VALID + "size = 5\n", "not TOML"),
        (VALID + "[[weights]]\n", "entry 2: has name"),
    ],
)
def test_damaged_lockfile_is_refused(text: str, reason: str) -> None:
    assert reason in refusal(text)


@pytest.mark.parametrize("field", ["name", "source", "digest", "size"])
def test_missing_field_is_refused(field: str) -> None:
    text = "\n".join(line for line in VALID.splitlines() if not line.startswith(field))

    assert refusal(text) == "entry 1: has name, source, digest and size, perhaps asked_by and commit, and nothing else"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"x"', "5", "name, source and digest are strings"),
        ('"https://host/x"', "['https://host/x']", "name, source and digest are strings"),
        (f'"{A}"', "1979-05-27T07:32:00Z", "name, source and digest are strings"),
        ('"x"', '""', "the name is empty, too long or not printable"),
        ('"x"', f'"{"x" * 8201}"', "the name is empty"),
        ('"x"', '"a\\nb"', "the name is empty"),
        ('"x"', '"a\\u001bb"', "the name is empty"),
        ('"x"', '"a\\u202Eb"', "the name is empty"),
        ("size = 5", "size = 5.0", "size is not a number of bytes"),
        ("size = 5", "size = true", "size is not a number of bytes"),
        ("size = 5", 'size = "5"', "size is not a number of bytes"),
        ("size = 5", "size = -1", "size is not a number of bytes"),
        ("size = 5", "size = nan", "size is not a number of bytes"),
        ("size = 5", "size = inf", "size is not a number of bytes"),
        ("size = 5", f"size = {MAX_SIZE + 1}", "size is not a number of bytes"),
        (f'"{A}"', f'"{"a" * 64}"', "a digest looks like sha256:<64 hex>"),
        (f'"{A}"', '"sha256:deadbeef"', "not a SHA-256"),
        (f'"{A}"', f'"sha256:{"A" * 64}"', "not a SHA-256"),
        ('"https://host/x"', '"./x"', "known schemes"),
        ('"https://host/x"', '"https://host/x#sha256=deadbeef"', "fragment"),
        ('"https://host/x"', '"../../etc/passwd"', "known schemes"),
        ('"https://host/x"', '"hf://org/model/../x"', "not the path of a file"),
        ("size = 5", 'size = 5\ncommit = "main"', "commit is not a commit"),
        ("size = 5", "size = 5\ncommit = 5", "commit is not a commit"),
        ("size = 5", f'size = 5\ncommit = "{"C" * 40}"', "commit is not a commit"),
        ("size = 5", 'size = 5\nasked_by = "a\\nb"', "asked_by is not a library's name"),
        ("size = 5", f'size = 5\nasked_by = "{"x" * 201}"', "asked_by is not a library's name"),
        ("size = 5", 'size = 5\netag = "x"', "and nothing else"),
    ],
)
def test_wrong_field_is_refused_with_its_entry(old: str, new: str, reason: str) -> None:
    second = VALID.replace("version = 1\n", "").replace('"x"', '"first"').replace("[[weights]]", "[[weights]]", 1)
    text = "version = 1\n" + second + VALID.replace("version = 1\n", "").replace(old, new)

    said = refusal(text)

    assert said.startswith("entry 2: ")
    assert reason in said


def test_refused_source_does_not_show_its_credentials() -> None:
    assert "s3cret" not in refusal(VALID.replace("https://host/x", "https://user:s3cret@host:port/x"))


@pytest.mark.parametrize("length", [1, 8200])
def test_name_may_be_as_long_as_a_url(length: int) -> None:
    assert len(read(VALID.replace('"x"', f'"{"x" * length}"')).entries[0].name) == length


@pytest.mark.parametrize(
    "data",
    [b"\xff", "version = 1".encode("utf-16"), b"version = " + b"1" * 5000, b"version = " + b"[" * 100_000, b"\0"],
    ids=["latin-1", "utf-16", "huge", "deep", "NUL"],
)
def test_what_is_no_toml_is_refused(data: bytes) -> None:
    assert refusal(data).startswith("not TOML")


def test_lockfile_without_end_is_refused() -> None:
    assert refusal(bytes(_LIMIT + 1)) == f"larger than {_LIMIT} bytes"


@given(st.binary() | st.text().map(str.encode))
def test_arbitrary_bytes_are_no_lockfile(data: bytes) -> None:
    refusal(data)


@given(lockfiles, st.data())
def test_lockfile_with_some_bytes_changed_is_refused_or_sound(lockfile: Lockfile, data: st.DataObject) -> None:
    damaged = bytearray(lockfile.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    try:
        found = read(bytes(damaged))
    except InvalidRecord:
        return
    assert read(found.encode()) == found


toml_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(HEX, max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(["name", "source", "digest", "size", "version"]), toml_values)
def test_lockfile_with_one_field_replaced_is_refused_or_sound(field: str, value: object) -> None:
    written = json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")
    text = "\n".join(f"{field} = {written}" if line.startswith(field) else line for line in VALID.splitlines())

    try:
        found = read(text)
    except InvalidRecord:
        return
    assert read(found.encode()) == found


# -- merging ----------------------------------------------------------------------------------------------------------


def test_merging_adds_what_is_new_in_order() -> None:
    lockfile = Lockfile((VGG,))

    merged = lockfile.merge([RESNET, VGG], update=False, place=PLACE)

    assert merged.entries == (RESNET, VGG)
    assert lockfile.entries == (VGG,)
    assert merged.digests() == {A, B}


@pytest.mark.parametrize(
    "changed",
    [
        Locked(VGG.name, VGG.source, A, VGG.size),
        Locked(VGG.name, VGG.source, VGG.digest, VGG.size + 1),
        Locked(VGG.name, Source("https://elsewhere/v.pth"), VGG.digest, VGG.size),
    ],
)
def test_merging_what_has_changed_is_drift_unless_it_is_meant(changed: Locked) -> None:
    lockfile = Lockfile((RESNET, VGG))

    with pytest.raises(Drift) as caught:
        lockfile.merge([changed], update=False, place=PLACE)

    assert caught.value.name == VGG.name
    assert str(caught.value) == (
        f"{VGG.name}: recorded {VGG.digest} ({VGG.size} bytes) from {VGG.source} in {PLACE}, "
        f"found {changed.digest} ({changed.size} bytes) from {changed.source}. "
        "If the change is meant, lock again with --update."
    )
    assert lockfile.merge([changed], update=True, place=PLACE).entries == (RESNET, changed)


def test_drift_within_what_is_merged_is_found_too() -> None:
    other = Locked(VGG.name, VGG.source, A, VGG.size)

    with pytest.raises(Drift):
        Lockfile().merge([VGG, other], update=False, place=PLACE)


def test_drift_does_not_show_credentials() -> None:
    old = Locked("x", Source("https://user:s3cret@host/x"), A, 1)
    new = Locked("x", Source("https://user:s3cret@other/x"), A, 1)

    with pytest.raises(Drift) as caught:
        Lockfile((old,)).merge([new], update=False, place=PLACE)
    assert "s3cret" not in str(caught.value)


def test_same_content_from_new_credentials_is_no_drift() -> None:
    old = Locked("x", Source("https://host/x?X-Amz-Signature=1"), A, 1)
    new = Locked("x", Source("https://host/x?X-Amz-Signature=2"), A, 1)

    assert len(Lockfile((old,)).merge([new], update=False, place=PLACE).entries) == 1


@given(lockfiles, lockfiles)
def test_merged_with_update_everything_new_is_in_and_nothing_else_is_lost(one: Lockfile, other: Lockfile) -> None:
    merged = one.merge(other.entries, update=True, place=PLACE)

    by_name = {entry.name: entry for entry in merged.entries}
    assert all(by_name[entry.name].is_same_content(entry) for entry in other.entries)
    assert {entry.name for entry in merged.entries} == {entry.name for entry in one.entries + other.entries}
    assert list(merged.entries) == sorted(merged.entries, key=lambda entry: entry.name)
    assert merged.merge(other.entries, update=False, place=PLACE) == merged


def test_locked_blob_is_wanted_exactly() -> None:
    wanted = RESNET.wanted()

    assert (wanted.name, wanted.source, wanted.pin) == (RESNET.name, RESNET.source, Pin.of(A))
    assert wanted.exact_size == RESNET.size


def test_a_branch_is_wanted_with_the_commit_that_it_was() -> None:
    locked = Locked("x", Source("hf://org/model/x.bin"), A, 1, commit="c" * 40)

    assert locked.wanted().alternatives == (Source(f"hf://org/model@{'c' * 40}/x.bin"),)
    assert replace(locked, commit="").wanted().alternatives == ()


def test_a_commit_is_wanted_once() -> None:
    source = Source(f"hf://org/model@{'c' * 40}/x.bin")

    assert Locked("x", source, A, 1, commit="c" * 40).wanted().sources == (source,)


def test_locking_the_same_again_keeps_who_asked_and_the_commit() -> None:
    known = Locked("x", Source("hf://org/model/x.bin"), A, 1, asked_by="timm", commit="c" * 40)
    bare = replace(known, asked_by="", commit="")

    assert Lockfile((known,)).merge([bare], update=False, place=PLACE).entries == (known,)
    newer = replace(bare, commit="d" * 40)
    merged = Lockfile((known,)).merge([newer], update=False, place=PLACE)
    assert merged.entries == (replace(known, commit="d" * 40),)
    changed = replace(bare, digest=B)
    assert Lockfile((known,)).merge([changed], update=True, place=PLACE).entries == (changed,)


# -- files ------------------------------------------------------------------------------------------------------------


def test_file_is_replaced_in_one_step_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / PLACE
    Lockfile((VGG,)).write(path)
    before = path.stat().st_ino

    Lockfile((RESNET, VGG)).write(path)

    assert Lockfile.read(path) == Lockfile((RESNET, VGG))
    assert path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == [PLACE]


def test_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecord, match=f"{tmp_path}/none.lock: No such file"):
        Lockfile.read(tmp_path / "none.lock")
    with pytest.raises(InvalidRecord, match=f"{tmp_path}: Is a directory"):
        Lockfile.read(tmp_path)


def test_damaged_file_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / PLACE
    path.write_text(VALID.replace("size = 5", "size = -5"), "utf-8")

    with pytest.raises(InvalidRecord, match=f"{path}: entry 1: size is not"):
        Lockfile.read(path)


def test_file_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Lockfile((VGG,)).write(tmp_path / "missing" / PLACE)
