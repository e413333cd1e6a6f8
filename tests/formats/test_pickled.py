"""Pickles that would run something when unpickled: nothing runs, and what they would run is told."""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
import pickletools
import re
import struct
import subprocess
import sys
import time

import pytest

from tests.formats.conftest import archive, read, tensor, text
from weightstore.errors import InvalidCheckpoint
from weightstore.formats import legacy, opcodes, pickled


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class MadeAnew:
    """Is made by ``__new__`` with keyword arguments."""

    def __new__(cls, *, a: int):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"a": 1}


@pytest.fixture
def mark(tmp_path):
    """A file that appears when something runs."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_described_and_not_run(mark, protocol):
    payload = pickle.dumps({"a": [Runs(f"touch {mark}")]}, protocol=protocol)
    found = read(archive(payload))
    assert found.foreign == (f"{os.system.__module__}.system",)
    assert found.others == ("a.0",)


def test_a_command_in_a_legacy_file_is_described_and_not_run(mark):
    payload = pickle.dumps(Runs(f"touch {mark}"))
    head = legacy.MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    assert read(head + payload + pickle.dumps([], 2)).foreign == (f"{os.system.__module__}.system",)
    # Also where the header should be.
    assert "posix.system" in read(legacy.MAGIC + pickle.dumps(1001, 2) + payload * 2 + pickle.dumps([], 2)).foreign


def test_a_command_beside_tensors_leaves_the_tensors_readable(mark):
    command = b"cos\nsystem\n(" + text(f"touch {mark}") + b"tR"
    found = read(archive(b"}(" + text("w") + tensor() + text("x") + command + b"u.", {"0": bytes(16)}))
    assert [one.name for one in found.tensors] == ["w"]
    assert found.foreign == ("os.system",)
    assert not found.is_flat


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"(" + text("x") + b"ios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\n" + text("x") + b"o.", "os.system"),
        (b"cos\nsystem\n(" + text("x") + b"t\x81.", "os.system"),
        (b"cos\nsystem\n)}(" + text("x") + b"K\1u\x92.", "os.system"),
        (text("os") + b"q\0" + text("system") + b"q\1" + b"00h\0h\1\x93" + text("x") + b"\x85R.", "os.system"),
        (b"\x82\x05)R.", "copyreg.extension_5"),
        (b"\x84\x05\x01\x00\x00)R.", "copyreg.extension_261"),
        (b"cbuiltins\neval\n(" + text("1") + b"tQ.", "builtins.eval"),
        (b"cos\nsystem\n.", "os.system"),
        (b"ccollections\nOrderedDict\n)Rcos\nsystem\nb.", "os.system"),
        (b"ctorch._utils\n_rebuild_tensor_v2\ncbuiltins\nexec\n\x85b.", "builtins.exec"),
        (b"cnot_there_at_all\nx\n.", "not_there_at_all.x"),
    ],
    ids=["inst", "obj", "newobj", "newobj_ex", "memo", "ext1", "ext4", "persistent", "bare", "build", "torch", "gone"],
)
def test_every_way_to_name_something_is_told(code, name):
    assert read(archive(b"\x80\x02" + code)).foreign == (name,)


def test_objects_with_keyword_arguments_are_told():
    assert read(archive(pickle.dumps(MadeAnew(a=1), 4))).foreign == (f"{__name__}.MadeAnew",)


def test_nothing_is_imported():
    code = (
        "import sys; from tests.formats.conftest import archive, read; "
        "found = read(archive(b'cwave\\nopen\\nccolorsys\\nx\\n\\x86.')); "
        "print(found.foreign, 'wave' in sys.modules, 'colorsys' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "('colorsys.x', 'wave.open') False False\n"


def test_billion_laughs_end_soon():
    lists = b"](K\1K\2eq\0"
    for index in range(1, 60):
        lists += b"](" + b"h" + bytes([index - 1]) + b"h" + bytes([index - 1]) + b"eq" + bytes([index])
    began = time.monotonic()
    with pytest.raises(InvalidCheckpoint, match="more values"):
        read(archive(lists + b"."))
    assert time.monotonic() - began < 20


def test_a_list_in_itself_is_listed_once():
    found = read(archive(b"}q\0(" + text("me") + b"h\0" + text("l") + b"]q\1h\1au."))
    assert found.others == ("me", "l.0")


@pytest.mark.parametrize("nest", [b"\x85", b"]q\0", b"(]"], ids=["tuples", "lists", "marks"])
def test_deep_nesting_is_refused(nest):
    code = b")" + nest * 400_000 + b"."
    if nest == b"]q\0":
        code = b"]" + b"q\0]h\0a" * 300_000 + b"."
    if nest == b"\x85":
        with pytest.raises(InvalidCheckpoint, match="nested too deeply"):
            read(archive(code))
    else:
        read_or_refused(archive(code))


def read_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidCheckpoint):
        read(data)


def test_a_tuple_as_a_key_is_never_hashed():
    code = b"}" + b"K\1" + b"\x85" * 200_000 + text("x") + b"s" + b"K\1" + b"2\x86" * 80 + text("y") + b"s."
    assert len(read(archive(code)).others) == 2


def test_keys_that_collide_do_not_take_for_ever():
    prime = (1 << 61) - 1
    pairs = b"".join(b"\x8a\x0c" + (prime * n).to_bytes(12, "little") + b"K\1" for n in range(1, 60_000))
    began = time.monotonic()
    assert len(read(archive(b"}(" + pairs + b"u.")).others) == 59_999
    assert time.monotonic() - began < 10


def test_too_many_steps_are_refused():
    with pytest.raises(InvalidCheckpoint, match="steps"):
        read(archive(b"]0" * 1_100_000 + b"N."))


def test_a_memo_bomb_stays_small():
    pairs = b"".join(b"r" + struct.pack("<I", 2**32 - 1 - n) for n in range(1000))
    assert read(archive(b"N" + pairs + b".")).others == ("",)


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b".",
        b"R.",
        b"0.",
        b"t.",
        b"h\7.",
        b"X\xff\xff\xff\xff.",
        b"\x8d" + b"\xff" * 8 + b".",
        b"\x8b\xff\xff\xff\x7f.",
        b"I1x\n.",
        b"L" + b"9" * 5000 + b"\n.",
        b"X\2\0\0\0\xff\xff.",
        b"K\1K\2s.",
        b"K\1K\2\x93.",
        b"c" + b"x" * 2000 + b"\ny\n.",
        b"K\1K\1R.",
        b"\x97.",
        b"\xff.",
        b"N",
    ],
)
def test_a_damaged_pickle_is_refused(code):
    with pytest.raises(InvalidCheckpoint, match=r"its pickle|is called"):
        read(archive(code))


def storage(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"tQ."


FLOAT = b"ctorch\nFloatStorage\n"


@pytest.mark.parametrize(
    "code",
    [
        storage(text("storage"), FLOAT, text("0"), text("cpu")),
        storage(text("storage"), FLOAT, text("0"), text("cpu"), text("4")),
        storage(text("storage"), FLOAT, text("0"), text("cpu"), b"J\xff\xff\xff\xff"),
        storage(text("storage"), FLOAT, text("0"), text("cpu"), b"\x8a\x0a" + b"\xff" * 9 + b"\1"),
        storage(text("storage"), FLOAT, b"]", text("cpu"), b"K\4"),
        storage(text("storage"), b"cos\nsystem\n", text("0"), text("cpu"), b"K\4"),
        storage(text("storage"), b"cevil\nFloatStorage\n", text("0"), text("cpu"), b"K\4"),
        storage(text("storage"), text("FloatStorage"), text("0"), text("cpu"), b"K\4"),
        tensor("../data.pkl", 4) + b".",
        tensor("1", 4) + b".",
        tensor("0", 5) + b".",
        tensor("0", 4) + tensor("0", 3) + b"\x86.",
        tensor("0", -1) + b".",
    ],
)
def test_a_storage_that_is_none_is_refused(code):
    with pytest.raises(InvalidCheckpoint):
        read(archive(code, {"0": bytes(16)}))


def test_a_persistent_id_of_something_else_is_no_tensor():
    assert read(archive(b"P/etc/passwd\n.")).tensors == ()
    assert read(archive(text("/etc/passwd") + b"Q.")).tensors == ()


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [("K\1", "K\4", "K\1"), ("K\0", "K\4", "K\2"), ("K\0", "K\4", "J\xff\xff\xff\xff"), ("K\0", "J\0\0\0\x7f", "K\0")],
)
def test_a_tensor_reaches_beyond_its_storage(offset, shape, stride):
    storage = b"(" + text("storage") + FLOAT + text("0") + text("cpu") + b"K\4tQ"
    view = f"{offset}{shape}\x85{stride}\x85".encode("latin-1")
    data = archive(b"ctorch._utils\n_rebuild_tensor\n(" + storage + view + b"tR.", {"0": bytes(16)})
    if shape.startswith("J"):
        assert read(data).tensors[0].nbytes == 4 * 0x7F000000  # an expanded tensor: its bytes are few
    else:
        with pytest.raises(InvalidCheckpoint, match=r"beyond its storage|stride"):
            read(data)


LARGE_LIST = b"(" + b"N" * 200_000 + b"lq\0"


@pytest.mark.parametrize(
    "again",
    [
        b"cbuiltins\nset\nq\1" + b"h\1h\0\x85R" * 200_000,
        b"ctorch\nSize\nq\1" + b"h\1h\0\x85R" * 200_000,
        b"ccollections\nOrderedDict\nq\1" + b"h\1h\0\x85R" * 200_000,
        b"h\0" * 400_000,
        b"(" + b"N" * 200_000 + b"tq\1" + b"cx\ny\nh\1}\x92" * 200_000,
        b"(" + b"N" * 200_000 + b"tq\1" + b"cx\ny\nh\1\x81" * 200_000,
        b"c_codecs\nencode\nq\1" + text("x" * 1_000_000) + b"q\2" + b"h\1h\2\x85R" * 200_000,
        b"}(" + b"(" + b"N" * 100_000 + b"t" + b"K\1uq\1" + b"h\1" * 400_000,
    ],
    ids=["set", "size", "ordered", "list", "newobj_ex", "newobj", "encode", "key"],
)
def test_what_is_shared_is_neither_copied_nor_looked_at_for_ever(again):
    data = archive(b"(" + LARGE_LIST + again + b"l.")
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from tests.formats.conftest import read\n"
        "from weightstore.errors import InvalidCheckpoint\n"
        "try: read(sys.stdin.buffer.read())\n"
        "except InvalidCheckpoint: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("code", [b")\x81", b")R", b"}\x92"], ids=["newobj", "reduce", "newobj_ex"])
def test_a_long_chain_of_calls_ends_well(code):
    code = b")}\x92" if code == b"}\x92" else code
    read_or_refused(archive(b"cx\ny\n" + code * 500_000 + b"."))


def test_a_tensor_subclass_of_a_subclass_does_not_recurse_for_ever():
    nested = b"ctorch._tensor\n_rebuild_from_type_v2\nq\0)" + b"q\1(h\0h\0h\1Nt" * 200_000 + b"\x85"
    read_or_refused(archive(nested + b"h\0h\1R."))


def test_old_dictionaries_come_as_pairs():
    # As Python 2 pickled an OrderedDict.
    pairs = b"](](" + text("w") + tensor() + b"ee"
    found = read(archive(b"ccollections\nOrderedDict\n" + pairs + b"\x85R.", {"0": bytes(16)}))
    assert [one.name for one in found.tensors] == ["w"]
    assert found.is_flat


# Of what no pickle in a file can hold: bytes that are given beside it.
BESIDE = {"NEXT_BUFFER", "READONLY_BUFFER"}


def test_every_opcode_is_known():
    machine = inspect.getsource(pickled.Machine.run)
    frequent = {int(code, 16): name for code, name in re.findall(r"code == (0x\w+):  # (\w+)", machine)}
    rare = dict.fromkeys(opcodes.RARE, "")
    assert len(frequent) > 15
    for code in pickletools.opcodes:
        number = ord(code.code)
        assert (number in frequent) + (number in rare) == (code.name not in BESIDE), code.name
        assert frequent.get(number, code.name) == code.name
    source = inspect.getsource(opcodes)
    named = {int(code, 16): name for code, name in re.findall(r"^    (0x\w+): .*  # (\w+)$", source, re.MULTILINE)}
    assert named == {ord(code.code): code.name for code in pickletools.opcodes if ord(code.code) in rare}
