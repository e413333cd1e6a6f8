"""Whatever the bytes are: a checkpoint or an InvalidCheckpoint, soon, and nothing is imported."""

from __future__ import annotations

import pickle
import pickletools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.conftest import archive, read, tensor, text
from tests.formats.test_files import STATE, STORAGES, counted, entry, old, old_tensor, safe
from weightstore.errors import InvalidCheckpoint

FILES = {
    "zip": archive(STATE, STORAGES, byteorder=b"little"),
    "legacy": old(b"}(" + text("w") + old_tensor("3", 4) + b"u.", ["3"], counted(bytes(16))),
    "safetensors": safe({"__metadata__": {"a": "b"}, "a": entry(0, 8, [2]), "b": entry(8, 16, [2])}, bytes(16)),
}
OPCODES = st.sampled_from([code.code.encode("latin-1") for code in pickletools.opcodes])
PIECES = st.one_of(
    OPCODES,
    st.binary(max_size=4),
    st.sampled_from([tensor(), text("storage"), text("os"), b"cos\nsystem\n", b"ctorch\nFloatStorage\n", b"(", b"t"]),
    st.sampled_from(
        [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch\nSize\n"]
    ),
    st.sampled_from(
        [b"ccollections\nOrderedDict\n", b"c_codecs\nencode\n", b"cbuiltins\nset\n", b"K\3\x85", b"q\1", b"h\1"]
    ),
)


def read_or_refused(data: bytes) -> None:
    before = set(sys.modules)
    for is_near in (True, False):
        try:
            read(data, is_near=is_near)
        except InvalidCheckpoint:
            continue
    assert set(sys.modules) == before


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(data):
    read_or_refused(data)


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_any_opcodes(code):
    read_or_refused(archive(code + b".", STORAGES))


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=20).map(b"".join))
def test_any_opcodes_in_a_legacy_file(code):
    read_or_refused(old(code + b".", ["0"], counted(bytes(16))))


@pytest.mark.parametrize("form", FILES)
@settings(max_examples=700, deadline=None)
@given(data=st.data())
def test_damaged_files(form, data):
    content = bytearray(FILES[form])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.text(), st.integers()), inner, max_size=4)
        | st.sets(st.integers(), max_size=3)
        | st.frozensets(st.text(), max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(VALUES, st.integers(0, 5))
def test_plain_values_of_any_protocol_are_read(value, protocol):
    found = read(archive(pickle.dumps(value, protocol)))
    assert found.tensors == ()
    # Protocols without opcodes for them name these two, which torch does not allow either.
    assert {name.partition(".")[2] for name in found.foreign} <= {"frozenset", "bytes"}
