"""The front page of a mirror: one static HTML file without anything from elsewhere, which says what there is.

Everything in it may have been named by others, so everything is escaped, and the page's own policy lets nothing run but
its own script. Without JavaScript it is a table; with it the table is searched and sorted, and commands are copied.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.catalog.entries import best_known_first, is_error
from weightstore.catalog.registry import built_in
from weightstore.cluster.merging import details_of
from weightstore.cluster.page_chart import COMPUTE, SIZE, Axis, Point, scatter_plot, shown
from weightstore.cluster.renewal import index_there, told_by_others
from weightstore.errors import InvalidRecord
from weightstore.store.layout import read_limited, translated, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from weightstore.catalog.entries import Entry
    from weightstore.client import Client, Stored
    from weightstore.cluster.index import IndexEntry
    from weightstore.cluster.merging import Details
    from weightstore.digest import Digest
    from weightstore.source import Source
    from weightstore.store.layout import Layout

_CHARTS = 4
_LEAST_POINTS = 3
_SHOWN_METRICS = 3
_AXES = (SIZE, COMPUTE)
_ADDRESS = "https://ADDRESS-OF-THIS-PAGE"  # the script of the page knows it, and says it


@dataclass(frozen=True, slots=True)
class Row:
    """One blob as the page shows it.

    ``also`` are its other names, ``metrics`` are (data set, metric, value), ``gops`` 10⁹ operations of one pass.
    ``command`` fetches it, if any can.
    """

    digest: str
    size: int
    name: str
    detail: str = ""
    also: tuple[str, ...] = ()
    task: str = ""
    metrics: tuple[tuple[str, str, float], ...] = ()
    num_params: int | None = None
    gops: float | None = None
    licence: str = ""
    licence_url: str = ""
    command: str = ""

    @property
    def anchor(self) -> str:
        return f"sha256-{self.digest}"


Told = tuple["IndexEntry", "Details"]
"""What an index says of a blob."""


def page_of(client: Client, *, title: str = "Model weights", only_here: bool = False, is_served: bool = False) -> str:
    """Return the page for everything that a client's layers have, or only what its writable store has.

    ``is_served`` tells that ``weightstore serve`` shows it, which is a mirror for the Hub's users as well.
    """
    catalogs = client.catalogs.all()

    def entries_of(source: Source) -> list[Entry]:
        return [entry for catalog in catalogs for entry in catalog.entries_of_source(source)]

    stored = [one for one in client.stored() if not only_here or one.layer == "store"]
    told: dict[Digest, Told] = {}
    for layer in client.obtainer.layers():
        if layer.layout is not None and (layer.writable or not only_here):
            told = {**_told_in(layer.layout), **told}
    return render(rows_of(stored, entries_of, told), title=title, is_served=is_served)


def _told_in(layout: Layout) -> Mapping[Digest, Told]:
    """Return what a store's index says; of one that is damaged nothing, which is no reason to show no page."""
    try:
        index = index_there(layout)
    except InvalidRecord:
        return {}
    entries = {entry.digest: entry for entry in (*told_by_others(layout, index), *index.entries)}
    return {digest: (entry, details_of(entry, index.documents)) for digest, entry in entries.items()}


def write_page(layout: Layout, text: str) -> None:
    """Write a page as a store's ``index.html``, in one step, unless it is there as it is.

    Raises:
        StoreError: it cannot be written.
    """
    path, data = layout.root / "index.html", text.encode()
    with translated(layout.root):
        try:
            if read_limited(path, len(data)) == data:
                return
        except OSError:  # there is none, or something else, which goes
            pass
        write_record(path, data, mode=layout.modes.record, scratch=layout.tmp)


def rows_of(
    stored: Iterable[Stored],
    entries_of: Callable[[Source], Iterable[Entry]],
    told: Mapping[Digest, Told] | None = None,
) -> list[Row]:
    """Return a row for each blob, by name. Sources on this machine are not shown to others.

    What no catalog here knows is called as an index says, ``told``.
    """
    rows: dict[str, Row] = {}
    for one in stored:
        if one.digest.hex not in rows:
            rows[one.digest.hex] = _row(one, entries_of, (told or {}).get(one.digest))
    return sorted(rows.values(), key=lambda row: (row.name.lower(), row.digest))


