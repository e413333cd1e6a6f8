"""Which torch we load with."""

from __future__ import annotations

import functools
import re

from weightstore.errors import MissingDependency

OLDEST = (2, 6)
"""torch.load(weights_only=True) could be made to run code before 2.6 (CVE-2025-32434)."""


@functools.cache
def require_torch() -> None:
    """Make sure that torch is installed, and not older than 2.6.

    Raises:
        MissingDependency: it is absent or too old; says which extra to install.
    """
    try:
        import torch  # loaded with torch, named without
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependency(package="torch", purpose="loading weights") from None
    check_version(torch.__version__)


def check_version(version: str) -> None:
    """Make sure that a version of torch is one that loads checkpoints safely.

    Raises:
        MissingDependency: it is too old.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise MissingDependency(
            package=f"torch>={oldest}",
            purpose=f"loading weights (torch {version} is installed, whose unpickler can be made to run code)",
        )
