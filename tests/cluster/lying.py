"""What the tests of lying mirrors share: a command in a process of its own, and the judge of what it left behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cli.conftest import Site
from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour
from tests.servers.hostile import HostileServer

# No lie may keep a command longer, and its time-outs are set to a second.
BOUND_S = 45
QUICK = {
    "WEIGHTSTORE_READ_TIMEOUT_S": "1",
    "WEIGHTSTORE_CONNECT_TIMEOUT_S": "2",
    "WEIGHTSTORE_RETRIES": "0",
    "NO_COLOR": "1",
}


TEN_TB = 10 * 10**12


def flipped(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)


@dataclass(frozen=True)
class Lie:
    """What a mirror serves instead of a blob: other content, misbehaviour, or both. ``host`` is another web server."""

    name: str
    content: Callable[[bytes], bytes] = bytes
    behaviours: Callable[[HostileServer, str], tuple[Behaviour, ...]] = lambda host, path: ()

    def __str__(self) -> str:
        return self.name


def lie(name: str, *behaviours: Behaviour, content: Callable[[bytes], bytes] = bytes) -> Lie:
    return Lie(name, content, lambda host, path: behaviours)


LIES = [
    lie("other bytes of the same size", content=flipped),
    lie("one other byte", does.corrupt(1000)),
    lie("cut in the middle", does.truncate(20_000)),
    lie("cut by a reset", does.reset(20_000)),
    lie("wrong from the beginning, then cut", does.truncate(20_000), content=flipped),
    lie("wrong from the beginning, cut at the end", does.truncate(49_999), content=flipped),
    lie("a length that is too short", does.declared_length(by=-100)),
    lie("a length that is too long", does.declared_length(by=100)),
    lie("longer", content=lambda data: data + b"more"),
    lie("shorter", content=lambda data: data[:-4]),
    lie("empty", content=lambda data: b""),
    lie("10 TB without end", does.endless_body(declared=TEN_TB)),
    lie("10 TB that never come", does.declared_length(TEN_TB)),
    lie("100 MB without end", does.endless_body(declared=10**8)),
    lie("without end and without length", does.endless_body(declared=None)),
    lie("wrong and of no length", does.close_delimited(), content=flipped),
    lie("drips", does.drip(50)),
    lie("stalls", does.stall(after=1000, seconds=600)),
    lie("says nothing", does.delay(600)),
    lie("hangs up", does.no_answer()),
    lie("drips its head", does.dripping_head()),
    lie("always about to continue", does.endless_continue()),
    lie("heads without end", does.endless_headers()),
    lie("no HTTP", does.garbage_status_line()),
    lie("encoded", does.gzip_encoding()),
    lie("503", does.status(does.Reply(status=503, retry_after_s=3600))),
    lie("404", does.status(404)),
    lie("403", does.status(403)),
    lie("redirects to a file", does.redirect("file:///etc/passwd")),
    lie("redirects to nothing that is a URL", does.redirect("https://[")),
    Lie("redirects to itself", bytes, lambda host, path: (does.redirect(path),)),
    Lie("redirects to wrong bytes", bytes, lambda host, path: (does.redirect(host.url("/wrong")),)),
    Lie("redirects to where nobody listens", bytes, lambda host, path: (does.redirect("http://127.0.0.3:1/x"),)),
]


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
