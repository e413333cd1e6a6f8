"""The command line: one file per command, imported when the command runs."""

from __future__ import annotations

from weightstore.cli.commands import cli

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line on this process's arguments, and exit."""
    cli(prog_name="weightstore")
