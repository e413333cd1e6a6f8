"""Tables as Markdown (which is also what is printed) and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.table import Bar, Outcome, Row, Spread, Table

BEGIN = "<!-- benchmarks:begin, written by python -m benchmarks.run -->"
END = "<!-- benchmarks:end -->"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What one has to know to read the numbers; nothing that tells which machine it was."""

    machine: str
    date: str
    rounds: int
    load_before: float
    versions: dict[str, str]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"Measured on {self.date} with {self.machine}; nginx on loopback shares the cores. Rounds: {self.rounds}, "
            "interleaved, after one that is not counted; every measurement in a fresh process; medians, with the "
            f"lowest and the highest. Load average before the start: {self.load_before:.1f}. Ratios are formed within "
            "a round, then their median is taken: they travel to other machines, seconds do not.\n\n"
            f"Versions: {versions}."
        )


def markdown(table: Table) -> str:
    """A heading, the table, and its note."""
    reference = table.row(table.reference) if table.reference else None
    compared = reference.label if reference else table.beside
    middle = f"{table.unit}, highest" if table.worst else f"{table.unit}, median"
    header = ["tool", middle, "min–max", *([f"× {compared}"] if compared else []), *table.columns, "bar"]
    lines = [header, *(_cells(table, row, has_reference=bool(compared)) for row in table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    grid = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (header, rule, *lines[1:])
    ]
    note = ["", table.note] if table.note else []
    return "\n".join([f"### `{table.key}`: {table.title}", "", *grid, *note, ""])


def page(tables: Sequence[Table], circumstances: Circumstances) -> str:
    """All of the generated part, without its markers."""
    return "\n".join([str(circumstances), "", *(markdown(table) for table in tables)])


def write_between_markers(path: Path, text: str) -> None:
    """Replaces what stands between the markers; makes the page, or the part, where there is none."""
    old = path.read_text() if path.exists() else ""
    before, found, rest = old.partition(BEGIN)
    after = rest.partition(END)[2] if found else "\n"
    head = before if found or not old else f"{old.rstrip()}\n\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{after}")


def write_json(path: Path, tables: Sequence[Table], circumstances: Circumstances) -> None:
    document = {**asdict(circumstances), "tables": [_plain(table) for table in tables]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def missed(tables: Sequence[Table]) -> list[str]:
    """One line for each bar that is not met."""
    outcomes = [(table, table.outcome(bar)) for table in tables for bar in table.bars]
    return [
        f"{table.key}: {_outcome_text(table, outcome)}"
        for table, outcome in outcomes
        if outcome.verdict in {"not met", "unknown"}
    ]


def number(value: float) -> str:
    """Three significant digits, never an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(table: Table, row: Row, *, has_reference: bool) -> list[str]:
    summary = table.summary(row)
    outcomes = [_outcome_text(table, table.outcome(bar)) for bar in table.bars if bar.row == row.key]
    ratio = table.ratio(row, table.reference or "") if has_reference and row.key != table.reference else None
    return [
        row.label,
        number(summary.middle) if summary else row.missing or "not measured",
        f"{number(summary.low)}–{number(summary.high)}" if summary else "",
        *([f"{ratio.middle:.2f}" if ratio else ""] if has_reference else []),
        *(row.extra or [""] * len(table.columns)),
        "; ".join(outcomes),
    ]


def _outcome_text(table: Table, outcome: Outcome) -> str:
    bar, measured = outcome.bar, outcome.measured
    limit = _limit_text(table, bar)
    if measured is None:
        return f"{limit}: unknown"
    value = _value_text(bar, measured)
    aim = ""
    if bar.aim is not None:
        aim = f" (aim {number(bar.aim)}: {'met' if outcome.aim_met else 'not met'})"
    return f"{limit}: {value}, **{outcome.verdict}**{aim}"


def _limit_text(table: Table, bar: Bar) -> str:
    other = table.row(bar.against) if bar.against else None
    of = f"{bar.of} " if bar.of else ""
    if other is None:
        return f"{of}≤ {number(bar.limit)}{'' if bar.of else f' {table.unit}'}"
    label = table.beside or other.label
    if bar.faster:
        return f"{of}≥ {number(1 / bar.limit)} × faster than {label}"
    return f"{of}≤ {number(bar.limit)} × {label}"


def _value_text(bar: Bar, measured: Spread) -> str:
    if bar.faster:
        return f"{1 / measured.middle:.2f}"
    if bar.against is None:
        return number(measured.middle)
    spread = f" ({measured.low:.2f}–{measured.high:.2f})" if bar.spread_counts else ""
    return f"{measured.middle:.2f}{spread}"


def _plain(table: Table) -> dict[str, Any]:
    return {
        "key": table.key,
        "title": table.title,
        "unit": table.unit,
        "rows": [asdict(row) for row in table.rows],
        "outcomes": [asdict(table.outcome(bar)) for bar in table.bars],
    }
