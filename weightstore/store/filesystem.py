"""What a file system can do, found out by trying: what a store needs, and what it can do without.

:func:`mount_of` reads what the kernel says; :func:`probe` tries everything in a directory of its own inside the one
that it is given, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weightstore.store.durability import sync_directory
from weightstore.store.layout import translated

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
_NETWORK = frozenset(
    {
        "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "cvmfs", "dvs", "exafs", "gfs2", "glusterfs", "gpfs", "lustre",
        "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "quobyte", "smb3", "smbfs", "virtiofs", "wekafs",
    }
)  # fmt: skip
# A FUSE file system is what its helper makes of it; these reach over the network.
_NETWORK_FUSE = (
    "sshfs", "glusterfs", "ceph", "s3fs", "gcsfuse", "rclone", "juicefs", "goofys", "blobfuse", "cvmfs", "beegfs",
    "mount-s3",
)  # fmt: skip
_LOCK_WAIT_S = 10.0
_CHILD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("busy")
except OSError as error:
    print("error", error.strerror)
else:
    print("got")
"""

Locking = Literal["excludes", "does not exclude", "fails", "not known"]


@dataclass(frozen=True, slots=True)
class Mount:
    """The mount that a path lies on. ``is_network`` is None where the type does not tell."""

    point: Path
    kind: str
    device: str
    is_network: bool | None
    is_read_only: bool


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found by trying. Durations are seconds, sizes bytes; empty strings mean "works".

    Attributes:
        hard_links: why hard links do not work.
        locking: whether flock excludes another process.
        locking_detail: what the system said where it does not.
        replaces: why a rename does not replace a file in one step.
        fsync_s: how long a small file and its directory took to become durable.
        modes: the first permission bits that were not kept, such as ``asked 0444, got 0644``.
        setgid: why new files do not inherit the group of a setgid directory.
        skew_s: how far the clock that stamps files is ahead of this machine's.
        preallocates: whether space can be reserved, so that a quota shows before a download.
    """

    hard_links: str
    locking: Locking
    locking_detail: str
    replaces: str
    fsync_s: float
    modes: str
    setgid: str
    skew_s: float
    preallocates: bool


@dataclass(frozen=True, slots=True)
class Room:
    """What is free for this user. ``inodes`` is None where the file system has no fixed number of them."""

    free: int
    total: int
    inodes: int | None


def mount_of(path: Path, *, mounts: Path = _MOUNTS) -> Mount | None:
    """Return the mount that a path lies on, or None where the kernel does not say (see proc(5), mountinfo)."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = Path(os.path.realpath(path))
    found: Mount | None = None
    for line in lines:
        mount = _parse_mount(line)
        # Of several mounts on one point the last is the one that is seen.
        if (
            mount
            and place.is_relative_to(mount.point)
            and (not found or len(mount.point.parts) >= len(found.point.parts))
        ):
            found = mount
    return found


def _parse_mount(line: str) -> Mount | None:
    left, separator, right = line.partition(" - ")
    fields, rest = left.split(" "), right.split(" ")
    if not separator or len(fields) < 6 or len(rest) < 2:
        return None
    kind = rest[0]
    return Mount(
        point=Path(_unescape(fields[4])),
        kind=kind,
        device=_unescape(rest[1]),
        is_network=_is_network(kind),
        is_read_only="ro" in fields[5].split(","),
    )


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _is_network(kind: str) -> bool | None:
    if kind in _NETWORK:
        return True
    if kind.startswith("fuse"):
        return True if any(name in kind for name in _NETWORK_FUSE) else None
    return False


