"""Pushes to a directory that something is wrong with: a damaged blob is replaced, and a full disk is told as such."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.soak.test_places import ADA, BEN, GROUP, as_user
from weightstore.cli.fetching import worst
from weightstore.cluster.index import ModelIndex
from weightstore.cluster.mirror.directory import Directory
from weightstore.digest import Digest
from weightstore.errors import Cancelled, NoSpace, StoreError
from weightstore.store.receipts import Receipts

ALL = ("Small_Weights.*", "Other_Weights.C")


@pytest.fixture
def damaged(site: Site, run: Run, tmp_path: Path) -> Path:
    """A blob of a mirror, whose content was changed in place."""
    run("prefetch", *ALL)
    run("mirror", "push", "mirror", "--all")
    blob = tmp_path / "mirror/blobs/sha256" / site.digest("A")
    found = blob.stat()
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(b"\0\0\0\0")
    blob.chmod(0o444)
    os.utime(blob, ns=(found.st_atime_ns, found.st_mtime_ns))
    return blob


def test_a_push_replaces_a_damaged_blob(site: Site, run: Run, damaged: Path) -> None:
    plan = run("mirror", "push", "mirror", "--all", "--dry-run")
    assert "1 file to push" in plan.stderr
    assert damaged.read_bytes() != site.data("A")
    done = run("mirror", "push", "mirror", "--all")
    assert "damaged" in done.stderr
    assert "1 pushed, 2 there already" in done.stderr
    assert damaged.read_bytes() == site.data("A")
    assert len(list((damaged.parents[2] / "quarantine").glob("*[!n]"))) == 1
    assert "0 pushed, 3 there already" in run("mirror", "push", "mirror", "--all").stderr


def test_a_blob_that_rotted_where_no_stat_tells_is_replaced_by_a_push_that_reads_all(
    site: Site, run: Run, damaged: Path, tmp_path: Path
) -> None:
    """As far as this user's receipts tell, the file is the one that was hashed."""
    Receipts(site.state).record(Digest(site.digest("A")), damaged.stat())
    assert "0 pushed, 3 there already" in run("mirror", "push", "mirror", "--all").stderr
    assert "1 pushed, 2 there already" in run("mirror", "push", "mirror", "--all", "--check").stderr
    assert damaged.read_bytes() == site.data("A")


@pytest.mark.parametrize("lost", ["manifest", "config"])
def test_a_lost_document_is_written_again_by_a_push_that_reads_all(run: Run, tmp_path: Path, lost: str) -> None:
    run("prefetch", *ALL)
    run("mirror", "push", "mirror", "--all")
    blobs = tmp_path / "mirror/blobs/sha256"
    index = (tmp_path / "mirror/index.json").read_bytes()
    manifest = blobs / json.loads(index)["manifests"][0]["digest"].partition(":")[2]
    config = blobs / json.loads(manifest.read_bytes())["config"]["digest"].partition(":")[2]
    gone = manifest if lost == "manifest" else config
    content = gone.read_bytes()
    gone.unlink()
    run("mirror", "push", "mirror", "--all")
    assert not gone.exists()
    run("mirror", "push", "mirror", "--all", "--check")
    assert gone.read_bytes() == content
    assert (tmp_path / "mirror/index.json").read_bytes() == index


def test_somebody_who_never_hashed_the_mirror_replaces_it_too(
    site: Site, run: Run, damaged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / "another"))
    run("mirror", "push", "mirror", "Small_Weights.A")
    assert damaged.read_bytes() == site.data("A")


@pytest.mark.needs("ssh-keygen")
def test_the_remedy_for_a_damaged_mirror_is_for_that_mirror(site: Site, run: Run, damaged: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], check=True)
    mirror = damaged.parents[2]
    run("lock", "-o", "weights.lock", "Small_Weights.A")
    told = run("--home", "other", "mirror", "pull", mirror, "--locked", "weights.lock", code=6).stderr
    assert f"`weightstore --home {mirror} verify --repair`" in told
    assert (
        f"weightstore --home {mirror} verify --repair" in run("mirror", "sign", mirror, "--key", "key", code=5).stderr
    )
    assert f"weightstore --home {mirror} verify --repair" in run("--home", mirror, "verify", code=5).stderr
    run("--home", mirror, "verify", "--repair")
    assert damaged.read_bytes() == site.data("A")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.needs("root", "mount")
@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=str)
def test_a_push_that_will_not_fit_is_refused_before_anything_travels(
    site: Site, run: Run, small_disk: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    (tmp_path / "large.pth").write_bytes(b"large" * 100_000)
    run("prefetch", tmp_path / "large.pth", *ALL)
    mirror = small_disk / "mirror"
    told = run("mirror", "push", mirror, "--all", *more, code=7).stderr
    assert "too little free space" in told
    assert "Make room there, or push to another place" in told
    assert "gc" not in told  # of a store that was never made
    assert "WEIGHTSTORE_HOME" not in told
    assert not mirror.exists()
    run("init", mirror)
    assert f"weightstore --home {mirror} gc" in run("mirror", "push", mirror, "--all", *more, code=7).stderr


@pytest.mark.needs("root", "mount")
def test_a_bundle_that_will_not_fit_says_to_write_it_elsewhere(
    site: Site, run: Run, small_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "large.pth").write_bytes(b"large" * 100_000)
    run("prefetch", tmp_path / "large.pth")
    told = run("bundle", "create", tmp_path / "large.pth", small_disk / "out.tar", code=7).stderr
    assert "write the bundle elsewhere" in told
    assert "WEIGHTSTORE_HOME" not in told


@pytest.mark.needs("root", "mount")
def test_a_disk_that_fills_up_on_the_way_is_not_an_interruption(site: Site, run: Run, small_disk: Path) -> None:
    """As far as statvfs tells, it fits; what others wrote meanwhile does not."""
    run("prefetch", *ALL)
    mirror = small_disk / "mirror"
    run("--home", mirror, "init", mirror)
    # Blocks are whole pages, and the manifests come on top: the room for the weights is there, and no more.
    room = os.statvfs(small_disk)
    weights = sum(len(site.data(member)) for member in "ABC")
    (small_disk / "filler").write_bytes(b"x" * (room.f_bavail * room.f_frsize - weights - 4096))
    told = run("mirror", "push", mirror, "--all", "-j1", code=7).stderr
    assert "no space left" in told
    assert f"weightstore --home {mirror} gc" in told


@pytest.mark.needs("root")
def test_a_member_of_the_group_is_told_who_writes_the_index(site: Site, run: Run) -> None:
    run("prefetch", "Small_Weights.A")
    with tempfile.TemporaryDirectory() as name:  # pytest's own lie behind closed doors
        mirror = Path(name, "mirror")
        Path(name).chmod(0o755)
        run("mirror", "push", mirror, "Small_Weights.A")
        for path in (mirror, *mirror.rglob("*")):
            os.chown(path, ADA, GROUP)
            path.chmod(0o2775 if path.is_dir() and path != mirror else path.stat().st_mode | 0o050)
        place = Directory(mirror, Receipts(Path(name, "state")))

        def push() -> None:
            with pytest.raises(StoreError, match=f"weightstore --home {mirror} mirror index"):
                place.change_index(lambda _: ModelIndex())

        as_user(BEN, [GROUP], push)


def test_a_full_disk_goes_before_what_it_stopped() -> None:
    full = NoSpace(place="/x", needed=1, free=0)
    assert worst([Cancelled(), full, StoreError(place="/y", reason="z")]) == 7
    assert worst([Cancelled(), StoreError(place="/y", reason="z")]) == 130
    assert worst([]) == 0
