"""Mirrors that lie: never a wrong byte published, the next source used, the user told once, within a bounded time.

Commands run in processes of their own against a hostile server. What the lies are is a table; the ways in which a
mirror is used are the tests.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.lying import judge, weightstore
from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour
from tests.servers.hostile import HostileServer

NAMES = ("Small_Weights.*", "Other_Weights.C")
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


@pytest.fixture
def liar() -> Iterator[HostileServer]:
    with HostileServer(host="127.0.0.2") as liar:
        yield liar


@pytest.fixture
def other(liar: HostileServer) -> Iterator[HostileServer]:
    """Where the liar redirects to."""
    with HostileServer(host="127.0.0.3") as other:
        other.serve("/wrong", b"wrong" * 10_000)
        yield other


@pytest.fixture
def kept(site: Site, run: Run, tmp_path: Path) -> Path:
    """An honest mirror of all weights in a directory, with a lockfile beside it; the user's store is empty."""
    run("lock", "-o", "weights.lock", *NAMES)
    run("mirror", "push", "mirror", "--all")
    shutil.rmtree(site.home)
    shutil.rmtree(site.state)
    return tmp_path / "mirror"


def serve(liar: HostileServer, other: HostileServer, site: Site, told: Lie, members: str) -> None:
    """Have a liar lie of some weights, and serve the others well."""
    for member in "ABC":
        path = f"/blobs/sha256/{site.digest(member)}"
        if member in members:
            liar.serve(path, told.content(site.data(member)), told.behaviours(other, path))
        else:
            liar.serve(path, site.data(member))


@pytest.mark.parametrize("told", LIES, ids=str)
def test_of_locked_weights_the_next_mirror_is_asked(
    site: Site, kept: Path, liar: HostileServer, other: HostileServer, told: Lie
) -> None:
    serve(liar, other, site, told, "ABC")
    site.server.stop()
    mirrors = f"{liar.url('/')} {kept}"
    done = weightstore("prefetch", "--locked", "weights.lock", WEIGHTSTORE_MIRRORS=mirrors)
    judge(site, "A", "B", "C")
    assert len(done.lines_about("127.0.0.2")) == 1, done.stderr


@pytest.mark.parametrize("told", LIES, ids=str)
def test_of_pinned_urls_whose_size_nobody_knows_the_origin_is_asked(
    site: Site, liar: HostileServer, other: HostileServer, told: Lie
) -> None:
    serve(liar, other, site, told, "ABC")
    urls = [f"{site.server.serve(f'/{member}', site.data(member))}#sha256={site.digest(member)}" for member in "ABC"]
    done = weightstore("prefetch", *urls, WEIGHTSTORE_MIRRORS=liar.url("/"))
    judge(site, "A", "B", "C")
    assert len(done.lines_about("127.0.0.2")) == 1, done.stderr


@pytest.mark.parametrize("told", LIES, ids=str)
def test_a_pull_says_what_is_wrong_with_a_file_and_brings_the_others(
    site: Site, kept: Path, liar: HostileServer, other: HostileServer, told: Lie
) -> None:
    serve(liar, other, site, told, "A")
    done = weightstore("mirror", "pull", liar.url("/"), "--locked", "weights.lock", code=None)
    judge(site, "B", "C")
    assert done.code in {5, 6}, done.stderr
    (line,) = done.lines_about("127.0.0.2")
    assert line.startswith("error: ")
    assert "Small_Weights.A" in line
    assert site.digest("A") in line
    assert "weightstore prefetch" in line
