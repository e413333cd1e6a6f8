"""Mirrors that lie: never a wrong byte published, the next source used, the user told once, within a bounded time.

Commands run in processes of their own against a hostile server. What the lies are is a table; the ways in which a
mirror is used are the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.lying import BOUND_S, LIES, QUICK, Lie, judge, weightstore
from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour
from tests.servers.hostile import HostileServer
from tests.servers.tls import Certificates, make_certificates

NAMES = ("Small_Weights.*", "Other_Weights.C")


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


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def kept(site: Site, run: Run, tmp_path: Path) -> Path:
    """An honest mirror of all weights in a directory, with a lockfile beside it; the user's store is empty."""
    run("lock", "-o", "weights.lock", *NAMES)
    run("mirror", "push", "mirror", "--all")
    shutil.rmtree(site.home)
    shutil.rmtree(site.state)
    return tmp_path / "mirror"


def serve(liar: HostileServer, other: HostileServer, site: Site, told: Lie, members: str, kind: str = "web") -> str:
    """Have a liar lie of some weights, and serve the others well; return its address as a mirror of that kind."""
    for member in "ABC":
        path = blob_path(kind, site.digest(member))
        if member in members:
            liar.serve(path, told.content(site.data(member)), told.behaviours(other, path))
        else:
            liar.serve(path, site.data(member))
    if kind == "oci":
        liar.serve("/v2/", b"{}")
        return f"oci://127.0.0.2:{liar.port}/site/weights"
    return liar.url("/") if kind == "web" else "s3://weights/site"


def bucket(liar: HostileServer) -> dict[str, str]:
    """What makes a liar the S3 that is asked."""
    return {
        "AWS_ENDPOINT_URL": liar.url(""),
        "AWS_ACCESS_KEY_ID": "ada",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }


def blob_path(kind: str, digest: str) -> str:
    """The path at which clients of a kind of mirror ask for a blob."""
    below = {"web": "/blobs/sha256/", "oci": "/v2/site/weights/blobs/sha256:", "s3": "/weights/site/blobs/sha256/"}
    return below[kind] + digest


@pytest.mark.parametrize("kind", ["web", "oci", "s3"])
@pytest.mark.parametrize("told", LIES, ids=str)
def test_of_locked_weights_the_next_mirror_is_asked(
    site: Site, kept: Path, liar: HostileServer, other: HostileServer, told: Lie, kind: str
) -> None:
    mirrors = f"{serve(liar, other, site, told, 'ABC', kind)} {kept}"
    site.server.stop()
    done = weightstore("prefetch", "--locked", "weights.lock", WEIGHTSTORE_MIRRORS=mirrors, **bucket(liar))
    judge(site, "A", "B", "C")
    # After a cut obstore goes on by itself, and finds that the rest is right.
    mended = kind == "s3" and told.name in {"cut in the middle", "cut by a reset"}
    assert len(done.lines_about("passed over")) == (0 if mended else 1), done.stderr


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


def test_a_redirect_to_another_host_that_has_the_right_bytes_is_no_lie(
    site: Site, kept: Path, liar: HostileServer, other: HostileServer
) -> None:
    for member in "ABC":
        path = blob_path("web", site.digest(member))
        liar.serve(path, b"", does.redirect(other.serve(path, site.data(member))))
    site.server.stop()
    done = weightstore("prefetch", "--locked", "weights.lock", WEIGHTSTORE_MIRRORS=liar.url("/"))
    judge(site, "A", "B", "C")
    assert "passed over" not in done.stderr


def test_from_https_nothing_leads_to_http(
    site: Site, kept: Path, other: HostileServer, certificates: Certificates
) -> None:
    """Not even to the right bytes: who is in between could have changed where it leads."""
    with HostileServer(host="127.0.0.2", tls=certificates) as liar:
        for member in "ABC":
            path = blob_path("web", site.digest(member))
            liar.serve(path, b"", does.redirect(other.serve(path, site.data(member))))
        site.server.stop()
        mirrors = {"WEIGHTSTORE_MIRRORS": f"{liar.url('/')} {kept}", "WEIGHTSTORE_CA_BUNDLE": str(certificates.ca)}
        done = weightstore("prefetch", "--locked", "weights.lock", **mirrors)
    judge(site, "A", "B", "C")
    (line,) = done.lines_about("127.0.0.2")
    assert "redirects from https to http" in line
    assert not other.requests


def test_one_that_only_just_goes_on_is_no_help_where_there_is_another(
    site: Site, kept: Path, liar: HostileServer
) -> None:
    for member in "ABC":
        liar.serve(blob_path("web", site.digest(member)), site.data(member), does.rate_cap(3000))
    mirrors = f"{liar.url('/')} {kept}"
    done = weightstore("prefetch", "--locked", "weights.lock", WEIGHTSTORE_MIRRORS=mirrors)
    judge(site, "A", "B", "C")
    (line,) = done.lines_about("127.0.0.2")
    assert "bytes came in 1 seconds" in line


def test_what_a_liar_left_behind_spoils_nothing_in_the_next_run(
    site: Site, kept: Path, liar: HostileServer, other: HostileServer
) -> None:
    by_name = {told.name: told for told in LIES}
    serve(liar, other, site, by_name["wrong from the beginning, then cut"], "ABC")
    weightstore("mirror", "pull", liar.url("/"), "--locked", "weights.lock", code=6)
    judge(site)
    assert any(path.suffix == ".part" and path.stat().st_size for path in (site.home / "tmp").iterdir())
    weightstore("mirror", "pull", kept, "--locked", "weights.lock")
    judge(site, "A", "B", "C")
    assert list((site.home / "tmp").iterdir()) == []


