"""Caches that are adopted: what enters the store, what stays, and that nothing is lost on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.interop.shelf import Shelf, digest_of, tree
from tests.interop.views.test_check import statuses
from tests.interop.views.test_libraries import saved
from tests.servers.hub import HubServer
from weightstore.config import Config
from weightstore.errors import InvalidRecord, StoreError
from weightstore.interop.adopting.adopt import Item, carry_out, examine
from weightstore.interop.adopting.caches import find_caches
from weightstore.interop.adopting.proof import gather_claims
from weightstore.interop.views.holdings import believed
from weightstore.interop.views.layouts import MANIFEST
from weightstore.interop.views.manifest import read_manifest
from weightstore.source import Source
from weightstore.store.gc import plan_removals, take_inventory
from weightstore.store.layout import create_layout
from weightstore.store.refs import read_ref

GOOD = b"good weights" * 100
NAME = f"good-{digest_of(GOOD).hex[:8]}.pth"


def look(shelf: Shelf, *directories: Path, own: Path | None = None) -> list[Item]:
    client = shelf.client
    caches = [cache for directory in directories for cache in find_caches(directory)]
    known = gather_claims(client.catalogs.all(), believed(client, note=lambda _: None), {})
    return list(examine(caches, client=client, known=known, on_bytes=lambda _: None, own=own))


def adopt(shelf: Shelf, *directories: Path, **options: bool) -> dict[str, Item]:
    done = carry_out(look(shelf, *directories), client=shelf.client, **options)
    return {item.candidate.path: item for item in done}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A TORCH_HOME with a good file, a wrong one and one that nobody knows."""
    checkpoints = tmp_path / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / NAME).write_bytes(GOOD)
    (checkpoints / "wrong-deadbeef.pth").write_bytes(b"wrong")
    (checkpoints / "nobody.pth").write_bytes(b"nobody knows")
    return tmp_path / "torch"


def test_what_is_verified_enters_the_store_and_the_rest_stays(shelf, home):
    before = tree(home)
    done = adopt(shelf, home)
    assert {path.rpartition("/")[2]: item.status for path, item in done.items()} == {
        NAME: "adopted",
        "wrong-deadbeef.pth": "wrong",
        "nobody.pth": "unknown",
    }
    blob = shelf.layout.blob(digest_of(GOOD))
    assert blob.read_bytes() == GOOD
    assert stat.S_IMODE(blob.stat().st_mode) == 0o444
    after = tree(home)
    assert {name for name in after if after[name] == before.get(name)} >= set(before) - {f"hub/checkpoints/{NAME}"}
    assert list(shelf.layout.tmp.iterdir()) == []


def test_looking_changes_nothing(shelf, home):
    before = tree(home)
    assert {item.status for item in look(shelf, home)} == {"adopt", "wrong", "unknown"}
    assert tree(home) == before
    assert list(shelf.layout.blobs.iterdir()) == []


@pytest.mark.parametrize("options", [{}, {"hard_link": True}])
def test_an_adopted_cache_is_a_view_and_adopting_it_again_does_nothing(shelf, home, options):
    adopt(shelf, home, **options)
    assert statuses(shelf, home) == {}
    manifest = read_manifest(home)
    assert manifest is not None
    assert [(one.path, one.is_adopted) for one in manifest.placements] == [(f"hub/checkpoints/{NAME}", True)]
    before = tree(home)
    assert [item.status for item in look(shelf, home) if item.candidate.name == NAME] == ["present"]
    adopt(shelf, home, **options)
    assert tree(home) == before


def test_a_hard_link_makes_the_file_itself_the_blob(shelf, home):
    file = home / "hub/checkpoints" / NAME
    inode = file.stat().st_ino
    done = adopt(shelf, home, hard_link=True)
    assert done[f"hub/checkpoints/{NAME}"].status == "adopted"
    assert file.stat().st_ino == shelf.layout.blob(digest_of(GOOD)).stat().st_ino == inode
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert list(shelf.layout.tmp.iterdir()) == []


