"""``weightstore convert``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import WeightsName, command_with_example, shared_options

if TYPE_CHECKING:
    from weightstore.cli.settings import Settings
    from weightstore.loading.conversion import Conversion


@command_with_example(
    example="""
weightstore convert resnet50
weightstore convert 'vit_*' --to safetensors
""",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=WeightsName())
@click.option(
    "--to", "kind", type=click.Choice(["safetensors"]), default="safetensors", show_default=True, help="The format."
)
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, names: tuple[str, ...], kind: str) -> None:  # noqa: ARG001 - there is one so far
    """Make safetensors files of checkpoints, which then load in their place.

    What no store has is fetched first. The new file is a blob of its own in the store; a record says what it was made
    from, and gc keeps it as long as that is kept. Nothing is unpickled, and no torch is needed as long as each tensor
    lies in one piece.
    """
    from weightstore.cli.fetching import exit_code, fetch  # start-up: --help ends before
    from weightstore.loading.conversion import convert

    client = settings.client()
    wanted = client.gather(names)
    plan = client.plan(wanted)
    if plan.missing and (code := exit_code(fetch(plan, settings=settings, client=client))):
        click.get_current_context().exit(code)
    made = [conversion for one in wanted for conversion in convert(one, client=client)]
    if settings.json:
        settings.print_json({"conversions": [_as_json(one) for one in made]})
        return
    for one in made:
        done = "converted" if one.is_new else "present"
        said = f"{units.size(one.source_size)} {one.source.hex[:12]} to {units.size(one.size)} {one.digest.hex[:12]}"
        settings.say(f"{done:<9} {one.name}  {units.count(one.tensors, 'tensor')}, {said}")


def _as_json(one: Conversion) -> dict[str, object]:
    return {
        "name": one.name,
        "source_digest": str(one.source),
        "source_size_bytes": one.source_size,
        "digest": str(one.digest),
        "size_bytes": one.size,
        "path": str(one.path),
        "format": "safetensors",
        "tensors": one.tensors,
        "is_new": one.is_new,
    }
