"""Views on disk: what is made, kept, refused and never lost, and what a kill leaves."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop.shelf import Shelf, digest_of, tree
from tests.soak.test_places import EVE, as_user
from weightstore.config import Config
from weightstore.errors import InvalidRecord, StoreError
from weightstore.interop.views import build
from weightstore.interop.views.build import recover
from weightstore.interop.views.directory import EDITED, UNFINISHED
from weightstore.interop.views.exchange import exchange
from weightstore.interop.views.holdings import opener
from weightstore.interop.views.layouts import MANIFEST
from weightstore.interop.views.manifest import Manifest, read_manifest, write_manifest
from weightstore.source import Source
from weightstore.store.layout import create_layout
from weightstore.store.owner import place_of, this_process
from weightstore.store.receipts import identity_of
from weightstore.store.refs import forget_ref

URL = "https://h.example/models/a.pth"
NAME = "hub/checkpoints/a.pth"
COMMIT = "a" * 40
BESIDE = pytest.mark.parametrize("beside", [True, False], ids=["at once", "name by name"])


@BESIDE
def test_a_view_leads_to_the_blobs(shelf, tmp_path, beside):
    blob = shelf.put(URL, b"weights")
    root = tmp_path / "hub"
    built = shelf.view("torch-hub", root, link="symlink", beside=beside)
    assert built.how == ("at once" if beside else "name by name")
    assert os.readlink(root / NAME) == str(blob)
    assert (root / "checkpoints/a.pth").read_bytes() == b"weights"
    assert {path.name for path in tmp_path.iterdir()} == {"hub", "state", "store"}


@BESIDE
@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_building_again_changes_nothing_but_what_changed(shelf, tmp_path, beside, link):
    shelf.put(URL, b"weights")
    root = tmp_path / "hub"
    shelf.view("torch-hub", root, link=link, beside=beside)
    before, inode = tree(root), (root / NAME).stat().st_ino
    decision = shelf.decide("torch-hub", root, link=link)
    assert (decision.added, decision.replaced, decision.removed) == ((), (), ())
    shelf.view("torch-hub", root, link=link, beside=beside)
    assert tree(root) == before
    assert (root / NAME).stat().st_ino == inode


@BESIDE
def test_a_rebuilt_view_gains_loses_and_replaces_names(shelf, tmp_path, beside):
    shelf.put(URL, b"one")
    gone = shelf.put("https://h.example/models/b.pth", b"two")
    root = tmp_path / "hub"
    shelf.view("torch-hub", root, beside=beside)
    gone.unlink()
    shelf.put(URL, b"one, retrained")
    shelf.put("https://h.example/models/c.pth", b"three")
    decision = shelf.decide("torch-hub", root)
    assert decision.added == ("hub/checkpoints/c.pth",)
    assert decision.replaced == (NAME,)
    assert decision.removed == ("hub/checkpoints/b.pth",)
    shelf.view("torch-hub", root, beside=beside)
    assert sorted(os.listdir(root / "hub/checkpoints")) == ["a.pth", "c.pth"]
    assert (root / NAME).read_bytes() == b"one, retrained"


@BESIDE
def test_what_programs_put_into_a_view_stays(shelf, tmp_path, beside):
    shelf.put(URL, b"one")
    root = tmp_path / "hub"
    shelf.view("torch-hub", root, beside=beside)
    (root / "hub/checkpoints/theirs.pth").write_bytes(b"downloaded")
    (root / "hub/owner_repo_main").mkdir()
    (root / "hub/owner_repo_main/hubconf.py").write_text("dependencies = []")
    (root / "hub/owner_repo_main/link").symlink_to("hubconf.py")
    (root / "hub/empty").mkdir(mode=0o750)
    inode = (root / "hub/checkpoints/theirs.pth").stat().st_ino
    shelf.put("https://h.example/models/c.pth", b"three")
    shelf.view("torch-hub", root, beside=beside)
    assert (root / "hub/checkpoints/theirs.pth").read_bytes() == b"downloaded"
    assert (root / "hub/checkpoints/theirs.pth").stat().st_ino == inode
    assert os.readlink(root / "hub/owner_repo_main/link") == "hubconf.py"
    assert (root / "hub/empty").stat().st_mode & 0o777 == 0o750
    assert (root / "hub/checkpoints/c.pth").read_bytes() == b"three"


@BESIDE
def test_a_file_of_others_with_the_right_content_becomes_ours(shelf, tmp_path, beside):
    blob = shelf.put(URL, b"one")
    root = tmp_path / "hub"
    (root / "hub/checkpoints").mkdir(parents=True)
    (root / NAME).write_bytes(b"one")
    shelf.view("torch-hub", root, link="symlink", beside=beside)
    assert os.readlink(root / NAME) == str(blob)


def test_a_file_of_others_with_other_content_is_refused_and_stays(shelf, tmp_path):
    root = tmp_path / "hub"
    shelf.view("torch-hub", root)
    (root / NAME).write_bytes(b"something else")
    shelf.put(URL, b"one")
    before = tree(root)
    with pytest.raises(StoreError, match=r"a\.pth is another program's file"):
        shelf.view("torch-hub", root)
    assert tree(root) == before


def test_a_directory_with_files_of_its_own_is_refused_and_told_of_adopt(shelf, tmp_path):
    root = tmp_path / "cache"
    root.mkdir()
    (root / "thesis.tex").write_text("…")
    with pytest.raises(StoreError, match=rf"thesis\.tex.*weightstore adopt {root}"):
        shelf.view("torch-hub", root)
    assert os.listdir(root) == ["thesis.tex"]


def test_a_directory_of_others_where_a_file_is_to_be_is_refused(shelf, tmp_path):
    shelf.put("https://h.example/a/b", b"one")
    root = tmp_path / "fv"
    shelf.view("fvcore", root)
    (root / "c/d").mkdir(parents=True)
    (root / "c/d/theirs").write_bytes(b"x")
    shelf.put("https://h.example/c", b"two")
    with pytest.raises(StoreError, match="c is a directory with files of others"):
        shelf.view("fvcore", root)


@BESIDE
def test_a_name_may_become_a_directory_and_back(shelf, tmp_path, beside):
    first = shelf.put("https://h.example/a", b"one")
    root = tmp_path / "fv"
    shelf.view("fvcore", root, beside=beside)
    first.unlink()
    second = shelf.put("https://h.example/a/b", b"two")
    shelf.view("fvcore", root, beside=beside)
    assert (root / "a/b").read_bytes() == b"two"
    second.unlink()
    shelf.keep(b"one")
    shelf.view("fvcore", root, beside=beside)
    assert (root / "a").read_bytes() == b"one"


def test_facenets_own_directory_is_left_alone(shelf, tmp_path):
    root = tmp_path / "hub"
    shelf.view("torch-hub", root)
    (root / "checkpoints").unlink()
    (root / "checkpoints").mkdir()
    (root / "checkpoints/vggface2.pt").write_bytes(b"face")
    shelf.put(URL, b"one")
    decision = shelf.decide("torch-hub", root)
    assert decision.notes == ("checkpoints is another program's, and is left as it is",)
    shelf.view("torch-hub", root)
    assert (root / "checkpoints/vggface2.pt").read_bytes() == b"face"
    assert (root / NAME).read_bytes() == b"one"


@BESIDE
def test_a_branch_that_the_hub_client_moved_on_stays_there(shelf, tmp_path, beside):
    shelf.put("hf://org/m@main/w.bin", b"w", commit=COMMIT)
    root = tmp_path / "hf"
    shelf.view("huggingface", root, beside=beside)
    (root / "models--org--m/refs/main").write_text("b" * 40)
    shelf.view("huggingface", root, beside=beside)
    assert (root / "models--org--m/refs/main").read_text() == "b" * 40
    assert (root / f"models--org--m/snapshots/{COMMIT}/w.bin").read_bytes() == b"w"


def test_another_kind_of_view_is_refused(shelf, tmp_path):
    shelf.view("torch-hub", tmp_path / "hub")
    with pytest.raises(StoreError, match="is a torch-hub view"):
        shelf.view("fvcore", tmp_path / "hub")


@pytest.mark.parametrize("where", ["store", "store/inside", "."])
def test_a_view_does_not_lie_in_a_store_nor_around_one(shelf, tmp_path, where):
    with pytest.raises(StoreError, match="cannot lie within each other"):
        shelf.view("torch-hub", tmp_path / where)


def test_a_link_to_another_disk_stays_a_link(shelf, tmp_path):
    shelf.put(URL, b"one")
    (tmp_path / "disk/hub").mkdir(parents=True)
    (tmp_path / "hub").symlink_to(tmp_path / "disk/hub")
    shelf.view("torch-hub", tmp_path / "hub")
    assert (tmp_path / "hub").is_symlink()
    assert (tmp_path / "disk/hub" / NAME).read_bytes() == b"one"


def test_permissions_of_the_directory_stay(shelf, tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub").chmod(0o2775)
    shelf.view("torch-hub", tmp_path / "hub")
    assert (tmp_path / "hub").stat().st_mode & 0o7777 == 0o2775


def test_a_copy_that_was_written_to_is_made_anew(shelf, tmp_path):
    shelf.put(URL, b"one")
    root = tmp_path / "hub"
    shelf.view("torch-hub", root, link="copy")
    (root / NAME).write_bytes(b"bad")
    assert shelf.decide("torch-hub", root, link="copy").replaced == (NAME,)
    shelf.view("torch-hub", root, link="copy")
    assert (root / NAME).read_bytes() == b"one"


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("link", ["copy", "hardlink"])
def test_what_was_written_to_a_name_is_kept_beside_it(shelf, tmp_path, link, beside):
    shelf.put(URL, b"one")
    root = tmp_path / "hub"
    shelf.view("torch-hub", root, link=link)
    if link == "hardlink":
        (root / NAME).unlink()  # as what writes a new file and renames it; in place it would be the blob
    (root / NAME).write_bytes(b"fine-tuned")
    if link == "copy":
        shelf.view("torch-hub", root, link=link, beside=beside)
        assert (root / NAME).read_bytes() == b"one"
        assert (root / (NAME + EDITED)).read_bytes() == b"fine-tuned"
        shelf.view("torch-hub", root, link=link, beside=beside)
        assert (root / (NAME + EDITED)).read_bytes() == b"fine-tuned"
    else:
        with pytest.raises(StoreError, match="another program's file"):
            shelf.view("torch-hub", root, link=link, beside=beside)
        assert (root / NAME).read_bytes() == b"fine-tuned"


def test_a_view_that_is_as_it_should_be_stays_where_it_is(shelf, tmp_path):
    shelf.put(URL, b"one")
    root = tmp_path / "hub"
    shelf.view("torch-hub", root)
    inode = root.stat().st_ino
    shelf.view("torch-hub", root)
    assert root.stat().st_ino == inode


def test_a_directory_that_is_more_than_a_cache_is_not_exchanged(shelf, tmp_path):
    shelf.put(URL, b"one")
    root = tmp_path / "home"
    shelf.view("torch-hub", root)
    (root / "thesis").mkdir()
    (root / "thesis" / "thesis.tex").write_text("all of it")
    shelf.put(URL.replace("a.pth", "b.pth"), b"two")
    inode = root.stat().st_ino
    assert shelf.view("torch-hub", root).how == "name by name"
    assert root.stat().st_ino == inode
    assert (root / "thesis" / "thesis.tex").read_text() == "all of it"


def test_a_carried_copy_need_not_be_hashed_again(shelf, tmp_path):
    shelf.put(URL, b"one")
    root = tmp_path / "hub"
    for _ in range(2):
        shelf.view("torch-hub", root, link="copy")
    assert shelf.client.receipts.attests(digest_of(b"one"), identity_of((root / NAME).stat()))


def test_a_damaged_blob_is_not_shown(shelf, tmp_path):
    blob = shelf.put(URL, b"one")
    blob.chmod(0o644)
    blob.write_bytes(b"bad")
    built = shelf.view("torch-hub", tmp_path / "hub")
    assert built.manifest.placements == ()


@pytest.mark.needs("root")
def test_where_the_parent_is_not_ours_names_are_replaced_one_by_one(shelf, tmp_path):
    shelf.view("torch-hub", tmp_path / "warm")  # everything is imported now: others may not read the interpreter
    with tempfile.TemporaryDirectory() as name:  # pytest's own lie behind closed doors
        place = Path(name)
        place.chmod(0o755)
        (place / "mine").mkdir()
        os.chown(place / "mine", EVE, EVE)
        (place / "closed/hub").mkdir(parents=True)
        os.chown(place / "closed/hub", EVE, EVE)

        def work() -> None:
            config = Config(home=place / "mine/store", state=place / "mine/state")
            mine = Shelf(config, create_layout(config.home))
            mine.put(URL, b"one")
            assert mine.view("torch-hub", place / "closed/hub").how == "name by name"

        as_user(EVE, [EVE], work)
        assert (place / "closed/hub" / NAME).read_bytes() == b"one"
        assert os.listdir(place / "closed") == ["hub"]


# -- interrupted ----------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.interop.shelf import Shelf
from weightstore.config import Config
from weightstore.store.layout import open_layout
home, state, root = map(Path, sys.argv[1:4])
beside, fatal = sys.argv[4] == "1", int(sys.argv[5])
STEPS = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "ctypes.dlopen"}
shelf = Shelf(Config(home=home, state=state), open_layout(home))
calls = 0
def count(event, arguments):
    global calls
    if event in STEPS:
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
shelf.view("torch-hub", root, link="symlink", beside=beside)
"""


