from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from weightstore.store.durability import start_write_back, sync_directory


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_directory_that_cannot_be_synced_is_only_sometimes_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if number == errno.EINVAL:
        sync_directory(tmp_path)
    else:
        with pytest.raises(OSError, match="error"):
            sync_directory(tmp_path)


def test_write_back_can_be_started_on_any_file(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "x", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 100_000)
    start_write_back(fd, 0, 0)
    os.close(fd)
