"""The front page of a mirror: one static HTML file without anything from elsewhere, which says what there is.

Everything in it may have been named by others, so everything is escaped, and the page's own policy lets nothing run but
its own script. Without JavaScript it is a table; with it the table is searched and sorted, and commands are copied.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.catalog.entries import is_error
from weightstore.cluster.page_chart import Point, scatter_plot, shown
from weightstore.store.layout import translated, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from weightstore.catalog.entries import Entry
    from weightstore.client import Client, Stored
    from weightstore.source import Source
    from weightstore.store.layout import Layout

_CHARTS = 4
_SHOWN_METRICS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One blob as the page shows it. ``metrics`` are (data set, metric, value); ``command`` fetches it, if any can."""

    digest: str
    size: int
    name: str
    detail: str = ""
    task: str = ""
    metrics: tuple[tuple[str, str, float], ...] = ()
    num_params: int | None = None
    licence: str = ""
    licence_url: str = ""
    command: str = ""

    @property
    def anchor(self) -> str:
        return f"sha256-{self.digest}"


def page_of(client: Client, *, title: str = "Model weights", only_here: bool = False) -> str:
    """Return the page for everything that a client's layers have, or only what its writable store has."""
    catalogs = client.catalogs.all()

    def entry_of(source: Source) -> Entry | None:
        found = (catalog.entry_of_source(source) for catalog in catalogs)
        return next((entry for entry in found if entry is not None), None)

    stored = [one for one in client.stored() if not only_here or one.layer == "store"]
    return render(rows_of(stored, entry_of), title=title)


def write_page(layout: Layout, text: str) -> None:
    """Write a page as a store's ``index.html``, in one step.

    Raises:
        StoreError: it cannot be written.
    """
    with translated(layout.root):
        write_record(layout.root / "index.html", text.encode(), mode=layout.modes.record, scratch=layout.tmp)


def rows_of(stored: Iterable[Stored], entry_of: Callable[[Source], Entry | None]) -> list[Row]:
    """Return a row for each blob, by name. Sources on this machine are not shown to others."""
    rows: dict[str, Row] = {}
    for one in stored:
        refs = [ref for ref in one.refs if ref.source.scheme != "file"]
        entries = [entry for ref in refs if (entry := entry_of(ref.source)) is not None]
        if one.digest.hex not in rows:
            rows[one.digest.hex] = _row(one, refs[0].source if refs else None, entries[0] if entries else None)
    return sorted(rows.values(), key=lambda row: (row.name.lower(), row.digest))


def _row(stored: Stored, source: Source | None, entry: Entry | None) -> Row:
    name = entry.name if entry is not None else source.file_name if source is not None else ""
    suffix = " (safetensors)" if stored.made_from is not None else ""
    command = ""
    if source is not None and stored.made_from is None:
        wanted = entry.qualified_name if entry is not None and not entry.shards else source.display
        command = f"weightstore prefetch {shlex.quote(wanted)} --sha256 {stored.digest.hex}"
    return Row(
        digest=stored.digest.hex,
        size=stored.size,
        name=(name or "unnamed") + suffix,
        detail=source.display if source is not None else "no source is recorded",
        task=entry.task if entry is not None else "",
        metrics=_metrics(entry) if entry is not None else (),
        num_params=entry.num_params if entry is not None else None,
        licence=(entry.licence or "") if entry is not None else "",
        licence_url=(entry.licence_url or "") if entry is not None else "",
        command=command,
    )


def _metrics(entry: Entry) -> tuple[tuple[str, str, float], ...]:
    return tuple(
        (data_set, metric, float(value))
        for data_set, metrics in entry.metrics.items()
        for metric, value in metrics.items()
        if value is not None and math.isfinite(value)
    )


