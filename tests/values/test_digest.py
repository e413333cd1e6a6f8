"""Digests and pins as values, and which file names carry a pin."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weightstore.digest import Digest, Pin, pin_in_file_name
from weightstore.errors import InvalidDigest

FULL = "0123456789abcdef" * 4
HEX = "0123456789abcdef"
CATALOG = Path(__file__).parents[2] / "weightstore" / "catalog" / "torchvision.json"

digests = st.text(HEX, min_size=64, max_size=64).map(Digest)
pins = st.one_of(st.just(Pin()), st.text(HEX, min_size=8, max_size=64).map(Pin))


# -- digests ----------------------------------------------------------------------------------------------------------


@given(digests)
def test_digest_is_read_as_it_is_written(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(st.one_of(st.text(), st.from_regex(r"sha256:[0-9a-fA-F]{60,66}", fullmatch=True)))
@example("sha256:" + FULL)
def test_what_parses_as_a_digest_is_written_as_it_was_read(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidDigest:
        return
    assert str(digest) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        FULL,
        "sha256:",
        "sha256:" + FULL[:-1],
        "sha256:" + FULL + "0",
        "sha256:" + FULL.upper(),
        "SHA256:" + FULL,
        "sha512:" + FULL,
        "sha256=" + FULL,
        f" sha256:{FULL}",
        f"sha256:{FULL}\n",
        "sha256:" + FULL[:-1] + "g",
        "sha256:" + FULL[:-1] + "٣",
        "none",
        "sha256:../../etc/passwd",
    ],
)
def test_digest_in_other_forms_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


def test_refused_digest_is_quoted_in_part_only() -> None:
    with pytest.raises(InvalidDigest) as caught:
        Digest.parse("sha256:" + "x" * 100_000)
    with pytest.raises(InvalidDigest) as caught_pin:
        Pin("y" * 100_000)

    assert len(str(caught.value)) < 200
    assert len(str(caught_pin.value)) < 200


def test_digests_sort_by_their_digits() -> None:
    first, second = Digest("0" * 64), Digest("1" + "0" * 63)

    assert sorted([second, first]) == [first, second]


# -- pins -------------------------------------------------------------------------------------------------------------


@given(pins)
def test_pin_is_read_as_it_is_written(pin: Pin) -> None:
    assert Pin.parse(str(pin)) == pin


@given(st.one_of(st.text(), st.from_regex(r"sha256:[0-9a-fA-F]{0,66}", fullmatch=True)))
@example("none")
def test_what_parses_as_a_pin_is_written_as_it_was_read(text: str) -> None:
    try:
        pin = Pin.parse(text)
    except InvalidDigest:
        return
    assert str(pin) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "None",
        "sha256:",
        "sha256",
        "deadbeef",
        "md5:deadbeef",
        "sha256:" + "a" * 7,
        "sha256:" + "a" * 65,
        "sha256:DEADBEEF",
        "sha256:deadbeeg",
        "sha256:deadbeef ",
        "sha256:deadbeef\n",
    ],
)
def test_pin_in_other_forms_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Pin.parse(text)


@given(digests, st.integers(8, 64))
def test_every_prefix_of_eight_digits_or_more_matches_its_digest(digest: Digest, length: int) -> None:
    pin = Pin(digest.hex[:length])

    assert pin.matches(digest)
    assert pin.is_pinned
    assert pin.is_full == (length == 64)
    assert pin.digest == (digest if length == 64 else None)


@given(digests, st.integers(8, 64), st.data())
def test_pin_with_one_other_digit_does_not_match(digest: Digest, length: int, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, length - 1))
    digit = data.draw(st.sampled_from([one for one in HEX if one != digest.hex[position]]))

    pin = Pin(digest.hex[:position] + digit + digest.hex[position + 1 : length])

    assert not pin.matches(digest)
    assert not pin.agrees_with(Pin.of(digest))


@given(digests)
def test_no_pin_matches_anything_and_is_not_pinned(digest: Digest) -> None:
    assert Pin().matches(digest)
    assert not Pin().is_pinned
    assert not Pin().is_full
    assert Pin().digest is None
    assert Pin.of(digest).digest == digest


@given(digests, st.integers(0, 57), st.integers(0, 57))
def test_of_two_pins_of_one_digest_the_longer_is_narrower(digest: Digest, one: int, other: int) -> None:
    first, second = Pin(digest.hex[: one + 7] if one else ""), Pin(digest.hex[: other + 7] if other else "")

    assert first.agrees_with(second)
    assert second.agrees_with(first)
    assert first.narrower(second).hex == max(first.hex, second.hex, key=len)
    assert first.narrower(second) == second.narrower(first)


@given(pins, pins)
def test_pins_agree_exactly_where_one_digest_could_match_both(first: Pin, second: Pin) -> None:
    candidate = Digest(first.narrower(second).hex.ljust(64, "0"))

    assert first.agrees_with(second) == (first.matches(candidate) and second.matches(candidate))


# -- file names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50-11ad3fa6.pth", "11ad3fa6"),
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "258fb6c6"),
        ("model-deadbeef1.pt", "deadbeef1"),
        (f"model-{FULL}.safetensors", FULL),
        ("model-deadbeef.tar.gz", "deadbeef"),
        ("model-deadbeef.t7", "deadbeef"),
        ("a-12345678-deadbeef.pth", "deadbeef"),
        ("-deadbeef.pth", "deadbeef"),
        ("model-10203040.pth", "10203040"),  # eight digits and no date
        ("model-20241340.pth", "20241340"),  # month 13
        ("model-20240132.pth", "20240132"),  # day 32
        ("mobilenet_v2_qnnpack_37f702c5.pth", "37f702c5"),
        ("resnet18_fbgemm_16fa66dd.pth", "16fa66dd"),
        ("resnet50_fbgemm_bf931d71.pth", "bf931d71"),
        ("resnext101_32x8_fbgemm_09835ccf.pth", "09835ccf"),
    ],
)
def test_file_name_carries_a_pin(name: str, expected: str) -> None:
    assert pin_in_file_name(name) == Pin(expected)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "model.pth",
        "model-2.0.pth",
        "model-12345678.0.pth",
        "model-deadbeef.0.pth",
        "model-deadbeef.7z",
        "model-20240131.pth",
        "model-19991231.pth",
        "model-20240131.tar.gz",
        "model-deadbee.pth",
        "model-DEADBEEF.pth",
        "model-deadBEEF.pth",
        "model-deadbeef",
        "model-deadbeef.",
        "model-deadbeef.pth.",
        "model-deadbeef.pth\n",
        "model-deadbeef.pth?download=1",
        "model-deadbeef .pth",
        "model-deadbeef-final.pth",
        "model_deadbeef.pth",
        "modeldeadbeef.pth",
        "deadbeef.pth",
        "my_resnet18_fbgemm_16fa66dd.pth",
        "resnet18_fbgemm_16fa66dd.pth.tar",
        "model-" + "d" * 32 + ".pth",
        "model-" + "d" * 40 + ".pth",
        "model-" + "d" * 65 + ".pth",
        "model-" + "d" * 128 + ".pth",
        "model-deadbeeg.pth",
        "model-１２３４５６７８.pth",
    ],
)
def test_file_name_carries_no_pin(name: str) -> None:
    assert pin_in_file_name(name) == Pin()


def test_file_names_of_the_whole_catalog_carry_its_pins() -> None:
    entries = [
        entry for enum in json.loads(CATALOG.read_text("utf-8"))["enums"].values() for entry in enum["entries"].values()
    ]

    unpinned = [
        entry["source"]
        for entry in entries
        if pin_in_file_name(entry["source"].rpartition("/")[2]) != Pin(entry["pin"])
    ]

    assert len(entries) == 166
    assert unpinned == []


@given(
    st.one_of(st.text(), st.from_regex(r"[a-z0-9-]{0,9}[-_][0-9a-fA-F]{6,66}(\.[a-z0-9]{0,4}){0,3}", fullmatch=True))
)
def test_pin_of_a_file_name_stands_in_it_behind_its_hyphen(name: str) -> None:
    pin = pin_in_file_name(name)

    if pin.is_pinned:
        assert re.search(rf"[-_]{pin.hex}\.", name)
        assert len(pin.hex) not in {32, 40}


@given(st.text(HEX, min_size=9, max_size=64).filter(lambda text: len(text) not in {32, 40}))
def test_any_nine_digits_or_more_before_an_extension_are_a_pin(digits: str) -> None:
    assert pin_in_file_name(f"model-{digits}.pth").hex == digits
