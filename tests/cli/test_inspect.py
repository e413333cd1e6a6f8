"""``inspect``."""

from __future__ import annotations

import json
import pickle

import pytest

from tests.cli.test_look import _on_terminal
from tests.formats.conftest import archive, tensor, text

STATE = b"}(" + text("layer1.weight") + tensor("0", 100) + text("layer2.bias") + tensor("1", 50, "torch\nHalfStorage")
CHECKPOINT = archive(STATE + text("epoch") + b"K\7u.", {"0": bytes(400), "1": bytes(100)})
EVIL = archive(b"}(" + text("w\x1b[2J") + tensor() + text("x") + b"cos\nsystem\n)Ru.", {"0": bytes(16)})


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "x.pth").write_bytes(CHECKPOINT)
    return "./x.pth"


def test_inspect_lists_tensors_with_tabs_in_a_pipe(run, checkpoint):
    result = run("inspect", checkpoint)
    assert result.stdout == "layer1.weight\t100\tfloat32\t400\nlayer2.bias\t50\tfloat16\t100\n"
    assert result.stderr == "note: besides tensors it holds epoch\n"
    assert run("inspect", checkpoint, "-q").stderr == ""


def test_inspect_sorts_and_selects(run, checkpoint, tmp_path):
    assert run("inspect", checkpoint, "--keys", "*.bias").stdout.startswith("layer2.bias\t")
    assert run("inspect", checkpoint, "--sort", "size").stdout.startswith("layer1.weight\t")
    order = b"}(" + text("b") + tensor("0", 1) + text("a") + tensor("1", 2) + b"u."
    (tmp_path / "y.pth").write_bytes(archive(order, {"0": bytes(4), "1": bytes(8)}))
    names = {
        sort: [line[0] for line in run("inspect", "./y.pth", *arguments).stdout.splitlines()]
        for sort, arguments in {"": [], "name": ["--sort", "name"], "size": ["--sort", "size"]}.items()
    }
    assert names == {"": ["b", "a"], "name": ["a", "b"], "size": ["a", "b"]}
    nothing = run("inspect", checkpoint, "--keys", "none")
    assert nothing.stdout == ""
    assert "no tensor matches" in nothing.stderr


def test_inspect_of_a_url_says_how_little_was_read(site, run):
    url = site.server.serve("/x.pth", CHECKPOINT)
    result = run("inspect", url)
    assert len(result.stdout.splitlines()) == 2
    assert "1.1 kB of 1.1 kB were read from http://127.0.0.1" in result.stderr
    assert "not verified" in result.stderr
    assert not site.home.exists()
    found = json.loads(run("inspect", url, "--json").stdout)
    assert found["size_bytes"] == found["received_bytes"] == len(CHECKPOINT)
    assert found["digest"] is None


def test_inspect_of_what_is_stored_reads_it_there(site, run):
    url = site.server.serve("/x.pth", CHECKPOINT)
    run("prefetch", url)
    before = len(site.server.requests)
    found = json.loads(run("inspect", url, "--offline", "--json").stdout)
    assert found["digest"].startswith("sha256:")
    assert found["received_bytes"] == 0
    assert len(site.server.requests) == before
    (first, second) = found["tensors"]
    blob = (site.home / "blobs" / "sha256" / found["digest"].removeprefix("sha256:")).read_bytes()
    assert blob[first["offset"] : first["offset"] + first["size_bytes"]] == bytes(400)
    assert (second["name"], second["dtype"], second["shape"]) == ("layer2.bias", "float16", [50])
    assert found["others"] == ["epoch"]


def test_inspect_obeys_offline(site, run):
    url = site.server.serve("/x.pth", CHECKPOINT)
    assert "offline mode forbids" in run("inspect", url, "--offline", code=4).stderr
    assert "weightstore prefetch 'Small_Weights.B'" in run("inspect", "small", "--offline", code=4).stderr
    assert site.server.connections == 0


def test_inspect_of_a_catalog_name_reads_from_its_source(site, run):
    # What the catalog's source serves is no checkpoint, which shows that it was asked.
    assert "neither a file of torch.save nor of safetensors" in run("inspect", "small", code=5).stderr
    assert site.bodies_sent == 1
    site.server.serve(site.url("B").removeprefix(site.server.url("")), CHECKPOINT)
    # A catalog's size is for planning, and does not refuse it.
    assert len(run("inspect", "small").stdout.splitlines()) == 2
    assert not site.home.exists()


def test_what_unpickling_would_import_is_a_warning(run, tmp_path):
    (tmp_path / "x.pth").write_bytes(EVIL)
    told = run("inspect", "./x.pth").stderr
    assert "warning: unpickling this file would import os.system" in told
    assert json.loads(run("inspect", "./x.pth", "--json").stdout)["foreign"] == ["os.system"]


def test_control_characters_of_a_file_do_not_reach_the_terminal(run, tmp_path):
    (tmp_path / "x.pth").write_bytes(EVIL)
    shown = _on_terminal("inspect", "./x.pth", columns=80, NO_COLOR="1")
    assert "\x1b" not in shown
    assert "w\\x1b[2J" in shown
    assert "\\x1b[2J" in run("inspect", "./x.pth").stdout
    name = "\x1b[31mred"
    (tmp_path / "y.pth").write_bytes(archive(pickle.dumps({name: 1})))
    assert "\x1b" not in run("inspect", "./y.pth").stderr


@pytest.mark.parametrize("columns", [30, 50, 80, 120])
def test_the_table_fits_the_terminal(site, run, tmp_path, columns):
    names = b"".join(text(f"module.encoder.layers.{n}.self_attention.in_proj_weight") + tensor() for n in range(3))
    (tmp_path / "x.pth").write_bytes(archive(b"}(" + names + b"u.", {"0": bytes(16)}))
    shown = _on_terminal("inspect", "./x.pth", columns=columns, NO_COLOR="1")
    *table, total = shown.splitlines()
    assert len(table) == 4
    assert max(map(len, table)) <= columns, shown
    assert total == "3 tensors, 12 elements, 48 B, float32, format zip"


def test_a_file_that_is_none_says_so(run, tmp_path):
    (tmp_path / "x.pth").write_bytes(b"<html>")
    assert "./x.pth" not in run("inspect", "./x.pth", code=5).stdout
    failure = json.loads(run("inspect", "./x.pth", "--json", code=5).stdout)["error"]
    assert failure["type"] == "InvalidCheckpoint"
    run("inspect", "./none.pth", code=6)
    run("inspect", "x.pth", code=3)
