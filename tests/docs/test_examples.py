"""The documentation is true: its examples run and print what it says, and it covers what there is."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import weightstore
from tests.docs.pages import FENCE, PAGES, ROOT, Sandbox, agrees, difference, examples, runnable
from tests.servers.hostile import HostileServer
from tests.servers.hub import HubServer
from weightstore import Catalog, Config, Lockfile, Source, WeightStoreError, errors
from weightstore.catalog.query import search
from weightstore.catalog.registry import read_catalog
from weightstore.cli.commands import EXIT_CODES, cli
from weightstore.config import SETTINGS, variable_of
from weightstore.errors import InvalidQuery
from weightstore.records import SHARINGS, Ref
from weightstore.store.layout import MODES, Layout

NOT_RUN_AT_MOST = 4


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with HostileServer() as server, HubServer() as hub:
        yield Sandbox(str(tmp_path), server, hub)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if runnable(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_examples_print_what_the_page_says(page: Path, sandbox: Sandbox) -> None:
    wanted = runnable(page)
    printed = sandbox.run([example.command for example in wanted])
    assert len(printed) == len(wanted), f"the shell ended early, in:\n{printed[-1] if printed else ''}"
    for example, text in zip(wanted, printed, strict=True):
        if example.printed is None:
            assert "Traceback" not in text, text
        else:
            assert agrees(example.printed, text), difference(example, text)


def test_few_examples_are_not_run() -> None:
    left_out = [example for page in PAGES for example in examples(page) if example.not_run]
    assert len(left_out) <= NOT_RUN_AT_MOST, [example.command for example in left_out]


# -- the reference covers what there is -----------------------------------------------------------------------------


def rows(page: str) -> list[list[str]]:
    """Return the cells of all tables of a page."""
    text = (ROOT / "docs" / page).read_text()
    return [re.split(r" *(?<!\\)\| *", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_command_is_documented() -> None:
    # The page is generated: this is that each command says what the page is made of, and how to use it.
    context = click.Context(cli, info_name="weightstore")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help, name
        assert "Example" in command.get_help(click.Context(command, info_name=name, parent=context)), name
        undocumented = [
            option.name for option in command.params if isinstance(option, click.Option) and not option.help
        ]
        assert not undocumented, name
        assert name in (ROOT / "CHANGELOG.md").read_text()


def test_every_setting_is_documented_with_its_variable_and_default(tmp_path: Path) -> None:
    documented = {quoted(row[0])[0]: row for row in rows("reference/configuration.md") if len(quoted(row[0])) == 2}
    assert list(documented) == list(SETTINGS)
    default = Config(home=tmp_path, state=tmp_path)
    for name, (names, text, *_) in documented.items():
        assert quoted(names)[1] == variable_of(name)
        value = getattr(default, name)
        if name in {"home", "state"}:
            continue
        if value in ((), None):
            assert text.strip("`") == "none", name
        else:
            assert SETTINGS[name](quoted(text)[0]) == value, name


def test_every_error_is_documented_with_its_exit_code() -> None:
    documented = {name: int(row[0]) for row in rows("reference/exit-codes.md")[2:] for name in quoted(row[1])}
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, WeightStoreError)]
    assert documented == {one.__name__: one.exit_code for one in classes}
    assert {int(row[0]) for row in rows("reference/exit-codes.md")[2:]} == {code for code, _ in EXIT_CODES}


def test_every_field_and_metric_of_searches_is_documented() -> None:
    documented = {name for row in rows("reference/search-expressions.md") for cell in row[:3] for name in quoted(cell)}
    with pytest.raises(InvalidQuery, match="Known are") as caught:
        search(read_catalog(ROOT / "weightstore/catalog/torchvision.json").entries(), "nonsense>1")
    known = str(caught.value).partition("Known are: ")[2].split(", ")
    assert set(known) <= documented


def test_every_public_name_is_documented() -> None:
    page = (ROOT / "docs/reference/python-api.md").read_text()
    missing = [name for name in weightstore.__all__ if f"weightstore.{name}" not in page]
    assert not missing


def test_the_formats_in_the_reference_parse() -> None:
    def block(page: str, language: str) -> str:
        found = [match for match in FENCE.finditer((ROOT / "docs" / page).read_text()) if match["language"] == language]
        return found[0]["body"]

    catalog = Catalog(json.loads(block("reference/catalog-format.md", "json")), place="the reference")
    assert [entry.name for entry in catalog.entries()] == ["TinyNet_Weights.PETS_V1"]
    lockfile = block("reference/lockfile-format.md", "toml").encode()
    assert Lockfile.parse(lockfile, place="the reference").encode() == lockfile
    ref = Ref.parse(block("reference/disk-layout.md", "json").encode(), place="the reference")
    assert ref.source == Source("https://download.pytorch.org/models/resnet50-11ad3fa6.pth")
    settings = tomllib.loads(block("reference/configuration.md", "toml"))
    assert all(SETTINGS[name](value) for name, value in settings.items())


def test_every_permission_in_the_reference_is_the_stores(tmp_path: Path) -> None:
    table = {row[0]: row[1:] for row in rows("reference/disk-layout.md")}
    for column, sharing in enumerate(SHARINGS):
        modes, directories = MODES[sharing], {path.name: mode for path, mode in Layout(tmp_path, sharing).directories()}
        told = {name: int(cells[column], 8) for name, cells in table.items() if cells[column][:1].isdigit()}
        assert told == {
            "root, `blobs`": modes.root,
            "`blobs/sha256`, `refs`, `quarantine`": directories["refs"],
            "`tmp`": directories["tmp"],
            "`locks`": directories["locks"],
            "blobs": modes.blob,
            "refs": modes.record,
            "parts": modes.part,
            "lock files": modes.lock,
        }


def test_every_key_of_json_output_is_documented(sandbox: Sandbox) -> None:
    documented = {
        quoted(row[0])[0] if quoted(row[0]) else row[0]: (set(quoted(row[1])), set(quoted(row[2])))
        for row in rows("reference/json.md")
        if len(row) == 3 and quoted(row[1])
    }
    commands = {
        "prefetch --dry-run": "prefetch efficientnet_lite0 --dry-run",
        "prefetch": "prefetch efficientnet_lite0 efficientnet_lite1 --quiet",
        "path": "path efficientnet_lite0",
        "lock": "lock efficientnet_lite0 --quiet",
        "check": "check weights.lock --quiet",
        "mirror push --dry-run": "mirror push /scratch/mirror --all --dry-run --quiet",
        "mirror push": "mirror push /scratch/mirror efficientnet_lite0 --quiet",
        "mirror pull": "mirror pull /scratch/mirror --locked weights.lock --quiet",
        "mirror pull --dry-run": "mirror pull /scratch/mirror --locked weights.lock --dry-run --quiet",
        "mirror status": "mirror status /scratch/mirror",
        "mirror index": "mirror index --quiet",
        "mirror sign": "mirror sign /scratch/mirror --key signing-key --quiet",
        "mirror verify": "mirror verify /scratch/mirror --quiet",
        "mirror sign --oms": "mirror sign /scratch/mirror --oms --key private.pem --quiet",
        "mirror verify --oms": "mirror verify /scratch/mirror --oms --key public.pem --quiet",
        "scan": f"scan {ROOT}/tests/interop/test_scanning.py --quiet",
        "convert": "convert efficientnet_lite0 --quiet",
        "search": "search efficientnet",
        "show": "show efficientnet_lite0",
        "inspect": "inspect efficientnet_lite0 --quiet",
        "ls": "ls",
        "why": "why efficientnet_lite0",
        "bundle create": "bundle create efficientnet_lite0 out.tar --quiet",
        "bundle import": "bundle import out.tar --quiet",
        "bundle show": "bundle show out.tar --quiet",
        "have": "have --quiet",
        "verify": "verify --quiet",
        "gc": "gc --max-size 0 --grace 0s --dry-run --quiet",
        "rm": "rm --yes efficientnet_lite0 --quiet",
        "view": "view torch-hub hub --quiet",
        "view check": "view check hub --quiet",
        "adopt": "adopt hub --dry-run --quiet",
        "init": "init",
        "doctor": "doctor --offline",
        "config": "config",
        "a failure": "path efficientnet_lite0 2> /dev/null",
    }
    assert set(documented) == set(commands)
    prepared = [
        "ssh-keygen -q -t ed25519 -N '' -f signing-key",
        'echo "ada@example.org $(cat signing-key.pub)" > signers',
        "export WEIGHTSTORE_ALLOWED_SIGNERS=$PWD/signers",
        "openssl ecparam -name prime256v1 -genkey -noout -out private.pem",
        "openssl ec -in private.pem -pubout -out public.pem",
    ]
    printed = sandbox.run([*prepared, *(f"weightstore --json {command}" for command in commands.values())])
    printed = printed[len(prepared) :]
    for (name, command), text in zip(commands.items(), printed, strict=True):
        value = json.loads(text)
        lists = [one for one in value.values() if isinstance(one, list) and one and isinstance(one[0], dict)]
        assert (set(value), set(lists[0][0]) if lists else set()) == documented[name], command
