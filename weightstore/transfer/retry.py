"""When to try a source again, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weightstore.errors import SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounded attempts with exponential backoff and full jitter; what the server asks for wins.

    ``attempts`` counts further tries *without progress*: a download that goes on, however often it is cut, goes on.
    """

    attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 30.0
    random: Callable[[], float] = field(default=random.random, repr=False)

    def delay_s(self, attempt: int, error: SourceUnavailable) -> float:
        """Return how long to wait before attempt number ``attempt`` (1 is the first repetition).

        Raises:
            SourceUnavailable: the server asks for more patience than we have.
        """
        if error.retry_after_s is not None:
            if error.retry_after_s > _LONGEST_WAIT_S:
                raise SourceUnavailable(
                    source=error.source,
                    reason=f"{error.reason}; it asks to come back in {error.retry_after_s:.0f} seconds",
                    retry_after_s=error.retry_after_s,
                )
            return error.retry_after_s
        # Full jitter (Brooker, AWS Architecture Blog, 2015): a herd of clients that failed together spreads out.
        return self.random() * min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 64))
