"""Bundles as an enemy, a bad disk or a hurried courier leaves them: what is wrong is refused, what is right arrives."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import random
import tarfile
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightstore.catalog.lockfile import Locked, Lockfile
from weightstore.client import Client
from weightstore.cluster.bundle import Bundle, carry_out, contradictions, plan_import, vouch
from weightstore.cluster.have import Have
from weightstore.cluster.packing import choose, choose_all, create
from weightstore.cluster.tar import BLOBS
from weightstore.cluster.volumes import grouped
from weightstore.config import Config
from weightstore.digest import Digest, Pin
from weightstore.errors import BlobDamaged, InvalidBundle, InvalidInput, InvalidRecord, NoSpace, NotPresent, StoreError
from weightstore.records import Wanted
from weightstore.source import Source

CONTENTS = {name: random.Random(name).randbytes(40_000 + 1000 * number) for number, name in enumerate("abc")}


def digest_of(data):
    return Digest(hashlib.sha256(data).hexdigest())


def blobs_in(root):
    return {path.name for path in (root / "blobs/sha256").glob("*")} if root.exists() else set()


def nothing(_size):
    pass


@pytest.fixture
def here(tmp_path):
    """A client whose store has three files."""
    client = Client(Config(home=tmp_path / "here", state=tmp_path / "state-here"))
    for name, data in CONTENTS.items():
        (tmp_path / f"{name}.pth").write_bytes(data)
    client.prefetch([f"{tmp_path}/{name}.pth" for name in CONTENTS])
    return client


@pytest.fixture
def there(tmp_path):
    """A client with nothing."""
    return Client(Config(home=tmp_path / "there", state=tmp_path / "state-there"))


@pytest.fixture
def bundled(here, tmp_path):
    """The bytes of a bundle of all three."""
    items, _ = choose_all(here)
    create(items, tmp_path / "out.tar", client=here, on_bytes=nothing)
    return (tmp_path / "out.tar").read_bytes()


def bring(client, *paths):
    """Import; return the status of each by its content's name."""
    names = {digest_of(data): name for name, data in CONTENTS.items()}
    with Bundle(paths) as bundle:
        plan = plan_import(bundle, client=client)
        done = list(carry_out(plan, bundle, client=client, stop=threading.Event(), on_bytes=nothing))
        return {names[one.entry.digest]: one.status for one in done}, bundle.problem


def members_of(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar.getmembers()]


def tar_of(members, *, format=tarfile.GNU_FORMAT):  # noqa: A002 - tarfile's word
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data) if data is not None else None)
    return file.getvalue()


