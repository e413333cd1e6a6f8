"""Local files as sources, held to the same rules as servers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from weightstore.client import Client
from weightstore.errors import AccessDenied, RefusedResponse, SourceNotFound, SourceUnavailable
from weightstore.records import Validator
from weightstore.source import Source
from weightstore.transfer.file import FileTransport

MakeClient = Callable[..., Client]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    path.write_bytes(b"0123456789")
    return path


def read(path: Path, **asked: object) -> bytes:
    body = FileTransport().open(Source.of_path(path), **asked)  # type: ignore[arg-type]
    try:
        return b"".join(iter(lambda: body.read(3), b""))
    finally:
        body.close()


def test_a_file_is_read(file: Path) -> None:
    assert read(file) == b"0123456789"


def test_a_part_of_a_file_is_read(file: Path) -> None:
    assert read(file, start=2, end=5) == b"234"
    assert read(file, start=8, end=50) == b"89"
    assert read(file, start=10) == b""


def test_beyond_the_end_the_whole_is_read(file: Path) -> None:
    assert read(file, start=11) == b"0123456789"


def test_of_the_same_version_the_part_is_read(file: Path) -> None:
    version = FileTransport().open(Source.of_path(file))
    version.close()
    assert read(file, start=5, validator=version.answer.validator) == b"56789"


def test_of_another_version_the_whole_is_read(file: Path) -> None:
    assert read(file, start=5, validator=Validator(etag='"other"')) == b"0123456789"


def test_a_file_that_became_shorter_is_an_error_that_may_pass(file: Path) -> None:
    body = FileTransport().open(Source.of_path(file))
    body.read(3)
    os.truncate(file, 3)
    with pytest.raises(SourceUnavailable, match="shorter"):
        body.read(3)
    body.close()
    body.close()


def test_reading_a_closed_body_is_an_error_that_may_pass(file: Path) -> None:
    body = FileTransport().open(Source.of_path(file))
    body.close()
    with pytest.raises(SourceUnavailable):
        body.read(3)


@pytest.mark.parametrize("name", ["missing", "model.pth/inside"])
def test_a_file_that_is_not_there_is_not_found(file: Path, name: str) -> None:
    with pytest.raises(SourceNotFound):
        read(file.parent / name)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedResponse, match="not a regular file"):
        read(tmp_path)


def test_a_pipe_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RefusedResponse, match="not a regular file"):
        read(tmp_path / "pipe")


def test_a_name_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"(?i)too long"):
        read(tmp_path / ("x" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_denied(file: Path) -> None:
    file.chmod(0)
    with pytest.raises(AccessDenied):
        read(file)


def test_a_path_with_blanks_and_signs_is_fetched(make_client: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "my model #1 100%.pth"
    path.write_bytes(b"content")
    assert make_client().path(str(path)).read_bytes() == b"content"


def test_a_link_is_followed_at_the_source(make_client: MakeClient, file: Path) -> None:
    (file.parent / "link.pth").symlink_to(file)
    blob = make_client().path(str(file.parent / "link.pth"))
    assert blob.read_bytes() == b"0123456789"
    assert not blob.is_symlink()
