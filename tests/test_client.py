"""The façade: names in, verified paths out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import weightstore
from tests.servers.hostile import HostileServer
from weightstore.catalog.lockfile import Lockfile
from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import Drift, InvalidInput, NotPresent, UnknownName

DATA = os.urandom(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


def catalog(path: Path, entries: dict[str, dict[str, object]]) -> Path:
    document = {
        "schema": 1,
        "namespace": "mine",
        "enums": {"Net_Weights": {"builder": "net", "task": "classification", "default": "V1", "entries": entries}},
    }
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def served(tmp_path: Path, config: Config, server: HostileServer) -> Client:
    """A client whose catalog knows one model, pinned by a prefix."""
    url = server.serve("/net.pth", DATA)
    file = catalog(tmp_path / "catalog.json", {"V1": {"source": url, "pin": DIGEST[:8], "size": len(DATA)}})
    return Client(config.but(catalogs=(file,)))


@pytest.fixture
def server() -> object:
    with HostileServer() as running:
        yield running


def test_a_name_leads_to_verified_bytes_and_the_second_time_to_no_request(
    served: Client, server: HostileServer
) -> None:
    for name in ("net", "Net_Weights.V1", "mine/net:V1", "net:v1"):
        assert served.path(name).read_bytes() == DATA
    assert len(server.requests) == 1


def test_an_open_file_is_the_one_that_was_verified(served: Client) -> None:
    path = served.path("net")
    with served.open("net") as file:
        path.unlink()
        assert file.read() == DATA
    with served.open("net") as file:  # gone: fetched again
        assert file.read() == DATA


def test_without_fetching_a_miss_names_the_remedy(served: Client, tmp_path: Path) -> None:
    with pytest.raises(NotPresent, match=r"weightstore prefetch 'Net_Weights\.V1'") as caught:
        served.path("net", fetch=False)
    assert str(tmp_path / "store") in str(caught.value)
    assert DIGEST[:8] in str(caught.value)
    assert not served.is_present("net")
    served.path("net")
    assert served.is_present("net")


def test_a_url_that_the_catalog_knows_gets_its_pin(served: Client) -> None:
    (entry,) = served.entries(["net"])
    wanted = served.wanted(entry.source.url)
    assert wanted.pin.hex == DIGEST[:8]
    assert served.path(entry.source.url).name == DIGEST
    with pytest.raises(Drift):
        served.wanted(entry.source.url + "#sha256=" + "0" * 64)


def test_a_digest_that_contradicts_the_name_is_refused(served: Client) -> None:
    assert served.path("net", sha256=DIGEST.upper()).name == DIGEST
    with pytest.raises(Drift):
        served.path("net", sha256="0" * 64)
    with pytest.raises(InvalidInput):
        served.path("net", sha256="")


def test_a_glob_is_no_single_path(config: Config) -> None:
    with pytest.raises(InvalidInput, match="exactly one"):
        Client(config).path("resnet*")


def test_unknown_names_are_told_with_the_nearest(config: Config) -> None:
    with pytest.raises(UnknownName, match="resnet50"):
        Client(config).path("resnet5O")


def test_why_tells_each_place_and_what_it_answered(served: Client) -> None:
    before = served.why("net")
    assert (before.digest, before.path) == (None, None)
    assert [step.place.split()[0] for step in before.steps] == ["store", "origin"]
    served.path("net")
    after = served.why("net")
    assert after.known_by == "ref"
    assert after.path is not None
    assert [step.answer for step in after.steps] == ["has it, verified"]


def test_why_says_which_mirrors_are_left_out(served: Client, tmp_path: Path) -> None:
    config = Config.from_environ(
        {
            "WEIGHTSTORE_CONFIG": "/nonexistent",
            "WEIGHTSTORE_HOME": str(tmp_path / "empty"),
            "WEIGHTSTORE_STATE": str(tmp_path / "state"),
            "WEIGHTSTORE_MIRRORS": str(tmp_path / "mirror"),
            "WEIGHTSTORE_LAYERS": str(tmp_path / "no-layer"),
            "WEIGHTSTORE_OFFLINE": "1",
        }
    )
    steps = Client(config, note=lambda _: None).why("resnet50").steps
    assert [step.answer for step in steps if step.place.startswith("layer")] == ["there is no store"]
    assert any("full digest" in step.answer for step in steps)
    assert any("offline" in step.answer for step in steps)


def test_what_is_stored_is_told_with_names_and_sources(served: Client) -> None:
    served.path("net")
    (stored,) = served.stored()
    assert stored.names == ("Net_Weights.V1",)
    assert (stored.size, stored.layer) == (len(DATA), "store")
    assert abs(stored.last_used - time.time()) < 3600
    assert [ref.via for ref in stored.refs] == ["origin"]


def test_locking_and_prefetching_what_is_locked_needs_the_digest_only(
    served: Client, config: Config, tmp_path: Path
) -> None:
    report = served.prefetch(["net"])
    lockfile = Lockfile().merge(served.lock(report), update=False, place="weights.lock")
    (locked,) = lockfile.entries
    assert (locked.name, locked.digest.hex, locked.size) == ("mine/Net_Weights.V1", DIGEST, len(DATA))

    elsewhere = Client(config.but(home=tmp_path / "other"))  # where the catalog is not installed
    report = elsewhere.prefetch(lockfile=lockfile)
    assert [result.status for result in report.results] == ["fetched"]
    assert elsewhere.path(locked.source.url, sha256=DIGEST, fetch=False).read_bytes() == DATA


def test_a_catalog_that_moved_away_from_the_lockfile_is_drift(served: Client, tmp_path: Path, config: Config) -> None:
    lockfile = Lockfile(tuple(served.lock(served.prefetch(["net"]))))
    (entry,) = served.entries(["net"])
    moved = catalog(tmp_path / "moved.json", {"V1": {"source": entry.source.url, "pin": "0" * 8}})
    with pytest.raises(Drift, match="lock again with --update"):
        Client(config.but(catalogs=(moved,))).prefetch(lockfile=lockfile)


def test_a_digest_for_several_files_is_refused(config: Config) -> None:
    with pytest.raises(InvalidInput, match="one file"):
        Client(config).gather(["resnet18", "resnet50"], sha256="0" * 64)


def test_notes_are_told_once_and_as_warnings_of_the_logger(
    tmp_path: Path, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(config.but(layers=(tmp_path / "missing",)))
    for _ in range(2):
        with pytest.raises(NotPresent):
            client.path("resnet50", fetch=False)
    assert [record.message for record in caplog.records] == [
        f"layer skipped: {tmp_path / 'missing'}: there is no store"
    ]


def test_a_hit_opens_no_socket_takes_no_lock_and_writes_nothing_in_the_store(served: Client, tmp_path: Path) -> None:
    served.path("net")
    root = tmp_path / "store"

    def snapshot() -> dict[str, tuple[int, int, int]]:
        found = {}
        for path in (root, *root.rglob("*")):
            stat = path.stat()
            found[str(path)] = (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
        return found

    before = snapshot()
    code = """
