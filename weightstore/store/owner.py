"""Who writes a part, and whether that process is provably gone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re

from weightstore.records import Owner


def this_process() -> Owner:
    """Return the identity of the running process."""
    return _identity(os.getpid())


@functools.lru_cache(maxsize=4)
def _identity(pid: int) -> Owner:
    return Owner(
        host=host_name(),
        pid=pid,
        boot=_boot(),
        pid_namespace=_pid_namespace(),
        started=_started(pid),
    )


def host_name() -> str:
    """Return this host's name, reduced to what may stand in a file name."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", os.uname().nodename)[:64] or "host"


def place_of(owner: Owner) -> str:
    """Return where a process runs, short enough for a file name: host, and a tag of its boot and PID namespace."""
    tag = hashlib.sha256(f"{owner.boot} {owner.pid_namespace}".encode()).hexdigest()[:8]
    return f"{owner.host}-{tag}"


def is_gone(owner: Owner) -> bool:
    """Tell whether the process is *provably* gone. A process that cannot be judged from here counts as alive.

    Judged are only processes of this boot of this machine and of this PID namespace: elsewhere a PID means
    something else.
    """
    if not owner.boot or owner.boot != _boot() or owner.pid_namespace != _pid_namespace():
        return False
    return not _runs(owner.pid, owner.started)


def is_alive(owner: Owner) -> bool:
    """Tell whether the process is provably running on this machine."""
    if not owner.boot or owner.boot != _boot() or owner.pid_namespace != _pid_namespace():
        return False
    return _runs(owner.pid, owner.started)


def _runs(pid: int, started: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    now_started = _started(pid)
    return not (started and now_started and started != now_started)


@functools.cache
def _boot() -> str:
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return ""


@functools.cache
def _pid_namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(pid: int) -> int:
    """Return the process's start in clock ticks since boot, or 0. A zombie is not running: its start is -1."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError:
        return 0
    # The second field is the command in parentheses and may contain anything, so count from its end.
    values = text.rpartition(")")[2].split()
    if values[0] in {"Z", "X"}:
        return -1
    return int(values[19])