def test_programs_are_told_of_a_liar_once_as_well(
    site: Site, kept: Path, liar: HostileServer, other: HostileServer
) -> None:
    by_name = {told.name: told for told in LIES}
    serve(liar, other, site, by_name["other bytes of the same size"], "ABC")
    urls = [f"{site.url(member)}#sha256={site.digest(member)}" for member in "ABC"]
    done = subprocess.run(
        [sys.executable, "-c", "import sys, weightstore\nfor url in sys.argv[1:]: weightstore.path(url)", *urls],
        env={**os.environ, **QUICK, "WEIGHTSTORE_MIRRORS": liar.url("/")},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    judge(site, "A", "B", "C")
    (line,) = done.stderr.splitlines()
    assert "mirror passed over: http://127.0.0.2" in line
    assert len(liar.requests) == 3


def test_several_that_lie_are_told_of_once_each(
    site: Site, kept: Path, liar: HostileServer, other: HostileServer
) -> None:
    by_name = {told.name: told for told in LIES}
    first = serve(liar, other, site, by_name["wrong from the beginning, then cut"], "ABC")
    site.server.stop()
    with HostileServer(host="127.0.0.4") as second:
        serve(second, other, site, by_name["other bytes of the same size"], "ABC")
        mirrors = f"{first} {second.url('/')} {kept}"
        done = weightstore("prefetch", "--locked", "weights.lock", WEIGHTSTORE_MIRRORS=mirrors)
    judge(site, "A", "B", "C")
    assert len(done.lines_about("127.0.0.2")) == 1
    assert len(done.lines_about("127.0.0.4")) == 1


def test_where_all_lie_the_error_says_what_each_did(
    site: Site, kept: Path, liar: HostileServer, other: HostileServer
) -> None:
    by_name = {told.name: told for told in LIES}
    serve(liar, other, site, by_name["other bytes of the same size"], "ABC")
    site.server.stop()
    with HostileServer(host="127.0.0.4") as second:
        serve(second, other, site, by_name["404"], "A")
        mirrors = {"WEIGHTSTORE_MIRRORS": f"{liar.url('/')} {second.url('/')}", "WEIGHTSTORE_ORDER": "layers,mirrors"}
        done = weightstore("prefetch", "--locked", "weights.lock", code=6, **mirrors)
    judge(site, "B", "C")
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for part in ("Small_Weights.A", site.digest("A"), "127.0.0.2", "127.0.0.4", "404", "verify --repair"):
        assert part in error


def test_in_a_directory_wrong_files_are_found_out_as_well(site: Site, kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "liar")
    blobs = {member: tmp_path / "liar/blobs/sha256" / site.digest(member) for member in "ABC"}
    for path in blobs.values():
        path.unlink()
    blobs["A"].write_bytes(site.data("A")[::-1])
    blobs["B"].symlink_to("/dev/zero")
    os.mkfifo(blobs["C"])
    site.server.stop()
    mirrors = f"{tmp_path / 'liar'} {kept}"
    done = weightstore("prefetch", "--locked", "weights.lock", WEIGHTSTORE_MIRRORS=mirrors)
    judge(site, "A", "B", "C")
    assert len(done.lines_about("/liar/")) == 1


def test_parts_without_end_of_an_object_are_not_taken(site: Site, kept: Path, liar: HostileServer) -> None:
    for member in "ABC":
        liar.serve(blob_path("s3", site.digest(member)), site.data(member), does.endless_parts())
    site.server.stop()
    mirrors = f"s3://weights/site {kept}"
    done = weightstore("prefetch", "--locked", "weights.lock", WEIGHTSTORE_MIRRORS=mirrors, **bucket(liar))
    judge(site, "A", "B", "C")
    assert len(done.lines_about("passed over")) == 1, done.stderr


ITSELF = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>weights</Name><IsTruncated>true</IsTruncated>
<NextContinuationToken>again</NextContinuationToken></ListBucketResult>"""


@pytest.mark.parametrize("behaviour", [(), does.drip(20), does.stall(20, 600), does.delay(600)], ids=str)
def test_a_listing_without_end_is_given_up(
    site: Site, kept: Path, liar: HostileServer, behaviour: tuple[Behaviour, ...] | Behaviour
) -> None:
    weightstore("mirror", "pull", kept, "--locked", "weights.lock")
    liar.serve("/weights", ITSELF, behaviour)
    liar.serve("/weights/site/index.json", (kept / "index.json").read_bytes())
    for command in ("push", "status"):
        arguments = ("mirror", command, "s3://weights/site", *(("--all",) if command == "push" else ()))
        done = weightstore(*arguments, code=6, **bucket(liar))
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: s3://weights/site")


def test_an_index_in_a_bucket_that_lies_is_told_of_once(site: Site, kept: Path, liar: HostileServer) -> None:
    content = (kept / "index.json").read_bytes()
    for behaviour in (does.endless_parts(), does.drip(20), does.stall(20, 600), does.declared_length(10**13)):
        liar.serve("/weights/site/index.json", content, behaviour)
        done = weightstore("mirror", "status", "s3://weights/site", code=6, **bucket(liar))
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: s3://weights/site")
