"""The front page: what it says, that nothing in it comes from elsewhere or runs, and how it works in a browser."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.browser import browser
from weightstore.catalog.registry import built_in
from weightstore.client import Client
from weightstore.cluster.page import Row, page_of, render, write_page
from weightstore.cluster.page_chart import COMPUTE, SIZE, Point, frontier, scatter_plot
from weightstore.digest import Digest
from weightstore.records import Ref
from weightstore.source import Source
from weightstore.store.refs import write_ref

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x00"


def _row(name: str, *, size: int = 1000, value: float | None = None, **more) -> Row:
    metrics = (("Toys", "acc@1", value),) if value is not None else ()
    return Row(hashlib.sha256(name.encode()).hexdigest(), size, name, metrics=metrics, **more)


class _Reader(HTMLParser):
    """Collects elements with their attributes, the text, and what an element that must be closed was left open."""

    VOID = frozenset({"meta", "link", "input", "br", "rect", "line", "circle", "polyline", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.goes_on = False

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.goes_on = tag == "wbr"  # within one text
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.goes_on:
            self.text[-1] += data
        else:
            self.text.append(data)
        self.goes_on = False


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def test_the_page_of_a_store_tells_what_catalogs_know(layout, config):
    entry = next(entry for entry in built_in().entries() if entry.name == "ResNet50_Weights.IMAGENET1K_V2")
    data = b"weights"
    digest = Digest(hashlib.sha256(data).hexdigest())
    layout.blob(digest).write_bytes(data)
    write_ref(layout, Ref(entry.source, digest, len(data), datetime(2026, 1, 1, tzinfo=UTC)))
    page = page_of(Client(config))
    text = " ".join(" ".join(_read(page).text).split())
    assert "ResNet50_Weights.IMAGENET1K_V2 https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in text
    assert "80.858 acc@1, ImageNet-1K" in text
    assert f"weightstore prefetch torchvision/ResNet50_Weights.IMAGENET1K_V2 --sha256 {digest.hex}" in text
    write_page(layout, page)
    assert (layout.root / "index.html").read_text() == page


def test_the_page_of_an_empty_store_is_a_page(layout, config):
    reader = _read(page_of(Client(config)))
    text = " ".join(reader.text)
    assert "0 files, 0 B" in text
    assert "Nothing is here yet" in text
    assert "mirror push" in text
    assert "table" not in {tag for tag, _ in reader.elements}


def test_the_whole_digest_can_be_read_without_a_script():
    fetched, local = _row("a", command="weightstore prefetch a --sha256 x"), _row("b")
    text = " ".join(_read(render([fetched, local])).text)
    assert local.digest in text
    assert fetched.digest not in text  # the command tells it


def test_the_page_says_how_to_use_the_mirror():
    mirror, served = render([_row("a")]), render([_row("a")], is_served=True)
    assert "export WEIGHTSTORE_MIRRORS=" in mirror
    assert "HF_ENDPOINT" not in mirror  # a directory behind nginx does not speak as the Hub
    assert "export HF_ENDPOINT=" in served


def test_a_metric_is_plotted_over_size_and_where_it_is_known_over_compute():
    rows = [_row(name, size=size, value=size * 1.0, gops=10.0 - size) for name, size in (("a", 1), ("b", 2), ("c", 3))]
    page = render(rows)
    assert page.count('<figure class="over-size">') == page.count('<figure class="over-compute">') == 1
    compute = page.partition('<figure class="over-compute">')[2].partition("</figure>")[0]
    assert "3 weights, 1 on the frontier" in compute  # the best of them is the cheapest, too
    assert compute.count('class="dot best"') == 1
    some = render([*rows[:2], _row("c", size=3, value=3.0)])
    assert 'class="over-compute"' not in some
    assert 'type="radio"' not in some


def test_every_name_of_a_blob_is_told(layout, config, tmp_path):
    catalog = {
        "schema": 1,
        "namespace": "toys",
        "enums": {
            "Net_Weights": {
                "entries": {
                    "A": {"source": "https://example.org/a.pth"},
                    "B": {"source": "https://example.org/b.pth"},
                }
            }
        },
    }
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    data = b"weights"
    digest = Digest(hashlib.sha256(data).hexdigest())
    layout.blob(digest).write_bytes(data)
    for name in "ab":
        source = Source(f"https://example.org/{name}.pth")
        write_ref(layout, Ref(source, digest, len(data), datetime(2026, 1, 1, tzinfo=UTC)))
    text = " ".join(_read(page_of(Client(config.but(catalogs=(tmp_path / "catalog.json",))))).text)
    assert "Net_Weights.A" in text
    assert "also Net_Weights.B" in text
    # Whoever reads the page does not have this catalog.
    assert f"weightstore prefetch https://example.org/a.pth --sha256 {digest.hex}" in " ".join(text.split())


def test_equal_rows_make_equal_bytes():
    rows = [_row("a", value=1.0), _row("b", value=2.0), _row("c", value=3.0)]
    assert render(rows) == render(list(rows))


def test_names_from_others_are_text_and_nothing_else():
    evil = Row(
        digest="0" * 64,
        size=5,
        name=HOSTILE,
        detail=HOSTILE,
        task=HOSTILE,
        metrics=((HOSTILE, HOSTILE, 1.0),),
        licence=HOSTILE,
        licence_url="javascript:alert(3)",
        command=HOSTILE,
    )
    rows = [evil, *(_row(name, value=2.0, size=number + 1) for number, name in enumerate("abc"))]
    rows += [Row(f"{number:064x}", number, HOSTILE, metrics=((HOSTILE, HOSTILE, 2.0),)) for number in range(1, 4)]
    plain, hostile = _read(render(rows[1:4])), _read(render(rows, title=HOSTILE))
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in plain.elements} | {"br", "wbr"}
    assert sum(tag == "script" for tag, _ in hostile.elements) == 1
    names = {name for _, attributes in hostile.elements for name in attributes}
    assert not any(name.startswith("on") for name in names)
    assert "style" not in names
    assert not any(bad in render(rows) for bad in ("\x00", "\u202e", "javascript:"))


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_text_there_is_the_page_is_well_formed(name, detail):
    url = f"https://{name}"
    page = render([Row("0" * 64, 1, name, detail, task=detail, licence=name, command=detail, licence_url=url)])
    reader = _read(page)
    assert [tag for tag, _ in reader.elements].count("tr") == 2


def test_nothing_comes_from_elsewhere_and_only_the_pages_own_script_runs():
    page = render([_row("a", value=1.0, licence="MIT", licence_url="https://example.org/licence")])
    reader = _read(page)
    assert {tag for tag, attributes in reader.elements if "src" in attributes} == set()
    leads = {attributes["href"] for _, attributes in reader.elements if attributes.get("href")}
    assert {lead for lead in leads if not lead.startswith(("#", "data:"))} == {"https://example.org/licence"}
    assert "url(" not in page
    assert "@import" not in page
    policy = next(a["content"] for _, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    for text in (script, style):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_frontier_is_what_nothing_smaller_or_as_small_beats():
    points = [
        Point(name, size, value, name)
        for name, size, value in [("a", 1, 50.0), ("b", 2, 40.0), ("c", 2, 60.0), ("d", 3, 60.0), ("e", 9, 90.0)]
    ]
    assert [point.name for point in frontier(points)] == ["a", "c", "e"]
    assert [point.name for point in frontier(points, less_is_better=True)] == ["a", "b"]


@given(
    st.lists(st.tuples(st.integers(0, 10**13) | st.floats(0, 1e9), st.floats(-1e6, 1e6)), min_size=1, max_size=30),
    st.sampled_from([SIZE, COMPUTE]),
)
def test_every_point_lies_in_the_plot(values, axis):
    points = [Point(f"p{number}", cost, value, "x") for number, (cost, value) in enumerate(values)]
    plot = scatter_plot("acc@1", points, axis)
    circles = re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', plot)
    assert len(circles) == len(points)
    assert all(0 <= float(x) <= 400 and 0 <= float(y) <= 310 for x, y in circles)
    best = frontier(points)
    assert all(a.cost < b.cost and a.value < b.value for a, b in itertools.pairwise(best))


# -- in a browser -------------------------------------------------------------------------------------------------


ROWS = [
    _row("Small", size=1000, value=70.0, task="puzzle", licence="MIT", command="weightstore prefetch small"),
    _row("Large", size=9_000_000, value=90.0, task="puzzle", command="weightstore prefetch large"),
    _row("Middle", size=20_000, value=80.0, task="games", command="weightstore prefetch middle"),
    _row("None", size=30_000, command="weightstore prefetch 'no ne'"),
]
SHOWN = """
return Array.from(document.querySelectorAll("#weights tbody tr")).filter((row) => row.offsetParent !== null)
  .map((row) => row.cells[0].firstChild.textContent);
