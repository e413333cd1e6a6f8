"""Numbers as people read them."""

from __future__ import annotations


def size(size_bytes: float | None) -> str:
    """Return a number of bytes with a unit: ``102.5 MB``. MB is 10⁶ bytes, as everywhere in weightstore."""
    if size_bytes is None:
        return "?"
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size_bytes /= 1000
        if size_bytes < 999.95:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1000:.1f} TB"


def rate(bytes_per_s: float) -> str:
    return f"{size(bytes_per_s)}/s"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: ``0.3 s``, ``42 s``, ``3:07``, ``2:03:00``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ago(seconds: float) -> str:
    """Return how long ago something was, roughly."""
    for limit, divisor, unit in (
        (90, 1, ""),
        (5400, 60, "min"),
        (129600, 3600, "h"),
        (2592000 * 2, 86400, "days"),
        (31536000 * 2, 2629800, "months"),
    ):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit} ago" if unit else "just now"
    return f"{seconds / 31557600:.0f} years ago"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 file``, ``3 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def number(value: float | None) -> str:
    """Return a count in short: ``25.6 M``."""
    if value is None:
        return "?"
    for limit, divisor, unit in ((1e3, 1.0, ""), (1e6, 1e3, " k"), (1e9, 1e6, " M"), (1e12, 1e9, " G")):
        if value < limit:
            return f"{value / divisor:.1f}{unit}" if unit else f"{value:g}"
    return f"{value:.3g}"
