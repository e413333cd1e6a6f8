from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from weightstore.errors import NoSpace, NotAStore, StoreError
from weightstore.records import RECORD_LIMIT, Sharing
from weightstore.store.layout import MODES, create_layout, open_layout, read_limited, translated, write_record


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("sharing", ["private", "group", "world"])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, sharing: Sharing, umask: int) -> None:
    before = os.umask(umask)
    try:
        layout = create_layout(tmp_path / "store", sharing)
    finally:
        os.umask(before)

    for directory, expected in layout.directories():
        assert mode(directory) == expected, directory
    assert mode(layout.info) == 0o444


def test_the_group_store_lets_members_publish_but_not_replace() -> None:
    modes = MODES["group"]
    assert modes.published & stat.S_ISVTX
    assert modes.published & stat.S_ISGID
    assert not modes.working & stat.S_ISVTX


def test_creating_twice_changes_nothing(tmp_path: Path) -> None:
    first = create_layout(tmp_path / "store", "group")
    written = first.info.stat().st_mtime_ns

    second = create_layout(tmp_path / "store", "group")

    assert second == first
    assert first.info.stat().st_mtime_ns == written


def test_the_sharing_mode_is_not_changed_in_place(tmp_path: Path) -> None:
    create_layout(tmp_path / "store", "private")
    with pytest.raises(StoreError, match="already a private store"):
        create_layout(tmp_path / "store", "group")


def test_missing_directories_are_made_again(tmp_path: Path) -> None:
    layout = create_layout(tmp_path / "store")
    layout.tmp.rmdir()
    create_layout(tmp_path / "store")
    assert layout.tmp.is_dir()


def test_a_store_that_is_not_there_is_absent(tmp_path: Path) -> None:
    assert open_layout(tmp_path / "none") is None
    assert open_layout(tmp_path) is None


def test_a_file_in_the_way_is_absent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert open_layout(tmp_path / "file") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"layout": 1}',
        b'{"layout": 2, "sharing": "private"}',
        b'{"layout": true, "sharing": "private"}',
        b'{"layout": 1, "sharing": "everybody"}',
        b'{"layout": 1, "sharing": "private", "more": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (RECORD_LIMIT + 1),
    ],
)
def test_a_store_json_that_is_not_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    layout = create_layout(tmp_path / "store")
    layout.info.unlink()
    layout.info.write_bytes(content)
    with pytest.raises(NotAStore, match=r"store\.json"):
        open_layout(layout.root)


def test_a_newer_layout_says_what_to_do(tmp_path: Path) -> None:
    layout = create_layout(tmp_path / "store")
    layout.info.unlink()
    layout.info.write_text('{"layout": 9, "sharing": "private"}')
    with pytest.raises(NotAStore, match="newer weightstore"):
        create_layout(tmp_path / "store")


def test_blobs_without_store_json_are_not_taken_over_silently(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    assert open_layout(tmp_path) is None
    with pytest.raises(NotAStore, match="not one of our stores"):
        create_layout(tmp_path)


def test_a_directory_made_beforehand_gets_the_modes_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o700)
    create_layout(tmp_path / "store", "group")
    assert mode(tmp_path / "store") == 0o2755


def test_many_may_create_a_store_at_once(tmp_path: Path) -> None:
    problems: list[BaseException] = []
    start = threading.Barrier(8)

    def create(sharing: Sharing | None) -> None:
        start.wait()
        try:
            create_layout(tmp_path / "store", sharing)
        except StoreError as error:
            problems.append(error)

    threads = [threading.Thread(target=create, args=(sharing,)) for sharing in (None, "private") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert not list((tmp_path / "store").glob(".*.new"))


def test_store_json_may_not_be_a_link(tmp_path: Path) -> None:
    layout = create_layout(tmp_path / "store")
    outside = tmp_path / "outside.json"
    layout.info.rename(outside)
    layout.info.symlink_to(outside)
    with pytest.raises(NotAStore):
        open_layout(layout.root)


@pytest.mark.parametrize("name", ["blobs", "refs", "tmp", "locks", "quarantine"])
def test_a_directory_of_the_store_may_not_be_a_link(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "store"
    root.mkdir()
    (root / name).symlink_to(outside)
    with pytest.raises(StoreError, match=r"in the way|not one of our stores"):
        create_layout(root)


def test_the_root_itself_may_be_a_link_to_a_larger_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    layout = create_layout(tmp_path / "cache")
    assert (tmp_path / "disk" / "blobs" / "sha256").is_dir()
    assert open_layout(layout.root) == layout


def test_a_store_is_an_oci_layout_and_says_that_it_is_a_cache(tmp_path: Path) -> None:
    layout = create_layout(tmp_path / "store")
    assert (layout.root / "oci-layout").read_text() == '{"imageLayoutVersion": "1.0.0"}\n'
    assert (layout.root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_that_cannot_be_written_names_the_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="WEIGHTSTORE_HOME"):
        create_layout(tmp_path / "store")


def test_records_are_read_whole_or_one_byte_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"x" * 100)
    assert read_limited(path) == b"x" * 100
    assert len(read_limited(path, limit=10)) == 11


def test_a_record_may_not_be_a_pipe_or_a_directory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="regular"):
        read_limited(tmp_path / "pipe")
    with pytest.raises(OSError, match="regular"):
        read_limited(tmp_path)


def test_a_failed_record_leaves_the_old_one_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_record(path, b"old", mode=0o644)
    with pytest.raises(OSError, match="directory"):
        write_record(tmp_path / "missing" / "record", b"new", mode=0o644, scratch=tmp_path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


@pytest.mark.parametrize(
    ("number", "expected"), [(28, NoSpace), (122, NoSpace), (30, StoreError), (13, StoreError), (5, StoreError)]
)
def test_refusals_of_the_operating_system_become_ours(number: int, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="/place"), translated("/place"):
        raise OSError(number, os.strerror(number))


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    import resource
    import signal

    path = tmp_path / "record"
    write_record(path, b"old", mode=0o644)
    before, limits = signal.getsignal(signal.SIGXFSZ), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            write_record(path, b"x" * 1000, mode=0o644)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