def test_kept_caches_are_left_as_they_are(shelf, home):
    before = tree(home)
    adopt(shelf, home, keep=True)
    assert tree(home) == before
    assert shelf.layout.blob(digest_of(GOOD)).read_bytes() == GOOD


@pytest.mark.parametrize("options", [{}, {"hard_link": True}])
def test_what_the_store_has_already_is_only_replaced(shelf, home, options):
    blob = shelf.put("https://h.example/good.pth", GOOD)
    inode = blob.stat().st_ino
    done = adopt(shelf, home, **options)
    assert done[f"hub/checkpoints/{NAME}"].freed == len(GOOD)
    assert blob.stat().st_ino == inode
    file = home / "hub/checkpoints" / NAME
    assert file.read_bytes() == GOOD
    manifest = read_manifest(home)
    assert manifest is not None
    assert manifest.placements[0].source == Source("https://h.example/good.pth")
    assert manifest.placements[0].placed == "reflink" or file.samefile(blob)


def test_the_garbage_collector_keeps_what_has_no_known_source(shelf, home):
    adopt(shelf, home)
    inventory = take_inventory(shelf.layout, shelf.client.receipts)
    assert plan_removals(inventory, grace_s=0) == ()
    source = Source.of_path(home / "hub/checkpoints" / NAME)
    ref = read_ref(shelf.layout, source)
    assert ref is not None
    assert (ref.via, ref.digest) == ("adopted", digest_of(GOOD))


def test_a_rebuilt_view_keeps_adopted_names(shelf, home):
    adopt(shelf, home)
    shelf.put("https://h.example/new.pth", b"new")
    shelf.view("torch-hub", home)
    assert sorted(os.listdir(home / "hub/checkpoints")) == [NAME, "new.pth", "nobody.pth", "wrong-deadbeef.pth"]
    assert (home / "hub/checkpoints" / NAME).read_bytes() == GOOD
    assert statuses(shelf, home) == {}


def test_a_file_that_changed_since_it_was_looked_at_is_left(shelf, home):
    file = home / "hub/checkpoints" / NAME
    items = look(shelf, home)
    file.write_bytes(b"trained further")
    (done,) = [item for item in carry_out(items, client=shelf.client) if item.candidate.name == NAME]
    assert done.status == "left"
    assert "changed while it was looked at" in done.detail
    assert file.read_bytes() == b"trained further"
    assert list(shelf.layout.blobs.iterdir()) == []
    assert list(shelf.layout.tmp.iterdir()) == []


def test_a_file_that_changed_while_the_store_had_it_already_is_left(shelf, home):
    shelf.put("https://h.example/good.pth", GOOD)
    file = home / "hub/checkpoints" / NAME
    items = look(shelf, home)
    file.write_bytes(b"trained further")
    (done,) = [item for item in carry_out(items, client=shelf.client) if item.candidate.name == NAME]
    assert done.status == "left"
    assert file.read_bytes() == b"trained further"


def test_facenets_directory_and_plain_directories_are_found(shelf, tmp_path):
    (tmp_path / "torch/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/checkpoints" / NAME).write_bytes(GOOD)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / NAME).write_bytes(GOOD)
    (tmp_path / "mine/notes.txt").write_text("not weights")
    done = adopt(shelf, tmp_path / "torch", tmp_path / "mine")
    assert {path: item.status for path, item in done.items()} == {f"checkpoints/{NAME}": "adopted", NAME: "adopted"}
    manifest = read_manifest(tmp_path / "mine")
    assert manifest is not None
    assert manifest.kind == "files"


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs another file system")
def test_a_file_that_others_read_is_left_where_they_could_not_read_the_store(shelf, home, tmp_path):
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    opened_up = [parent for parent in home.parents if parent.stat().st_uid == os.geteuid() and parent != Path("/")]
    before = {parent: stat.S_IMODE(parent.stat().st_mode) for parent in opened_up}
    try:
        for parent in opened_up:
            parent.chmod(before[parent] | 0o011)
        (item,) = [one for one in look(shelf, home, own=tmp_path / "elsewhere") if one.path.name == NAME]
        assert item.status == "left"
        assert "others can read it here" in item.detail
        (item,) = [one for one in look(shelf, home, own=tmp_path) if one.path.name == NAME]
        assert item.status == "adopt"
        shelf.layout.root.chmod(0o755)
        (item,) = [one for one in look(shelf, home, own=tmp_path / "elsewhere") if one.path.name == NAME]
        assert item.status == "adopt"
    finally:
        for parent in opened_up:
            parent.chmod(before[parent])


