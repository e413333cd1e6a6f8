"""How much memory this process holds, as Linux tells it."""

from __future__ import annotations

import contextlib
from pathlib import Path

_PROCESS = Path("/proc/self")


def peak_bytes() -> int:
    """VmHWM: unlike ``getrusage`` it does not count what the parent held before ``exec``."""
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    msg = f"{_PROCESS}/status has no VmHWM"
    raise RuntimeError(msg)


def start_peak_again() -> int:
    """Has the peak count from here, and returns it: what is resident now; where that is refused, the peak so far."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")
    return peak_bytes()
