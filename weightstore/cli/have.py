"""``weightstore have``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import command_with_example, shared_options

if TYPE_CHECKING:
    from weightstore.cli.settings import Settings


@command_with_example(
    example="""
weightstore have > have.json
weightstore bundle create --locked weights.lock --have have.json out.tar
""",
)
@shared_options("home", "json", "quiet")
@click.pass_obj
def command(settings: Settings) -> None:
    """Print the digests and sizes of all weights in the store and its layers, as JSON.

    It tells the other side of an air gap what need not be sent. Names and sizes are listed, and nothing is hashed:
    run `weightstore verify` first where the disk is in doubt.
    """
    from weightstore.cluster.have import Have

    have = Have.of_layers(settings.client(offline=True).obtainer.layers())
    click.echo(have.encode().decode(), nl=False)
    settings.say(f"{units.count(len(have.blobs), 'blob')}, {units.size(sum(have.blobs.values()))}")