def test_a_file_that_somebody_writes_to_is_no_blob_yet(shelf, home):
    with (home / "hub/checkpoints" / NAME).open("r+b") as writer:
        done = adopt(shelf, home, hard_link=True)
        (item,) = [one for one in done.values() if one.path.name == NAME]
        assert (item.status, "open for writing" in item.detail) == ("left", True)
        writer.write(b"X")
    assert not shelf.layout.blob(digest_of(GOOD)).exists()


def test_a_file_with_other_names_is_not_made_read_only_under_them(shelf, home):
    other = home.parent / "mine.pth"
    os.link(home / "hub/checkpoints" / NAME, other)
    other.chmod(0o644)
    done = adopt(shelf, home, hard_link=True)
    assert [one.status for one in done.values() if one.path.name == NAME] == ["adopted"]
    assert stat.S_IMODE(other.stat().st_mode) == 0o644
    other.write_bytes(b"mine to change")
    assert shelf.layout.blob(digest_of(GOOD)).read_bytes() == GOOD


def test_a_cache_on_another_disk_is_copied_and_cannot_be_hard_linked(shelf):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        file = Path(name) / NAME
        file.write_bytes(GOOD)
        (left,) = adopt(shelf, Path(name), hard_link=True).values()
        assert left.status == "left"
        assert "no hard link from there into the store is possible" in left.detail
        assert list(shelf.layout.tmp.iterdir()) == []
        assert (file.read_bytes(), file.is_symlink()) == (GOOD, False)
        (done,) = adopt(shelf, Path(name)).values()
        assert done.status == "adopted"
        assert os.readlink(file) == str(shelf.layout.blob(digest_of(GOOD)))


def test_directories_that_are_named_twice_are_adopted_once(shelf, home):
    done = list(carry_out(look(shelf, home, home, home / "hub/checkpoints"), client=shelf.client))
    assert sorted(item.status for item in done) == ["adopted", "unknown", "wrong"]


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="no such directory"):
        find_caches(tmp_path / "absent")


# -- hostile --------------------------------------------------------------------------------------------------------


def test_no_link_is_followed_and_nothing_outside_is_touched(shelf, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / NAME).write_bytes(GOOD)
    cache = tmp_path / "torch"
    (cache / "hub").mkdir(parents=True)
    (cache / "hub/checkpoints").symlink_to(outside)
    (cache / "checkpoints").mkdir()
    (cache / "checkpoints" / NAME).symlink_to(outside / NAME)
    os.mkfifo(cache / "checkpoints" / f"fifo-{digest_of(b'').hex[:8]}.pth")
    done = adopt(shelf, cache)
    assert {item.status for item in done.values()} == {"skipped"}
    assert {path.partition("/")[0] for path in done} == {"checkpoints"}
    assert not (outside / NAME).is_symlink()
    assert list(shelf.layout.blobs.iterdir()) == []


@pytest.mark.parametrize("name", ["a\nb-{}.pth", "-rf-{}.pth", "a b'\"$(x)-{}.pth", "ü-{}.pth"])
def test_strange_names_are_adopted_or_skipped_and_stay_in_place(shelf, tmp_path, name):
    cache = tmp_path / "cache"
    cache.mkdir()
    file = cache / name.format(digest_of(GOOD).hex[:8])
    file.write_bytes(GOOD)
    adopt(shelf, cache)
    assert file.read_bytes() == GOOD
    assert set(os.listdir(cache)) <= {file.name, ".weightstore-view.json"}
    adopt(shelf, cache)