"""
_SORT = "document.querySelectorAll('#weights thead button')[%d].click();"


@pytest.mark.needs("chromium")
def test_in_a_browser_the_table_is_searched_sorted_and_commands_are_copied(tmp_path):
    page = tmp_path / "index.html"
    page.write_text(render(ROWS))

    async def look() -> None:
        async with browser(page, tmp_path / "profile") as (run, call):
            assert await run(SHOWN) == ["Small", "Large", "Middle", "None"]
            search = (
                "const box = document.getElementById('search'); box.value = %r; box.dispatchEvent(new Event('input'));"
            )
            assert await run(search % "PUZZLE" + SHOWN) == ["Small", "Large"]
            assert await run("return document.getElementById('count').textContent") == "2 of 4"
            assert await run(search % "puzzle mit" + SHOWN) == ["Small"]
            assert await run(search % "nothing like it" + SHOWN) == []
            assert await run(search % "weightstore prefetch" + SHOWN) == []
            digest = hashlib.sha256(b"Middle").hexdigest()
            assert await run(search % digest + SHOWN) == await run(search % f"sha256:{digest}" + SHOWN) == ["Middle"]
            assert len(await run(search % "" + SHOWN)) == 4
            assert await run(_SORT % 3 + SHOWN) == ["Large", "None", "Middle", "Small"]
            assert await run(_SORT % 3 + SHOWN) == ["Small", "Middle", "None", "Large"]
            assert await run(_SORT % 2 + SHOWN) == ["Large", "Middle", "Small", "None"]
            assert await run(_SORT % 2 + SHOWN) == ["Small", "Middle", "Large", "None"]
            assert await run(_SORT % 0 + SHOWN) == ["Large", "Middle", "None", "Small"]
            assert await run("return document.querySelector('thead th').getAttribute('aria-sort')") == "ascending"
            await call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
            await call("Page.bringToFront")
            copy = """
                const row = Array.from(document.querySelectorAll("#weights tbody tr"))[2];
                row.querySelector(".copy").click();
                await new Promise((done) => setTimeout(done, 300));
                return [row.querySelector(".copy").textContent, await navigator.clipboard.readText()];
            """
            assert await run(copy) == ["copied", "weightstore prefetch 'no ne'"]
            await run("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true});")
            assert (await run(copy.replace("[2]", "[0]").replace("await navigator.clipboard.readText()", "1")))[
                0
            ] == "copied"

    asyncio.run(look())


@pytest.mark.needs("chromium")
def test_in_a_browser_nothing_hostile_runs_and_nothing_is_wider_than_a_telephone(tmp_path):
    page = tmp_path / "index.html"
    metrics = ((HOSTILE, "m", 1.0),)
    evil = [
        Row(f"{number:064x}", 10**number, HOSTILE * 3, HOSTILE, metrics=metrics, command="x" * 300)
        for number in range(1, 5)
    ]
    page.write_text(render([*ROWS, *evil], title=HOSTILE))

    async def look() -> None:
        async with browser(page, tmp_path / "profile") as (run, call):
            await call("Emulation.setDeviceMetricsOverride", width=320, height=800, deviceScaleFactor=1, mobile=True)
            assert await run("return document.documentElement.scrollWidth") == 320
            assert await run("return document.querySelectorAll('script, img').length") == 1
            assert await run("return document.documentElement.classList.contains('live')") is True
            sort = "const by = document.querySelector('select'); by.value = 3; by.dispatchEvent(new Event('change'));"
            assert (await run(sort + "return document.querySelector('tbody th').firstChild.textContent")) == "Large"
            refused = (
                "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
            )
            assert await run(refused + "return window.ran === undefined") is True

    asyncio.run(look())


CATALOG_ROWS = [
    Row(
        hashlib.sha256(entry.name.encode()).hexdigest(),
        entry.size or 10_000_000,
        entry.name,
        detail=entry.source.display,
        metrics=tuple((a, b, float(c)) for a, more in entry.metrics.items() for b, c in more.items() if c is not None),
        gops=entry.gops,
        command=f"weightstore prefetch {entry.qualified_name} --sha256 {'0' * 64}",
    )
    for entry in built_in().entries()
]
PLOTS = """
return Array.from(document.querySelectorAll("figure")).filter((one) => one.offsetParent !== null)
  .map((one) => one.className);
