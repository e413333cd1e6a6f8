"""Two pushes at one moment: both end well, and nothing is lost from the index."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import AZURE, GCS, S3
from tests.cluster.images import image
from tests.servers.hostile import HostileServer
from tests.servers.registry import DockerRegistry
from weightstore.client import Client
from weightstore.cluster.index import ModelIndex, index_of, make_entry
from weightstore.cluster.merging import merged
from weightstore.cluster.mirror.directory import Directory
from weightstore.cluster.mirror.place import Chunks, Outgoing, Place
from weightstore.cluster.mirror.places import open_place
from weightstore.cluster.mirror.plan import PushPlan
from weightstore.cluster.mirror.push import Pushed, chosen, push
from weightstore.cluster.renewal import renewed_index
from weightstore.config import Config
from weightstore.digest import Digest
from weightstore.errors import StoreError
from weightstore.source import Source
from weightstore.store.layout import Layout
from weightstore.transfer.progress import Silent

ROUNDS = 12


@pytest.fixture
def origin() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


class Unwatched:
    """Progress that nobody looks at."""

    def meter(self, blob: Outgoing) -> Silent:
        return Silent()

    def done(self, done: Pushed) -> None:
        assert done.error is None


class Pusher:
    """Somebody with a store of their own."""

    def __init__(self, root: Path, origin: HostileServer) -> None:
        self._origin = origin
        self._root = root
        config = Config(home=root / "store", state=root / "state")
        self.client = Client(config)

    def get(self, *paths: str) -> list[Outgoing]:
        """Have some files in the store, and return what a push would bring of them."""
        urls = [self._origin.serve(path, random.Random(path).randbytes(3000)) for path in paths]
        self.client.prefetch(urls)
        return chosen(self.client, self.client.gather(urls, lockfile=None))

    def start(self, destination: str) -> subprocess.Popen[str]:
        environ = {
            **os.environ,
            "WEIGHTSTORE_HOME": str(self._root / "store"),
            "WEIGHTSTORE_STATE": str(self._root / "state"),
            "WEIGHTSTORE_CONFIG": "/nonexistent",
        }
        command = [sys.executable, "-m", "weightstore", "mirror", "push", destination, "--all", "--json"]
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def bring(self, blobs: list[Outgoing], place: Place) -> None:
        """Push, in this process."""
        push(
            PushPlan(tuple(blobs), ()),
            place,
            client=self.client,
            jobs=1,
            progress=Unwatched(),
            stop=threading.Event(),
        )


@pytest.fixture
def ada(tmp_path: Path, origin: HostileServer) -> Pusher:
    return Pusher(tmp_path / "ada", origin)


@pytest.fixture
def bob(tmp_path: Path, origin: HostileServer) -> Pusher:
    return Pusher(tmp_path / "bob", origin)


def index_at(place: Place) -> ModelIndex:
    index = place.read_index()
    assert index is not None
    return index


def _at_once(ada: Pusher, bob: Pusher, destination: str) -> None:
    """Have two processes push at the same moment, in many rounds, each to a new place, and look at what is there."""
    for number in range(ROUNDS):
        blobs = [*ada.get(f"/a-{number}.pth", "/shared.pth"), *bob.get(f"/b-{number}.pth", "/shared.pth")]
        place = f"{destination}-{number % 4}"  # some are new, and some are not
        for process in [ada.start(place), bob.start(place)]:
            out, told = process.communicate(timeout=120)
            assert process.returncode == 0, told
            assert json.loads(out)["exit_code"] == 0
        found = index_at(open_place(place, client=ada.client))
        expected = {str(blob.digest) for blob in blobs}
        assert expected <= {str(entry.digest) for entry in found.entries}, f"round {number}"
        assert len(found.entries) == 2 * number + 3, f"round {number}"  # each pushes all that it has


def test_two_processes_push_to_one_directory(ada: Pusher, bob: Pusher, tmp_path: Path) -> None:
    _at_once(ada, bob, str(tmp_path / "mirror"))


@pytest.mark.parametrize("locks", [True, False])
def test_an_index_written_anew_keeps_what_is_pushed_meanwhile(
    ada: Pusher, bob: Pusher, tmp_path: Path, *, locks: bool
) -> None:
    (tmp_path / "local.pth").write_bytes(b"a file without a source that could be published")
    local = str(tmp_path / "local.pth")
    bob.client.prefetch([local])
    blobs = chosen(bob.client, bob.client.gather([local], lockfile=None))
    root = tmp_path / "mirror"
    place = Directory(root, ada.client.receipts, locks=locks)
    ada.bring(ada.get("/a.pth"), place)
    pushing = threading.Thread(target=bob.bring, args=(blobs, Directory(root, bob.client.receipts, locks=locks)))

    def renewed(layout: Layout) -> ModelIndex:
        made = renewed_index(layout, (), note=pytest.fail)
        if pushing.ident is None:
            pushing.start()
            pushing.join(0.2 if locks else 10)  # with locks it waits for this one
        return made

    place.renew_index(renewed)
    pushing.join(10)
    assert [entry.title for entry in index_at(place).entries if not entry.sources] == ["local.pth"]
    assert len(index_at(place).entries) == 2


@pytest.mark.needs("docker-registry")
def test_two_processes_push_to_one_repository(ada: Pusher, bob: Pusher, registry: DockerRegistry) -> None:
    _at_once(ada, bob, f"oci://{registry.address}/processes")


def test_two_processes_push_to_one_bucket(ada: Pusher, bob: Pusher, place: str) -> None:
    _at_once(ada, bob, f"{place}/processes")


# -- the worst interleaving: one writes what it made of an index that another has replaced meanwhile ---------------


def _stale(mine: Pusher, blobs: list[Outgoing], place: Place, meanwhile: Callable[[], None]) -> None:
    """Publish blobs, and let something happen between reading the index and writing it, once."""
    index = index_of(
        {blob.digest: blob.size for blob in blobs},
        {blob.digest: blob.refs for blob in blobs},
        mine.client.catalogs.all(),
    )
    happened = False

    def change(old: ModelIndex) -> ModelIndex:
        nonlocal happened
        made = merged(old, index)
        if not happened:
            happened = True
            meanwhile()
        return made

    place.change_index(change)


def _places(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Pusher], Place]:
    if kind == "directory":
        # With locks the other would wait: this is a file system whose locks do nothing.
        return lambda pusher: Directory(tmp_path / "mirror", pusher.client.receipts, locks=False)
    name = f"n{abs(hash(request.node.name)) % 10**9}"
    if kind == "registry":
        address = f"oci://{request.getfixturevalue('registry').address}/{name}"
    else:
        for variable, value in request.getfixturevalue("start_cloud")(kind).environment.items():
            request.getfixturevalue("monkeypatch").setenv(variable, value)
        address = f"{kind}://weights/{name}"
    return lambda pusher: open_place(address, client=pusher.client)


KINDS = pytest.mark.parametrize(
    "kind",
    [
        "directory",
        pytest.param("registry", marks=pytest.mark.needs("docker-registry")),
        S3,
        GCS,
        AZURE,
    ],
)


@KINDS
@pytest.mark.parametrize("is_first", [True, False])
def test_what_another_pushed_between_our_reading_and_writing_is_kept(
    ada: Pusher, bob: Pusher, request: pytest.FixtureRequest, tmp_path: Path, kind: str, is_first: bool
) -> None:
    place = _places(kind, request, tmp_path)
    expected = set()
    if not is_first:
        earlier = ada.get("/earlier.pth")
        ada.bring(earlier, place(ada))
        expected |= {blob.digest for blob in earlier}
    mine, theirs = ada.get("/mine.pth"), bob.get("/theirs.pth")
    _write(ada, mine, place(ada))  # before the index is read
    _stale(ada, mine, place(ada), lambda: bob.bring(theirs, place(bob)))
    expected |= {blob.digest for blob in [*mine, *theirs]}
    assert {entry.digest for entry in index_at(place(ada)).entries} == expected


@pytest.mark.needs("docker-registry")
def test_a_tag_that_another_was_just_writing_when_it_was_looked_at_is_looked_at_again(
    ada: Pusher, bob: Pusher, registry: DockerRegistry
) -> None:
    """The plain registry lists a tag a moment before it can say what that is."""
    address = f"oci://{registry.address}/moment"
    mine, theirs = ada.get("/mine.pth"), bob.get("/theirs.pth")
    bob.bring(theirs, open_place(address, client=bob.client))
    registry.lose_tag("moment", "weightstore-index")  # which bob has read, and not written yet
    current = registry.files_of_tag("moment", "theirs.pth") / "current"
    current.rename(current.with_name("later"))
    place = open_place(address, client=ada.client)
    _write(ada, mine, place)
    _stale(ada, mine, place, lambda: current.with_name("later").rename(current))
    assert {entry.digest for entry in index_at(place).entries} == {mine[0].digest, theirs[0].digest}


@KINDS
def test_two_files_of_one_name_pushed_at_once_are_both_there_under_names_of_their_own(
    ada: Pusher, bob: Pusher, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    place = _places(kind, request, tmp_path)
    mine, theirs = ada.get("/ada/model.pth"), bob.get("/bob/model.pth")
    _write(ada, mine, place(ada))  # before the index is read
    _stale(ada, mine, place(ada), lambda: bob.bring(theirs, place(bob)))
    entries = index_at(place(ada)).entries
    assert {entry.digest for entry in entries} == {mine[0].digest, theirs[0].digest}
    # Whoever came first keeps the name.
    tags = {entry.ref_name: entry.digest for entry in entries}
    longer = {f"model.pth-{digest.hex[:12]}" for name, digest in tags.items() if name != "model.pth"}
    assert set(tags) == {"model.pth", *longer}
    assert len(longer) == 1


def _write(pusher: Pusher, blobs: list[Outgoing], place: Place) -> None:
    for blob in blobs:
        hit = pusher.client.obtainer.find(blob.digest)
        assert hit is not None
        with hit.blob as opened:
            place.write(blob, Chunks(opened))
        if isinstance(place, Directory):
            place.record(blob, counts=pusher.client.obtainer.counts)


@pytest.mark.needs("docker-registry", "skopeo")
def test_the_tag_that_an_index_gives_a_checkpoint_is_there(
    ada: Pusher, bob: Pusher, registry: DockerRegistry, tmp_path: Path
) -> None:
    # The first has the plain name until there is another of that name.
    address = f"{registry.address}/namesakes"
    for pusher, path in ((ada, "/ada/model.pth"), (bob, "/bob/model.pth")):
        blobs = pusher.get(path)
        pusher.bring(blobs, open_place(f"oci://{address}", client=pusher.client))
    for entry in index_at(open_place(f"oci://{address}", client=ada.client)).entries:
        command = ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{address}:{entry.ref_name}"]
        told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
        assert told["layers"][0]["digest"] == str(entry.digest)


@pytest.mark.needs("docker-registry", "skopeo")
def test_other_things_in_a_repository_are_not_taken_for_checkpoints(
    ada: Pusher, registry: DockerRegistry, tmp_path: Path
) -> None:
    address = f"{registry.address}/mixed"
    layout = tmp_path / "image"
    image(layout)
    command = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false"]
    subprocess.run([*command, f"oci:{layout}:x", f"docker://{address}:latest"], check=True, timeout=60)
    mine = ada.get("/mine.pth")
    ada.bring(mine, open_place(f"oci://{address}", client=ada.client))
    index = index_at(open_place(f"oci://{address}", client=ada.client))
    assert [entry.digest for entry in index.entries] == [blob.digest for blob in mine]
    assert index.foreign == ()


def test_an_index_that_others_keep_replacing_is_an_error_that_says_so(ada: Pusher, tmp_path: Path) -> None:
    place = Directory(tmp_path / "mirror", ada.client.receipts)
    numbers = itertools.count()

    def change(old: ModelIndex) -> ModelIndex:
        number = next(numbers)
        entry, documents = make_entry(Digest(f"{number:064x}"), 7, sources=[Source(f"https://x.example/{number}.pth")])
        return merged(old, ModelIndex((entry,), documents=documents))

    with pytest.raises(StoreError, match="keep replacing the index"):
        place.change_index(change)
