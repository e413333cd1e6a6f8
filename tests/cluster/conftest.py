"""The command line's site, whose store a mirror is pushed from or pulled to."""

from tests.cli.conftest import run, server, site, spawn  # noqa: F401
