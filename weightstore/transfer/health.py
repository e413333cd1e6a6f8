"""How mirrors fare in this process: who is asked last or not at all, and what the user has been told of already."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.errors import SourceNotFound, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightstore.errors import WeightStoreError
    from weightstore.source import Source
    from weightstore.transfer.policy import Candidate

# So long a failure counts. A server that fetches for others runs for months, and a mirror is mended meanwhile.
_FRESH_S = 300.0
# So many files in a row a mirror may fail to give before nobody waits for it any more.
_DEAD = 3
# So many wrong answers make it one that is asked after all others: a single damaged file is not enough.
_DOUBTED = 3


@dataclass(slots=True)
class _Record:
    began: float
    told: bool = False
    in_a_row: int = 0
    wrong: int = 0
    last: WeightStoreError | None = None


class Health:
    """What is known of mirrors. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[Source, _Record] = {}

    def failed(self, mirror: Source, error: WeightStoreError, *, tell: bool = True) -> bool:
        """Note that a mirror failed to give something.

        Return whether the user should be told: not where that was done before, however often and in whatever way it
        fails. With ``tell=False`` the caller tells it anyway, as an error.
        """
        with self._lock:
            record = self._of(mirror)
            if isinstance(error, SourceUnavailable):
                record.in_a_row += 1
                record.last = error
            elif not isinstance(error, SourceNotFound):  # not to have everything is no lie
                record.wrong += 1
            first = not record.told
            record.told = record.told or tell
            return first and tell

    def served(self, mirror: Source) -> None:
        """Note that a mirror gave what was wanted."""
        with self._lock:
            self._of(mirror).in_a_row = 0

    def why_not(self, mirror: Source) -> WeightStoreError | None:
        """Return the last failure of a mirror that is not asked any more; None of one that is."""
        with self._lock:
            record = self._of(mirror)
            return record.last if record.in_a_row >= _DEAD else None

    def is_doubted(self, mirror: Source) -> bool:
        """Tell whether others are asked before it."""
        with self._lock:
            record = self._of(mirror)
            return record.in_a_row > 0 or record.wrong >= _DOUBTED

    def ordered(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return candidates in the order in which to ask them: mirrors that are doubted come last."""
        return sorted(
            candidates, key=lambda candidate: candidate.mirror is not None and self.is_doubted(candidate.mirror)
        )

    def _of(self, mirror: Source) -> _Record:
        now = self._clock()
        record = self._records.get(mirror)
        if record is None or now - record.began > _FRESH_S:
            record = self._records[mirror] = _Record(now)
        return record
