"""``weightstore init``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from weightstore.cli.options import LocalPath, command_with_example, shared_options
from weightstore.errors import InvalidInput, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.cli.settings import Settings
    from weightstore.store.layout import Layout

_WHO = {
    "private": "you alone",
    "group": "the members of its group read and add; nobody replaces another's blobs",
    "world": "everyone on this machine reads and adds; nobody replaces another's blobs",
}


@command_with_example(
    example="""
weightstore init
weightstore init /project/weights --shared group --group ml
""",
)
@click.argument("directory", required=False, type=LocalPath(), metavar="[DIR]")
@click.option(
    "--shared",
    type=click.Choice(["private", "group", "world"]),
    help="Who may use it. By default you alone, or with --group its members.",
)
@click.option("--group", metavar="NAME", help="The group that the store belongs to.")
@shared_options("home", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, directory: Path | None, shared: str | None, group: str | None) -> None:
    """Create a store in DIR, by default where the configuration says. An existing one is left as it is.

    A store is also made by the first download; this command is for stores that others share.
    """
    from weightstore.store.layout import create_layout, open_layout

    root = directory.expanduser().absolute() if directory else settings.config().home
    if group is not None and shared not in {None, "group"}:
        raise InvalidInput(f"--group goes with --shared group, not {shared}")
    existing = open_layout(root)
    sharing = shared or ("group" if group else existing.sharing if existing else "private")
    gid = _gid(group) if group is not None else None
    layout = create_layout(root, "group" if sharing == "group" else "world" if sharing == "world" else "private")
    if gid is not None:
        _hand_to_group(layout, gid, str(group))
    if settings.json:
        settings.print_json(
            {"home": str(root), "sharing": layout.sharing, "group": _group_of(layout), "created": existing is None}
        )
        return
    done = "created a" if existing is None else "already a"
    click.echo(f"{done} {layout.sharing} store: {root}")
    if layout.sharing == "group":
        click.echo(f"  group            {_group_of(layout)}")
    click.echo(f"  who may use it   {_WHO[layout.sharing]}")
    click.echo(f"  to use it        export WEIGHTSTORE_HOME={root}")
    if layout.sharing != "private":
        click.echo(f"  to read only     export WEIGHTSTORE_LAYERS={root}")


def _gid(group: str) -> int:
    import grp  # start-up, and absent where there are no groups

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidInput(f"there is no group {group!r} on this machine. Yours are: {', '.join(_own())}") from None


def _own() -> list[str]:
    import grp

    names = []
    for gid in sorted({os.getegid(), *os.getgroups()}):
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            names.append(str(gid))
    return names


def _group_of(layout: Layout) -> str:
    try:
        return layout.root.group()
    except (KeyError, OSError):
        return str(layout.root.stat().st_gid)


def _hand_to_group(layout: Layout, gid: int, group: str) -> None:
    """Give the store's directories to a group. What is made in them later inherits it by the setgid bit."""
    for directory, mode in layout.directories():
        try:
            os.chown(directory, -1, gid, follow_symlinks=False)
            os.chmod(directory, mode)  # chown may clear the setgid bit
        except PermissionError:
            raise StoreError(
                place=str(directory),
                reason=f"cannot be given to the group {group}: you own it and are a member, or you ask root. "
                f"Your groups are: {', '.join(_own())}",
            ) from None
