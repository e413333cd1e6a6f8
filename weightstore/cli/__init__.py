"""The command line: one file per command, imported when the command runs."""

from __future__ import annotations

import os
import sys

from weightstore.cli.commands import cli

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line on this process's arguments, and exit."""
    # A closed stream would be None, and its number go to the next file that is opened: a blob, perhaps.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until the process ends
    cli(prog_name="weightstore")