def room(path: Path) -> Room | None:
    """Return what is free where a path lies, or None where the file system does not tell."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return Room(
        found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail if found.f_files else None
    )


def probe(directory: Path) -> Findings:
    """Try in a directory what a store does.

    Raises:
        StoreError, NoSpace: nothing can be written there.
    """
    with translated(directory):
        place = Path(tempfile.mkdtemp(prefix=".probe.", dir=directory))
        try:
            return _probe(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _probe(place: Path) -> Findings:
    file = place / "file"
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        skew_s = _skew(fd)
        fsync_s = _time_to_sync(fd, place)
        locking, detail = _locking(fd, file)
        preallocates = _preallocates(fd)
    finally:
        os.close(fd)
    return Findings(
        hard_links=_hard_links(file),
        locking=locking,
        locking_detail=detail,
        replaces=_replaces(place),
        fsync_s=fsync_s,
        modes=_modes(file),
        setgid=_setgid(place),
        skew_s=skew_s,
        preallocates=preallocates,
    )


def _skew(fd: int) -> float:
    """Write, and compare the stamp with this machine's time before and after: what lies outside of both is skew."""
    before = time.time()
    os.write(fd, b"x" * 4096)
    os.fsync(fd)
    after = time.time()
    stamped = os.fstat(fd).st_mtime
    # Stamps come from a coarse clock, some milliseconds behind, and may be in whole seconds.
    tolerance = 1.0 if stamped == int(stamped) else 0.05
    if stamped < before - tolerance:
        return stamped - before
    return max(0.0, stamped - after - tolerance)


def _time_to_sync(fd: int, place: Path) -> float:
    began = time.monotonic()
    os.write(fd, b"y" * 4096)
    os.fsync(fd)
    sync_directory(place)
    return time.monotonic() - began


def _locking(fd: int, file: Path) -> tuple[Locking, str]:
    """Hold a lock, and let another process try for it: a flock that silently does nothing is not found otherwise."""
    try:
        import fcntl  # absent where there is no flock
    except ImportError:
        return "fails", "this system has no flock"
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return "fails", error.strerror or str(error)
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD, str(file)],
            capture_output=True,
            text=True,
            timeout=_LOCK_WAIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "not known", f"the other process did not answer: {error}"
    answer, _, detail = child.stdout.strip().partition(" ")
    if answer == "busy":
        return "excludes", ""
    if answer == "got":
        return "does not exclude", ""
    if answer == "error":
        return "fails", detail
    return "not known", (child.stderr.strip().splitlines() or ["the other process said nothing"])[-1]


def _preallocates(fd: int) -> bool:
    try:
        # On file systems without it glibc writes the blocks instead, which for one block does no harm.
        os.posix_fallocate(fd, 0, 4096)
    except (OSError, AttributeError):
        return False
    return True


def _hard_links(file: Path) -> str:
    link = file.with_name("link")
    try:
        os.link(file, link, follow_symlinks=False)
    except OSError as error:
        return error.strerror or str(error)
    with contextlib.suppress(OSError):
        if os.stat(link).st_ino != os.stat(file).st_ino:
            return "a link is another file"
        os.unlink(link)
        return ""
    return "a link vanished"


def _replaces(place: Path) -> str:
    old, new = place / "old", place / "new"
    try:
        old.write_bytes(b"old")
        new.write_bytes(b"new")
        with old.open("rb") as held:
            os.replace(new, old)
            # Who has the old file open keeps it: readers see the old bytes or the new ones.
            if held.read() != b"old":
                return "an open file changed when its name was replaced"
        if old.read_bytes() != b"new":
            return "the old file is still there"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _modes(file: Path) -> str:
    for asked in (0o444, 0o640, 0o600):
        try:
            os.chmod(file, asked)
            got = stat.S_IMODE(os.stat(file).st_mode)
        except OSError as error:
            return error.strerror or str(error)
        if got != asked:
            return f"asked {asked:04o}, got {got:04o}"
    return ""


def _setgid(place: Path) -> str:
    inner = place / "inner"
    try:
        inner.mkdir()
        if os.stat(inner).st_gid not in {os.getegid(), *os.getgroups()}:
            # In another's setgid directory it has their group, and chmod drops the bit for those who are not in it.
            os.chown(inner, -1, os.getegid())
        os.chmod(inner, 0o2770)  # noqa: S103 - a group's directory is what is tried, and it is gone at once
        if not os.stat(inner).st_mode & stat.S_ISGID:
            return "the bit is not kept"
        others = sorted(set(os.getgroups()) - {os.getegid()})
        if others:
            os.chown(inner, -1, others[0])
            os.chmod(inner, 0o2770)  # noqa: S103
        (inner / "file").write_bytes(b"")
        if os.stat(inner / "file").st_gid != os.stat(inner).st_gid:
            return "new files do not inherit the group"
    except OSError as error:
        return error.strerror or str(error)
    return ""
