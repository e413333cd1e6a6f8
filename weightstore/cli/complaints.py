"""What went wrong with many files, each cause told once: a mirror that refuses us refuses us fifteen times."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightstore.batch import Result
    from weightstore.cli.settings import Settings

_DIGITS = re.compile(r"[0-9a-f]{12,64}")
_MOST_NAMES = 10


class Complaints:
    """Tells errors. Those that differ only in which file they speak of are told once, and then counted."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._alike: dict[str, list[str]] = {}  # by the cause: the name that was told with it, and further ones
        self._lock = threading.Lock()

    def tell(self, result: Result) -> None:
        """Tell why an item failed, unless that has been told of another one."""
        if result.error is None:
            return
        text, wanted = str(result.error), result.item.wanted
        cause = text
        for own in sorted({wanted.name, *map(str, wanted.sources)}, key=len, reverse=True):
            cause = cause.replace(own, "")
        cause = _DIGITS.sub("", cause)
        with self._lock:
            if cause in self._alike:
                self._alike[cause].append(wanted.name)
                return
            self._alike[cause] = [wanted.name]
        self._settings.complain(text)

    def close(self) -> None:
        """Tell which further items failed, a line for each cause."""
        for first, *names in self._alike.values():
            if names:
                more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
                told = ", ".join(sorted(names)[:_MOST_NAMES])
                self._settings.complain(f"{len(names)} more failed in the same way as {first}: {told}{more}")


@contextmanager
def complaining(settings: Settings) -> Iterator[Complaints]:
    """Yield what tells errors, and have it tell at the end which it did not."""
    complaints = Complaints(settings)
    try:
        yield complaints
    finally:
        complaints.close()