def info(name, size=0, **fields):
    member = tarfile.TarInfo(name)
    member.size = size
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def written(tmp_path, data, name="in.tar"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


# -- there and back -------------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out_once_and_is_there_the_second_time(bundled, there, tmp_path):
    path = written(tmp_path, bundled)
    assert bring(there, path) == ({"a": "imported", "b": "imported", "c": "imported"}, "")
    for data in CONTENTS.values():
        blob = there.config.home / "blobs/sha256" / digest_of(data).hex
        assert blob.read_bytes() == data
        assert blob.stat().st_mode & 0o777 == 0o444
    assert len(blobs_in(there.config.home)) == 3  # manifests and configs are not weights
    assert not list((there.config.home / "tmp").iterdir())
    assert bring(there, path) == ({"a": "present", "b": "present", "c": "present"}, "")


def test_equal_content_gives_equal_bytes(here, bundled, tmp_path):
    items, _ = choose_all(here)
    create(list(items), tmp_path / "again.tar", client=here, on_bytes=nothing)
    assert (tmp_path / "again.tar").read_bytes() == bundled


def test_tar_lists_it_as_nobodys_files_of_no_time(bundled):
    names = [member.name for member, _ in members_of(bundled)]
    assert names[:2] == ["oci-layout", "index.json"]
    assert all(name.startswith(BLOBS) for name in names[2:])
    for member, _ in members_of(bundled):
        assert (member.uid, member.gid, member.uname, member.mtime, member.mode) == (0, 0, "", 0, 0o444)


def test_only_what_the_other_side_lacks_is_sent(here, there, tmp_path):
    have = Have({digest_of(CONTENTS["a"]): len(CONTENTS["a"]), digest_of(CONTENTS["b"]): 1})
    items, _ = choose_all(here)
    created = create(items, tmp_path / "out.tar", client=here, have=have, on_bytes=nothing)
    assert [item.digest for item in created.spared] == [digest_of(CONTENTS["a"])]
    assert bring(there, tmp_path / "out.tar")[0] == {"b": "imported", "c": "imported"}  # b: of another size there


def test_a_bundle_of_nothing_is_a_bundle(here, there, tmp_path):
    create([], tmp_path / "out.tar", client=here, on_bytes=nothing)
    assert bring(there, tmp_path / "out.tar") == ({}, "")


def test_a_blob_that_is_damaged_here_fails_the_bundle_by_its_name(here, tmp_path):
    items, _ = choose_all(here)
    blob = items[1].path
    blob.chmod(0o644)
    blob.write_bytes(bytes(blob.stat().st_size))
    (tmp_path / "out.tar").write_bytes(b"an earlier one")
    with pytest.raises(BlobDamaged, match=items[1].digest.hex):
        create(items, tmp_path / "out.tar", client=here, on_bytes=nothing)
    assert (tmp_path / "out.tar").read_bytes() == b"an earlier one"
    assert not list(tmp_path.glob(".out*"))


def test_what_is_not_stored_cannot_be_bundled(here):
    missing = Wanted("x", Source("https://example.org/x.pth"), Pin("0" * 64))
    with pytest.raises(NotPresent, match="weightstore prefetch"):
        choose(here, [missing])


def test_too_little_space_is_found_before_anything_is_written(here, there, bundled, tmp_path):
    members = members_of(bundled)
    index = json.loads(members[1][1])
    found = os.statvfs(tmp_path)
    size = found.f_bavail * found.f_frsize + (1 << 30)
    annotations = index["manifests"][0]["annotations"]
    annotations["dev.weightstore.size"] = str(size)
    data = json.dumps(index).encode()
    start = tar_of([members[0], (info("index.json", len(data)), data)]).rstrip(b"\0")
    path = tmp_path / "sparse.tar"
    with path.open("wb") as out:  # sparse: larger than the disk
        out.write(start + bytes(-len(start) % 512))
        blob = annotations["dev.weightstore.digest"].removeprefix("sha256:")
        out.write(info(BLOBS + blob, size).tobuf(tarfile.GNU_FORMAT))
        out.truncate(out.tell() + size)
    with Bundle([path]) as bundle, pytest.raises(NoSpace):
        plan_import(bundle, client=there)
    assert not there.config.home.exists()


# -- volumes --------------------------------------------------------------------------------------------------------


def test_who_may_not_write_there_is_told_of_bundles_and_not_of_stores(here, tmp_path, monkeypatch):
    items, _ = choose_all(here)
    opened = os.open

    def refuse(path, flags, *rest, **more):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr("weightstore.cluster.volumes.os.open", refuse)
    with pytest.raises(StoreError, match=r"out.tar.*Permission denied.*Write the bundle elsewhere") as caught:
        create(items, tmp_path / "out.tar", client=here, on_bytes=nothing)
    assert "WEIGHTSTORE" not in str(caught.value)


@pytest.fixture
def volumes(here, bundled, tmp_path):
    items, _ = choose_all(here)
    created = create(items, tmp_path / "v.tar", client=here, volume_size=30_000, on_bytes=nothing)
    assert b"".join(path.read_bytes() for path in created.paths) == bundled
    assert [path.name for path in created.paths] == [f"v.tar.{n:03}" for n in range(1, len(created.paths) + 1)]
    assert all(path.stat().st_size <= 30_000 for path in created.paths)
    return list(created.paths)


def test_volumes_are_put_in_order_by_their_numbers(volumes, there):
    assert bring(there, *reversed(volumes)) == ({"a": "imported", "b": "imported", "c": "imported"}, "")


def test_a_volume_that_is_missing_in_between_is_named(volumes, there):
    with pytest.raises(InvalidInput, match=r"v\.tar\.002: this volume is not among those given"):
        bring(there, volumes[0], *volumes[2:])


def test_without_the_last_volume_what_is_whole_arrives_and_the_rest_later(volumes, there):
    statuses, problem = bring(there, *volumes[:-1])
    assert "cut short" in problem
    assert sorted(statuses.values()).count("missing") == 1
    assert sorted(bring(there, *volumes)[0].values()) == ["imported", "present", "present"]


def _trouble(client, *paths):
    """Tell whether an import says that volumes are in disorder: of a header in the wrong place, or of a content."""
    try:
        with Bundle(paths) as bundle:
            plan = plan_import(bundle, client=client)
            done = carry_out(plan, bundle, client=client, stop=threading.Event(), on_bytes=nothing)
            return any("volumes are not in order, or not of one bundle" in one.detail for one in done)
    except InvalidBundle as error:
        return "volumes in wrong order or of another bundle" in str(error)


def test_renamed_volumes_in_the_wrong_order_publish_nothing_wrong(volumes, there, tmp_path):
    renamed = [path.rename(tmp_path / f"piece{number}") for number, path in enumerate(volumes)]
    with pytest.raises(InvalidBundle, match="not the first volume"):
        bring(there, *reversed(renamed))
    assert _trouble(there, renamed[0], renamed[2], renamed[1], *renamed[3:])
    good = {digest_of(data).hex for data in CONTENTS.values()}
    assert blobs_in(there.config.home) <= good


def test_a_volume_of_another_bundle_is_found_out(volumes, there, tmp_path):
    foreign = random.Random("other").randbytes(volumes[2].stat().st_size)
    volumes[2].chmod(0o644)
    volumes[2].write_bytes(foreign)
    assert _trouble(there, *volumes)
    assert blobs_in(there.config.home) <= {digest_of(data).hex for data in CONTENTS.values()}


def test_a_volume_that_is_given_twice_counts_once(volumes, there):
    assert bring(there, volumes[1], *volumes) == ({"a": "imported", "b": "imported", "c": "imported"}, "")


def test_a_volume_that_was_cut_is_the_one_that_is_blamed_and_what_is_before_it_arrives(volumes, there):
    for at, arrived in ((1, 1), (2, 1), (len(volumes) - 1, 2)):
        whole = volumes[at].read_bytes()
        volumes[at].chmod(0o644)
        volumes[at].write_bytes(whole[:-7001])
        with Bundle(volumes) as bundle:
            assert "cut short" in bundle.problem
            assert bundle.blamed == str(volumes[at])
        assert list(bring(there, *volumes)[0].values()).count("missing") == 3 - arrived
        volumes[at].write_bytes(whole)


def test_a_volume_beyond_the_end_is_no_volume_of_it(volumes, there, tmp_path):
    left = tmp_path / f"v.tar.{len(volumes) + 1:03}"
    left.write_bytes(b"of an earlier bundle" * 100)
    with pytest.raises(InvalidInput, match=rf"{left.name}: begins behind the end"):
        bring(there, *volumes, left)


def test_files_are_grouped_into_the_bundles_that_they_are(bundled, volumes, tmp_path):
    one, other = (written(tmp_path, bundled, name) for name in ("one.tar", "other.tar"))
    pieces = [written(tmp_path, path.read_bytes(), f"piece{n}") for n, path in enumerate(volumes)]
    assert grouped([one, other, one]) == [[one], [other]]
    assert grouped([volumes[1], one, volumes[0]]) == [[volumes[1], volumes[0]], [one]]
    assert grouped([one, *pieces, other]) == [[one], pieces, [other]]
    assert grouped([tmp_path / "absent", one]) == [[tmp_path / "absent"], [one]]


def test_old_volumes_beyond_the_last_are_not_mixed_with_new_ones(here, volumes, tmp_path):
    items, _ = choose_all(here)
    with pytest.raises(StoreError, match=r"v\.tar\.003 is a volume of another bundle|v\.tar\.003.*another bundle"):
        create(items, tmp_path / "v.tar", client=here, volume_size=80_000, on_bytes=nothing)


# -- hostile files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (info("/etc/passwd", 3), "a file '/etc/passwd'"),
        (info("../../outside", 3), "a file '../../outside'"),
        (info("blobs/sha256/../../x", 3), "a file"),
        (info(BLOBS + "A" * 64, 3), "a file"),
        (info(BLOBS + "a" * 63, 3), "a file"),
        (info(BLOBS + "a" * 64 + "\n", 3), "a file"),
        (info(BLOBS + "a" * 64, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a symbolic link"),
        (info(BLOBS + "a" * 64, type=tarfile.LNKTYPE, linkname="index.json"), "a hard link"),
        (info(BLOBS + "a" * 64, type=tarfile.CHRTYPE), "a device"),
        (info(BLOBS + "a" * 64, type=tarfile.BLKTYPE), "a device"),
        (info(BLOBS + "a" * 64, type=tarfile.FIFOTYPE), "a pipe"),
        (info(BLOBS + "a" * 64, type=tarfile.CONTTYPE), "no file"),
        (info(BLOBS + "a" * 64, type=tarfile.GNUTYPE_SPARSE), "a sparse file"),
        (info("elsewhere", type=tarfile.DIRTYPE), "a directory"),
        (info("x" * 150, 3), "a long name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_members_that_no_bundle_has_are_refused_before_anything_is_imported(member, why, bundled, there, tmp_path):
    evil = (member, b"abc" if member.size else None)
    path = written(tmp_path, tar_of([*members_of(bundled), evil]))
    with pytest.raises(InvalidBundle, match=why):
        bring(there, path)
    assert not blobs_in(there.config.home)
    assert not (tmp_path.parent / "outside").exists()


def test_a_member_given_twice_is_refused(bundled, there, tmp_path):
    members = members_of(bundled)
    with pytest.raises(InvalidBundle, match="twice"):
        bring(there, written(tmp_path, tar_of([*members, members[-1]])))


@pytest.mark.parametrize("key", ["path", "linkpath", "GNU.sparse.realsize", "GNU.sparse.name", "SCHILY.realsize"])
def test_extended_headers_that_rename_or_thin_out_are_refused(key, bundled, there, tmp_path):
    members = members_of(bundled)
    members[-1][0].pax_headers = {key: "1"}
    with pytest.raises(InvalidBundle, match="extended header changes"):
        bring(there, written(tmp_path, tar_of(members, format=tarfile.PAX_FORMAT)))


def test_extended_headers_of_times_and_owners_do_no_harm(bundled, there, tmp_path):
    members = members_of(bundled)
    for member, _ in members:
        member.mtime, member.uname, member.pax_headers = 1.25, "grüße", {"comment": "x" * 200}
    path = written(tmp_path, tar_of(members, format=tarfile.PAX_FORMAT))
    assert bring(there, path) == ({"a": "imported", "b": "imported", "c": "imported"}, "")


def test_directories_and_dots_as_other_tools_write_them_are_fine(bundled, there, tmp_path):
    members = members_of(bundled)
    for member, _ in members:
        member.name = f"./{member.name}"
    directories = [(info(name, type=tarfile.DIRTYPE), None) for name in ("./", "./blobs/", "blobs/sha256/")]
    path = written(tmp_path, tar_of([*directories, *reversed(members)]))
    assert set(bring(there, path)[0].values()) == {"imported"}


def test_a_huge_size_in_a_header_is_a_cut_file_and_allocates_nothing(bundled, there, tmp_path):
    members = members_of(bundled)
    last = members[-1][0]
    offset = sum(512 + -(-len(data) // 512) * 512 for _, data in members[:-1])
    last.size = 10**13
    data = bundled[:offset] + last.tobuf(tarfile.GNU_FORMAT) + bundled[offset + 512 :]
    statuses, problem = bring(there, written(tmp_path, data))
    assert "10000000000000 bytes" in problem
    assert sorted(statuses.values()) == ["imported", "imported", "missing"]


def test_an_enormous_extended_header_is_refused(there, tmp_path):
    member = info("x", 1 << 40, type=b"x")
    with pytest.raises(InvalidBundle, match="extended headers"):
        bring(there, written(tmp_path, member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))


def test_a_blob_of_another_content_is_not_published_and_the_others_are(bundled, there, tmp_path):
    at = bundled.index(CONTENTS["b"])
    data = bytearray(bundled)
    data[at + 100] ^= 1
    statuses, _ = bring(there, written(tmp_path, bytes(data)))
    assert statuses == {"a": "imported", "b": "damaged", "c": "imported"}
    assert not (there.config.home / "blobs/sha256" / digest_of(CONTENTS["b"]).hex).exists()
    assert not list((there.config.home / "tmp").iterdir())
    assert bring(there, written(tmp_path, bundled))[0] == {"a": "present", "b": "imported", "c": "present"}


def test_a_blob_of_another_size_than_the_index_says_is_refused(bundled, there, tmp_path):
    members = members_of(bundled)
    members[-1] = (info(members[-1][0].name, 10), members[-1][1][:10])
    with pytest.raises(InvalidBundle, match="by its index"):
        bring(there, written(tmp_path, tar_of(members)))


def test_a_large_file_that_the_index_does_not_name_is_refused(bundled, there, tmp_path):
    extra = (info(BLOBS + "a" * 64, 5 << 20), bytes(5 << 20))
    with pytest.raises(InvalidBundle, match="not in its index"):
        bring(there, written(tmp_path, tar_of([*members_of(bundled), extra])))


def test_a_blob_that_the_index_names_and_is_not_there_is_told(bundled, there, tmp_path):
    statuses, problem = bring(there, written(tmp_path, tar_of(members_of(bundled)[:-1])))
    assert "lacks sha256:" in problem
    assert sorted(statuses.values()) == ["imported", "imported", "missing"]


def without_annotations(bundled):
    """What remains of a bundle when another tool has written its index anew."""
    members = members_of(bundled)
    index = json.loads(members[1][1])
    for one in index["manifests"]:
        one["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    data = json.dumps(index).encode()
    return [members[0], (info("index.json", len(data)), data), *members[2:]]


def test_an_index_that_lost_its_annotations_is_made_up_for_by_the_manifests(bundled, there, tmp_path):
    path = written(tmp_path, tar_of(without_annotations(bundled)))
    assert bring(there, path) == ({"a": "imported", "b": "imported", "c": "imported"}, "")


def test_a_manifest_that_is_not_what_its_name_says_is_refused(bundled, there, tmp_path):
    members = without_annotations(bundled)
    for number, (member, data) in enumerate(members):
        if b"artifactType" in data and member.name.startswith(BLOBS):
            members[number] = (member, data.replace(b"40000", b"40001"))
    with pytest.raises(InvalidBundle, match="other content than its name says"):
        bring(there, written(tmp_path, tar_of(members)))


def test_images_that_hold_no_weights_bring_nothing(there, tmp_path):
    config = b"{}"
    manifest = json.dumps({"schemaVersion": 2, "config": {"digest": str(digest_of(config)), "size": 2}, "layers": []})
    data = manifest.encode()
    kind = "application/vnd.oci.image.manifest.v1+json"
    descriptor = {"mediaType": kind, "digest": str(digest_of(data)), "size": len(data)}
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index}
    files |= {BLOBS + digest_of(one).hex: one for one in (config, data)}
    path = written(tmp_path, tar_of([(info(name, len(one)), one) for name, one in files.items()]))
    assert bring(there, path) == ({}, "")


def test_larger_than_the_configuration_allows_is_refused(bundled, there, tmp_path):
    with pytest.raises(InvalidBundle, match="max_size"):
        bring(Client(there.config.but(max_size=41_500)), written(tmp_path, bundled))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no oci-layout"),
        (b"hello" * 1000, "not a tar file"),
        (bytes(10240), "no oci-layout"),
    ],
    ids=["empty", "text", "zeros"],
)
def test_what_is_no_bundle_is_refused(data, why, there, tmp_path):
    with pytest.raises(InvalidBundle, match=why):
        bring(there, written(tmp_path, data))


def test_a_pipe_or_a_file_that_is_not_there_is_refused(there, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="not a regular file"):
        bring(there, tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="No such file"):
        bring(there, tmp_path / "absent")


def test_what_is_compressed_is_told_to_be_unpacked(bundled, there, tmp_path):
    path = written(tmp_path, gzip.compress(bundled), "in.tar.gz")
    with pytest.raises(InvalidInput, match=r"compressed.*gzip -d .*in\.tar\.gz"):
        bring(there, path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda index: index.update(schemaVersion=1), "schemaVersion"),
        (lambda index: index["manifests"].append("x"), "other than objects"),
        (lambda index: index["manifests"][0]["annotations"].update({"dev.weightstore.size": "-1"}), "bytes"),
        (lambda index: index["manifests"][0]["annotations"].update({"dev.weightstore.digest": "x"}), "digest"),
        (lambda index: index["manifests"].append(index["manifests"][0]), "twice"),
    ],
)
def test_an_index_that_lies_about_itself_is_refused(change, why, bundled, there, tmp_path):
    members = members_of(bundled)
    index = json.loads(members[1][1])
    change(index)
    data = json.dumps(index).encode()
    members[1] = (info("index.json", len(data)), data)
    with pytest.raises(InvalidBundle, match=why):
        bring(there, written(tmp_path, tar_of(members)))


def test_cut_anywhere_it_never_publishes_anything_wrong(bundled, tmp_path):
    good = {digest_of(data).hex: data for data in CONTENTS.values()}
    rng = random.Random(7)
    for number in range(25):
        client = Client(Config(home=tmp_path / f"s{number}", state=tmp_path / "state"))
        path = written(tmp_path, bundled[: rng.randrange(len(bundled) - 1024)])
        try:
            _, problem = bring(client, path)
        except InvalidBundle:
            continue
        assert "cut short" in problem
        for name in blobs_in(client.config.home):
            assert (client.config.home / "blobs/sha256" / name).read_bytes() == good[name]


@settings(max_examples=150, deadline=None, database=None)
@given(st.data())
def test_no_change_of_a_header_gets_past(tmp_path_factory, data):
    bundled = _one_bundle(tmp_path_factory)
    changed = bytearray(bundled)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(bundled) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.tar"
    path.write_bytes(bytes(changed))
    try:
        with Bundle([path]) as bundle:
            for member in bundle.members.values():
                assert 0 <= member.offset <= member.offset + member.size <= len(changed)
    except InvalidBundle:
        pass


_MADE: list[bytes] = []


def _one_bundle(tmp_path_factory):
    if not _MADE:
        root = tmp_path_factory.mktemp("one")
        client = Client(Config(home=root / "store", state=root / "state"))
        (root / "w.pth").write_bytes(b"weights" * 30)
        client.prefetch([f"{root}/w.pth"])
        create(choose_all(client)[0], root / "out.tar", client=client, on_bytes=nothing)
        _MADE.append((root / "out.tar").read_bytes())
    return _MADE[0]


# -- what is believed -----------------------------------------------------------------------------------------------


def _claiming(here, tmp_path, source):
    """A bundle of ``a`` that claims to be from a source."""
    items = choose(here, [here.wanted(f"{tmp_path}/a.pth")])
    item = type(items[0])(items[0].digest, items[0].size, items[0].path, (source,))
    create([item], tmp_path / "claims.tar", client=here, on_bytes=nothing)
    return tmp_path / "claims.tar"


def test_no_word_of_a_bundle_about_sources_is_recorded(here, there, tmp_path):
    digest = digest_of(CONTENTS["a"])
    source = Source(f"https://example.org/a-{digest.hex[:8]}.pth")
    bring(there, _claiming(here, tmp_path, source))
    assert (there.config.home / "blobs/sha256" / digest.hex).exists()
    assert not list((there.config.home / "refs").iterdir())
    assert not there.is_present(Wanted("a", source, Pin()))
    assert not there.is_present(Wanted("a", source, Pin(digest.hex[:8])))  # eight digits can be forged
    assert there.is_present(Wanted("a", source, Pin.of(digest)))


def test_what_a_lockfile_says_is_recorded_and_only_of_what_is_here(here, there, tmp_path):
    digest, other = digest_of(CONTENTS["a"]), digest_of(CONTENTS["b"])
    source = Source(f"https://example.org/a-{digest.hex[:8]}.pth")
    lockfile = Lockfile(
        (
            Locked("a", source, digest, len(CONTENTS["a"])),
            Locked("b", Source("https://example.org/b.pth"), other, len(CONTENTS["b"])),
        )
    )
    bring(there, _claiming(here, tmp_path, source))
    wrong = Lockfile((Locked("a", Source("https://example.org/x.pth"), digest, 1),))
    here_now = {digest: len(CONTENTS["a"])}
    assert vouch(there, [wrong, lockfile], here_now, now=datetime.now(UTC)) == 1
    assert there.is_present(Wanted("a", source, Pin(digest.hex[:8])))
    assert not there.is_present(Wanted("a", source, Pin()))  # it is no word of the origin
    assert len(list((there.config.home / "refs").iterdir())) == 1


def test_a_bundle_that_contradicts_the_lockfile_is_told(here, tmp_path):
    source = Source("https://example.org/a.pth")
    lockfile = Lockfile((Locked("a", source, digest_of(b"other"), 5),))
    with Bundle([_claiming(here, tmp_path, source)]) as bundle:
        (told,) = contradictions(bundle, [lockfile])
    assert str(digest_of(b"other")) in told
    assert str(digest_of(CONTENTS["a"])) in told


# -- have.json ------------------------------------------------------------------------------------------------------


def test_have_lists_what_is_there_and_reads_what_it_writes(here):
    have = Have.of_layers(here.obtainer.layers())
    assert have.blobs == {digest_of(data): len(data) for data in CONTENTS.values()}
    assert Have.parse(have.encode(), place="have.json") == have


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "not a JSON object"),
        ('{"version": 2, "blobs": []}', "version 2"),
        ('{"version": 1}', "'blobs' is missing"),
        ('{"version": 1, "blobs": [], "more": 1}', "unknown field"),
        ('{"version": 1, "blobs": [{"digest": "sha256:ab", "size_bytes": 1}]}', "digest"),
        ('{"version": 1, "blobs": [{"digest": "sha256:%s", "size_bytes": -1}]}' % ("a" * 64), "number of bytes"),
        ('{"version": 1, "blobs": [%s, %s]}' % ((f'{{"digest": "sha256:{"a" * 64}", "size_bytes": 1}}',) * 2), "twice"),
    ],
)
def test_a_list_that_is_not_as_it_should_be_is_refused(text, why):
    with pytest.raises(InvalidRecord, match=why):
        Have.parse(text.encode(), place="have.json")
