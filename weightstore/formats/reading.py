"""A checkpoint file of any format, read for what it holds: which tensors, and where their bytes lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightstore.errors import InvalidCheckpoint
from weightstore.formats.access import Malformed
from weightstore.formats.legacy import is_legacy, read_legacy
from weightstore.formats.safetensors import is_safetensors, read_safetensors
from weightstore.formats.zipped import read_zip

if TYPE_CHECKING:
    from weightstore.formats.access import RandomAccess
    from weightstore.formats.checkpoint import Checkpoint

_HEAD = 512
_TAR = 257


def read_checkpoint(data: RandomAccess, *, place: str) -> Checkpoint:
    """Return what a checkpoint holds. Directories, pickles and headers are read, and no tensor's bytes.

    Nothing in the file is imported, called or unpickled, whatever it says.

    Args:
        data: the file's bytes.
        place: what to call the file in errors.

    Raises:
        InvalidCheckpoint: it is no checkpoint, or a damaged one, or of a format that is not read.
        WeightStoreError: ``data`` could not be read.
    """
    try:
        return _read(data)
    except Malformed as error:
        raise InvalidCheckpoint(place=place, reason=str(error)) from None


def _read(data: RandomAccess) -> Checkpoint:
    if data.size == 0:
        raise Malformed("it is empty")
    head = data.read(0, min(_HEAD, data.size))
    if head.startswith(b"PK\3\4"):
        return read_zip(data)
    if is_legacy(head):
        return read_legacy(data)
    if head[_TAR : _TAR + 5] == b"ustar":
        raise Malformed(
            "it is a tar archive, which PyTorch wrote before 0.1.10, and only unpickling can read it. "
            "Load it with torch, if you trust it, and save it again"
        )
    if is_safetensors(head):
        return read_safetensors(data)
    raise Malformed("it is neither a file of torch.save nor of safetensors")
