"""A scatter plot of a metric over what weights cost, as inline SVG: which give most for their bytes or operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Near what a plot is wide on a telephone: its text is as large there as beside others on a wide screen.
_WIDTH, _HEIGHT = 400, 310
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 16, 42
_LABELS = 6
_LONGEST_LABEL = 26
_CHAR, _LINE = 7.7, 14  # of a label, at most about that: the fonts are the reader's
_RADIUS = 5
_LEAST = 1e-6  # of a cost: what is declared to be less is drawn as that
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B"))


@dataclass(frozen=True, slots=True)
class Axis:
    """What lies below a plot: ``name`` in sentences and class names, ``label`` with its unit, and how to write one."""

    name: str
    label: str
    text: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Point:
    """Some weights: what they cost and the metric's value. ``anchor`` is the row's id in the page."""

    name: str
    cost: float
    value: float
    anchor: str


def frontier(points: Iterable[Point], *, less_is_better: bool = False) -> list[Point]:
    """Return the points that none of the others beats, by cost: none costs no more and is better."""
    sign = -1 if less_is_better else 1
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, -sign * one.value, one.name)):
        if not best or sign * point.value > sign * best[-1].value:
            best.append(point)
    return best


def scatter_plot(title: str, points: Sequence[Point], axis: Axis, *, less_is_better: bool = False) -> str:
    """Return a figure. Each point leads to its row; those of the frontier are marked, and some of them named."""
    best = frontier(points, less_is_better=less_is_better)
    x, x_ticks = _costs([point.cost for point in points])
    y, y_ticks = _values([point.value for point in points])
    about = f"{title} over {axis.name}, {len(points)} weights, {len(best)} on the frontier"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{shown(about)}">']
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    bottom = _HEIGHT - _BOTTOM
    for cost in x_ticks:
        parts.append(f'<line class="grid" x1="{x(cost):.1f}" x2="{x(cost):.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x(cost):.1f}" y="{bottom + 17}" text-anchor="middle">{axis.text(cost)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{axis.label}</text>')
    if len(best) > 1:
        path = " ".join(f"{x(point.cost):.1f},{y(point.value):.1f}" for point in best)
        parts.append(f'<polyline class="frontier" points="{path}"/>')
    marked = set(best)
    for point in sorted(points, key=lambda one: (one in marked, one.name)):
        kind = "dot best" if point in marked else "dot"
        about = f"{point.name}: {point.value:g}, {axis.text(point.cost)}"
        parts.append(
            f'<a href="#{point.anchor}" aria-label="{shown(about)}"><title>{shown(about)}</title>'
            f'<circle class="{kind}" cx="{x(point.cost):.1f}" cy="{y(point.value):.1f}" r="{_RADIUS}"/></a>'
        )
    parts += _labels(best, [(x(point.cost), y(point.value)) for point in points], x, y)
    parts.append("</svg>")
    direction = "less is better" if less_is_better else "more is better"
    told = f"over {axis.name}, {direction}; the frontier is marked"
    caption = f"<figcaption>{shown(title)} <small>{told}</small></figcaption>"
    return f'<figure class="over-{axis.name}">{caption}{"".join(parts)}</figure>'


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


_PLOT = _Box(_LEFT, _TOP - 8, _WIDTH - 2, _HEIGHT - _BOTTOM)


def _labels(
    best: Sequence[Point],
    dots: Sequence[tuple[float, float]],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> list[str]:
    """Return names for some of the frontier, none over a point or another: one that fits nowhere is left out."""
    taken = [_Box(px - _RADIUS, py - _RADIUS, px + _RADIUS, py + _RADIUS) for px, py in dots]
    found: list[str] = []
    named: set[str] = set()
    for point in [*best[-1:], *best[:1], *best[1:-1]]:
        text = point.name.partition("_Weights.")[0]
        text = text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
        box = _place(x(point.cost), y(point.value), _CHAR * len(text), taken)
        if box is None or text in named or len(found) >= _LABELS:
            continue
        taken.append(box)
        named.add(text)
        # Held at the side of the point, so that a narrower font leaves no gap.
        side = (box.right, ' text-anchor="end"') if box.right < x(point.cost) else (box.left, "")
        found.append(f'<text class="label" x="{side[0]:.1f}" y="{box.bottom - 3:.1f}"{side[1]}>{shown(text)}</text>')
    return found


def _place(px: float, py: float, width: float, taken: Sequence[_Box]) -> _Box | None:
    """Return where the label of a point goes: beside it, above or below, where nothing is; None if there is no room."""
    gap, half = _RADIUS + 3, _LINE / 2
    for left, top in (
        (px - gap - width, py - half),
        (px + gap, py - half),
        (px - gap - width, py - _LINE - 2),
        (px + gap, py + 2),
        (px - width / 2, py - gap - _LINE),
        (px - width / 2, py + gap),
    ):
        box = _Box(left, top, left + width, top + _LINE)
        is_inside = _PLOT.left <= left and box.right <= _PLOT.right and _PLOT.top <= top and box.bottom <= _PLOT.bottom
        if is_inside and not any(box.meets(other) for other in taken):
            return box
    return None


def _costs(costs: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """Return a logarithmic scale and its ticks: 1, 2 and 5 times powers of ten. What is nothing lies at the left."""
    least = max(_LEAST, min((cost for cost in costs if cost > 0), default=1.0))
    low, high = math.log10(least), math.log10(max(least, *costs))
    margin = max(0.08, (high - low) * 0.06)
    low, high = low - margin, high + margin
    steps = (1, 2, 5) if high - low < 1.7 else (1,)
    ticks = [
        step * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for step in steps
        if low <= math.log10(step * 10.0**power) <= high
    ]

    def place(cost: float) -> float:
        return _LEFT + (math.log10(max(least, cost)) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

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


def _bytes(size: float) -> str:
    factor, unit = next((factor, unit) for factor, unit in _UNITS if size >= factor or factor == 1)
    return f"{size / factor:.3g} {unit}"


SIZE = Axis("size", "size", _bytes)
COMPUTE = Axis("compute", "GFLOPS", lambda gops: f"{gops:.3g}" if gops < 1000 else f"{gops:.0f}")


def shown(text: str) -> str:
    """Return text for HTML, in an element or in a quoted attribute. What cannot be printed shows as a replacement."""
    printable = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return escape(printable, quote=True)