@pytest.mark.slow
@BESIDE
def test_a_kill_at_any_step_leaves_the_old_view_or_the_new_one_and_loses_nothing(shelf, tmp_path, beside):
    root = tmp_path / "place" / "hub"
    old = shelf.put(URL, b"old")
    shelf.put("https://h.example/models/stays.pth", b"stays")
    kills = 0
    for step in range(1, 200):
        subprocess.run(["rm", "-rf", str(root.parent)], check=True)
        shelf.put(URL, b"old")
        shelf.view("torch-hub", root, link="symlink")
        (root / "hub/checkpoints/theirs.pth").write_bytes(b"downloaded")
        new = shelf.put(URL, b"new")
        arguments = [str(shelf.config.home), str(shelf.config.state), str(root), str(int(beside)), str(step)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
        seen = {name: (root / "hub/checkpoints" / name).read_bytes() for name in ("a.pth", "stays.pth", "theirs.pth")}
        assert seen["a.pth"] in {b"old", b"new"}
        assert (seen["stays.pth"], seen["theirs.pth"]) == (b"stays", b"downloaded")
        if done.returncode == 0:
            assert seen["a.pth"] == b"new"
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
        shelf.view("torch-hub", root, link="symlink", beside=beside)
        assert os.listdir(root.parent) == ["hub"], "the next run clears away what was left"
        assert sorted(os.listdir(root / "hub/checkpoints")) == ["a.pth", "stays.pth", "theirs.pth"]
        assert os.readlink(root / NAME) == str(new)
        assert not list(root.rglob("*.new"))
    assert kills > 5
    assert old != new


def test_what_was_downloaded_into_the_old_view_while_the_new_one_was_built_is_kept(shelf, tmp_path):
    shelf.put(URL, b"one")
    root = tmp_path / "place" / "hub"
    shelf.view("torch-hub", root)
    # A run that was killed right after the exchange: the old view lies beside, with a file that only it has.
    gone = subprocess.Popen(["true"])
    gone.wait()
    beside = root.parent / f".hub.{place_of(this_process())}.{gone.pid}.01234567.view"
    subprocess.run(["cp", "-a", str(root), str(beside)], check=True)
    (beside / "hub/checkpoints/late.pth").write_bytes(b"late")
    recover(root)
    assert (root / "hub/checkpoints/late.pth").read_bytes() == b"late"
    assert os.listdir(root.parent) == ["hub"]


@BESIDE
@pytest.mark.parametrize("link", ["copy", "hardlink"])
def test_a_name_that_leaves_the_view_is_not_removed_once_somebody_wrote_to_it(shelf, tmp_path, beside, link):
    root = tmp_path / "hub"
    shelf.put(URL, b"one")
    shelf.view("torch-hub", root, link=link)
    (root / NAME).chmod(0o644)
    (root / NAME).write_bytes(b"fine-tuned")
    forget_ref(shelf.layout, Source(URL))
    built = shelf.view("torch-hub", root, link=link, beside=beside)
    assert built.manifest.placements == ()
    assert (root / NAME).read_bytes() == b"fine-tuned"


def test_what_a_program_makes_in_the_old_view_while_it_is_removed_is_kept(shelf, tmp_path, monkeypatch):
    shelf.put(URL, b"one")
    root = tmp_path / "place" / "hub"
    shelf.view("torch-hub", root)
    gone = subprocess.Popen(["true"])
    gone.wait()
    beside = root.parent / f".hub.{place_of(this_process())}.{gone.pid}.01234567.view"
    subprocess.run(["cp", "-a", str(root), str(beside)], check=True)
    look = build.left_over

    def looked_at(*arguments):
        (beside / "hub/checkpoints/late.pth").write_bytes(b"late")
        return look(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(build, "left_over", looked_at)
        recover(root)
    recover(root)
    assert (root / "hub/checkpoints/late.pth").read_bytes() == b"late"
    assert (root / NAME).read_bytes() == b"one"
    assert os.listdir(root.parent) == ["hub"]


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no second file system")
def test_a_view_in_which_a_file_system_is_mounted_stays_where_it_is(shelf, tmp_path):
    shelf.put(URL, b"one")
    root = tmp_path / "hub"
    shelf.view("torch-hub", root)
    (root / "data").mkdir()
    shelf.put(URL.replace("a.pth", "further.pth"), b"further")
    inode = root.stat().st_ino
    client = shelf.client
    decision = shelf.decide("torch-hub", root)
    mounted = {**decision.found.directories, "data": os.stat("/dev/shm")}
    decision = replace(decision, found=replace(decision.found, directories=mounted))
    built = build.build(decision, open_blob=opener(client), receipts=client.receipts)
    assert built.how == "name by name"
    assert root.stat().st_ino == inode


def test_a_link_that_somebody_put_beside_a_view_under_our_name_is_not_followed(shelf, tmp_path):
    root = tmp_path / "place" / "hub"
    shelf.view("torch-hub", root)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_bytes(b"thesis")
    gone = subprocess.Popen(["true"])
    gone.wait()
    beside = root.parent / f".hub.{place_of(this_process())}.{gone.pid}.01234567.view"
    beside.symlink_to(tmp_path / "home")
    recover(root)
    assert (tmp_path / "home/thesis.tex").read_bytes() == b"thesis"
    assert not (root / "thesis.tex").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_a_directory_that_somebody_else_put_beside_a_view_is_left_alone(shelf, tmp_path):
    root = tmp_path / "place" / "hub"
    shelf.view("torch-hub", root)
    gone = subprocess.Popen(["true"])
    gone.wait()
    beside = root.parent / f".hub.{place_of(this_process())}.{gone.pid}.01234567.view"
    (beside / "hub/checkpoints").mkdir(parents=True)
    (beside / "hub/checkpoints/planted.pth").write_bytes(b"planted")
    os.chown(beside, 12345, 12345)
    recover(root)
    assert not (root / "hub/checkpoints/planted.pth").exists()
    assert beside.is_dir()


def test_an_unfinished_view_of_a_process_that_runs_is_left_alone(shelf, tmp_path):
    root = tmp_path / "place" / "hub"
    shelf.view("torch-hub", root)
    beside = root.parent / f".hub.{place_of(this_process())}.{os.getppid()}.01234567.view"
    beside.mkdir()
    (beside / UNFINISHED).touch()
    recover(root)
    assert beside.is_dir()


def test_readers_never_miss_a_name_while_views_are_rebuilt(shelf, tmp_path):
    shelf.put(URL, b"one")
    root = tmp_path / "hub"
    shelf.view("torch-hub", root)
    code = f"""
import select, sys
print(flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    assert open({str(root / NAME)!r}, "rb").read() == b"one"
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    reader = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert reader.stdout is not None
    reader.stdout.readline()
    until = time.monotonic() + 1
    rounds = 0
    while time.monotonic() < until or rounds < 3:
        shelf.view("torch-hub", root)
        rounds += 1
    _, errors = reader.communicate()
    assert reader.returncode == 0, errors


def test_exchanging_with_what_is_not_there_is_an_error(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(OSError) as caught:
        exchange(tmp_path / "one", tmp_path / "absent")
    assert caught.value.errno == errno.ENOENT


# -- the manifest ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "url"), [("torch-hub", URL), ("huggingface", f"hf://org/m@{COMMIT}/w.bin")])
@pytest.mark.parametrize("link", ["symlink", "copy"])
def test_a_manifest_is_read_as_it_was_written(shelf, tmp_path, kind, url, link):
    shelf.put(url, b"one")
    built = shelf.view(kind, tmp_path / "view", link=link)
    assert read_manifest(tmp_path / "view") == built.manifest
    assert Manifest.parse(built.manifest.encode(), place="here") == built.manifest


@pytest.mark.parametrize(
    "change",
    [
        (b'"version": 1', b'"version": 2'),
        (b'"torch-hub"', b'"conda"'),
        (b'"path": "hub/checkpoints/a.pth"', b'"path": "../../etc/passwd"'),
        (b'"path": "hub/checkpoints/a.pth"', b'"path": "/etc/passwd"'),
        (b'"placed": "symlink"', b'"placed": "magic"'),
        (b'"scope"', b'"surprise": 1, "scope"'),
        (b'"target": "hub/checkpoints"', b'"target": "/etc"'),
        (b'"path": "checkpoints"', b'"path": "hub/checkpoints/a.pth"'),
        (b"sha256:", b"md5:"),
        (b"{", b"["),
    ],
)
def test_a_manifest_that_is_not_as_it_should_be_is_refused(shelf, tmp_path, change):
    shelf.put(URL, b"one")
    shelf.view("torch-hub", tmp_path / "hub", link="symlink")
    path = tmp_path / "hub" / MANIFEST
    data = path.read_bytes()
    assert change[0] in data
    path.write_bytes(data.replace(*change))
    with pytest.raises(InvalidRecord):
        shelf.view("torch-hub", tmp_path / "hub")


@BESIDE
def test_a_manifest_that_somebody_changed_removes_nothing_outside_of_the_view(shelf, tmp_path, beside):
    root, victim = tmp_path / "hub", tmp_path / "home/thesis"
    victim.parent.mkdir()
    victim.write_bytes(b"thesis")
    shelf.put(URL, b"one")
    built = shelf.view("torch-hub", root, link="hardlink", beside=beside)
    (root / "way").symlink_to(victim.parent)
    (placement,) = built.manifest.placements
    evil = replace(placement, path="way/thesis", inode=victim.stat().st_ino)
    write_manifest(root, replace(built.manifest, placements=(placement, evil)))
    shelf.view("torch-hub", root, link="hardlink", beside=beside)
    assert victim.read_bytes() == b"thesis"
    assert os.readlink(root / "way") == str(victim.parent)


def test_several_processes_may_build_one_view_at_once(shelf, tmp_path):
    shelf.put(URL, b"one")
    root = tmp_path / "place" / "hub"
    code = """
import sys
from pathlib import Path
from tests.interop.shelf import Shelf
from weightstore.config import Config
from weightstore.store.layout import open_layout
home, state, root = map(Path, sys.argv[1:4])
shelf = Shelf(Config(home=home, state=state), open_layout(home))
for number in range(10):
    shelf.view("torch-hub", root)
    (root / f"hub/checkpoints/{sys.argv[4]}-{number}.pth").write_bytes(b"downloaded")
"""
    arguments = [str(shelf.config.home), str(shelf.config.state), str(root)]
    builders = [
        subprocess.Popen([sys.executable, "-c", code, *arguments, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    for builder in builders:
        _, errors = builder.communicate()
        assert builder.returncode == 0, errors
    shelf.view("torch-hub", root)
    assert os.listdir(root.parent) == ["hub"]
    expected = {"a.pth", *(f"{process}-{number}.pth" for process in range(3) for number in range(10))}
    assert set(os.listdir(root / "hub/checkpoints")) == expected