def _row(stored: Stored, entries_of: Callable[[Source], Iterable[Entry]], told: Told | None) -> Row:
    sources = [ref.source for ref in stored.refs if ref.source.scheme != "file"]
    if told is not None:
        sources += [source for source in told[0].sources if source not in sources]
    entries = best_known_first(entry for source in sources for entry in entries_of(source))
    entry = entries[0] if entries else None
    source = entry.source if entry is not None and entry.source in sources else sources[0] if sources else None
    row = Row(
        digest=stored.digest.hex,
        size=stored.size,
        name=source.file_name if source is not None else "",
        detail=source.display if source is not None else "no source is recorded",
    )
    if entry is not None:
        row = replace(
            row,
            name=entry.name,
            also=tuple(one.name for one in entries if one.name != entry.name),
            task=entry.task,
            metrics=_metrics(entry),
            num_params=entry.num_params,
            gops=entry.gops,
            licence=entry.licence or "",
            licence_url=entry.licence_url or "",
        )
    elif told is not None:
        known, details = told
        name = known.name.rpartition("/")[2] or row.name or known.title
        also = tuple(alias.rpartition("/")[2] for alias in known.aliases)
        row = replace(
            row, name=name, also=also, task=details.task, num_params=details.num_params, licence=known.licence
        )
    if stored.made_from is not None:
        return replace(row, name=f"{row.name or 'unnamed'} (safetensors)")
    if source is not None:
        # By name only where every reader's machine knows it: the site's own catalogs are not theirs.
        is_known = entry is not None and not entry.shards and entry in built_in().entries_of_source(entry.source)
        wanted = entry.qualified_name if entry is not None and is_known else source.display
        row = replace(row, command=f"weightstore prefetch {shlex.quote(wanted)} --sha256 {stored.digest.hex}")
    return replace(row, name=row.name or "unnamed")


def _metrics(entry: Entry) -> tuple[tuple[str, str, float], ...]:
    return tuple(
        (data_set, metric, float(value))
        for data_set, metrics in entry.metrics.items()
        for metric, value in metrics.items()
        if value is not None and math.isfinite(value)
    )


