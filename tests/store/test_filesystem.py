"""The probe of a file system: what it finds, and that it leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from weightstore.errors import StoreError
from weightstore.store.filesystem import mount_of, probe, room

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw,relatime shared:9 - nfs4 server:/home rw,vers=4.2
31 22 0:41 / /home/me/with\\040blank ro,nosuid - tmpfs tmpfs rw
32 22 0:42 / /scratch rw - lustre 10.0.0.1@o2ib:/scratch rw
33 22 0:43 / /mnt/box rw - fuse.sshfs me@box:/ rw
34 22 0:44 / /mnt/odd rw - fuse.mergerfs a:b rw
35 22 0:45 / /scratch rw - beegfs beegfs_nodev rw
a line that says nothing
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS)
    return path


@pytest.mark.parametrize(
    ("place", "point", "kind", "is_network"),
    [
        ("/usr/lib", "/", "ext4", False),
        ("/home/other", "/home", "nfs4", True),
        ("/homely", "/", "ext4", False),
        ("/home/me/with blank/x", "/home/me/with blank", "tmpfs", False),
        ("/scratch/me", "/scratch", "beegfs", True),
        ("/mnt/box/w", "/mnt/box", "fuse.sshfs", True),
        ("/mnt/odd", "/mnt/odd", "fuse.mergerfs", None),
    ],
)
def test_the_deepest_and_latest_mount_is_found(mounts, place, point, kind, is_network):
    found = mount_of(Path(place), mounts=mounts)
    assert found is not None
    assert (str(found.point), found.kind, found.is_network) == (point, kind, is_network)


def test_read_only_mounts_are_told(mounts):
    found = mount_of(Path("/home/me/with blank"), mounts=mounts)
    assert found is not None
    assert found.is_read_only


def test_without_mountinfo_nothing_is_known(tmp_path):
    assert mount_of(tmp_path, mounts=tmp_path / "absent") is None


def test_a_local_file_system_can_do_everything(tmp_path):
    found = probe(tmp_path)
    assert (found.hard_links, found.replaces, found.modes, found.setgid) == ("", "", "", "")
    assert found.locking == "excludes"
    assert abs(found.skew_s) < 1
    assert 0 <= found.fsync_s < 60


def test_a_probe_leaves_nothing_behind(tmp_path):
    probe(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        probe(tmp_path)


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StoreError):
        probe(tmp_path / "absent")


def test_free_space_is_told_where_the_path_exists(tmp_path):
    found = room(tmp_path)
    assert found is not None
    assert 0 < found.free <= found.total
    assert room(tmp_path / "absent") is None
