"""``weightstore config``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from weightstore.cli.options import command_with_example, shared_options
from weightstore.errors import InvalidInput, StoreError
from weightstore.source import Source

if TYPE_CHECKING:
    from weightstore.cli.settings import Settings
    from weightstore.config import Config

_ABOUT = {
    "home": ("the writable store", '"/scratch/me/weights"'),
    "state": ("your private notes on what was verified", '"~/.local/state/weightstore"'),
    "layers": ("stores consulted read-only before the writable one", '["/sw/weights", "/project/weights"]'),
    "mirrors": ("stores asked by digest: directories or http(s) URLs; never trusted", '["https://mirror.example/w"]'),
    "order": ("which kinds of place are asked, in order", '["layers", "mirrors", "origin"]'),
    "offline": ("open no network connection", "false"),
    "trust": ('"first-use" records the digest of a source without one; "pinned" refuses it', '"first-use"'),
    "locks": ("spare duplicate downloads with file locks", "true"),
    "max_connections": ("network connections at once, over all files", "16"),
    "connections_per_file": ("of them for one file at most", "16"),
    "jobs": ("files that download side by side", "4"),
    "connect_timeout_s": ("for a connection to be accepted", "10"),
    "read_timeout_s": ("for the next bytes to arrive", "30"),
    "retries": ("further attempts without progress before a source is given up", "5"),
    "stall_s": ("after which a download that does not grow has lost its owner", "60"),
    "max_size": ("refuse larger files", '"20GB"'),
    "catalogs": ("files of further catalogs", '["/project/catalog.json"]'),
    "locked": ("lockfiles whose digests count for other libraries' downloads", '["/project/weights.lock"]'),
    "allowed_signers": (
        "whose signed indexes of mirrors are believed, in OpenSSH's format",
        '"/etc/signers"',
    ),
    "link": ("how blobs appear in other libraries' caches: auto, reflink, symlink, hardlink or copy", '"auto"'),
    "ca_bundle": ("certificates to trust instead of the usual ones", '"/etc/ssl/certs/site.pem"'),
    "hub_endpoint": ("where hf:// sources are asked for", '"https://huggingface.co"'),
}


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    return [name for name in [*_ABOUT, "path", "init"] if name.startswith(incomplete)]


@command_with_example(
    example="""
weightstore config
weightstore config layers
$EDITOR "$(weightstore config path)"
""",
)
@click.argument("key", required=False, metavar="[KEY|path|init]", shell_complete=_complete)
@shared_options("home", "offline", "json")
@click.pass_obj
def command(settings: Settings, *, key: str | None) -> None:
    """Show settings, their values, and which variable or file each comes from.

    `config KEY` prints one value, `config path` the file that is yours to edit, and `config init` writes that file with
    every setting in it, commented out.
    """
    from weightstore.config import unknown_variables

    for variable, nearest in unknown_variables(os.environ).items():
        meant = f" Is {nearest} meant?" if nearest else ""
        settings.note(f"{variable} is set, and there is no such setting.{meant}")
    if key == "path":
        click.echo(str(_own_file()))
    elif key == "init":
        click.echo(f"wrote {_write_template(_own_file())}")
    elif key is None:
        _print_all(settings.config(), settings)
    elif key not in _ABOUT:
        raise InvalidInput(f"no setting is called {key!r}. They are: {', '.join(_ABOUT)}")
    elif settings.json:
        settings.print_json(_described(settings.config(), key))
    else:
        click.echo(_text(getattr(settings.config(), key), separator="\n"))


def _own_file() -> Path:
    from weightstore.config import config_files

    return config_files(os.environ)[0]


def _print_all(config: Config, settings: Settings) -> None:
    if settings.json:
        settings.print_json({"settings": {name: _described(config, name) for name in _ABOUT}})
        return
    from weightstore.cli.table import Column, print_table

    rows = [[name, _text(getattr(config, name)) or "-", config.origins.get(name, "default")] for name in _ABOUT]
    print_table([Column("SETTING"), Column("VALUE", flexible=True), Column("FROM", drop=1)], rows)


def _described(config: Config, name: str) -> dict[str, object]:
    value = getattr(config, name)
    plain = [str(one) for one in value] if isinstance(value, tuple) else str(value) if _is_place(value) else value
    return {"name": name, "value": plain, "from": config.origins.get(name, "default")}


def _is_place(value: object) -> bool:
    return isinstance(value, Path | Source)


def _text(value: object, *, separator: str = " ") -> str:
    if isinstance(value, tuple):
        return separator.join(str(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _write_template(path: Path) -> Path:
    from weightstore.config import variable_of

    lines = [
        "# Settings of weightstore. What is commented out has its default.",
        "# Environment variables go first.",
        "",
    ]
    for name, (about, example) in _ABOUT.items():
        lines += [f"# {about} ({variable_of(name)})", f"#{name} = {example}", ""]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join(lines))
    except FileExistsError:
        raise InvalidInput(f"{path} exists; it is not overwritten") from None
    except OSError as error:
        raise StoreError(place=str(path), reason=error.strerror or str(error)) from None
    return path
