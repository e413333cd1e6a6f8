"""What the shared options say, and what follows from it: the configuration, the client, and where messages go."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from weightstore.cli.terminal import can_move_its_cursor, printable

if TYPE_CHECKING:
    from weightstore.client import Client
    from weightstore.config import Config
    from weightstore.errors import WeightStoreError

Printer = Callable[[str], None]


def to_stderr(message: str) -> None:
    click.echo(message, err=True)


class Settings:
    """One invocation: its shared options, its messages to standard error, its result to standard output."""

    def __init__(self) -> None:
        self.home: str | None = None
        self.offline = False
        self.json = False
        self.quiet = False
        self._print: Printer = to_stderr

    def config(self, **changes: Any) -> Config:
        """Return the configuration of the environment, with the options laid over it."""
        from weightstore.config import Config  # start-up: --help ends before

        environ = dict(os.environ)
        options = {"home": self.home or "", "offline": "1" if self.offline else ""}
        given = {name: value for name, value in options.items() if value}
        environ |= {f"WEIGHTSTORE_{name.upper()}": value for name, value in given.items()}
        config = Config.from_environ(environ)
        return config.but(origins={**config.origins, **{name: f"--{name}" for name in given}}, **changes)

    def client(self, **changes: Any) -> Client:
        """Return a client of that configuration, whose notes go to standard error."""
        from weightstore.client import Client  # start-up: --help ends before

        return Client(self.config(**changes), note=self.note)

    def say(self, message: str) -> None:
        """Tell something on standard error, unless --quiet."""
        if not self.quiet:
            self._print(_printable(message))

    def note(self, message: str) -> None:
        """Tell something worth knowing that is no error."""
        self.say(f"note: {message}")

    def complain(self, message: str) -> None:
        """Tell an error, --quiet or not."""
        self._print(_printable(f"error: {message}"))

    def fail(self, error: WeightStoreError) -> None:
        """Tell the error that ends the command; with --json in the object that was promised as well."""
        self.complain(str(error))
        if self.json:
            self.print_json({"error": described(error)})

    def print_json(self, value: object) -> None:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))

    @contextmanager
    def printing_through(self, printer: Printer) -> Iterator[None]:
        """Send messages to a printer that knows how to write beside a live display."""
        before, self._print = self._print, printer
        try:
            yield
        finally:
            self._print = before

    @property
    def is_live(self) -> bool:
        """Whether progress can be drawn: standard error is a terminal that can move its cursor."""
        return not self.quiet and sys.stderr.isatty() and can_move_its_cursor()


def _printable(message: str) -> str:
    """Return a message without what a terminal would obey: it may quote a name that anybody gave a file."""
    return "\n".join(map(printable, message.split("\n")))


def described(error: WeightStoreError) -> dict[str, object]:
    """Return an error as JSON shows it."""
    return {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