import sys
opened = []
def audit(event, arguments):
    if event.startswith("socket.") or event in ("fcntl.flock", "fcntl.lockf"):
        raise AssertionError(event)
    if event == "open" and sys.argv[1] in str(arguments[0]):
        opened.append((arguments[0], arguments[2]))
from pathlib import Path
from weightstore.client import Client
from weightstore.config import Config
client = Client(Config(home=Path(sys.argv[1]), state=Path(sys.argv[2]), catalogs=(Path(sys.argv[3]),)))
sys.addaudithook(audit)
print(client.path("net"))
import os
assert opened and all(flags & os.O_ACCMODE == os.O_RDONLY for _, flags in opened), opened
for module in ("requests", "urllib3", "filelock", "socket", "http.client", "rich", "click"):
    assert module not in sys.modules, module
"""
    arguments = [str(root), str(tmp_path / "state"), str(tmp_path / "catalog.json")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(DIGEST)
    assert snapshot() == before


def test_the_shortcuts_follow_the_environment(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.serve("/x.pth", DATA)
    for name in ("one", "two"):
        monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / name))
        monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / "state"))
        assert weightstore.path(url).is_relative_to(tmp_path / name)
    with weightstore.open(url) as file:
        assert file.read() == DATA
    assert [result.status for result in weightstore.prefetch(url).results] == ["present"]


def test_everything_public_is_there_and_nothing_else_pretends_to_be() -> None:
    for name in weightstore.__all__:
        assert getattr(weightstore, name) is not None
    assert set(weightstore.__all__) <= set(dir(weightstore))
    with pytest.raises(AttributeError, match="no attribute"):
        _ = weightstore.nothing_of_the_kind


def test_importing_the_package_imports_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import weightstore; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = [name for name in done.stdout.strip("[]\n").replace("'", "").split(", ") if name.startswith("weightstore")]
    assert loaded == ["weightstore"]
    for module in ("requests", "click", "rich", "filelock", "dataclasses", "json"):
        assert f"'{module}'" not in done.stdout


def test_no_module_takes_the_place_of_a_public_name() -> None:
    code = "import weightstore, weightstore.batch, weightstore.cli.prefetch; assert callable(weightstore.prefetch)"
    subprocess.run([sys.executable, "-c", code], check=True)
    package = Path(weightstore.__file__).parent
    modules = {path.stem for path in package.iterdir()}
    assert modules & set(weightstore.__all__) == {"torchvision"}, "which is public as the module that it is"


def test_weights_that_two_catalogs_call_alike_are_locked_each_with_its_own(
    tmp_path: Path, config: Config, server: HostileServer
) -> None:
    url = server.serve("/mine.pth", DATA)
    document = {
        "schema": 1,
        "namespace": "mine",
        "enums": {"ResNet50_Weights": {"builder": "resnet50", "entries": {"IMAGENET1K_V2": {"source": url}}}},
    }
    (tmp_path / "mine.json").write_text(json.dumps(document))
    client = Client(config.but(catalogs=(tmp_path / "mine.json",)))
    (locked,) = client.lock(client.prefetch(["mine/resnet50:IMAGENET1K_V2"]))
    assert (locked.name, locked.digest.hex) == ("mine/ResNet50_Weights.IMAGENET1K_V2", DIGEST)


def test_a_local_file_that_was_written_again_is_read_again(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"one")
    client = Client(config)
    assert client.path(str(file)).read_bytes() == b"one"
    file.write_bytes(b"another")
    assert client.path(str(file)).read_bytes() == b"another"
    file.unlink()
    assert client.path(str(file)).read_bytes() == b"another", "gone, its record still holds"


def test_two_checkpoints_behind_two_tokens_are_two(config: Config, server: HostileServer) -> None:
    one = server.serve("/get?token=AAA", b"model A")
    two = server.serve("/get?token=BBB", b"model B")
    client = Client(config)
    assert client.path(one).read_bytes() == b"model A"
    assert client.path(two).read_bytes() == b"model B"


def test_a_blob_that_only_begins_like_a_pin_is_no_answer(config: Config, server: HostileServer) -> None:
    forged = hashlib.sha256(b"evil").hexdigest()
    client = Client(config)
    client.path(server.serve("/evil.pth", b"evil"))
    with pytest.raises(NotPresent):
        client.path(server.serve(f"/model-{forged[:8]}.pth", b"good"), fetch=False)


def test_a_pin_served_by_a_mirror_is_no_word_of_the_origin(
    config: Config, server: HostileServer, tmp_path: Path
) -> None:
    url = server.serve("/good.pth", b"good")
    evil = hashlib.sha256(b"evil").hexdigest()
    mirror = tmp_path / "mirror" / "blobs" / "sha256"
    mirror.mkdir(parents=True)
    (mirror / evil).write_bytes(b"evil")
    from weightstore.source import Source

    client = Client(config.but(mirrors=(Source.of_path(tmp_path / "mirror"),)))
    assert client.path(f"{url}#sha256={evil}").read_bytes() == b"evil"
    assert client.path(url).read_bytes() == b"good"


def test_a_child_process_does_not_share_connections(config: Config, server: HostileServer) -> None:
    client = Client(config)
    urls = [server.serve(f"/small{number}", b"%d" % number * 1000) for number in range(9)]
    client.path(urls[8])
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            right = all(client.path(urls[one]).read_bytes() == b"%d" % one * 1000 for one in (number, number + 4))
            os._exit(0 if right else 1)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