def test_a_hubs_cache_cannot_speak_of_files_outside(shelf, tmp_path):
    root = tmp_path / "hf/models--org--m"
    commit = "a" * 40
    (root / "blobs").mkdir(parents=True)
    (root / f"snapshots/{commit}").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs/main").symlink_to("/etc/hostname")
    (root / "blobs" / digest_of(GOOD).hex).write_bytes(GOOD)
    (root / f"snapshots/{commit}/ok.bin").symlink_to(f"../../blobs/{digest_of(GOOD).hex}")
    (root / f"snapshots/{commit}/evil.bin").symlink_to("../../../../secret")
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "snapshots/not-a-commit").symlink_to("/etc")
    (item,) = adopt(shelf, tmp_path / "hf").values()
    assert item.status == "adopted"
    assert item.sources == (Source(f"hf://org/m@{commit}/ok.bin"),)
    assert (tmp_path / "secret").read_bytes() == b"secret"


# -- interrupted ----------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.interop.adopting.test_adopt import adopt
from tests.interop.shelf import Shelf
from weightstore.config import Config
from weightstore.store.layout import open_layout
home, state, cache = map(Path, sys.argv[1:4])
hard_link, fatal = sys.argv[4] == "1", int(sys.argv[5])
shelf = Shelf(Config(home=home, state=state), open_layout(home))
calls = 0
def count(event, arguments):
    global calls
    if event in {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.chmod"}:
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
adopt(shelf, cache, hard_link=hard_link)
"""


@pytest.mark.slow
@pytest.mark.parametrize("hard_link", [False, True])
def test_a_kill_at_any_step_loses_nothing_and_the_next_run_goes_on(tmp_path, hard_link):
    kills = 0
    other = b"other weights" * 50
    for step in range(1, 100):
        place = tmp_path / str(step)
        cache = place / "cache"
        cache.mkdir(parents=True)
        contents = {f"{name}-{digest_of(data).hex[:8]}.pth": data for name, data in (("a", GOOD), ("b", other))}
        for name, data in contents.items():
            (cache / name).write_bytes(data)
        config = Config(home=place / "store", state=place / "state")
        one = Shelf(config, create_layout(config.home))
        arguments = [str(config.home), str(config.state), str(cache), str(int(hard_link)), str(step)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
        assert {name: (cache / name).read_bytes() for name in contents} == contents
        for path in one.layout.blobs.iterdir():
            assert path.name == digest_of(path.read_bytes()).hex, "nothing wrong has a blob's name"
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
        adopt(one, cache, hard_link=hard_link)
        assert {name: (cache / name).read_bytes() for name in contents} == contents
        assert statuses(one, cache) == {}
        manifest = read_manifest(cache)
        assert manifest is not None
        assert {placement.path for placement in manifest.placements} == set(contents)
    assert kills > 4


# -- the libraries --------------------------------------------------------------------------------------------------


def test_torch_hub_loads_what_it_loaded_before(shelf, offline, tmp_path):
    import torch

    data = saved({"weight": torch.arange(3.0)})
    name = f"tiny-{digest_of(data).hex[:8]}.pth"
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/hub/checkpoints" / name).write_bytes(data)
    adopt(shelf, tmp_path / "torch")
    url = f"https://h.example/{name}"
    code = f"import torch; print(torch.hub.load_state_dict_from_url({url!r})['weight'].sum().item())"
    assert offline(code, TORCH_HOME=tmp_path / "torch") == "3.0\n"


@pytest.fixture
def hub_cache(tmp_path: Path) -> tuple[Path, str]:
    """An HF_HOME that the real client filled from a Hub; and the commit."""
    home = tmp_path / "huggingface"
    with HubServer() as hub:
        commit = hub.add("org/tiny", {"config.json": b'{"a": 1}', "sub/model.safetensors": GOOD})
        code = """
from huggingface_hub import hf_hub_download, snapshot_download
hf_hub_download("org/tiny", "config.json")
snapshot_download("org/tiny")
"""
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        environment |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, check=True, capture_output=True)
    return home, commit


@pytest.mark.parametrize("options", [{}, {"hard_link": True}])
def test_huggingface_hub_finds_what_it_found_before(shelf, hub_cache, offline, options):
    home, commit = hub_cache
    done = adopt(shelf, home, **options)
    assert {item.status for item in done.values()} == {"adopted"}
    config = digest_of(b'{"a": 1}')
    for revision in ("main", commit):
        ref = read_ref(shelf.layout, Source(f"hf://org/tiny@{revision}/config.json"))
        assert ref is not None
        assert (ref.digest, ref.via, ref.commit) == (config, "adopted", commit)
        assert ref.etag == hashlib.sha1(b'blob 8\0{"a": 1}').hexdigest()
    code = """
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
print(open(hf_hub_download("org/tiny", "config.json")).read())
print(len(open(snapshot_download("org/tiny") + "/sub/model.safetensors").read()))
found = scan_cache_dir()
print(found.warnings, [(repo.repo_id, repo.nb_files) for repo in found.repos])
"""
    printed = offline(code, HF_HOME=home, HF_HUB_OFFLINE="1")
    assert printed.splitlines() == ['{"a": 1}', str(len(GOOD)), "[] [('org/tiny', 2)]"]
    assert statuses(shelf, home / "hub") == {}


@pytest.mark.parametrize("options", [{}, {"hard_link": True}])
def test_what_repositories_share_in_the_hubs_cache_is_adopted_once(shelf, tmp_path, offline, options):
    # As huggingface_hub lays it out for files that come by Xet, which no server of ours speaks.
    root, commit, xet = tmp_path / "hub", "a" * 40, "ab" * 32
    payload = root / "blobs/ab" / xet
    payload.parent.mkdir(parents=True)
    payload.write_bytes(GOOD)
    payload.chmod(0o444)
    (root / "blobs/.huggingface-shared-blobs").write_text("1\n")
    etag = digest_of(GOOD).hex
    for repo in ("one", "two"):
        place = root / f"models--org--{repo}"
        for folder in ("blobs", "refs", f"snapshots/{commit}"):
            (place / folder).mkdir(parents=True)
        (place / "blobs" / etag).symlink_to(f"../../blobs/ab/{xet}")
        (place / "refs/main").write_text(commit)
        (place / f"snapshots/{commit}/w.bin").symlink_to(f"../../blobs/{etag}")
    (item,) = adopt(shelf, root, **options).values()
    assert item.status == "adopted"
    for repo in ("one", "two"):
        ref = read_ref(shelf.layout, Source(f"hf://org/{repo}@main/w.bin"))
        assert ref is not None
        assert (ref.digest, ref.commit) == (digest_of(GOOD), commit)
    assert payload.read_bytes() == GOOD
    assert [one.status for one in look(shelf, root)] == ["present"]
    code = """
from huggingface_hub import hf_hub_download, scan_cache_dir
for repo in ("org/one", "org/two"):
    print(len(open(hf_hub_download(repo, "w.bin")).read()))
print(scan_cache_dir().warnings)
"""
    printed = offline(code, HF_HUB_CACHE=root, HF_HUB_OFFLINE="1")
    assert printed.splitlines() == [str(len(GOOD)), str(len(GOOD)), "[]"]
    shelf.view("huggingface", root)
    assert offline(code, HF_HUB_CACHE=root, HF_HUB_OFFLINE="1") == printed
    assert {one.status for one in look(shelf, root)} == {"present"}


def test_a_view_of_the_hub_over_an_adopted_cache_keeps_all_of_it(shelf, hub_cache, offline):
    home, _ = hub_cache
    adopt(shelf, home)
    shelf.put("hf://org/other@main/w.bin", b"more", commit="c" * 40)
    shelf.view("huggingface", home / "hub")
    code = """
from huggingface_hub import hf_hub_download, snapshot_download
print(open(hf_hub_download("org/other", "w.bin")).read())
print(len(open(snapshot_download("org/tiny") + "/sub/model.safetensors").read()))
"""
    assert offline(code, HF_HOME=home, HF_HUB_OFFLINE="1").splitlines() == ["more", str(len(GOOD))]


def test_a_damaged_blob_of_the_hub_is_told_and_left(shelf, hub_cache):
    home, _ = hub_cache
    blobs = home / "hub/models--org--tiny/blobs"
    config = blobs / hashlib.sha1(b'blob 8\0{"a": 1}').hexdigest()
    config.write_bytes(b'{"a": 2}')
    done = adopt(shelf, home)
    assert sorted(item.status for item in done.values()) == ["adopted", "wrong"]
    assert config.read_bytes() == b'{"a": 2}'


@pytest.mark.needs("root", "mount", "mkfs.xfs")
def test_with_reflinks_files_stay_files_and_take_room_once(with_reflinks, tmp_path):
    cache = with_reflinks / "cache"
    cache.mkdir()
    data = os.urandom(3 << 20)
    file = cache / f"big-{digest_of(data).hex[:8]}.pth"
    file.write_bytes(data)
    config = Config(home=with_reflinks / "store", state=tmp_path / "state")
    one = Shelf(config, create_layout(config.home))
    os.sync()
    free = os.statvfs(with_reflinks).f_bavail
    inode = file.stat().st_ino
    (item,) = adopt(one, cache).values()
    assert item.placement is not None
    assert item.placement.placed == "reflink"
    assert file.stat().st_ino == inode
    os.sync()
    assert (free - os.statvfs(with_reflinks).f_bavail) * os.statvfs(with_reflinks).f_frsize < len(data) / 2
    assert [item.status for item in look(one, cache)] == ["present"]
    file.write_bytes(b"trained further")
    assert one.layout.blob(digest_of(data)).read_bytes() == data
    assert statuses(one, cache) == {file.name: "written through"}


def test_what_no_source_is_known_of_is_not_removed_to_save_room(shelf, home):
    adopt(shelf, home)
    layout = create_layout(shelf.config.home)
    removals = plan_removals(take_inventory(layout, shelf.client.receipts), grace_s=0, max_size=0)
    assert [one for one in removals if one.file.kind == "blob"] == [], "nothing else has these bytes"
    assert (home / "hub/checkpoints" / NAME).read_bytes() == GOOD


def test_what_a_source_is_known_of_may_be_removed_to_save_room(shelf, home):
    shelf.put(f"https://h.example/{NAME}", GOOD)
    adopt(shelf, home)
    layout = create_layout(shelf.config.home)
    removals = plan_removals(take_inventory(layout, shelf.client.receipts), grace_s=0, max_size=0)
    assert [one.file.digest for one in removals if one.file.kind == "blob"] == [digest_of(GOOD)]


def test_a_manifest_that_cannot_be_written_is_an_error_of_ours(shelf, home, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("weightstore.interop.views.manifest.write_record", refused)
    with pytest.raises(StoreError, match="cannot be written"):
        adopt(shelf, home)
    assert (home / "hub/checkpoints" / NAME).read_bytes() == GOOD


def test_what_no_source_is_known_of_enters_our_own_store_whatever_a_layer_has(shelf, home, tmp_path):
    other = tmp_path / "elsewhere" / "hub/checkpoints"
    other.mkdir(parents=True)
    (other / NAME).write_bytes(GOOD)
    adopt(shelf, tmp_path / "elsewhere")
    layered = Shelf(shelf.config.but(home=tmp_path / "mine", layers=(shelf.config.home,)), shelf.layout)
    adopt(layered, home)
    subprocess.run(["rm", "-rf", str(shelf.config.home)], check=True)
    assert (home / "hub/checkpoints" / NAME).read_bytes() == GOOD, "the layer is gone"


def test_a_file_that_goes_away_before_it_is_noted_is_no_failure(shelf, home):
    adopt(shelf, home, hard_link=True)
    items = look(shelf, home)
    (home / "hub/checkpoints" / NAME).unlink()
    done = {item.candidate.name: item for item in carry_out(items, client=shelf.client, hard_link=True)}
    assert done[NAME].placement is None


def test_a_manifest_of_a_newer_version_is_not_written_over(shelf, home):
    adopt(shelf, home)
    manifest = home / MANIFEST
    newer = manifest.read_bytes().replace(b'"version": 1', b'"version": 2')
    manifest.write_bytes(newer)
    more = home / f"hub/checkpoints/more-{digest_of(b'more').hex[:8]}.pth"
    more.write_bytes(b"more")
    with pytest.raises(InvalidRecord, match="version 2"):
        adopt(shelf, home)
    assert manifest.read_bytes() == newer
    assert not more.is_symlink()
