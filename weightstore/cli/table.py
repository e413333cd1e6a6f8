"""Tables: drawn for a terminal's width, tab-separated and complete for everything else."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LEAST_FLEXIBLE = 12


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
    """A column. On a narrow terminal those with the highest ``drop`` go first; 0 stays, and is shortened."""

    title: str
    right: bool = False
    drop: int = 0


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
    from rich.console import Console  # start-up: 0.1 s, and only a terminal needs it
    from rich.table import Table
    from rich.text import Text

    console = Console()
    kept = fitting(columns, cells, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index in kept:
        column = columns[index]
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if column.drop == 0 else _width(columns, cells, index),
        )
    for row in cells:
        table.add_row(*(Text(row[index].shown) for index in kept))
    console.print(table)


def _width(columns: Sequence[Column], cells: Sequence[Sequence[Cell]], index: int) -> int:
    return max([len(columns[index].title), *(len(row[index].shown) for row in cells)])


def fitting(columns: Sequence[Column], cells: Sequence[Sequence[Cell]], width: int) -> list[int]:
    """Return the indices of the columns that a width has room for. Those that never drop are shortened last."""
    kept = list(range(len(columns)))
    widths = [_width(columns, cells, index) for index in kept]

    def needed() -> int:
        return sum(
            min(widths[index], max(_LEAST_FLEXIBLE, width // 2)) if columns[index].drop == 0 else widths[index]
            for index in kept
        ) + 2 * (len(kept) - 1)

    for index in sorted(kept, key=lambda index: -columns[index].drop):
        if needed() <= width or columns[index].drop == 0:
            break
        kept.remove(index)
    return kept


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
    from rich.console import Console  # start-up: 0.1 s, and only a terminal needs it
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=min(width, 14), no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    Console().print(grid)