"""
COVERED = """
const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const found = [];
document.querySelectorAll("figure").forEach((figure) => {
  const labels = Array.from(figure.querySelectorAll(".label"));
  const dots = Array.from(figure.querySelectorAll("circle"));
  labels.forEach((label, index) => {
    const box = label.getBoundingClientRect();
    const inner = {left: box.left + 1, right: box.right - 1, top: box.top + 2, bottom: box.bottom - 2};
    if ([...dots, ...labels.slice(index + 1)].some((one) => meets(inner, one.getBoundingClientRect())))
      found.push(label.textContent);
  });
});
return [found, document.querySelectorAll("figure .label").length];
"""
BROKEN = """
const broken = [];
document.querySelectorAll("tbody .name").forEach((name) => name.childNodes.forEach((node) => {
  const range = document.createRange();
  range.selectNodeContents(node);
  if (new Set(Array.from(range.getClientRects()).map((one) => one.top)).size > 1) broken.push(name.textContent);
}));
return broken;
"""


@pytest.mark.needs("chromium")
def test_in_a_browser_without_scripts_the_plots_are_switched_and_commands_are_whole(tmp_path):
    page = tmp_path / "index.html"
    page.write_text(render(CATALOG_ROWS))

    async def look() -> None:
        async with browser(page, tmp_path / "profile") as (run, call):
            await call("Emulation.setDeviceMetricsOverride", width=1400, height=900, deviceScaleFactor=1, mobile=False)
            await call("Emulation.setScriptExecutionDisabled", value=True)
            await call("Page.reload")
            await asyncio.sleep(1)
            assert await run("return document.documentElement.classList.contains('live')") is False
            assert set(await run(PLOTS)) == {"over-size"}
            place = await run(
                "const box = document.querySelector('label[for=by-compute]').getBoundingClientRect();"
                "return [box.left + 5, box.top + 5];"
            )
            for kind in ("mousePressed", "mouseReleased"):
                at = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
                await call("Input.dispatchMouseEvent", type=kind, **at)
            assert set(await run(PLOTS)) == {"over-compute"}
            cut = """
                const isCut = (code) =>
                  code.scrollWidth > code.clientWidth || getComputedStyle(code).overflow !== "visible";
                return Array.from(document.querySelectorAll("tbody .command code")).filter(isCut).length;
            """
            assert await run(cut) == 0
            assert (
                await run("return document.querySelector('tbody .command code').textContent") == CATALOG_ROWS[0].command
            )

    asyncio.run(look())


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser_plots_can_be_read_and_names_break_where_their_words_end(tmp_path, width):
    page = tmp_path / "index.html"
    page.write_text(render(CATALOG_ROWS))
    least = """
        return Math.min(...Array.from(document.querySelectorAll("svg text")).filter((one) => one.getScreenCTM())
          .map((one) => one.getScreenCTM().a * parseFloat(getComputedStyle(one).fontSize)));
    """

    async def look() -> None:
        async with browser(page, tmp_path / "profile") as (run, call):
            await call(
                "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 800
            )
            for axis in ("size", "compute"):
                await run(f"document.getElementById('by-{axis}').click()")
                assert await run(least) > 10
                covered, labels = await run(COVERED)
                assert covered == []
                assert labels > 12
            assert await run(BROKEN) == []
            assert await run("return document.querySelector('.address').textContent") == str(tmp_path)

    asyncio.run(look())
