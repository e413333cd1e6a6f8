"""Checkpoints in memory and on disk, and a reader for both."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import pytest

from weightstore.formats.checkpoint import Checkpoint
from weightstore.formats.reading import read_checkpoint


class Memory:
    """Bytes in memory, near or far; remembers which of them were read."""

    def __init__(self, data: bytes, *, is_near: bool = True) -> None:
        self.data = data
        self.size = len(data)
        self.is_near = is_near
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


def read(data: bytes, *, is_near: bool = True) -> Checkpoint:
    return read_checkpoint(Memory(data, is_near=is_near), place="a file")


def archive(pickle: bytes, storages: dict[str, bytes] | None = None, **records: bytes) -> bytes:
    """Return a zip file as torch.save writes it, with this ``data.pkl``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle)
        for key, content in (storages or {}).items():
            file.writestr(f"archive/data/{key}", content)
        for name, content in records.items():
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def text(value: str) -> bytes:
    """Return the opcodes that push text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def tensor(key: str = "0", numel: int = 4, kind: str = "torch\nFloatStorage") -> bytes:
    """Return the opcodes that push a one-dimensional tensor of a whole storage."""
    storage = b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu")
    storage += b"J" + struct.pack("<i", numel) + b"tQ"
    shape = b"J" + struct.pack("<i", numel) + b"\x85"
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + b"K\1\x85\x89" + hooks + b"tR"


@pytest.fixture
def save(tmp_path: Path):
    """Return a function that saves with torch and gives back the file's bytes."""
    torch = pytest.importorskip("torch")

    def write(value: object, *, new: bool = True) -> bytes:
        path = tmp_path / f"{os.urandom(4).hex()}.pth"
        torch.save(value, path, _use_new_zipfile_serialization=new)
        return path.read_bytes()

    return write
