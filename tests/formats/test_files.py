"""The containers: zip archives, legacy files and safetensors, whole, damaged and contradictory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import pytest

from tests.formats.conftest import Memory, archive, read, tensor, text
from weightstore.errors import InvalidCheckpoint
from weightstore.formats import legacy
from weightstore.formats.access import Malformed, OpenFile
from weightstore.formats.checkpoint import Checkpoint
from weightstore.formats.reading import read_checkpoint

STATE = b"}(" + text("w") + tensor("0", 4) + text("v") + tensor("1", 2) + b"u."
STORAGES = {"0": bytes(range(16)), "1": bytes(8)}


def refused(data: bytes, match: str | None = None) -> None:
    with pytest.raises(InvalidCheckpoint, match=match) as caught:
        read(data)
    assert str(caught.value).startswith("a file is not a checkpoint")
    assert caught.value.exit_code == 5


# -- any file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\0", b"<html>not found</html>", b"version https://git-lfs", bytes(1000)])
def test_what_is_no_checkpoint_is_refused(data):
    refused(data)


def test_a_tar_file_is_recognised():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("storages"))
    refused(buffer.getvalue(), "tar archive")


def test_a_pickle_without_torchs_header_is_refused():
    refused(pickle.dumps({"a": 1}), "neither")


def test_a_file_is_read_through_its_descriptor(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(archive(STATE, STORAGES))
    with path.open("rb") as file:
        file.seek(5)
        found = read_checkpoint(OpenFile(file.fileno()), place="x")
        assert file.tell() == 5
    assert found == read(path.read_bytes())


def test_a_file_that_became_shorter_is_said(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    with path.open("rb") as file:
        data = OpenFile(file.fileno())
        os.truncate(path, 50)
        with pytest.raises(Malformed, match="shorter"):
            data.read(40, 20)


# -- zip ------------------------------------------------------------------------------------------------------------


def test_a_zip_file_tells_where_its_tensors_are():
    data = archive(STATE, STORAGES, byteorder=b"little")
    found = read(data)
    assert found.format == "zip"
    assert found.is_flat
    assert [data[one.offset : one.offset + one.nbytes] for one in found.tensors] == [bytes(range(16)), bytes(8)]


def test_of_far_files_no_storages_header_is_read():
    data = Memory(archive(STATE, {"0": bytes(16), "1": bytes(1 << 20)}), is_near=False)
    found = read_checkpoint(data, place="far")
    assert [one.storage.offset for one in found.tensors] == [None, None]
    assert sum(length for _, length in data.reads) < 10_000


def test_the_byte_order_is_told():
    assert read(archive(STATE, STORAGES, byteorder=b"big")).byteorder == "big"
    refused(archive(STATE, STORAGES, byteorder=b"middle"), "byte order")


def test_compressed_storages_have_no_offset_and_a_compressed_pickle_is_read():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", STATE)
        for key, content in STORAGES.items():
            file.writestr(f"a/data/{key}", content)
    assert [one.offset for one in read(buffer.getvalue()).tensors] == [None, None]


def test_a_zip_bomb_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(65 << 20))
    refused(buffer.getvalue(), "are the most")


def test_a_pickle_that_unpacks_to_more_than_it_says_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(100_000))
    data = buffer.getvalue().replace(struct.pack("<I", 100_000), struct.pack("<I", 1000))
    refused(data, "damaged")


def test_a_comment_and_zip64_are_understood():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        with file.open("a/data.pkl", "w", force_zip64=True) as record:
            record.write(STATE)
        for key, content in STORAGES.items():
            file.writestr(f"a/data/{key}", content)
        file.comment = b"PK and more" * 50
    assert len(read(buffer.getvalue()).tensors) == 2


def test_sizes_of_the_directory_beyond_32_bits_are_understood():
    whole = archive(STATE, STORAGES)
    end = whole.rindex(b"PK\5\6")
    fields = struct.unpack_from("<4sHHHHIIH", whole, end)
    count, size, offset = fields[4:7]
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert read(whole[:end] + end64 + locator + last) == read(whole)


def test_a_record_beyond_32_bits_is_understood():
    whole = archive(STATE, STORAGES)
    first = whole.index(b"PK\1\2")
    fields = list(struct.unpack_from("<4sHHHHHHIIIHHHHHII", whole, first))
    size, header = fields[9], fields[16]
    extra = struct.pack("<HHHQQQ", 0x7075, 2, 0, 0, 0, 0)[:6] + struct.pack("<HHQQQ", 1, 24, size, size, header)
    fields[8] = fields[9] = fields[16] = 0xFFFFFFFF
    fields[11] = len(extra)
    name_end = first + 46 + fields[10]
    data = whole[:first] + struct.pack("<4sHHHHHHIIIHHHHHII", *fields) + whole[first + 46 : name_end] + extra
    end = whole.rindex(b"PK\5\6")
    last = list(struct.unpack_from("<4sHHHHIIH", whole, end))
    last[5] += len(extra)
    data += whole[name_end:end] + struct.pack("<4sHHHHIIH", *last)
    assert read(data) == read(whole)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_records_of_one_name_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", STATE)
        file.writestr("a/data.pkl", b"N.")
    refused(buffer.getvalue(), "two records")


def test_a_record_that_is_not_where_the_directory_says_is_refused():
    data = archive(STATE, STORAGES)
    at = data.index(b"PK\3\4", 10)
    refused(data[:at] + b"PK\3\5" + data[at + 4 :], "not where")


@pytest.mark.parametrize("cut", [1, 30, 100, 300])
def test_a_zip_file_that_was_cut_short_is_refused(cut):
    refused(archive(STATE, STORAGES)[:-cut])


def test_an_encrypted_or_foreign_archive_is_refused():
    data = bytearray(archive(STATE, STORAGES))
    data[data.index(b"PK\1\2") + 8] |= 1
    refused(bytes(data), "encrypted")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("word/document.xml", "x")
    refused(buffer.getvalue(), "no data.pkl")


# -- legacy ---------------------------------------------------------------------------------------------------------


def old(main: bytes, keys: list[str], storages: bytes, *, version: int = 1001, little: bool = True) -> bytes:
    header = legacy.MAGIC + pickle.dumps(version, 2) + pickle.dumps({"little_endian": little}, 2)
    return header + main + pickle.dumps(keys, 2) + storages


def old_tensor(key: str, numel: int, view: bytes = b"N", size: int | None = None) -> bytes:
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + bytes([75, numel])
    shape = bytes([75, numel if size is None else size]) + b"\x85"
    return b"ctorch._utils\n_rebuild_tensor\n(" + storage + view + b"tQK\0" + shape + b"K\1\x85tR"


def counted(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<q", len(one) // 4) + one for one in contents)


def test_a_legacy_file_tells_where_its_tensors_are():
    main = b"}(" + text("b") + old_tensor("7", 2) + text("a") + old_tensor("3", 4) + b"u."
    data = old(main, ["3", "7"], counted(b"three" + bytes(11), b"seven" + bytes(3)))
    found = read(data)
    assert [data[one.offset :][:5] for one in found.tensors] == [b"seven", b"three"]
    assert found == read(data, is_near=False)


def test_a_view_of_a_storage_begins_inside_of_it():
    view = b"(" + text("v") + b"K\2K\2t"
    main = b"}(" + text("w") + old_tensor("3", 4) + text("v") + old_tensor("3", 4, view, size=2) + b"u."
    data = old(main, ["3"], counted(b"aaaabbbbccccdddd"))
    whole, part = read(data).tensors
    assert data[whole.offset : whole.offset + whole.nbytes] == b"aaaabbbbccccdddd"
    assert data[part.offset : part.offset + part.nbytes] == b"ccccdddd"
    bad = b"}(" + text("v") + old_tensor("3", 4, b"(" + text("v") + b"K\3K\2t", size=2) + b"u."
    refused(old(bad, ["3"], counted(bytes(16))), "outside of it")


@pytest.mark.parametrize(
    ("keys", "storages", "match"),
    [
        ([], b"", "list of storages"),
        ([[]], b"", "list of storages"),
        (["3", "4"], counted(bytes(16), b""), "list of storages"),
        (["3", "3"], counted(bytes(16), bytes(16)), "list of storages"),
        (["3"], counted(bytes(12)), "3 elements"),
        (["3"], counted(bytes(16))[:-1], "cut short"),
        (["3"], b"", "outside of the file"),
    ],
)
def test_a_legacy_file_that_contradicts_itself_is_refused(keys, storages, match):
    refused(old(b"}(" + text("w") + old_tensor("3", 4) + b"u.", keys, storages), match)


def test_a_legacy_file_of_another_version_is_refused():
    refused(old(b"}.", [], b"", version=1002), "version")


def test_a_legacy_file_of_a_big_endian_machine_says_so():
    main = b"}(" + text("w") + old_tensor("3", 4) + b"u."
    assert read(old(main, ["3"], struct.pack(">q", 4) + bytes(16), little=False)).byteorder == "big"


def test_a_long_pickle_is_read_to_its_end():
    filler = text("x" * 300_000)
    main = b"}(" + text("note") + filler + text("w") + old_tensor("3", 4) + b"u."
    data = old(main, ["3"], counted(b"abcd" + bytes(12)))
    (found,) = read(data).tensors
    assert data[found.offset :][:4] == b"abcd"
    refused(data[:200_000], "ends early")


# -- safetensors ----------------------------------------------------------------------------------------------------


def safe(header: object, body: bytes = b"", *, text: bytes | None = None) -> bytes:
    encoded = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(encoded)) + encoded + body


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_safetensors_file_tells_where_its_tensors_are():
    data = safe({"__metadata__": {"by": "us"}, "b": entry(8, 16, [2, 1]), "a": entry(0, 8, [2])}, b"aaaaaaaabbbbbbbb")
    found = read(data)
    assert [data[one.offset : one.offset + one.nbytes] for one in found.tensors] == [b"bbbbbbbb", b"aaaaaaaa"]
    assert found.is_flat
    assert (found.format, found.metadata) == ("safetensors", {"by": "us"})


def test_an_empty_safetensors_file_is_one():
    assert read(safe({})) == Checkpoint("safetensors", (), is_flat=True)
    assert read(safe({}, text=b"{}     ")).tensors == ()


@pytest.mark.parametrize(
    ("header", "size", "match"),
    [
        ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "does not begin where"),
        ({"a": entry(0, 8, [2]), "b": entry(12, 20, [2])}, 20, "does not begin where"),
        ({"a": entry(4, 12, [2])}, 12, "does not begin where"),
        ({"a": entry(0, 8, [2])}, 12, "end at byte"),
        ({"a": entry(0, 8, [2])}, 4, "end at byte"),
        ({"a": entry(0, 8, [3])}, 8, "not those of its shape"),
        ({"a": entry(8, 0, [2])}, 8, "no place"),
        ({"a": entry(0, 8, [-2])}, 8, "no shape"),
        ({"a": entry(0, 8, [2.0])}, 8, "no shape"),
        ({"a": entry(0, 8, [True, 2])}, 8, "no shape"),
        ({"a": entry(0, 0, [1 << 40, 1 << 40])}, 0, "more elements"),
        ({"a": entry(0, 8, [2], "F31")}, 8, "type that is not known"),
        ({"a": {"dtype": "F32"}}, 0, "no shape"),
        ({"a": [1, 2]}, 0, "not described"),
        ({"__metadata__": {"a": 1}}, 0, "not text"),
        ({"__metadata__": "a"}, 0, "not text"),
    ],
)
def test_a_safetensors_file_that_contradicts_itself_is_refused(header, size, match):
    refused(safe(header, bytes(size)), match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b'{"a": {}, "a": {}}', "twice"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": ', "not JSON"),
        (b'{"\xff": 1}', "not JSON"),
        (b'{"\\ud800": 1}', "not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON|not described"),
        (b"{" + b"{" * 600_000, "more values"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_header_that_is_no_header_is_refused(text, match):
    refused(safe(None, text=text), match)


def test_a_header_beyond_the_file_is_refused():
    refused(struct.pack("<Q", 1000) + b"{}", "outside of the file")
    refused(struct.pack("<Q", 100_000_001) + b"{}", "neither")
