"""A scatter plot of a metric over size, as inline SVG: which weights give most for their bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_WIDTH, _HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 14, 38
_LABELS = 6
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B"))


@dataclass(frozen=True, slots=True)
class Point:
    """Some weights: their size in bytes and the metric's value. ``anchor`` is the row's id in the page."""

    name: str
    size: int
    value: float
    anchor: str


def frontier(points: Iterable[Point], *, less_is_better: bool = False) -> list[Point]:
    """Return the points that none of the others beats, by size: none is both as small and better."""
    sign = -1 if less_is_better else 1
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.size, -sign * one.value, one.name)):
        if not best or sign * point.value > sign * best[-1].value:
            best.append(point)
    return best


def scatter_plot(title: str, points: Sequence[Point], *, less_is_better: bool = False) -> str:
    """Return a figure. Each point leads to its row; those of the frontier are marked, and some of them named."""
    best = frontier(points, less_is_better=less_is_better)
    x, x_ticks = _sizes([point.size for point in points])
    y, y_ticks = _values([point.value for point in points])
    about = f"{title} over size, {len(points)} weights, {len(best)} on the frontier"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{shown(about)}">']
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for size in x_ticks:
        parts.append(f'<line class="grid" x1="{x(size):.1f}" x2="{x(size):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{x(size):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_short(size)}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">size</text>')
    if len(best) > 1:
        path = " ".join(f"{x(point.size):.1f},{y(point.value):.1f}" for point in best)
        parts.append(f'<polyline class="frontier" points="{path}"/>')
    marked = set(best)
    for point in sorted(points, key=lambda one: (one in marked, one.name)):
        kind = "dot best" if point in marked else "dot"
        about = f"{point.name}: {point.value:g}, {_short(point.size)}"
        parts.append(
            f'<a href="#{point.anchor}" aria-label="{shown(about)}"><title>{shown(about)}</title>'
            f'<circle class="{kind}" cx="{x(point.size):.1f}" cy="{y(point.value):.1f}" r="5"/></a>'
        )
    parts += _labels(best, x, y)
    parts.append("</svg>")
    direction = "less is better" if less_is_better else "more is better"
    caption = f"<figcaption>{shown(title)} <small>over size, {direction}; the frontier is marked</small></figcaption>"
    return f"<figure>{caption}{''.join(parts)}</figure>"


def _labels(best: Sequence[Point], x: Callable[[int], float], y: Callable[[float], float]) -> list[str]:
    """Return names for some of the frontier, none over another."""
    taken: list[tuple[float, float, float]] = []
    found: list[str] = []
    for point in [*best[-1:], *best[:1], *best[1:-1]]:
        text = point.name.partition("_Weights.")[0]
        text = text if len(text) <= 28 else text[:27] + "…"
        width = 6.4 * len(text)
        to_left = x(point.size) + 8 + width > _WIDTH - _RIGHT
        start = x(point.size) - 8 - width if to_left else x(point.size) + 8
        middle = y(point.value) + (-6 if to_left else 14)
        if start < _LEFT or middle > _HEIGHT - _BOTTOM - 2 or len(found) >= _LABELS:
            continue
        if any(abs(middle - other) < 14 and start < right and left < start + width for left, right, other in taken):
            continue
        taken.append((start, start + width, middle))
        found.append(f'<text class="label" x="{start:.1f}" y="{middle:.1f}">{shown(text)}</text>')
    return found


def _sizes(sizes: Sequence[int]) -> tuple[Callable[[int], float], list[int]]:
    """Return a logarithmic scale and its ticks: 1, 2 and 5 times powers of ten."""
    low, high = math.log10(max(1, min(sizes))), math.log10(max(1, *sizes))
    margin = max(0.08, (high - low) * 0.06)
    low, high = low - margin, high + margin
    steps = (1, 2, 5) if high - low < 2.2 else (1,)
    ticks = [
        step * 10**power
        for power in range(max(0, math.floor(low)), math.ceil(high) + 1)
        for step in steps
        if low <= math.log10(step * 10**power) <= high
    ]

    def place(size: int) -> float:
        return _LEFT + (math.log10(max(1, size)) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    return place, ticks


def _values(values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """Return a linear scale and its ticks."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or max(abs(high) * 0.02, 0.5)
    low, high = low - margin, high + margin
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    ticks = [round(step * number, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]

    def place(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    return place, ticks


def _short(size: int) -> str:
    factor, unit = next((factor, unit) for factor, unit in _UNITS if size >= factor or factor == 1)
    return f"{size / factor:.3g} {unit}"


def shown(text: str) -> str:
    """Return text for HTML, in an element or in a quoted attribute. What cannot be printed shows as a replacement."""
    printable = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return escape(printable, quote=True)
