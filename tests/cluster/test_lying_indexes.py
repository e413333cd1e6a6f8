"""Mirrors whose index lies: pull, status and push say so, and bring all the same what can be brought."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.lying import TEN_TB, judge, weightstore
from tests.cluster.test_mirror import blobs_in, index_in
from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour
from tests.servers.hostile import HostileServer
from weightstore.cluster.index import parse_index

NAMES = ("Small_Weights.A", "Small_Weights.B", "Other_Weights.C")
Index = dict[str, Any]


@pytest.fixture
def liar() -> Iterator[HostileServer]:
    with HostileServer(host="127.0.0.2") as liar:
        yield liar


@pytest.fixture
def kept(site: Site, run: Run, tmp_path: Path) -> Path:
    """An honest mirror of all weights in a directory, whose origin is gone; the user's store is empty."""
    run("lock", "-o", "weights.lock", *NAMES)
    run("mirror", "push", "mirror", "--all")
    shutil.rmtree(site.home)
    shutil.rmtree(site.state)
    site.server.stop()
    return tmp_path / "mirror"


def entry(index: Index, site: Site, member: str) -> Index:
    digest = f"sha256:{site.digest(member)}"
    return next(one for one in index["manifests"] if one["annotations"]["dev.weightstore.digest"] == digest)


def annotated(site: Site, index: Index, **changes: str) -> Index:
    """The index with the annotations of A changed."""
    entry(index, site, "A")["annotations"] |= {f"dev.weightstore.{key}": value for key, value in changes.items()}
    return index


def encoded(index: Index) -> bytes:
    return json.dumps(index).encode()


def twice(index: Index) -> bytes:
    return encoded(index).replace(b'"schemaVersion": 2', b'"schemaVersion": 2, "schemaVersion": 2')


BROKEN: dict[str, Callable[[Site, Index], bytes]] = {
    "no JSON": lambda site, index: b"<html>Sign in to the hotel's network</html>",
    "empty": lambda site, index: b"",
    "cut": lambda site, index: encoded(index)[:-20],
    "nested": lambda site, index: b"[" * 10_000_000,
    "nested in an object": lambda site, index: b'{"a":' * 2_000_000,
    "nested in an annotation": lambda site, index: encoded(annotated(site, index, sources="[" * 1_000_000)),
    "a field twice": lambda site, index: twice(index),
    "an entry twice": lambda site, index: encoded(index | {"manifests": index["manifests"] * 2}),
    "a digest that is a path": lambda site, index: encoded(annotated(site, index, digest="sha256:../../../evil")),
    "a digest without end": lambda site, index: encoded(annotated(site, index, digest="sha256:" + "0" * 1_000_000)),
    "a title that is a path": lambda site, index: encoded(index).replace(
        b'image.title": "a-', b'image.title": "../evil-'
    ),
    "a tag that is a path": lambda site, index: encoded(index).replace(
        b'"org.opencontainers.image.ref.name": "', b'"org.opencontainers.image.ref.name": "../evil'
    ),
    "a source that is a path": lambda site, index: encoded(
        annotated(site, index, sources='["file:///etc/passwd", "https://example.org/a"]')
    ),
    "a size that is none": lambda site, index: encoded(annotated(site, index, size="9" * 5000)),
    "a size below nothing": lambda site, index: encoded(annotated(site, index, size="-1")),
    "a name with control characters": lambda site, index: encoded(annotated(site, index, name="\x1b[2Jevil")),
    "a name that is written backwards": lambda site, index: encoded(annotated(site, index, name="A\u202eB")),
    "a number of 5000 digits": lambda site, index: encoded(index).replace(
        b'"schemaVersion": 2', b'"schemaVersion": ' + b"2" * 5000
    ),
    "not UTF-8": lambda site, index: encoded(index).replace(b"toys/", b"\xff\xfe"),
    "a list": lambda site, index: encoded(index["manifests"]),  # type: ignore[arg-type]
}
ON_ITS_WAY: dict[str, Behaviour] = {
    str(one): one
    for one in (
        does.endless_body(),
        does.endless_body(declared=None),
        does.declared_length(TEN_TB),
        does.truncate(100),
        does.reset(100),
        does.declared_length(by=-10),
        does.drip(50),
        does.stall(100, 600),
        does.dripping_head(),
        does.endless_continue(),
        does.gzip_encoding(),
        does.redirect("file:///etc/passwd"),
        does.redirect("/index.json"),
    )
}


def serve(liar: HostileServer, kept: Path, content: bytes, behaviours: tuple[Behaviour, ...] = ()) -> None:
    liar.serve_directory(kept)
    liar.serve("/index.json", content, behaviours)


