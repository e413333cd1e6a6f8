"""``weightstore path``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightstore.cli.options import WeightsName, command_with_example, shared_options
from weightstore.source import is_source

if TYPE_CHECKING:
    from weightstore.cli.settings import Settings


@command_with_example(
    example="""
weightstore path resnet50
cp "$(weightstore path --fetch ResNet50_Weights.IMAGENET1K_V2)" model.pth
""",
)
@click.argument("name", type=WeightsName())
@click.option("--fetch", "may_fetch", is_flag=True, help="Fetch them first if no store has them.")
@click.option("--sha256", metavar="HEX", help="The digest, or its first 8 or more digits.")
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, name: str, may_fetch: bool, sha256: str | None) -> None:
    """Print the path of weights that are in a store, verified. Downloads nothing unless told to.

    Exits with 4 when no store has them. The file is read-only and named by its digest.
    """
    client = settings.client()
    if may_fetch and not client.is_present(name, sha256=sha256):
        from weightstore.cli.fetching import exit_code, fetch

        plan = client.plan([client.wanted(name, sha256=sha256)])
        if code := exit_code(fetch(plan, settings=settings, client=client)):
            click.get_current_context().exit(code)
    path = client.path(name, sha256=sha256, fetch=False)
    if settings.json:
        found = path.stat()
        settings.print_json(
            {
                # Not as it was typed: a URL may carry a password.
                "name": client.wanted(name, sha256=sha256).name if is_source(name) else name,
                "path": str(path),
                "digest": f"sha256:{path.name}",
                "size_bytes": found.st_size,
            }
        )
    else:
        click.echo(str(path))
