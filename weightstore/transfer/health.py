"""How mirrors fare: who is asked last or not at all, and what the user has been told of already.

A failure counts in this process; that a mirror did not answer at all is remembered for the next ones, too.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.errors import SourceNotFound, SourceUnavailable
from weightstore.transfer.silence import forget_silence, recall_silence, remember_silence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

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
    silent_at: datetime | None = None  # by the wall's clock, which other processes share


def _now() -> datetime:
    return datetime.now(UTC)


class Health:
    """What is known of mirrors. Safe to use from many threads."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        state: Path | None = None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        """Nothing is read yet. ``state`` is the user's own directory, where it is kept who did not answer."""
        self._clock = clock
        self._state = state
        self._now = now
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
                if error.is_silent:
                    record.silent_at = self._now()
                    if self._state is not None:
                        remember_silence(self._state, mirror, record.silent_at)
            elif not isinstance(error, SourceNotFound):  # not to have everything is no lie
                record.wrong += 1
            first = not record.told
            record.told = record.told or tell
            return first and tell

    def served(self, mirror: Source) -> None:
        """Note that a mirror gave what was wanted."""
        with self._lock:
            record = self._of(mirror)
            record.in_a_row = 0
            if record.silent_at is not None and self._state is not None:
                forget_silence(self._state, mirror)
            record.silent_at = None

    def why_not(self, mirror: Source) -> WeightStoreError | None:
        """Return the last failure of a mirror that is not asked any more; None of one that is."""
        with self._lock:
            record = self._of(mirror)
            return record.last if record.in_a_row >= _DEAD else None

    def silent_for_s(self, mirror: Source) -> float | None:
        """Return how long ago a mirror did not answer, here or in an earlier process; None where that is no matter."""
        with self._lock:
            return self._silent_for_s(self._of(mirror))

    def is_doubted(self, mirror: Source) -> bool:
        """Tell whether others are asked before it."""
        with self._lock:
            record = self._of(mirror)
            return record.in_a_row > 0 or record.wrong >= _DOUBTED or self._silent_for_s(record) is not None

    def ordered(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return candidates in the order in which to ask them: mirrors that are doubted come last."""
        return sorted(
            candidates, key=lambda candidate: candidate.mirror is not None and self.is_doubted(candidate.mirror)
        )

    def _of(self, mirror: Source) -> _Record:
        now = self._clock()
        record = self._records.get(mirror)
        if record is None or now - record.began > _FRESH_S:
            earlier = recall_silence(self._state, mirror) if self._state is not None else None
            record = self._records[mirror] = _Record(now, silent_at=earlier)
        return record

    def _silent_for_s(self, record: _Record) -> float | None:
        if record.silent_at is None:
            return None
        elapsed_s = (self._now() - record.silent_at).total_seconds()
        return elapsed_s if 0 <= elapsed_s <= _FRESH_S else None
