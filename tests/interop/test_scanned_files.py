"""``scan``: which files are looked into, notebooks, what does not parse, and real code."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weightstore.catalog.registry import Catalogs
from weightstore.errors import InvalidInput
from weightstore.interop.scan.findings import Unread
from weightstore.interop.scan.scanning import scan
from weightstore.interop.scan.timm_names import ask_timm

ASK = "import timm\ntimm.create_model('a.b', pretrained=True)\n"
TARGET = "hf://timm/a.b@main/model.safetensors"


def by_convention(names):
    return {name: (f"hf://timm/{name}@main/model.safetensors", "") for name in names}


def scanned(*paths: Path):
    return scan(paths, catalogs=Catalogs(), timm=by_convention)


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs {name}")
    return Path(spec.origin).parent


# -- files ----------------------------------------------------------------------------------------------------------


def test_installed_packages_hidden_directories_and_environments_are_passed_by(tmp_path):
    for name in (
        "a.py", "src/b.py", "src/deep/er/c.ipynb", "src/d.txt", "src/.hidden.py",
        ".git/e.py", ".venv/f.py", "node_modules/g.py", "env/lib/site-packages/h.py", "__pycache__/i.py", "mine/j.py",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ASK if path.suffix != ".ipynb" else notebook(ASK))
    (tmp_path / "mine" / "pyvenv.cfg").touch()
    result = scanned(tmp_path)
    assert [str(Path(one.place.file).relative_to(tmp_path)) for one in result.findings] == [
        "a.py", "src/b.py", "src/deep/er/c.ipynb",
    ]  # fmt: skip
    assert result.files == 3


def test_what_is_named_is_scanned_whatever_it_is_called_and_once(tmp_path):
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "script").write_text(ASK)
    path = tmp_path / ".hidden" / "script"
    assert len(scanned(path, path).findings) == 1
    with pytest.raises(InvalidInput, match="no such file"):
        scanned(tmp_path / "absent.py")


def test_a_link_to_a_directory_above_does_not_go_round_in_circles(tmp_path):
    (tmp_path / "a.py").write_text(ASK)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert scanned(tmp_path).files == 1


def test_a_dangling_link_is_told_and_the_rest_is_scanned(tmp_path):
    (tmp_path / "a.py").write_text(ASK)
    (tmp_path / "b.py").symlink_to(tmp_path / "nowhere.py")
    result = scanned(tmp_path)
    assert [one.target for one in result.findings] == [TARGET]
    assert result.unread == (Unread(str(tmp_path / "b.py"), "No such file or directory"),)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"def f(:\n", "does not parse: invalid syntax"),
        (b"print 'Python 2'\n", "does not parse: Missing parentheses"),
        (b"x = 1\0\n", "does not parse: "),
        (b"# coding: nonsense\n", "does not parse: "),
        (b"\xff\xfe\n", "does not parse: "),
        (b"(" * 5000, "does not parse: "),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_does_not_parse_is_listed_and_not_fatal(tmp_path, content, reason):
    (tmp_path / "a.py").write_bytes(content)
    (tmp_path / "b.py").write_text(ASK)
    result = scanned(tmp_path)
    assert [one.target for one in result.findings] == [TARGET]
    assert result.files == 2
    (unread,) = result.unread
    assert unread.reason.startswith(reason)
    assert unread.place.startswith(str(tmp_path / "a.py"))


@pytest.mark.parametrize(
    "deep",
    [
        "x = " + "1 + " * 1500 + "1",
        "x = a" + ".b" * 1500,
        "if x:\n  pass\n" + "elif x:\n  pass\n" * 700,
        "def f():\n  x = " + "1 + " * 1500 + "1",
        "class C:\n  def f(self):\n    for x in a:\n      x = " + "1 + " * 1500 + "1",
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_statement_that_goes_too_deep_is_listed_and_the_rest_is_scanned(tmp_path, deep):
    text = f"import timm\n{deep}\nNAME = 'a.b'\ndef g():\n    timm.create_model(NAME, pretrained=True)\ng()\n"
    (tmp_path / "a.py").write_text(text)
    result = scanned(tmp_path)
    assert [one.target for one in result.findings] == [TARGET]
    (unread,) = result.unread
    assert unread.reason == "nested too deeply to be looked at"
    assert re.fullmatch(r".*a\.py:[234]", unread.place)


@pytest.mark.parametrize(
    "growing",
    [
        "x = {'a': x, 'b': x}",
        "x = [x, x]",
        "x = x + x",
        "x = f'{x}{x}'",
        "x = dict(a=x, b=x)['a' if y else 'b']",
        "class x:\n    a = b = x",
        "for x in x, x:\n    x = x, x",
        "def x(y=x):\n    x(x)",
    ],
)
def test_what_grows_with_every_line_does_not_take_for_ever(tmp_path, growing):
    (tmp_path / "a.py").write_text("x = 'a', 'b'\n" + f"{growing}\n" * 100 + ASK)
    (tmp_path / "b.py").write_text("from a import *\nimport a\nimport timm\ntimm.create_model(a.x, x)\n")
    assert scanned(tmp_path).findings[0].target == TARGET


def test_what_is_no_file_is_passed_by(tmp_path):
    os.mkfifo(tmp_path / "a.py")
    (tmp_path / "b.py").mkdir()
    assert scanned(tmp_path).files == 0


def test_a_warning_of_pythons_about_somebodys_code_is_not_ours(tmp_path):
    (tmp_path / "a.py").write_text("x = '\\d'\ny = 1 is 1\n" + ASK)
    assert len(scanned(tmp_path).findings) == 1


def test_a_file_in_another_encoding_is_read_as_it_says(tmp_path):
    (tmp_path / "a.py").write_bytes(b"# coding: latin-1\nx = '\xe9'\n" + ASK.encode())
    assert not scanned(tmp_path).unread


# -- notebooks ------------------------------------------------------------------------------------------------------


def notebook(*cells: str | list[str]) -> str:
    return json.dumps(
        {"nbformat": 4, "cells": [{"cell_type": "markdown", "source": "timm.create_model('no', True)"}]
         + [{"cell_type": "code", "source": cell} for cell in cells]}
    )  # fmt: skip


def test_the_cells_of_a_notebook_are_one_program(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(
        notebook(
            ["import timm\n", "def build(name):\n", "    return timm.create_model(name, pretrained=True)"],
            "%matplotlib inline\n!pip install timm\nfiles = !ls\nbuild?\nNAME = 'a.b'",
            "%%bash\necho 'timm.create_model('",
            "%%time\n\nbuild(NAME)\n\ntimm.create_model('c.d', pretrained=True)",
        )
    )
    result = scanned(path)
    assert not result.unread
    assert [(str(one.place), one.target) for one in result.findings] == [
        (f"{path}[2]:3", TARGET),
        (f"{path}[5]:5", "hf://timm/c.d@main/model.safetensors"),
    ]


def test_a_cell_that_does_not_parse_leaves_the_others(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(notebook("def broken(", ASK))
    result = scanned(path)
    assert [one.target for one in result.findings] == [TARGET]
    assert [one.place for one in result.unread] == [f"{path}[2]:1"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": 3}', "nonsense", "[" * 100_000])
def test_what_is_no_notebook_is_told(tmp_path, text):
    (tmp_path / "a.ipynb").write_text(text)
    (unread,) = scanned(tmp_path).unread
    assert "not a notebook" in unread.reason


@pytest.mark.parametrize("cell", [None, 3, {}, {"cell_type": "code"}, {"cell_type": "code", "source": [1]}])
def test_odd_cells_are_passed_by(tmp_path, cell):
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert scanned(tmp_path).findings == ()


# -- real code ------------------------------------------------------------------------------------------------------


def test_torchvisions_detection_models_ask_for_their_checkpoints_and_backbones():
    result = scanned(package("torchvision") / "models" / "detection")
    built_in = Catalogs().near()[0]
    document = built_in.document["enums"]
    entries = [one for one in built_in.entries() if "models.detection." in document[one.enum]["module"]]
    urls = {entry.source.display for entry in entries}
    assert urls == {target for target in result.targets if target.startswith("https://")}
    assert {target for target in result.targets if target not in urls} == {
        "torchvision/ResNet50_Weights.IMAGENET1K_V1",
        "torchvision/MobileNet_V3_Large_Weights.IMAGENET1K_V1",
        "torchvision/VGG16_Weights.IMAGENET1K_FEATURES",
    }
    # These build a backbone of any name; or hand on to one what their caller gives, and have None for it otherwise.
    assert [one.note.partition(", ")[0] for one in result.unresolved] == [
        "which function of torchvision.models.resnet it calls is only known when it runs",
        "which function of torchvision.models.mobilenet it calls is only known when it runs",
        "weights_backbone is a parameter of fasterrcnn_resnet50_fpn_v2()",
        "weights_backbone is a parameter of maskrcnn_resnet50_fpn_v2()",
        "weights_backbone is a parameter of retinanet_resnet50_fpn_v2()",
    ]
    assert result.unread == ()


def test_every_checkpoint_of_torchvision_is_in_its_code():
    result = scanned(package("torchvision") / "models")
    every = {entry.source.display for entry in Catalogs().near()[0].entries()}
    assert every <= set(result.targets)


def test_timms_models_name_urls_alone_and_hand_on_what_callers_say():
    result = scanned(package("timm") / "models")
    assert len(result.targets) > 300
    assert all(target.startswith("https://") for target in result.targets)
    assert all(one.asked_by in {"timm", "torch"} for one in result.unresolved)
    assert len(result.unresolved) < 15


def test_code_that_has_nothing_to_do_with_weights_asks_for_none():
    assert scanned(package("hypothesis")).findings == ()
    assert scanned(Path(json.__file__).parent, Path(os.__file__).parent / "asyncio").findings == ()


# -- timm -----------------------------------------------------------------------------------------------------------


def test_timm_itself_says_where_weights_are():
    package("timm")
    answers = ask_timm(["resnet50", "resnet50.tv_in1k", "resnet50.nonsense", "no_such_model"])
    assert re.fullmatch(r"hf://timm/resnet50\.\w+@main/model\.safetensors", answers["resnet50"][0])
    assert answers["resnet50.tv_in1k"] == ("hf://timm/resnet50.tv_in1k@main/model.safetensors", "")
    for name in ("resnet50.nonsense", "no_such_model"):
        target, why = answers[name]
        assert (target, why[:6]) == ("", "timm: ")


def test_asking_timm_leaves_this_process_without_torch_and_runs_nothing_of_the_current_directory(tmp_path):
    package("timm")
    trap = tmp_path / "trap"
    for name in ("timm.py", "torch.py", "json.py"):
        (tmp_path / name).write_text(f"open({str(trap)!r}, 'w')\n")
    code = (
        "import sys; sys.path.remove('') if '' in sys.path else None\n"
        "from weightstore.interop.scan.timm_names import ask_timm\n"
        "print(ask_timm(['resnet18'])['resnet18'][0], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"hf://timm/resnet18\.\w+@main/model\.safetensors False\n", done.stdout)
    assert not trap.exists()


def test_where_timm_cannot_be_asked_a_tag_stands_for_its_repository():
    answers = ask_timm(["resnet50.a1_in1k", "resnet50", "../x.y"], timeout_s=0.001)
    assert answers["resnet50.a1_in1k"] == ("hf://timm/resnet50.a1_in1k@main/model.safetensors", "")
    assert answers["resnet50"] == ("", "only timm knows its default weights, and timm could not be asked")
    assert answers["../x.y"][0] == ""


# -- anything -------------------------------------------------------------------------------------------------------

IMPORTS = "import torchvision, timm, torch, huggingface_hub as h\nfrom torchvision.models import *\n"
NAMES = st.sampled_from(["a", "b", "resnet50", "timm", "torchvision", "torch", "h", "self", "ResNet50_Weights"])
ATTRIBUTES = st.sampled_from(["models", "resnet50", "create_model", "hub", "load_state_dict_from_url", "DEFAULT", "x"])
CONSTANTS = st.sampled_from(["'a.b'", "'https://x.org/y.pth'", "True", "None", "1", "'DEFAULT'", "b'x'", "...", "1j"])


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, ATTRIBUTES).map(lambda one: f"({one[0]}).{one[1]}"),
        st.tuples(inner, inner).map(lambda one: f"({one[0]} + {one[1]})"),
        st.tuples(inner, inner).map(lambda one: f"({one[0]})[{one[1]}]"),
        st.tuples(inner, inner, inner).map(lambda one: f"({one[0]})({one[1]}, pretrained={one[2]})"),
        st.tuples(inner, inner).map(lambda one: f"({one[0]})(*{one[1]}, weights=1)"),
        st.tuples(inner, inner).map(lambda one: f"({one[0]})(**({one[1]}))"),
        st.tuples(inner, inner).map(lambda one: f"{{{one[0]}: {one[1]}, **({one[0]})}}"),
        st.tuples(inner, inner).map(lambda one: f"[{one[0]}, *({one[1]})]"),
        st.tuples(inner, inner).map(lambda one: f"({one[0]} if {one[1]} else {one[0]})"),
        st.tuples(NAMES, inner, inner).map(lambda one: f"[{one[1]} for {one[0]}, *c in {one[2]}]"),
        st.tuples(NAMES, inner).map(lambda one: f"(lambda {one[0]}: {one[1]})"),
        st.tuples(NAMES, inner).map(lambda one: f"({one[0]} := {one[1]})"),
        inner.map(lambda one: 'f"https://{' + one.replace('"', "'") + '!r}.pth"' if '"' not in one else one),
    )


EXPRESSIONS = st.recursive(st.one_of(NAMES, CONSTANTS), _compound, max_leaves=8)


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(EXPRESSIONS, inner, inner).map(
            lambda one: f"if {one[0]}:\n{_indented(one[1])}else:\n{_indented(one[2])}"
        ),
        st.tuples(NAMES, EXPRESSIONS, inner).map(lambda one: f"for {one[0]}, c in {one[1]}:\n{_indented(one[2])}"),
        st.tuples(EXPRESSIONS, inner).map(lambda one: f"while {one[0]}:\n{_indented(one[1])}"),
        st.tuples(NAMES, NAMES, EXPRESSIONS, inner).map(
            lambda one: f"def {one[0]}({one[1]}, /, c={one[2]}, *d, e, **f):\n{_indented(one[3])}"
        ),
        st.tuples(NAMES, inner).map(lambda one: f"class {one[0]}(a):\n{_indented(one[1])}"),
        inner.map(lambda one: f"try:\n{_indented(one)}except a:\n{_indented(one)}finally:\n{_indented(one)}"),
        st.tuples(inner, inner).map("".join),
    )


STATEMENTS = st.recursive(
    st.one_of(
        EXPRESSIONS.map(lambda one: f"{one}\n"),
        st.tuples(NAMES, EXPRESSIONS).map(lambda one: f"{one[0]} = {one[1]}\n"),
        st.tuples(NAMES, EXPRESSIONS).map(lambda one: f"{one[0]} += {one[1]}\n"),
        st.tuples(NAMES, ATTRIBUTES, EXPRESSIONS).map(lambda one: f"{one[0]}.{one[1]} = {one[2]}\n"),
        st.tuples(NAMES, EXPRESSIONS).map(lambda one: f"{one[0]}['k'], *c = {one[1]}\n"),
        NAMES.map(lambda one: f"del {one}\n"),
        NAMES.map(lambda one: f"from . import {one} as a\n"),
    ),
    _blocks,
    max_leaves=8,
)


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(STATEMENTS)
def test_no_program_makes_a_scan_fail(tmp_path, program):
    (tmp_path / "a.py").write_text(IMPORTS + program)
    result = scanned(tmp_path)
    assert all(bool(one.target) or bool(one.note) for one in result.findings)
    assert all("does not parse" in one.reason for one in result.unread)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_a_scan_fail(tmp_path, data):
    for name in ("a.py", "a.ipynb"):
        (tmp_path / name).write_bytes(data)
    result = scanned(tmp_path)
    assert result.findings == ()