def broken(what: str, site: Site, kept: Path, liar: HostileServer) -> None:
    honest = (kept / "index.json").read_bytes()
    if what in BROKEN:
        serve(liar, kept, BROKEN[what](site, json.loads(honest)))
    else:
        serve(liar, kept, honest, (ON_ITS_WAY[what],))


@pytest.mark.parametrize("what", [*BROKEN, *ON_ITS_WAY])
def test_an_index_that_cannot_be_read_is_told_of_once_and_what_is_locked_comes_all_the_same(
    site: Site, kept: Path, liar: HostileServer, what: str
) -> None:
    broken(what, site, kept, liar)
    for command in (("pull", liar.url("/"), "--all", "--trust-mirror"), ("status", liar.url("/"))):
        done = weightstore("mirror", *command, code=None)
        assert done.code in {6, 8}, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {liar.url('/')}")
        assert "index.json" in line
        assert len(line) < 500
        if done.code == 8:
            assert "weightstore --home DIR mirror index" in line
    judge(site)
    weightstore("mirror", "pull", liar.url("/"), "--locked", "weights.lock")
    judge(site, "A", "B", "C")


def test_a_size_of_10_tb_keeps_nothing_from_coming(site: Site, kept: Path, liar: HostileServer) -> None:
    index = json.loads((kept / "index.json").read_bytes())
    serve(liar, kept, encoded(annotated(site, index, size=str(TEN_TB))))
    weightstore("mirror", "pull", liar.url("/"), "--all", "--trust-mirror")
    judge(site, "A", "B", "C")


def test_a_size_of_10_tb_that_is_served_as_well_fails_for_one_file(site: Site, kept: Path, liar: HostileServer) -> None:
    """The origin's URL is in no catalog here, so that nobody but the mirror says how large it is."""
    index = json.loads((kept / "index.json").read_bytes())
    serve(liar, kept, encoded(annotated(site, index, size=str(TEN_TB))))
    liar.serve(f"/blobs/sha256/{site.digest('A')}", site.data("A"), does.endless_body())
    without_catalog = {"WEIGHTSTORE_CATALOGS": ""}
    done = weightstore("mirror", "pull", liar.url("/"), "--all", "--trust-mirror", code=6, **without_catalog)
    judge(site, "B", "C")
    (line,) = done.lines_about("127.0.0.2")
    assert line.startswith("error: ")
    assert str(TEN_TB) in line


@pytest.mark.parametrize("size", ["0", "1", "49999", "50001", str(10**9)])
def test_a_size_that_is_a_little_wrong_brings_no_wrong_byte(
    site: Site, kept: Path, liar: HostileServer, size: str
) -> None:
    index = json.loads((kept / "index.json").read_bytes())
    serve(liar, kept, encoded(annotated(site, index, size=size)))
    weightstore("mirror", "pull", liar.url("/"), "--all", "--trust-mirror")
    judge(site, "A", "B", "C")


def test_an_index_that_swaps_digests_fails_at_the_pins_of_names(site: Site, kept: Path, liar: HostileServer) -> None:
    text = (kept / "index.json").read_text()
    a, b = site.digest("A"), site.digest("B")
    serve(liar, kept, text.replace(a, "X").replace(b, a).replace("X", b).encode())
    done = weightstore("mirror", "pull", liar.url("/"), *NAMES, "--trust-mirror", code=4)
    judge(site, "C")
    lines = [line for line in done.stderr.splitlines() if "and the pin is" in line]
    assert len(lines) == 2


def test_blobs_that_are_not_what_the_index_says_are_named_and_the_others_come(
    site: Site, kept: Path, liar: HostileServer
) -> None:
    serve(liar, kept, (kept / "index.json").read_bytes())
    liar.serve(f"/blobs/sha256/{site.digest('A')}", site.data("A")[::-1])
    done = weightstore("mirror", "pull", liar.url("/"), "--all", "--trust-mirror", code=6)
    judge(site, "B", "C")
    (line,) = done.lines_about("127.0.0.2")
    for part in ("error: ", "Small_Weights.A", site.digest("A"), "verify --repair"):
        assert part in line


def test_sources_that_are_paths_in_disguise_lead_nowhere(
    site: Site, kept: Path, liar: HostileServer, tmp_path: Path
) -> None:
    """Whoever trusts the mirror has its word on sources; a view of these stays in its directory."""
    index = json.loads((kept / "index.json").read_bytes())
    sources = json.dumps(
        ["https://x.example/..%2f..%2f..%2fevil.pth", "https://x.example/a/../../evil.pth", "https://x.example/.."]
    )
    serve(liar, kept, encoded(annotated(site, index, sources=sources, name="../../evil")))
    weightstore("mirror", "pull", liar.url("/"), "--all", "--trust-mirror", WEIGHTSTORE_CATALOGS="")
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "views")}
    for kind in ("torch-hub", "fvcore", "huggingface"):
        weightstore("view", kind, tmp_path / "views" / kind, code=None)
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "views")}
    assert {path for path in after - before if site.state not in path.parents and path != site.state} == set()
    for path in (tmp_path / "views").rglob("*"):
        ends = path.resolve()
        assert ends.is_relative_to(tmp_path / "views") or ends.parent == site.home / "blobs/sha256"
    judge(site, "A", "B", "C")


