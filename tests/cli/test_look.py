"""``path``, ``ls``, ``show``, ``search`` and ``why``."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from weightstore.cli.table import Cell, Column, fitting
from weightstore.store.layout import create_layout


def test_path_prints_a_verified_hit(site, run):
    run("prefetch", "small")
    assert run("path", "small").stdout == f"{site.blob('B')}\n"
    found = json.loads(run("path", "Small_Weights.B", "--json").stdout)
    assert found == {
        "name": "Small_Weights.B",
        "path": str(site.blob("B")),
        "digest": f"sha256:{site.digest('B')}",
        "size_bytes": 51_000,
    }


def test_path_of_a_miss_downloads_nothing_and_says_what_to_run(site, run):
    result = run("path", "small", code=4)
    assert result.stdout == ""
    assert "weightstore prefetch 'Small_Weights.B'" in result.stderr
    assert site.server.requests == []
    error = json.loads(run("path", "small", "--json", code=4).stdout)["error"]
    assert error["type"] == "NotPresent"


def test_path_fetches_when_told_to(site, run):
    assert run("path", "--fetch", "small").stdout == f"{site.blob('B')}\n"
    run("path", "--fetch", "other", "--offline", code=4)


def test_path_of_a_file_that_is_not_stored_says_how_to_store_it(site, run, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"here")
    told = run("path", "./a.bin", code=4).stderr
    assert "To store it, run:\n  weightstore prefetch" in told
    assert "internet" not in told
    for command in (["path", "./gone.bin"], ["path", "--fetch", "./gone.bin"], ["prefetch", "./gone.bin", "--offline"]):
        told = run(*command, code=6).stderr
        assert "no such file" in told
        assert "internet" not in told


def test_a_file_name_that_is_no_weights_name_gets_a_hint(site, run, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"here")
    for command in ("path", "prefetch", "why"):
        assert "write ./a.bin" in run(command, "a.bin", code=3).stderr
    assert "./" not in run("path", "b.bin", code=3).stderr


def test_a_damaged_blob_is_no_hit(site, run):
    run("prefetch", "small")
    site.blob("B").chmod(0o644)
    site.blob("B").write_bytes(b"other")
    result = run("path", "small", code=4)
    assert "note: " in result.stderr
    assert "was damaged" in result.stderr
    assert not site.blob("B").exists()


def test_ls_lists_blobs_of_all_layers(site, run, tmp_path, monkeypatch):
    run("prefetch", "small")
    layer = tmp_path / "layer"
    run("prefetch", "other", "--home", layer)
    monkeypatch.setenv("WEIGHTSTORE_LAYERS", str(layer))
    rows = [line.split("\t") for line in run("ls").stdout.splitlines()]
    assert [(row[0], row[1], row[2], row[4], row[5]) for row in rows] == [
        ("Other_Weights.C", "52000", site.digest("C")[:12], str(layer), "1"),
        ("Small_Weights.B", "51000", site.digest("B")[:12], "store", "1"),
    ]
    assert run("ls", "--full", "--sort", "size").stdout.splitlines()[0].split("\t")[2] == site.digest("C")
    (_, blob) = sorted(json.loads(run("ls", "--json").stdout)["blobs"], key=lambda one: one["size_bytes"], reverse=True)
    assert blob["names"] == ["Small_Weights.B"]
    assert blob["sources"][0]["source"] == site.url("B")
    assert blob["digest"] == f"sha256:{site.digest('B')}"


def test_ls_of_nothing_says_how_to_find_something(run):
    result = run("ls")
    assert result.stdout == ""
    assert "weightstore search" in result.stderr
    assert json.loads(run("ls", "--json").stdout)["blobs"] == []


def test_ls_knows_the_names_of_all_catalogs(site, run, tmp_path, monkeypatch):
    run("prefetch", "small")
    package = tmp_path / "packages" / "toypackage"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    site.catalog.rename(package / "catalog.json")
    info = tmp_path / "packages" / "toypackage-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toypackage\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[weightstore.catalogs]\ntoys = toypackage:catalog.json\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delenv("WEIGHTSTORE_CATALOGS")
    assert run("ls").stdout.split("\t")[0] == "Small_Weights.B"


def _on_terminal(*arguments: str, columns: int, **environ: str) -> str:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "weightstore", *arguments],
        stdout=follower,
        stderr=follower,
        env={**inherited, "TERM": "xterm-256color", **environ},
    )
    os.close(follower)
    shown = b""
    try:
        while data := os.read(leader, 65536):
            shown += data
    except OSError:  # EIO when the other side is closed
        pass
    os.close(leader)
    assert process.wait(timeout=20) == 0
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [30, 50, 80, 120])
def test_tables_fit_the_terminal(site, run, columns):
    run("prefetch", "toys/*")
    for command in (["ls"], ["search", "acc@1>80"], ["config"], ["prefetch", "-n", "toys/*"]):
        shown = _on_terminal(*command, columns=columns, NO_COLOR="1")
        lines = [line for line in shown.splitlines() if "\t" not in line]
        # The last line of a plan is prose, which the terminal wraps.
        table = lines[:-1]
        assert max(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) for line in table) <= columns, shown


LONG = "https://models.example.org/" + "deep/" * 30 + "efficientnet.pth"


@pytest.mark.parametrize("name", [LONG, "模型" * 60, "e\u0301" * 150])
@pytest.mark.parametrize("width", [40, 80, 100, 140])
def test_a_name_is_shortened_before_anything_else(name, width):
    columns = [Column("NAME", flexible=True), Column("SIZE", right=True), Column("DIGEST", drop=1)]
    widths = fitting(columns, [[Cell(name), Cell("102.5 MB"), Cell("0123456789ab")]], width)
    assert widths[1] == len("102.5 MB")
    assert widths.get(2, 12) == 12
    assert sum(widths.values()) + 2 * (len(widths) - 1) <= width


def test_of_a_long_url_the_middle_is_left_out(site, run):
    run("prefetch", site.server.serve("/" + "deep/" * 30 + "weights.bin", site.data("B")))
    line = _on_terminal("ls", columns=80).splitlines()[1]
    assert line.startswith("http://127")
    assert "deep/weights.bin  51.0 kB" in line


@pytest.mark.parametrize("columns", [60, 100])
def test_ls_shows_sizes_in_full_beside_long_names(site, run, columns):
    run("prefetch", site.server.serve("/" + "deep/" * 30 + "weights.bin", site.data("B")))
    assert "51.0 kB" in _on_terminal("ls", columns=columns)
    assert site.digest("B") in _on_terminal("ls", "--full", columns=columns)


def test_a_dumb_terminal_gets_no_escape_codes_and_its_own_width(site, run):
    run("prefetch", "small", site.server.serve("/" + "deep/" * 30 + "weights.bin", site.data("A")))
    for command in (["ls"], ["doctor"], ["show", "small"], ["verify"], ["prefetch", "other"]):
        assert "\x1b" not in _on_terminal(*command, columns=100, TERM="dumb")
    assert max(map(len, _on_terminal("ls", columns=100, TERM="dumb").splitlines())) == 100


def test_no_color_means_no_colour(site, run):
    run("prefetch", "small")
    for command in (["ls"], ["doctor"], ["show", "small"]):
        shown = _on_terminal(*command, columns=100, NO_COLOR="1")
        assert "\x1b" not in shown, shown


def test_show_tells_what_the_catalog_knows(site, run):
    shown = run("show", "small").stdout
    for line in (
        "Small_Weights.B",
        "12.3 M (12,345,678)",
        "acc@1 75.25",
        "Shrink(size=32)",
        "3: bear, car, doll",
        "51.0 kB (51,000 bytes)",
        "not declared",
        site.url("B"),
    ):
        assert line in shown
    run("prefetch", "small")
    assert str(site.blob("B")) in run("show", "small").stdout


def test_show_of_torchvision_needs_no_torch(run):
    shown = run("show", "vit_h_14").stdout
    assert "about 2.5 GB" in shown
    assert "CC-BY-NC-4.0" in shown
    assert "interpolation=InterpolationMode.BICUBIC" in shown
    assert "1000: tench, goldfish" in shown
    assert "toilet tissue" in run("show", "vit_h_14", "--categories", "all").stdout
    shown = run("show", "ResNet50_QuantizedWeights.IMAGENET1K_FBGEMM_V1").stdout
    assert "unquantized     ResNet50_Weights.IMAGENET1K_V1" in shown
    assert "pretrained=True meant ResNet50_Weights.IMAGENET1K_V1" in run("show", "resnet50").stdout
    assert ":class:" not in run("show", "raft_large").stdout


def test_show_as_json_has_every_field(run):
    (weights,) = json.loads(run("show", "small", "--json").stdout)["weights"]
    assert weights["metrics"] == {"Toys": {"acc@1": 75.25}}
    assert weights["transforms"] == {"class": "toys.transforms.Shrink", "kwargs": {"size": 32}}
    assert weights["categories"] == ["bear", "car", "doll"]
    assert weights["is_default"] is True
    assert weights["path"] is None


def test_search_finds_and_sorts(run):
    rows = [line.split("\t") for line in run("search", "acc@1>60 task=toy-classification").stdout.splitlines()]
    assert [row[:2] for row in rows] == [["Small_Weights.B", "75.25"], ["Small_Weights.A", "70.5"]]
    rows = run("search", "namespace=toys", "--sort", "size", "--limit", "1").stdout.splitlines()
    assert [row.split("\t")[0] for row in rows] == ["Small_Weights.A"]
    found = json.loads(run("search", "namespace=toys", "--sort", "-size", "--json").stdout)
    assert [one["name"] for one in found["weights"]] == ["Other_Weights.C", "Small_Weights.B", "Small_Weights.A"]
    assert found["matches"] == 3


def test_search_without_a_query_lists_everything(run):
    assert len(run("search").stdout.splitlines()) == 166 + 3


def test_search_that_finds_nothing_or_makes_no_sense(run):
    assert "no weights match" in run("search", "acc@1>100").stderr
    assert "neither a field nor a metric" in run("search", "beauty>3", code=2).stderr


def test_why_explains_each_place(site, run, tmp_path, monkeypatch):
    create_layout(tmp_path / "layer")
    monkeypatch.setenv("WEIGHTSTORE_LAYERS", str(tmp_path / "layer"))
    told = run("why", "small").stdout
    assert "not known yet" in told
    assert "would be asked" in told
    run("prefetch", "small")
    told = run("why", "small").stdout
    assert "has it, verified" in told
    assert f"leads to {site.blob('B')}" in told
    explained = json.loads(run("why", "small", "--json").stdout)
    assert explained["known_by"] == "ref"
    assert [step["answer"] for step in explained["steps"]] == ["does not have it", "has it, verified"]


def test_show_tells_how_many_shards_are_stored(site, run, server, tmp_path, monkeypatch):
    urls = [server.serve(f"/shard-{number}.bin", b"%d" % number) for number in range(3)]
    catalog = tmp_path / "sharded.json"
    entry = {"source": urls[0], "shards": urls[1:]}
    enums = {"Big_Weights": {"builder": "big", "default": "A", "entries": {"A": entry}}}
    catalog.write_text(json.dumps({"schema": 1, "namespace": "sharded", "enums": enums}))
    monkeypatch.setenv("WEIGHTSTORE_CATALOGS", str(catalog))
    run("prefetch", urls[0])
    shown = run("show", "big").stdout
    assert "1 of 3 files" in shown
    assert urls[2] in shown
    run("prefetch", "big")
    assert "3 of 3 files" in run("show", "big").stdout
    (told,) = json.loads(run("show", "big", "--json").stdout)["weights"]
    assert told["shards"] == urls[1:]
    assert told["path"] is None
