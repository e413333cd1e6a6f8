"""How much memory a process holds, as Linux tells it."""

from __future__ import annotations

import contextlib
from pathlib import Path

_PROCESS = Path("/proc/self")


def peak_bytes(pid: int | None = None) -> int:
    """VmHWM of a process, this one by default: what the parent held before ``exec`` is not counted."""
    process = _PROCESS if pid is None else Path(f"/proc/{pid}")
    for line in (process / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    msg = f"{process}/status has no VmHWM"
    raise RuntimeError(msg)


def start_peak_again() -> int:
    """Has the peak count from here, and returns it: what is resident now; where that is refused, the peak so far."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")
    return peak_bytes()