def test_what_the_index_claims_to_have_and_has_not_is_told_at_the_pull(
    site: Site, kept: Path, liar: HostileServer
) -> None:
    serve(liar, kept, (kept / "index.json").read_bytes())
    (kept / "blobs/sha256" / site.digest("A")).unlink()
    assert "only in the mirror" in weightstore("mirror", "status", liar.url("/")).stderr
    done = weightstore("mirror", "pull", liar.url("/"), "--locked", "weights.lock", code=6)
    judge(site, "B", "C")
    (line,) = done.lines_about("127.0.0.2")
    assert "weightstore mirror push" in line


# -- pushing to a place whose index lies ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", BROKEN)
def test_a_push_to_a_directory_whose_index_is_broken_says_how_to_mend_it(
    site: Site, run: Run, kept: Path, what: str
) -> None:
    weightstore("mirror", "pull", kept, "--locked", "weights.lock")
    index = kept / "index.json"
    honest, wrong = index.read_bytes(), BROKEN[what](site, json.loads(index.read_bytes()))
    index.unlink()
    index.write_bytes(wrong)
    (kept / "blobs/sha256" / site.digest("A")).unlink()
    for command in (("push", kept, "--all"), ("status", kept)):
        done = weightstore("mirror", *command, code=8)
        (line,) = done.stderr.splitlines()
        assert f"weightstore --home {kept} mirror index" in line
        assert len(line) < 500 + len(str(kept))
    assert index.read_bytes() == wrong
    run("--home", kept, "mirror", "index")
    weightstore("mirror", "push", kept, "--all")
    assert blobs_in(kept) == {site.digest(member) for member in "ABC"}
    before = parse_index(honest, place="index.json")
    assert {one.digest for one in index_in(kept).entries} == {one.digest for one in before.entries}


def test_a_directory_that_claims_what_it_has_not_is_sent_it(site: Site, kept: Path) -> None:
    weightstore("mirror", "pull", kept, "--locked", "weights.lock")
    for member in "AB":
        (kept / "blobs/sha256" / site.digest(member)).unlink()
    (kept / "blobs/sha256" / site.digest("B")).write_bytes(b"short")
    done = json.loads(weightstore("mirror", "push", kept, "--all", "--json", code=None).stdout)
    pushed = {one["digest"].removeprefix("sha256:") for one in done["blobs"] if one["status"] == "pushed"}
    assert site.digest("A") in pushed
    assert (kept / "blobs/sha256" / site.digest("A")).read_bytes() == site.data("A")


@pytest.mark.parametrize("what", [*BROKEN, *ON_ITS_WAY])
def test_a_registry_whose_index_lies_is_told_of_once(site: Site, kept: Path, liar: HostileServer, what: str) -> None:
    weightstore("mirror", "pull", kept, "--locked", "weights.lock")
    broken(what, site, kept, liar)
    place = f"oci://127.0.0.2:{liar.port}/site/weights"
    content = BROKEN[what](site, json.loads((kept / "index.json").read_bytes())) if what in BROKEN else b"{}" * 500
    behaviours = () if what in BROKEN else (ON_ITS_WAY[what],)
    liar.serve("/v2/", b"{}")
    liar.serve("/v2/site/weights/manifests/weightstore-index", content, behaviours)
    for command in (("push", place, "--all"), ("status", place))[: 2 if what in BROKEN else 1]:
        done = weightstore("mirror", *command, code=None)
        assert done.code in {6, 8}, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {place}")
        assert len(line) < 500
    assert {request.method for request in liar.requests} == {"GET"}


@pytest.mark.parametrize(
    "behaviour", [does.drip(20), does.dripping_head(), does.endless_body(), does.delay(600)], ids=str
)
def test_a_registry_that_greets_for_ever_is_given_up(
    site: Site, kept: Path, liar: HostileServer, behaviour: Behaviour
) -> None:
    liar.serve("/v2/", b"{}" * 5000, behaviour)
    place = f"oci://127.0.0.2:{liar.port}/site/weights"
    done = weightstore("prefetch", "--locked", "weights.lock", WEIGHTSTORE_MIRRORS=f"{place} {kept}")
    judge(site, "A", "B", "C")
    assert len(done.lines_about("127.0.0.2")) == 1
