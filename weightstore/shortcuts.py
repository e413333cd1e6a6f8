"""``weightstore.path``, ``open`` and ``prefetch``: a client of the environment's configuration, made once a process."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, BinaryIO

from weightstore.client import Client
from weightstore.config import Config

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.batch import Report


def path(name: str, *, sha256: str | None = None, fetch: bool = True) -> Path:
    """Return the path of verified weights, fetched first where no layer has them. See :meth:`Client.path`."""
    return default_client().path(name, sha256=sha256, fetch=fetch)


def open(name: str, *, sha256: str | None = None, fetch: bool = True) -> BinaryIO:  # noqa: A001 - as io.open
    """Return verified weights open for reading. See :meth:`Client.open`."""
    return default_client().open(name, sha256=sha256, fetch=fetch)


def prefetch(*names: str, task: str | None = None, jobs: int | None = None) -> Report:
    """Fetch weights by name, glob, URL or path, side by side, and report on each. See :meth:`Client.prefetch`."""
    return default_client().prefetch(names, task=task, jobs=jobs)


def default_client() -> Client:
    """Return the client for the environment as it is now: a changed variable gives another client."""
    return _client(
        tuple(sorted((key, value) for key, value in os.environ.items() if key in _VARIABLES or "WEIGHTS" in key))
    )


_VARIABLES = frozenset({"HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "SSL_CERT_FILE"})


@functools.lru_cache(maxsize=8)
def _client(environment: tuple[tuple[str, str], ...]) -> Client:
    return Client(Config.from_environ(dict(environment)))
