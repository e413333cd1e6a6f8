"""``weightstore autoload``."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import click

from weightstore.cli.options import command_with_example, shared_options

if TYPE_CHECKING:
    from weightstore.cli.settings import Settings


@command_with_example(
    example="""
weightstore autoload on
weightstore autoload status
WEIGHTSTORE_HOOK=off python train.py
""",
)
@click.argument("switch", type=click.Choice(["on", "off", "status"]))
@shared_options("json", "quiet")
@click.pass_obj
def command(settings: Settings, *, switch: str) -> None:
    """Serve weights from the store in every process of this Python environment, without `weightstore run`.

    One file among the environment's packages (weightstore-autoload.pth) does that. WEIGHTSTORE_HOOK=off leaves a single
    process out. Status exits with 1 where it is off.
    """
    from weightstore.interop.autoload import is_on, turn_off, turn_on

    packages = Path(sysconfig.get_path("purelib"))
    if switch == "on":
        turn_on(packages)
    elif switch == "off":
        turn_off(packages)
    state = "on" if is_on(packages) else "off"
    if settings.json:
        settings.print_json({"autoload": state, "packages": str(packages)})
    elif switch == "status":
        click.echo(state)
    else:
        settings.say(f"autoload is {state} for {packages}")
    if switch == "status" and state == "off":
        click.get_current_context().exit(1)
