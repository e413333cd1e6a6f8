"""``weightstore run``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from weightstore.cli.options import LocalPath, command_with_example, shared_options

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.cli.settings import Settings


@command_with_example(
    example="""
weightstore run -- python train.py --epochs 3
weightstore run --record weights.lock -- python train.py
weightstore run --offline --locked weights.lock -- torchrun --nproc-per-node 8 train.py
""",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]...")
@click.option(
    "--locked",
    type=LocalPath(),
    multiple=True,
    metavar="FILE",
    help="Use the digests of a lockfile, over anything else that is known. May be repeated.",
)
@click.option(
    "--record", type=LocalPath(), metavar="FILE", help="Add everything that the program asks for to a lockfile."
)
@shared_options("home", "offline", "quiet")
@click.pass_obj
def command(
    settings: Settings, *, command_line: tuple[str, ...], locked: tuple[Path, ...], record: Path | None
) -> None:
    """Run a program whose libraries get their weights from the store, with no change of its code.

    torch.hub, TorchVision, timm, huggingface_hub and checkpoints downloaded by urllib are served, in all Python
    processes that the program starts. With --offline none of them opens a connection for weights. The exit code is the
    program's; 126 and 127 mean that it could not be started, as for env.
    """
    if not command_line:
        raise click.UsageError("Nothing to run. Give the command after --, such as: weightstore run -- python train.py")
    from weightstore.interop.running import RunSettings, run

    config = settings.config()
    click.get_current_context().exit(
        run(
            command_line,
            RunSettings(
                home=config.home if settings.home else None,
                offline=config.offline,
                locked=tuple(path.absolute() for path in locked) + config.locked,
                record=record,
            ),
            environ=os.environ,
            python=sys.executable,
            say=settings.say,
            complain=settings.complain,
        )
    )
