"""``mirror`` with buckets: an S3 server (moto), Google's (fake-gcs-server) and Azure's (Azurite)."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.conftest import AZURE
from tests.cluster.test_mirror import ALL, blobs_in
from tests.servers.azure import ACCOUNT
from tests.servers.clouds import Cloud
from tests.servers.gcs import GcsServer
from tests.servers.relay import Asked, Cut, Given, Late
from weightstore.transfer.bucket import PIECE


def served_large(site: Site, run: Run) -> tuple[str, bytes]:
    """A checkpoint of more than two pieces, in the store."""
    data = random.Random(5).randbytes(2 * PIECE + 12345)
    url = site.server.serve("/large.pth", data)
    run("prefetch", url)
    return f"{url}#sha256={hashlib.sha256(data).hexdigest()}", data


def test_what_is_pushed_is_pulled_with_the_origin_off(site: Site, run: Run, place: str) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    assert "3 pushed" in run("mirror", "push", place, "--all").stderr
    assert "0 pushed, 3 there already" in run("mirror", "push", place, "--all").stderr
    assert json.loads(run("mirror", "status", place, "--json").stdout)["both"] == 3
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", place, "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}
    run("verify")


def test_a_bucket_is_a_mirror_like_any_other(site: Site, run: Run, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", place, "--all")
    shutil.rmtree(site.home)
    site.server.stop()
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    run("prefetch", "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


def test_a_blob_larger_than_two_pieces_travels_in_parts(site: Site, run: Run, place: str) -> None:
    url, data = served_large(site, run)
    run("mirror", "push", place, url)
    shutil.rmtree(site.home)
    run("mirror", "pull", place, url)
    assert (site.home / "blobs/sha256" / hashlib.sha256(data).hexdigest()).read_bytes() == data


def test_the_vendors_own_client_reads_what_was_pushed(
    site: Site, run: Run, place: str, prefix: str, there: Cloud
) -> None:
    url, data = served_large(site, run)
    run("prefetch", "Small_Weights.A")
    run("mirror", "push", place, url, "Small_Weights.A")
    found = there.get(prefix)
    assert found[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] == data
    assert found[f"blobs/sha256/{site.digest('A')}"] == site.data("A")
    assert len(json.loads(found["index.json"])["manifests"]) == 2


def test_what_the_vendors_own_client_wrote_is_pulled(
    site: Site, run: Run, place: str, prefix: str, there: Cloud
) -> None:
    data = random.Random(6).randbytes(2 * PIECE + 999)
    digest = hashlib.sha256(data).hexdigest()
    there.put({f"{prefix}/blobs/sha256/{digest}": data})
    run("mirror", "pull", place, f"https://nowhere.invalid/large.pth#sha256={digest}")
    assert (site.home / "blobs/sha256" / digest).read_bytes() == data


@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_a_damaged_blob_is_not_pushed(
    site: Site, run: Run, place: str, there: Cloud, prefix: str, *, is_large: bool
) -> None:
    if is_large:
        _, data = served_large(site, run)
        digest = hashlib.sha256(data).hexdigest()
    else:
        run("prefetch", "Small_Weights.A")
        digest = site.digest("A")
    blob = site.home / "blobs/sha256" / digest
    found = blob.stat()
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(b"\0\0\0\0")
    os.utime(blob, ns=(found.st_atime_ns, found.st_mtime_ns))
    run("mirror", "push", place, "--all", code=8)
    assert sizes_in(there, prefix) == {}
    if isinstance(there.relay, GcsServer):
        assert there.relay.unfinished == 0


def sizes_in(there: Cloud, prefix: str) -> dict[str, int]:
    import obstore  # an extra
    import obstore.store

    store = obstore.store.from_url(f"{there.scheme}://weights", client_options={"allow_http": True})
    return {one["path"]: one["size"] for page in obstore.list(store, prefix=prefix) for one in page}


def test_one_new_blob_for_a_mirror_of_many_is_as_many_requests_as_for_one_of_few(
    site: Site, run: Run, place: str, there: Cloud
) -> None:
    def requests_of_one_more(name: str) -> int:
        url = site.server.serve(f"/{name}.pth", name.encode() * 100)
        run("prefetch", url)
        before = len(there.relay.requests())
        run("mirror", "push", place, "--all")
        return len(there.relay.requests()) - before

    run("prefetch", "Small_Weights.A")
    run("mirror", "push", place, "--all")
    few = requests_of_one_more("few")
    run("prefetch", *(site.server.serve(f"/many-{number}.pth", b"%d" % number * 50) for number in range(300)))
    run("mirror", "push", place, "--all")
    assert requests_of_one_more("many") == few


def ranges_of(asked: list[Asked], digest: str) -> list[str]:
    return [one.headers["Range"] for one in asked if digest in one.target and one.method == "GET"]


def test_a_pull_that_was_cut_goes_on_where_it_was_cut(site: Site, run: Run, place: str, there: Cloud) -> None:
    url, data = served_large(site, run)
    digest = hashlib.sha256(data).hexdigest()
    run("mirror", "push", place, url)
    shutil.rmtree(site.home)

    def fault(asked: Asked) -> Cut | None:
        is_second = asked.method == "GET" and digest in asked.target and asked.headers.get("Range") != first
        return Cut(after=1000) if is_second else None

    first = f"bytes=0-{PIECE - 1}"
    there.relay.fault = fault
    run("mirror", "pull", place, url, code=6)
    before = len(there.relay.requests())
    there.relay.fault = None
    run("mirror", "pull", place, url)
    again = ranges_of(there.relay.requests()[before:], digest)
    assert again == [f"bytes={PIECE}-{2 * PIECE - 1}", f"bytes={2 * PIECE}-{len(data) - 1}"]
    assert (site.home / "blobs/sha256" / digest).read_bytes() == data


def test_a_pull_that_was_killed_goes_on_where_it_was(
    site: Site, run: Run, spawn: Callable[..., subprocess.Popen[str]], place: str, there: Cloud
) -> None:
    url, data = served_large(site, run)
    digest = hashlib.sha256(data).hexdigest()
    run("mirror", "push", place, url)
    shutil.rmtree(site.home)
    reached = threading.Event()

    def fault(asked: Asked) -> Late | None:
        start = asked.headers.get("Range", "").partition("-")[0]
        if start == f"bytes={PIECE}":
            return Late(1.5)  # what was received is noted once a second
        if start == f"bytes={2 * PIECE}":
            reached.set()
            return Late(60)
        return None

    there.relay.fault = fault
    with spawn("mirror", "pull", place, url) as pulling:
        assert reached.wait(timeout=60)
        pulling.kill()
    before = len(there.relay.requests())
    there.relay.fault = None
    run("mirror", "pull", place, url)
    first, *_ = ranges_of(there.relay.requests()[before:], digest)
    assert int(first.removeprefix("bytes=").partition("-")[0]) >= PIECE
    assert (site.home / "blobs/sha256" / digest).read_bytes() == data


def test_a_piece_that_is_cut_once_is_asked_for_again(site: Site, run: Run, place: str, there: Cloud) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.A")
    run("mirror", "push", place, "--all")
    shutil.rmtree(site.home)
    cut: list[str] = []

    def fault(asked: Asked) -> Cut | None:
        if asked.method != "GET" or site.digest("A") not in asked.target or cut:
            return None
        cut.append(asked.target)
        return Cut(after=1000)

    there.relay.fault = fault
    run("mirror", "pull", place, "--locked", "weights.lock")
    assert cut
    assert blobs_in(site.home) == {site.digest("A")}


def test_a_push_that_was_interrupted_goes_on_with_what_is_missing(
    site: Site, run: Run, place: str, there: Cloud, prefix: str
) -> None:
    run("prefetch", *ALL)
    there.relay.fault = lambda asked: (
        Given(503, {}, b"later") if asked.method in {"PUT", "POST"} and site.digest("B") in asked.target else None
    )
    run("mirror", "push", place, "--all", "--jobs", "1", code=6)
    there.relay.fault = None
    before = len(there.relay.requests())
    assert "1 pushed, 2 there already" in run("mirror", "push", place, "--all").stderr
    written = {one.target for one in there.relay.requests()[before:] if one.method in {"PUT", "POST"}}
    assert not any(site.digest(member) in target for target in written for member in "AC")
    assert f"{prefix}/blobs/sha256/{site.digest('B')}" in sizes_in(there, prefix)


def test_what_is_missing_in_the_bucket_comes_from_the_origin(
    site: Site, run: Run, place: str, there: Cloud, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.*")
    run("mirror", "push", place, "--all")
    deleted(there, f"{prefix}/blobs/sha256/{site.digest('A')}")
    shutil.rmtree(site.home)
    told = run("mirror", "pull", place, "--locked", "weights.lock", code=6).stderr
    assert "no such object" in told
    assert blobs_in(site.home) == {site.digest("B")}
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    run("prefetch", "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest("A"), site.digest("B")}
    assert "1 pushed, 1 there already" in run("mirror", "push", place, "--all").stderr


def deleted(there: Cloud, key: str) -> None:
    import obstore  # an extra
    import obstore.store

    obstore.delete(obstore.store.from_url(f"{there.scheme}://weights", client_options={"allow_http": True}), key)


def test_a_bucket_with_other_bytes_publishes_none_of_them(
    site: Site, run: Run, place: str, there: Cloud, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.A")
    run("mirror", "push", place, "--all")
    there.put({f"{prefix}/blobs/sha256/{site.digest('A')}": bytes(len(site.data("A")))})
    shutil.rmtree(site.home)
    told = run("mirror", "pull", place, "--locked", "weights.lock", code=6).stderr
    assert f"weightstore mirror push {place} --all --check" in told
    assert "verify" not in told
    assert blobs_in(site.home) == set()
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    run("prefetch", "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest("A")}


def test_a_damaged_object_is_pushed_again_where_all_are_read(
    site: Site, run: Run, place: str, there: Cloud, prefix: str
) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", place, "--all")
    there.put({f"{prefix}/blobs/sha256/{site.digest('A')}": bytes(len(site.data("A")))})
    assert "0 pushed, 3 there already" in run("mirror", "push", place, "--all").stderr
    planned = run("mirror", "push", place, "--all", "--check", "--dry-run").stderr
    assert f"{place} has sha256:{site.digest('A')} damaged" in planned
    assert "1 file to push" in planned
    told = run("mirror", "push", place, "--all", "--check").stderr
    assert f"3 files to read back, 153.0 kB from {place}" in told
    assert "1 pushed, 2 there already" in told
    assert "damaged" not in run("mirror", "push", place, "--all", "--check").stderr
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", place, "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


@pytest.mark.parametrize("lost", ["manifest", "config"])
def test_a_lost_or_damaged_document_is_written_again_where_all_are_read(
    site: Site, run: Run, place: str, there: Cloud, prefix: str, lost: str
) -> None:
    run("prefetch", *ALL)
    run("mirror", "push", place, "--all")
    before = there.get(prefix)
    manifest = json.loads(before["index.json"])["manifests"][0]["digest"].partition(":")[2]
    config = json.loads(before[f"blobs/sha256/{manifest}"])["config"]["digest"].partition(":")[2]
    key = f"{prefix}/blobs/sha256/{manifest if lost == 'manifest' else config}"
    deleted(there, key)
    run("mirror", "push", place, "--all")
    assert key not in sizes_in(there, prefix)
    said = f"written again: what {place} had lost of 1 artifact"
    assert said in run("mirror", "push", place, "--all", "--check").stderr
    assert there.get(prefix) == before
    there.put({key: b"damaged"})
    assert json.loads(run("mirror", "push", place, "--all", "--check", "--json").stdout)["mended"] == 1
    assert there.get(prefix) == before
    assert "written again" not in run("mirror", "push", place, "--all", "--check").stderr


def test_an_object_whose_connection_breaks_while_it_is_looked_at_is_read_anew(
    site: Site, run: Run, place: str, there: Cloud, prefix: str
) -> None:
    run("prefetch", "Small_Weights.A")
    run("mirror", "push", place, "--all")
    failed: list[str] = []

    def fault(asked: Asked) -> Given | None:
        # obstore asks three times by itself
        if asked.method != "GET" or site.digest("A") not in asked.target or len(failed) == 4:
            return None
        failed.append(asked.target)
        return Given(503, {}, b"later")

    there.relay.fault = fault
    assert "0 pushed, 1 there already" in run("mirror", "push", place, "--all", "--check").stderr
    assert len(failed) == 4


@pytest.mark.parametrize("clouds", [AZURE], indirect=True)
def test_a_large_object_that_another_completes_at_the_same_moment_is_there(
    site: Site, run: Run, place: str, there: Cloud, prefix: str
) -> None:
    """Azure keeps the blocks of all who write an object together, and drops them when one is done."""
    url, data = served_large(site, run)
    digest = hashlib.sha256(data).hexdigest()
    others: list[bytes] = [data[:-1], data]  # the first time it is not what is wanted
    import obstore.store  # an extra

    behind = obstore.store.from_url(
        "az://weights", endpoint=f"{there.relay.upstream}/{ACCOUNT}", client_options={"allow_http": True}
    )

    def fault(asked: Asked) -> None:
        if asked.method == "PUT" and "comp=blocklist" in asked.target and digest in asked.target and others:
            obstore.put(behind, f"{prefix}/blobs/sha256/{digest}", iter([others.pop(0)]))

    there.relay.fault = fault
    assert "others wrote it at the same moment" in run("mirror", "push", place, url, code=6).stderr
    assert "1 pushed" in run("mirror", "push", place, url).stderr
    assert there.get(prefix)[f"blobs/sha256/{digest}"] == data
    assert others == []


def test_an_object_is_a_source(site: Site, run: Run, place: str, there: Cloud, prefix: str) -> None:
    data = random.Random(7).randbytes(60_000)
    there.put({f"{prefix}/models/net.pth": data})
    url = f"{place}/models/net.pth"
    run("prefetch", url)
    digest = hashlib.sha256(data).hexdigest()
    assert (site.home / "blobs/sha256" / digest).read_bytes() == data
    run("lock", "-o", "weights.lock", url)
    assert digest in Path("weights.lock").read_text()
    before = len(there.relay.requests())
    assert run("path", url).stdout.strip() == str(site.home / "blobs/sha256" / digest)
    assert len(there.relay.requests()) == before
    assert "no such object" in run("prefetch", f"{place}/models/none.pth", code=6).stderr


def test_doctor_tries_a_mirror_in_a_bucket(
    site: Site, run: Run, place: str, there: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prefetch", "Small_Weights.A")
    run("mirror", "push", place, "--all")
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    assert f"{place}: answers in" in run("doctor").stdout
    there.relay.fault = lambda _: Given(403, {})
    assert "no permission" in run("doctor").stdout
