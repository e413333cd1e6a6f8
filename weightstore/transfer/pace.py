"""How slow is too slow: a source that drips a byte now and then never times out, and would keep us for ever."""

from __future__ import annotations

import time

from weightstore.errors import SourceUnavailable

SLOWEST_BYTES_PER_S = 1024


class Pace:
    """Watches one connection, in windows of ``slow_s`` seconds. So many bytes a second as ``slowest`` it must bring."""

    def __init__(self, place: str, slow_s: float, *, slowest: int = SLOWEST_BYTES_PER_S) -> None:
        self._place = place
        self._slow_s = slow_s
        self._slowest = slowest
        self._began = time.monotonic()
        self._received = 0

    def passed(self, size: int) -> None:
        """Tell that so many bytes have come.

        Raises:
            SourceUnavailable: too few came in the last window.
        """
        self._received += size
        elapsed_s = time.monotonic() - self._began
        if elapsed_s < self._slow_s:
            return
        if self._received < self._slowest * elapsed_s:
            raise SourceUnavailable(
                source=self._place,
                reason=f"only {self._received} bytes came in {elapsed_s:.0f} seconds",
                is_silent=True,
            )
        self._began += elapsed_s
        self._received = 0