def render(rows: Sequence[Row], *, title: str = "Model weights") -> str:
    """Return the page. Equal rows make equal bytes."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    total = sum(row.size for row in rows)
    counted = "1 file" if len(rows) == 1 else f"{len(rows)} files"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{shown(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{shown(title)}</title>
<style>{style}</style>
</head>
<body>
<h1>{shown(title)}</h1>
<p>{counted}, {_size(total)}. The commands carry the SHA-256 with which what is fetched is compared.</p>
{_charts(rows)}
{_use(rows, total)}
<h2>Weights</h2>
<div class="tools"><input type="search" id="search" placeholder="Search names, tasks, licences, digests" \
aria-label="Search"><span id="count" role="status"></span></div>
<table id="weights">
<thead><tr><th scope="col">Name</th><th scope="col">Task</th><th scope="col" class="number">Metrics</th>\
<th scope="col" class="number">Size</th><th scope="col" class="number">Parameters</th><th scope="col">Licence</th>\
<th scope="col">Digest</th><th scope="col">Fetch</th></tr></thead>
<tbody>
{"".join(_table_row(row) for row in rows)}</tbody>
</table>
<script>{script}</script>
</body>
</html>
"""


def _table_row(row: Row) -> str:
    licence = shown(row.licence)
    if row.licence_url.startswith(("https://", "http://")):
        licence = f'<a href="{shown(row.licence_url)}" rel="noreferrer noopener">{licence or "licence"}</a>'
    metrics = "<br>".join(
        f"{value:g} <small>{shown(metric)}{f', {shown(data_set)}' if data_set else ''}</small>"
        for data_set, metric, value in row.metrics[:_SHOWN_METRICS]
    )
    first = row.metrics[0][2] if row.metrics else None
    params = f"{row.num_params / 1e6:.1f} M" if row.num_params is not None else ""
    text = shown(row.command)
    command = f'<span class="command"><code title="{text}">{text}</code></span>' if text else ""
    cells = [
        _cell("Task", shown(row.task)),
        _cell("Metrics", f"<span>{metrics}</span>" if metrics else "", "number metrics sortable", first),
        _cell("Size", _size(row.size), "number sortable", row.size),
        _cell("Parameters", params, "number sortable", row.num_params),
        _cell("Licence", licence),
        _cell("Digest", f'<code class="digest" title="sha256:{row.digest}">{row.digest[:16]}</code>'),
        _cell("Fetch", command),
    ]
    name = f"{shown(row.name)}<small>{shown(row.detail)}</small>"
    return f'<tr id="{row.anchor}"><th scope="row">{name}</th>{"".join(cells)}</tr>\n'


def _cell(label: str, content: str, kind: str = "", value: float | None = None) -> str:
    kinds = " ".join(filter(None, [kind, "" if content else "absent"]))
    value_text = f' data-value="{value}"' if value is not None else ""
    kind_text = f' class="{kinds}"' if kinds else ""
    return f'<td data-label="{label}"{kind_text}{value_text}>{content}</td>'


def _charts(rows: Iterable[Row]) -> str:
    """Return a plot for each metric that three or more weights have, the most common ones first."""
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for row in rows:
        for data_set, metric, value in row.metrics:
            points[data_set, metric].append(Point(row.name, row.size, value, row.anchor))
    first_of_data_set: dict[str, tuple[str, str]] = {}
    for key in sorted(points, key=lambda one: (-len(points[one]), one)):
        first_of_data_set.setdefault(key[0], key)
    chosen = [key for key in first_of_data_set.values() if len(points[key]) >= 3][:_CHARTS]
    plots = [
        scatter_plot(f"{metric} on {data_set}", points[data_set, metric], less_is_better=is_error(metric))
        for data_set, metric in chosen
    ]
    return f'<div class="charts">{"".join(plots)}</div>' if plots else ""


def _use(rows: Iterable[Row], total: int) -> str:
    """Return the disk use, by task."""
    by_task: Counter[str] = Counter()
    for row in rows:
        by_task[row.task or "other"] += row.size
    if not total:
        return ""
    lines = [
        f"<span>{shown(task)}</span>"
        '<svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="4"/>'
        f'<rect class="bar" width="{100 * size / total:.2f}" height="4"/></svg>'
        f"<span>{_size(size)}</span>"
        for task, size in sorted(by_task.items(), key=lambda item: (-item[1], item[0]))
    ]
    return f'<h2>Disk use</h2>\n<div class="use">{"".join(lines)}</div>'


def _size(size: int) -> str:
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.95:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


@functools.cache
def _asset(name: str) -> str:
    return "\n" + Path(__file__).with_name(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """Return a policy's word for exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
