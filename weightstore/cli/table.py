"""Tables: drawn for a terminal's width, tab-separated and complete for everything else."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from weightstore.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LEAST_FLEXIBLE = 8
_GAP = 2


@dataclass(frozen=True, slots=True)
class Cell:
    """A value as people read it, and as programs do."""

    shown: str
    plain: str | None = None

    @property
    def exact(self) -> str:
        text = self.shown if self.plain is None else self.plain
        return " ".join(text.split("\t")).replace("\n", " ")


@dataclass(frozen=True, slots=True)
class Column:
    """A column. On a narrow terminal the highest ``drop`` goes first, 0 stays, and a ``flexible`` one is shortened."""

    title: str
    right: bool = False
    drop: int = 0
    flexible: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell | str]], *, total: str = "") -> None:
    """Print a table on standard output.

    On a terminal it has a header and a total line and fits the width. In a pipe it is one line a row, tab-separated,
    nothing shortened and nothing added.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        if cells:
            click.echo("\n".join("\t".join(cell.exact for cell in row) for row in cells))
        return
    _draw(columns, cells)
    if total:
        click.echo(total)


def _draw(columns: Sequence[Column], cells: Sequence[Sequence[Cell]]) -> None:
    from rich.table import Table  # start-up: 0.1 s, and only a terminal needs it
    from rich.text import Text

    widths = fitting(columns, cells, terminal.width())
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index, width in widths.items():
        column = columns[index]
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=width,
        )
    for row in cells:
        table.add_row(*(Text(_fitted(row[index].shown, width)) for index, width in widths.items()))
    # What cannot be shortened is not: where there is no room at all, lines are longer than the terminal.
    needed = sum(widths.values()) + _GAP * (len(widths) - 1)
    terminal.console(at_least=needed).print(table)


def _fitted(text: str, width: int) -> str:
    """Return a URL or path with its middle left out, where it is too long: its end tells most, and then its beginning.

    Other text is left to be cut at its end.
    """
    if "/" not in text or len(text) <= width:
        return text
    tail = max(width * 2 // 3, 1)
    return f"{text[: width - tail - 1]}…{text[-tail:]}"


def fitting(columns: Sequence[Column], cells: Sequence[Sequence[Cell]], width: int) -> dict[int, int]:
    """Return the columns that a terminal has room for, by index, with their widths.

    Columns are dropped until the flexible one has what it needs, or three quarters of the terminal.
    """
    from rich.cells import cell_len  # start-up; ideographs are two columns wide, and combining marks none

    natural = [
        max([cell_len(column.title), *(cell_len(row[index].shown) for row in cells)])
        for index, column in enumerate(columns)
    ]
    least = [
        min(natural[index], width * 3 // 4) if column.flexible else natural[index]
        for index, column in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    for index in sorted(kept, key=lambda index: -columns[index].drop):
        if sum(least[one] + _GAP for one in kept) - _GAP <= width or columns[index].drop == 0:
            break
        kept.remove(index)
    widths = {index: natural[index] for index in kept}
    excess = sum(widths.values()) + _GAP * (len(kept) - 1) - width
    for index in kept:
        if columns[index].flexible and excess > 0:
            widths[index] = max(_LEAST_FLEXIBLE, widths[index] - excess)
            break
    return widths


def print_facts(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one a line; on a terminal the values wrap beside their names."""
    rows = [(name, value) for name, value in rows if value]
    if not rows:
        return
    width = max(len(name) for name, _ in rows)
    if not sys.stdout.isatty():
        for name, value in rows:
            click.echo(f"{name:<{width}}  {value}")
        return
    from rich.table import Table  # start-up: 0.1 s, and only a terminal needs it
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=min(width, 14), no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    terminal.console().print(grid)
