"""Names that only a signed index tells, on a machine without the catalog that they are from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.test_carried_signatures import become_somebody_else, key, make_key, sign_home, signed  # noqa: F401
from tests.cluster.test_mirror import blobs_in
from tests.servers import behaviours as does
from tests.servers.hostile import HostileServer
from weightstore.catalog.lockfile import Lockfile
from weightstore.client import Client
from weightstore.errors import UnknownName, UntrustedSource

NAME = "toys/Small_Weights.A"


@pytest.fixture
def web(site: Site, signed: None) -> Iterator[HostileServer]:  # noqa: F811
    """The store that Ada signed, on a web server that is this user's mirror."""
    with HostileServer(host="127.0.0.2") as web:
        web.serve_directory(site.home)
        yield web


@pytest.fixture
def stranger(site: Site, web: HostileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The empty store of somebody who has no such catalog and no origin, and allows Ada to sign."""
    home = become_somebody_else(site, monkeypatch, tmp_path)
    monkeypatch.delenv("WEIGHTSTORE_CATALOGS")
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", web.url(""))
    return home


@pytest.mark.parametrize("name", [NAME, "Small_Weights.A"])
def test_a_signed_name_is_fetched_where_no_catalog_has_it_and_found_offline(
    site: Site, run: Run, web: HostileServer, stranger: Path, name: str
) -> None:
    run("path", name, code=4)
    run("prefetch", name)
    assert blobs_in(stranger) == {site.digest("A")}
    before = len(web.requests)
    assert run("path", name).stdout.strip() == run("path", name, "--offline").stdout.strip()
    assert Client().path(name).read_bytes() == site.data("A")
    run("prefetch", name)
    assert len(web.requests) == before, "what is here needs no mirror"


def test_what_was_asked_for_once_is_known_by_name_offline(
    site: Site, run: Run, web: HostileServer, stranger: Path
) -> None:
    told = json.loads(run("why", NAME, "--json").stdout)
    assert (told["source"], told["digest"]) == (site.url("A"), f"sha256:{site.digest('A')}")
    before = len(web.requests)
    assert site.digest("A") in run("path", NAME, "--offline", code=4).stderr
    assert len(web.requests) == before


def test_a_pull_goes_by_a_signed_name_without_trusting_the_mirror(
    site: Site, run: Run, web: HostileServer, stranger: Path
) -> None:
    run("mirror", "pull", web.url(""), NAME)
    assert blobs_in(stranger) == {site.digest("A")}


def test_lock_and_show_know_a_signed_name(site: Site, run: Run, stranger: Path, tmp_path: Path) -> None:
    shown = json.loads(run("show", NAME, "--json").stdout)["weights"][0]
    assert (shown["qualified_name"], shown["source"]) == (NAME, site.url("A"))
    assert "ada@example.org" in run("show", NAME).stdout
    run("lock", NAME)
    (locked,) = Lockfile.read(tmp_path / "weights.lock").entries
    assert (locked.name, locked.digest.hex) == (NAME, site.digest("A"))
    run("lock", "--check")


def test_a_catalogs_name_is_never_looked_for_among_the_signed(
    site: Site, run: Run, web: HostileServer, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(site.catalog.read_text())
    document["enums"]["Small_Weights"]["entries"]["A"] |= {"source": site.url("B"), "pin": site.digest("B")}
    site.catalog.write_text(json.dumps(document))
    monkeypatch.setenv("WEIGHTSTORE_CATALOGS", str(site.catalog))
    run("prefetch", NAME)
    assert blobs_in(stranger) == {site.digest("B")}
    assert not [one for one in web.requests if "signed-index" in one.path]


def test_a_name_stays_known_when_the_index_has_expired_and_the_file_is_here(
    site: Site, run: Run, web: HostileServer, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prefetch", NAME)
    run("why", "toys/Small_Weights.B")
    for claim in (Path(str(stranger) + "-state") / "signed").iterdir():
        claim.chmod(0o600)
        claim.write_text(json.dumps(json.loads(claim.read_text()) | {"expires": "2020-01-01T00:00:00Z"}))
    run("path", NAME, "--offline")
    told = run("path", "toys/Small_Weights.B", "--offline", code=3).stderr
    assert "signed by ada@example.org, and that expired on 2020-01-01" in told
    assert "--trust-mirror" not in told
    assert "--sha256" not in told


def test_a_name_by_a_key_that_was_taken_back_does_not_count(
    run: Run, web: HostileServer, stranger: Path, tmp_path: Path
) -> None:
    run("prefetch", NAME)
    (tmp_path / "signers").write_text("")
    make_key(tmp_path / "bob")
    told = run("path", NAME, "--offline", code=3).stderr
    assert "which your allowed_signers does not allow" in told
    for command in (("prefetch", NAME), ("mirror", "pull", web.url(""), NAME)):
        told = run(*command, code=3).stderr
        assert "nobody in allowed_signers has the key" in told
        assert "--trust-mirror" not in told


def test_an_unknown_name_is_told_as_ever_where_nobody_signs(
    run: Run, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run("prefetch", "toys/Nothing_Weights.X", code=3).stderr
    monkeypatch.delenv("WEIGHTSTORE_ALLOWED_SIGNERS")
    assert run("prefetch", "toys/Nothing_Weights.X", code=3).stderr == told
    with pytest.raises(UnknownName):
        Client().path(NAME)


@pytest.fixture
def impatient(web: HostileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HostileServer:
    """The signed mirror, whose index does not answer the first time, for a user with an empty store and the catalog."""
    web.serve(
        "/signed-index.json.sig", (tmp_path / "store/signed-index.json.sig").read_bytes(), does.no_answer(times=1)
    )
    settings = {"HOME": tmp_path / "users", "STATE": tmp_path / "users-state", "MIRRORS": web.url("")}
    for name, value in {**settings, "READ_TIMEOUT_S": "0.5", "RETRIES": "0"}.items():
        monkeypatch.setenv(f"WEIGHTSTORE_{name}", str(value))
    return web


def test_an_index_that_did_not_answer_is_not_waited_for_again_where_the_origin_tells(
    run: Run, impatient: HostileServer
) -> None:
    run("prefetch", "toys/Small_Weights.A")
    before = len(impatient.requests)
    assert before
    told = run("prefetch", "toys/Small_Weights.B").stderr
    assert len(impatient.requests) == before
    assert "was not asked: it did not answer" in told
    assert "WEIGHTSTORE_ORDER=layers,mirrors" in told
    assert "not asked: it did not answer" in run("why", "toys/Other_Weights.C").stdout
    assert len(impatient.requests) == before


@pytest.mark.parametrize("setting", [("ORDER", "layers,mirrors"), ("CATALOGS", "none")])
def test_it_is_asked_again_where_nobody_else_can_tell(
    run: Run, impatient: HostileServer, monkeypatch: pytest.MonkeyPatch, setting: tuple[str, str]
) -> None:
    run("prefetch", "toys/Small_Weights.B")
    monkeypatch.setenv(f"WEIGHTSTORE_{setting[0]}", setting[1])
    before = len(impatient.requests)
    run("prefetch", NAME)
    assert [one for one in impatient.requests[before:] if "signed-index" in one.path]


def test_it_is_asked_again_of_what_the_origin_is_not_trusted_with(
    site: Site, run: Run, impatient: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prefetch", "toys/Small_Weights.B")
    monkeypatch.setenv("WEIGHTSTORE_TRUST", "pinned")
    before = len(impatient.requests)
    run("prefetch", site.server.serve("/plain.pth", b"weights"), code=UntrustedSource.exit_code)
    assert [one for one in impatient.requests[before:] if "signed-index" in one.path]
