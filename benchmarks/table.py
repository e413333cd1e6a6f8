"""Results as values: rows, ratios, bars and whether they are met. No I/O."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Verdict = Literal["met", "within noise", "not met", "unknown"]


@dataclass(frozen=True, slots=True)
class Row:
    """One tool's values, one a round. ``beside`` are the reference's, where each row has its own.

    ``missing`` says why there are none. ``extra`` are cells of the table's own columns. ``more`` are other quantities
    of the same rounds, by name.
    """

    key: str
    label: str
    values: tuple[float, ...] = ()
    beside: tuple[float, ...] | None = None
    missing: str | None = None
    extra: tuple[str, ...] = ()
    more: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def of(self, quantity: str) -> tuple[float, ...]:
        """The values of one of ``more``, or those that the row is about."""
        return self.more.get(quantity, ()) if quantity else self.values


@dataclass(frozen=True, slots=True)
class Bar:
    """What ``row`` has to reach: at most ``limit``, of another row where ``against`` names one.

    ``spread_counts`` lets a ratio pass whose spread over the rounds includes the limit; ``faster`` words a ratio
    the other way round. ``of`` is the quantity meant, where it is not the table's own.
    """

    row: str
    limit: float
    against: str | None = None
    aim: float | None = None
    spread_counts: bool = False
    faster: bool = False
    of: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of a series."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A bar and what was measured against it."""

    bar: Bar
    verdict: Verdict
    aim_met: bool | None
    measured: Spread | None


@dataclass(frozen=True, slots=True)
class Table:
    """One scenario. ``worst`` sums a series up by its highest value instead of its median.

    ``beside`` is what the rows' own references are called, where it is not one row for all.
    """

    key: str
    title: str
    unit: str
    rows: tuple[Row, ...]
    reference: str | None = None
    bars: tuple[Bar, ...] = ()
    columns: tuple[str, ...] = ()
    note: str = ""
    worst: bool = False
    beside: str = ""

    def row(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)

    def summary(self, row: Row, of: str = "") -> Spread | None:
        values = row.of(of)
        if not values:
            return None
        middle = max(values) if self.worst else statistics.median(values)
        return Spread(middle, min(values), max(values))

    def ratio(self, row: Row, against: str, of: str = "") -> Spread | None:
        """Of ``row`` to ``against``: formed within each round, then the median of the rounds."""
        other = self.row(against)
        values = row.beside if row.beside is not None and not of else other.of(of) if other else ()
        if not row.of(of) or not values:
            return None
        ratios = [own / its for own, its in zip(row.of(of), values, strict=True)]
        return Spread(statistics.median(ratios), min(ratios), max(ratios))

    def outcome(self, bar: Bar) -> Outcome:
        row = self.row(bar.row)
        measured = None
        if row is not None:
            measured = self.summary(row, bar.of) if bar.against is None else self.ratio(row, bar.against, bar.of)
        if measured is None:
            return Outcome(bar, "unknown", None, None)
        verdict: Verdict = "not met"
        if measured.middle <= bar.limit:
            verdict = "met"
        elif bar.spread_counts and measured.low <= bar.limit:
            verdict = "within noise"
        aim_met = None if bar.aim is None else measured.middle <= bar.aim
        return Outcome(bar, verdict, aim_met, measured)
