"""What the tests of lying mirrors share: a command in a process of its own, and the judge of what it left behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cli.conftest import Site

# No lie may keep a command longer, and its time-outs are set to a second.
BOUND_S = 45
QUICK = {
    "WEIGHTSTORE_READ_TIMEOUT_S": "1",
    "WEIGHTSTORE_CONNECT_TIMEOUT_S": "2",
    "WEIGHTSTORE_RETRIES": "0",
    "NO_COLOR": "1",
}


@dataclass(frozen=True)
class Told:
    """How a command ended, and what it said."""

    code: int
    stdout: str
    stderr: str

    def lines_about(self, text: str) -> list[str]:
        """The lines of standard error that complain of something; not those that tell what is fetched from where."""
        return [
            line
            for line in self.stderr.splitlines()
            if text in line and not line.startswith(("start ", "fetched ", "resumed "))
        ]


def weightstore(*arguments: str | Path, code: int | None = 0, **environ: str) -> Told:
    """Run a command line in a process of its own, which must end in time, without a traceback, and with this code."""
    done = subprocess.run(
        [sys.executable, "-m", "weightstore", *(str(one) for one in arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND_S,
        env={**os.environ, **QUICK, **environ},
    )
    told = Told(done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in told.stderr, told.stderr
    assert code is None or told.code == code, f"exit {told.code}\n{told.stdout}\n{told.stderr}"
    return told


def judge(site: Site, *members: str) -> None:
    """Assert that the store has these weights, right ones, and that nothing else lies in it or beside it.

    Parts may stay for the next run to go on with, but none is larger than what was wanted could be.
    """
    blobs = site.home / "blobs/sha256"
    found = {path.name: path for path in blobs.iterdir()} if blobs.is_dir() else {}
    assert set(found) == {site.digest(member) for member in members}
    for name, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == name
    tmp = site.home / "tmp"
    parts = [path.stat().st_size for path in tmp.iterdir()] if tmp.is_dir() else []
    assert sum(parts) <= 4 * sum(len(data) for data in site.contents.values())
    for path in [*site.home.rglob("*"), *site.home.parent.iterdir()]:
        assert "passwd" not in path.name
        assert "evil" not in path.name
