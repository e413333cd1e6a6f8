"""``mirror`` with an S3 server."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.test_mirror import ALL, blobs_in
from tests.servers.s3 import S3Server
from weightstore.transfer.bucket import PIECE

pytestmark = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("obstore", "moto", "flask_cors")),
    reason="obstore and moto are not installed",
)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as s3:
        yield s3


@pytest.fixture
def place(s3: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a prefix that nothing is under."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://weights/n{abs(hash(request.node.name)) % 10**9}"


def test_what_is_pushed_is_pulled_with_the_origin_off(site: Site, run: Run, place: str) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    assert "3 pushed" in run("mirror", "push", place, "--all").stderr
    assert "0 pushed, 3 there already" in run("mirror", "push", place, "--all").stderr
    assert json.loads(run("mirror", "status", place, "--json").stdout)["both"] == 3
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", place, "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


def test_a_bucket_is_a_mirror_like_any_other(site: Site, run: Run, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", place, "--all")
    shutil.rmtree(site.home)
    site.server.stop()
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    run("prefetch", "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


def test_a_blob_larger_than_a_piece_travels_in_parts(site: Site, run: Run, place: str) -> None:
    data = random.Random(5).randbytes(PIECE + 12345)
    url = site.server.serve("/large.pth", data)
    run("prefetch", url)
    run("mirror", "push", place, url)
    shutil.rmtree(site.home)
    digest = hashlib.sha256(data).hexdigest()
    run("mirror", "pull", place, f"{url}#sha256={digest}")
    assert (site.home / "blobs/sha256" / digest).read_bytes() == data


def test_a_damaged_blob_is_not_pushed(site: Site, run: Run, place: str, s3: S3Server) -> None:
    run("prefetch", "Small_Weights.A")
    found = site.blob("A").stat()
    site.blob("A").chmod(0o644)
    with site.blob("A").open("r+b") as file:
        file.write(b"\0\0\0\0")
    os.utime(site.blob("A"), ns=(found.st_atime_ns, found.st_mtime_ns))
    run("mirror", "push", place, "--all", code=8)
    assert not any(method == "PUT" and site.digest("A") in path and place[5:] in path for method, path in s3.requests())


def test_one_new_blob_for_a_mirror_of_many_is_as_many_requests_as_for_one_of_few(
    site: Site, run: Run, place: str, s3: S3Server
) -> None:
    def requests_of_one_more(name: str) -> int:
        url = site.server.serve(f"/{name}.pth", name.encode() * 100)
        run("prefetch", url)
        before = len(s3.requests())
        run("mirror", "push", place, "--all")
        return len(s3.requests()) - before

    run("prefetch", "Small_Weights.A")
    run("mirror", "push", place, "--all")
    few = requests_of_one_more("few")
    run("prefetch", *(site.server.serve(f"/many-{number}.pth", b"%d" % number * 50) for number in range(300)))
    run("mirror", "push", place, "--all")
    assert requests_of_one_more("many") == few


def test_a_bucket_that_does_not_exist_is_an_error_without_a_secret(site: Site, run: Run, place: str) -> None:
    run("prefetch", "Small_Weights.A")
    told = run("mirror", "push", place.replace("weights", "nowhere"), "--all", code=6).stderr
    assert "s3://nowhere" in told
    assert "secret" not in told