def render(rows: Sequence[Row], *, title: str = "Model weights", is_served: bool = False) -> str:
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
<p>{counted}, {_size(total)}. {_COMMANDS if rows else _EMPTY}</p>
{_address(is_served=is_served)}
{_charts(rows)}
{_use(rows, total)}
{_table(rows)}
<script>{script}</script>
</body>
</html>
"""


_COMMANDS = "The commands carry the SHA-256 with which what is fetched is compared."
_EMPTY = (
    "Nothing is here yet. Weights come from another store by <code>weightstore mirror push DIRECTORY --all</code>, "
    "and from where they are published by <code>weightstore --home DIRECTORY prefetch NAME</code>."
)


def _address(*, is_served: bool) -> str:
    """Return how the mirror is used: what to set, so that it is asked."""
    lines = [("weightstore", "WEIGHTSTORE_MIRRORS")]
    if is_served:
        lines.append(("huggingface_hub, transformers, timm", "HF_ENDPOINT"))
    shells = "".join(
        f'<dt>{who}</dt><dd class="command"><code>export {name}=<span class="address">{_ADDRESS}</span></code></dd>'
        for who, name in lines
    )
    return f'<h2>Use this mirror</h2>\n<dl class="setting">{shells}</dl>'


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return f"""<h2>Weights</h2>
<div class="tools"><input type="search" id="search" placeholder="Search names, tasks, licences, digests" \
aria-label="Search"><span id="count" role="status"></span></div>
<table id="weights">
<thead><tr><th scope="col">Name</th><th scope="col">Task</th><th scope="col" class="number">Metrics</th>\
<th scope="col" class="number">Size</th><th scope="col" class="number">Parameters</th><th scope="col">Licence</th>\
<th scope="col">Digest</th></tr></thead>
<tbody>
{"".join(_table_row(row) for row in rows)}</tbody>
</table>"""


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
    if row.gops is not None:
        params = f"<span>{params}{'<br>' if params else ''}<small>{COMPUTE.text(row.gops)} GFLOPS</small></span>"
    cells = [
        _cell("Task", shown(row.task)),
        _cell("Metrics", f"<span>{metrics}</span>" if metrics else "", "number metrics sortable", first),
        _cell("Size", _size(row.size), "number sortable", row.size),
        _cell("Parameters", params, "number sortable", row.num_params),
        _cell("Licence", licence),
        _cell("Digest", _digest(row)),
    ]
    name = f'<span class="name">{_breakable(row.name)}</span>'
    name += "".join(f"<small>also {_breakable(other)}</small>" for other in row.also)
    name += f"<small>{_breakable(row.detail)}</small>"
    if row.command:
        words = " ".join(f"<span>{shown(word)}</span>" for word in row.command.split(" "))
        name += f'<span class="command"><code>{words}</code></span>'
    return f'<tr id="{row.anchor}"><th scope="row">{name}</th>{"".join(cells)}</tr>\n'


def _digest(row: Row) -> str:
    """Return the digest: whole where no command beside it tells it."""
    if row.command:
        return f'<code class="digest" title="sha256:{row.digest}">{row.digest[:16]}</code>'
    return f'<code class="digest whole">{row.digest}</code>'


def _breakable(text: str) -> str:
    """Return text for HTML that may go on in the next line where its words end: ``_``, ``.``, ``/``, ``-``."""
    return "<wbr>".join(shown(piece) for piece in _PIECE.findall(text))


_PIECE = re.compile(r"[^_./-]*[_./-]+|[^_./-]+")


def _cell(label: str, content: str, kind: str = "", value: float | None = None) -> str:
    kinds = " ".join(filter(None, [kind, "" if content else "absent"]))
    value_text = f' data-value="{value}"' if value is not None else ""
    kind_text = f' class="{kinds}"' if kinds else ""
    return f'<td data-label="{label}"{kind_text}{value_text}>{content}</td>'


def _charts(rows: Sequence[Row]) -> str:
    """Return plots for each metric that three or more weights have, the most common ones first: over size and compute.

    Which of the two is seen is switched without any script.
    """
    plots = {axis: _plots(rows, axis) for axis in _AXES}
    known = [axis for axis in _AXES if plots[axis]]
    if not known:
        return ""
    switch = ""
    if len(known) > 1:
        for number, axis in enumerate(known):
            place = f'id="by-{axis.name}"{" checked" if number == 0 else ""}'
            switch += f'<input type="radio" name="axis" {place}><label for="by-{axis.name}">over {axis.name}</label>'
    drawn = "".join(plot for axis in known for plot in plots[axis])
    return f'<h2>Quality and cost</h2>\n<div class="plots">{switch}<div class="charts">{drawn}</div></div>'


def _plots(rows: Iterable[Row], axis: Axis) -> list[str]:
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for row in rows:
        cost = row.size if axis is SIZE else row.gops
        if cost is not None and (axis is SIZE or cost > 0):
            for data_set, metric, value in row.metrics:
                points[data_set, metric].append(Point(row.name, cost, value, row.anchor))
    first_of_data_set: dict[str, tuple[str, str]] = {}
    for key in sorted(points, key=lambda one: (-len(points[one]), one)):
        first_of_data_set.setdefault(key[0], key)
    chosen = [key for key in first_of_data_set.values() if len(points[key]) >= _LEAST_POINTS][:_CHARTS]
    return [
        scatter_plot(f"{metric} on {data_set}", points[data_set, metric], axis, less_is_better=is_error(metric))
        for data_set, metric in chosen
    ]


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
