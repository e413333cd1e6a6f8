"""Offline no socket is opened, on any path: in a process where sockets raise, all works that does not need one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.servers.hostile import HostileServer
from weightstore.client import Client
from weightstore.config import Config
from weightstore.digest import Digest
from weightstore.records import Ref
from weightstore.source import Source
from weightstore.store.layout import Layout
from weightstore.store.refs import write_ref

PRELUDE = """
import socket, sys
from pathlib import Path

class Opened(BaseException):
    pass

def refuse(*args, **kwargs):
    raise Opened(f"a socket was asked for: {args}")

class NoSocket(socket.socket):  # a class: ssl and others inherit from it
    def __init__(self, *args, **kwargs):
        refuse(*args)

socket.socket = NoSocket
for name in ("create_connection", "getaddrinfo", "gethostbyname", "socketpair", "create_server"):
    setattr(socket, name, refuse)

from weightstore import Client
from weightstore.config import Config
from weightstore.errors import NotPresent
from weightstore.source import Source

home, state, url, missing, mirror, digest = sys.argv[1:]
client = Client(Config.load() if "WEIGHTSTORE_OFFLINE" in __import__("os").environ else
                Config(home=Path(home), state=Path(state), offline=True, mirrors=(Source(mirror),)))
"""

CASES = {
    "a hit": "assert client.path(url).exists()",
    "an open hit": "assert client.open(url).read(1)",
    "a miss": """
try:
    client.path(missing)
except NotPresent as error:
    assert "weightstore prefetch" in str(error) and home in str(error), error
else:
    raise AssertionError
""",
    "presence": "assert client.is_present(url) and not client.is_present(missing)",
    "a plan": "assert [item.is_present for item in client.plan(client.gather([url, missing])).items] == [True, False]",
    "a prefetch": """
report = client.prefetch([url, missing])
assert [result.status for result in report.results] == ["present", "failed"]
assert isinstance(report.results[1].error, NotPresent)
""",
    "why": """
steps = client.why(missing + "#sha256=" + digest).steps
assert [step.answer for step in steps if step.place.startswith("origin")] == ["not asked: offline"]
""",
    "a listing": "assert len(client.stored()) == 1",
    "a mirror by path": 'assert client.path(missing + "#sha256=" + digest).read_bytes() == b"mirrored"',
    "a local file": 'assert client.path(mirror + "/blobs/sha256/" + digest).read_bytes() == b"mirrored"',
    "a layer": """
client = Client(Config(home=Path(home + "2"), state=Path(state), offline=True, layers=(Path(home),)))
assert client.path(url).is_relative_to(home)
""",
    "a file on the Hub": """
client = Client(Config(home=Path(home), state=Path(state), offline=True))
digests = {client.path(source).read_bytes()[:9] for source in ("hf://o/m/x.bin", "hf://o/m@" + "a" * 40 + "/x.bin")}
assert len(digests) == 1
for source in ("hf://o/m@next/x.bin", "hf://o/m/y.bin#sha256=" + "0" * 64):
    for ask in (client.path, client.inspect):
        try:
            ask(source)
        except NotPresent as error:
            assert "weightstore prefetch" in str(error), error
        else:
            raise AssertionError
assert [step.answer for step in client.why("hf://o/m/y.bin").steps][-1] == "not asked: offline"
""",
    "a mirror on the Hub": """
client = Client(Config(home=Path(home), state=Path(state), offline=True, mirrors=(Source("hf://o/m/mirror"),)))
try:
    client.path(missing + "#sha256=" + digest)
except NotPresent:
    pass
else:
    raise AssertionError
""",
    "a mirror by URL": """
client = Client(Config(home=Path(home), state=Path(state), offline=True, mirrors=(Source("https://mirror.example"),)))
try:
    client.path(missing + "#sha256=" + digest)
except NotPresent:
    pass
else:
    raise AssertionError
""",
}


def run(case: str, *arguments: str, environ: dict[str, str] | None = None) -> None:
    subprocess.run(
        [sys.executable, "-c", PRELUDE + case, *arguments],
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env=environ,
    )


@pytest.fixture
def arguments(server: HostileServer, config: Config, data: bytes, tmp_path: Path) -> list[str]:
    """A store with one file, a source that it lacks, and a mirror by path that has a blob."""
    url = server.serve("/x", data)
    blob = Client(config).path(url)
    for revision in ("main", "a" * 40):
        source = Source(f"hf://o/m@{revision}/x.bin")
        write_ref(Layout(config.home), Ref(source, Digest(blob.name), len(data), datetime.now(UTC), commit="a" * 40))
    digest = hashlib.sha256(b"mirrored").hexdigest()
    blobs = tmp_path / "mirror" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / digest).write_bytes(b"mirrored")
    mirror = (tmp_path / "mirror").as_uri()
    return [str(config.home), str(config.state), url, server.url("/missing"), mirror, digest]


@pytest.mark.parametrize("name", CASES)
def test_no_socket_is_opened_for(name: str, arguments: list[str]) -> None:
    run(CASES[name], *arguments)


def test_no_socket_is_opened_where_the_environment_says_offline(arguments: list[str], tmp_path: Path) -> None:
    environ = {
        "WEIGHTSTORE_OFFLINE": "1",
        "WEIGHTSTORE_HOME": arguments[0],
        "WEIGHTSTORE_STATE": arguments[1],
        "WEIGHTSTORE_MIRRORS": "https://mirror.example",
        "HOME": str(tmp_path),
    }
    run(
        "assert client.config.offline\n" + CASES["a hit"] + CASES["a miss"] + CASES["a prefetch"],
        *arguments,
        environ=environ,
    )


def test_the_sockets_of_this_test_do_raise(arguments: list[str]) -> None:
    """A test that cannot fail is a defect: online, the same process does ask for a socket."""
    online = (
        "client = Client(Config(home=Path(home), state=Path(state), offline=False, retries=0))\nclient.path(missing)"
    )
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(f"try:\n    {online.replace(chr(10), chr(10) + '    ')}\nexcept Opened:\n    sys.exit(7)", *arguments)
    assert caught.value.returncode == 7
