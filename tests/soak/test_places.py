"""Awkward places: a full disk, a read-only layer, two users of one group under umask 077, a damaged shared blob."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.behaviours import chunked, rate_cap
from tests.servers.hostile import HostileServer
from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import CannotReplace, NoSpace, StoreError
from weightstore.store.layout import create_layout

DATA = os.urandom(2_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
ADA, BEN, EVE, GROUP = 12001, 12002, 12003, 12000


def as_user(uid: int, groups: list[int], work: Callable[[], None]) -> None:
    """Run something in a child process of another user, under umask 077; its failures are ours."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read_end)
            os.setgroups(groups)
            os.setgid(groups[0])
            os.setuid(uid)
            os.umask(0o077)
            work()
            os._exit(0)
        except BaseException:
            os.write(write_end, traceback.format_exc().encode())
            os._exit(1)
    os.close(write_end)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(read_end) as pipe:
        said = pipe.read()
    if status:
        pytest.fail(said or f"ended with {status}")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory that other users can reach, with a home for each."""
    with HostileServer() as server:  # everything is imported now: the others may not be able to read the interpreter
        url = server.serve("/warm.pth", DATA)
        Client(Config(home=tmp_path / "warm", state=tmp_path / "warm-state")).path(url)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # pytest's own lie behind closed doors
        place = Path(name)
        place.chmod(0o755)
        for uid in (ADA, BEN, EVE):
            (place / str(uid)).mkdir()
            os.chown(place / str(uid), uid, uid)
        yield place


def client_of(shared: Path, uid: int) -> Client:
    return Client(Config(home=shared / "store", state=shared / str(uid), retries=0))


def group_store(shared: Path) -> Path:
    root = shared / "store"
    root.mkdir()
    os.chown(root, ADA, GROUP)
    root.chmod(0o2775)
    as_user(ADA, [GROUP], lambda: check(create_layout(root, "group") is not None))
    return root


def check(holds: bool) -> None:
    if not holds:
        raise AssertionError


@pytest.mark.slow
@pytest.mark.needs("root")
def test_two_users_of_a_group_share_what_either_fetched_whatever_their_umask(shared: Path) -> None:
    root = group_store(shared)
    with HostileServer() as server:
        url = server.serve("/model.pth", DATA)
        as_user(ADA, [GROUP], lambda: check(client_of(shared, ADA).path(url).read_bytes() == DATA))
        as_user(BEN, [GROUP], lambda: check(client_of(shared, BEN).path(url).read_bytes() == DATA))
        second = server.serve("/second.pth", DATA[::-1])
        as_user(BEN, [GROUP], lambda: check(client_of(shared, BEN).path(second).read_bytes() == DATA[::-1]))
        as_user(ADA, [GROUP], lambda: check(client_of(shared, ADA).path(second).read_bytes() == DATA[::-1]))
        assert len(server.requests) == 2
    for blob in (root / "blobs" / "sha256").iterdir():
        assert stat.S_IMODE(blob.stat().st_mode) == 0o444
        assert blob.stat().st_gid == GROUP


@pytest.mark.slow
@pytest.mark.needs("root")
def test_a_member_cannot_replace_or_remove_anothers_blob(shared: Path) -> None:
    root = group_store(shared)
    blob = root / "blobs" / "sha256" / DIGEST
    with HostileServer() as server:
        url = server.serve("/model.pth", DATA)
        as_user(ADA, [GROUP], lambda: check(client_of(shared, ADA).path(url) == blob))

    def attack() -> None:
        for attempt in (
            blob.unlink,
            lambda: blob.write_bytes(b"evil"),
            lambda: (root / "tmp" / "evil").write_bytes(b"evil") and os.replace(root / "tmp" / "evil", blob),
        ):
            with pytest.raises(PermissionError):
                attempt()

    as_user(BEN, [GROUP], attack)
    assert blob.read_bytes() == DATA


@pytest.mark.slow
@pytest.mark.needs("root")
def test_a_member_takes_over_the_part_of_another_that_died(shared: Path) -> None:
    group_store(shared)
    with HostileServer() as server:
        url = server.serve("/model.pth", DATA, rate_cap(1_000_000, times=1), etag='"v1"')
        pid = os.fork()
        if pid == 0:
            os.setgroups([GROUP])
            os.setgid(GROUP)
            os.setuid(ADA)
            os.umask(0o077)
            client_of(shared, ADA).path(url)
            os._exit(0)
        while not list((shared / "store" / "tmp").glob("*.journal")):
            time.sleep(0.01)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        as_user(BEN, [GROUP], lambda: check(client_of(shared, BEN).path(url).read_bytes() == DATA))
        blob = shared / "store" / "blobs" / "sha256" / DIGEST
        assert server.requests[-1].range is not None
        assert blob.stat().st_uid == BEN, "what Ada could still write to must not be published"
    assert list((shared / "store" / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.needs("root")
def test_somebody_elses_damaged_blob_is_an_error_that_names_the_remedy(shared: Path) -> None:
    root = group_store(shared)
    blob = root / "blobs" / "sha256" / DIGEST
    with HostileServer() as server:
        url = server.serve("/model.pth", DATA) + f"#sha256={DIGEST}"

        def spoil() -> None:
            blob.write_bytes(b"bit rot")
            blob.chmod(0o444)

        as_user(ADA, [GROUP], spoil)

        def read() -> None:
            with pytest.raises(CannotReplace, match="verify --repair"):
                client_of(shared, BEN).path(url)

        as_user(BEN, [GROUP], read)
        as_user(ADA, [GROUP], lambda: check(client_of(shared, ADA).path(url).read_bytes() == DATA))


@pytest.mark.slow
@pytest.mark.needs("root")
def test_a_private_store_is_closed_to_others_and_says_what_to_do(shared: Path) -> None:
    root = shared / "store"
    root.mkdir()
    os.chown(root, ADA, ADA)
    as_user(ADA, [ADA], lambda: check(create_layout(root) is not None))

    def peek() -> None:
        with pytest.raises(StoreError):
            client_of(shared, EVE).path("https://weights.example/model.pth")

    as_user(EVE, [EVE], peek)


@pytest.mark.slow
@pytest.mark.needs("root")
def test_a_read_only_layer_serves_without_being_written(shared: Path) -> None:
    site = create_layout(shared / "site", "world")
    with HostileServer() as server:
        url = server.serve("/model.pth", DATA)
        Client(Config(home=site.root, state=shared / "root-state")).path(url)
    for path in (site.root, *site.root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in site.root.rglob("*")}

    def use() -> None:
        config = Config(home=shared / str(EVE) / "store", state=shared / str(EVE) / "state", layers=(site.root,))
        assert Client(config.but(offline=True)).path(url).read_bytes() == DATA
        assert not config.home.exists(), "a hit writes nothing in the writable store either"

    as_user(EVE, [EVE], use)
    assert {path: path.stat().st_mtime_ns for path in site.root.rglob("*")} == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.needs("root", "mount")
def test_what_cannot_fit_is_refused_before_the_first_byte(small_disk: Path, tmp_path: Path) -> None:
    client = Client(Config(home=small_disk / "store", state=tmp_path / "state"))
    with HostileServer() as server:
        url = server.serve("/model.pth", b"x" * 5_000_000)
        with pytest.raises(NoSpace, match="gc --dry-run"):
            client.path(url)
        assert sum(request.body_bytes_sent for request in server.requests) < 5_000_000
    assert list((small_disk / "store" / "tmp").iterdir()) == []


@pytest.mark.needs("root", "mount")
def test_a_disk_that_fills_up_on_the_way_is_a_clear_error_and_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    client = Client(Config(home=small_disk / "store", state=tmp_path / "state"))
    with HostileServer() as server:
        url = server.serve("/model.pth", b"x" * 5_000_000, chunked())  # nobody says how long it is
        with pytest.raises(NoSpace, match="no space left"):
            client.path(url)
        small = server.serve("/small.pth", b"y" * 1_000_000)
        assert client.path(small).read_bytes() == b"y" * 1_000_000
    assert list((small_disk / "store" / "tmp").iterdir()) == []


@pytest.mark.needs("root", "mount")
def test_a_prefetch_that_does_not_fit_as_a_whole_fetches_nothing(small_disk: Path, tmp_path: Path) -> None:
    client = Client(Config(home=small_disk / "store", state=tmp_path / "state"))
    sources = []
    for number in range(3):
        path = tmp_path / f"model{number}.pth"
        path.write_bytes(bytes([number]) * 1_500_000)
        sources.append(str(path))
    with pytest.raises(NoSpace, match="too little free space"):
        client.prefetch(sources)
    assert list((small_disk / "store" / "blobs" / "sha256").iterdir()) == []
