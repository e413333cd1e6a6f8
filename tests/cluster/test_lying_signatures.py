"""Mirrors whose signed index lies: nothing of it is believed, the next source is used, and the user is told once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.cli.conftest import Run, Site
from tests.cluster.lying import judge, weightstore
from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour
from tests.servers.hostile import HostileServer
from tests.signing.test_sshsig import KEY, KEY_TEXT, private_file
from weightstore.digest import Digest
from weightstore.signing.document import SIGNATURE, SIGNED_INDEX, SignedEntry, SignedIndex
from weightstore.signing.sshsig import NAMESPACE, armoured, signed_bytes
from weightstore.source import Source

STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
SOON = timedelta(days=1)
NEWEST = 4_000_000_000


def signature_of(document: bytes, *, key: Ed25519PrivateKey = KEY, namespace: str = NAMESPACE) -> bytes:
    return armoured(key.public_key().public_bytes_raw(), namespace, key.sign(signed_bytes(document, namespace)))


@dataclass(frozen=True)
class Signed:
    """What a mirror serves as its signed index: the document, its signature, and how they come."""

    document: bytes
    signature: bytes
    on_document: tuple[Behaviour, ...] = ()
    on_signature: tuple[Behaviour, ...] = ()


def document_of(site: Site, *, version: int = NEWEST, expires: timedelta = SOON, swapped: bool = False) -> bytes:
    """What is true of the three weights; or, ``swapped``, each with the digest of another."""
    digests = dict(zip("ABC", "BCA" if swapped else "ABC", strict=True))
    entries = [
        SignedEntry(Source(url), Digest(site.digest(digests[member])), len(site.data(digests[member])), "")
        for member in "ABC"
        for url in (site.url(member), plain(site, member))
    ]
    return SignedIndex(version, datetime.now(UTC).replace(microsecond=0) + expires, tuple(entries)).encode()


def plain(site: Site, member: str) -> str:
    """The URL of some weights that says nothing of their digest."""
    return site.server.url(f"/plain_{member}.pth")


def well_signed(document: bytes, *on_document: Behaviour) -> Signed:
    return Signed(document, signature_of(document), on_document)


def forged(site: Site, key: Ed25519PrivateKey = KEY, namespace: str = NAMESPACE) -> Signed:
    document = document_of(site, swapped=True)
    return Signed(document, signature_of(document, key=key, namespace=namespace))


def twice(document: bytes) -> bytes:
    values = json.loads(document)
    values["entries"] += [{**one, "digest": f"sha256:{'0' * 64}"} for one in values["entries"]]
    return json.dumps(values).encode()


def changed(document: bytes, **fields: object) -> bytes:
    return json.dumps(json.loads(document) | fields).encode()


NESTED = b"[" * 10_000_000
LIES: dict[str, Callable[[Site], Signed]] = {
    "expired": lambda site: well_signed(document_of(site, expires=-SOON, swapped=True)),
    "by a stranger": lambda site: forged(site, STRANGER),
    "in another namespace": lambda site: forged(site, namespace="file"),
    "over other bytes": lambda site: Signed(document_of(site, swapped=True), signature_of(document_of(site))),
    "cut": lambda site: Signed(document_of(site)[:-20], signature_of(document_of(site))),
    "the document is cut on its way": lambda site: well_signed(document_of(site), does.truncate(200)),
    "no signature at all": lambda site: Signed(document_of(site, swapped=True), b"trust me"),
    "a signature without end": lambda site: Signed(document_of(site), b"-", (), (does.endless_body(declared=None),)),
    "a signature of 10 TB": lambda site: Signed(document_of(site), b"-", (), (does.endless_body(),)),
    "a signature that drips": lambda site: Signed(document_of(site), b"-" * 9999, (), (does.drip(30),)),
    "a document without end": lambda site: well_signed(document_of(site), does.endless_body(declared=None)),
    "a document of 10 TB": lambda site: well_signed(document_of(site), does.declared_length(10 * 10**12)),
    "a document that drips": lambda site: well_signed(document_of(site), does.drip(30)),
    "a document that stalls": lambda site: well_signed(document_of(site), does.stall(100, 600)),
    "a head that drips": lambda site: well_signed(document_of(site), does.dripping_head()),
    "redirects to a file": lambda site: well_signed(document_of(site), does.redirect("file:///etc/passwd")),
    "redirects to itself": lambda site: well_signed(document_of(site), does.redirect(f"/{SIGNED_INDEX}")),
    "nested": lambda site: well_signed(NESTED),
    "nested and by nobody": lambda site: Signed(NESTED, b"trust me"),
    "a field twice": lambda site: well_signed(b'{"version": 1, ' + document_of(site)[1:]),
    "a source twice": lambda site: well_signed(twice(document_of(site))),
    "an unknown field": lambda site: well_signed(changed(document_of(site), **{"x" * 1_000_000: 1})),
    "a number without end": lambda site: well_signed(
        document_of(site).replace(b'"format": 1', b'"format": ' + b"9" * 9999)
    ),
    "a digest that is a path": lambda site: well_signed(
        document_of(site).replace(site.digest("A").encode(), b"../../../evil" * 10)
    ),
    "a source that is a path": lambda site: well_signed(
        document_of(site).replace(plain(site, "A").encode(), b"file:///../../evil")
    ),
}


@pytest.fixture
def liar(site: Site) -> Iterator[HostileServer]:
    """It has the weights, as any mirror. What its index says is the lie."""
    with HostileServer(host="127.0.0.2") as liar:
        for member in "ABC":
            liar.serve(f"/blobs/sha256/{site.digest(member)}", site.data(member))
        yield liar


@pytest.fixture
def kept(site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An honest mirror whose index is signed by who may; and a user who believes that."""
    urls = [site.server.serve(f"/plain_{member}.pth", site.data(member)) for member in "ABC"]
    run("prefetch", "Small_Weights.*", "Other_Weights.C", *urls)
    run("mirror", "push", "mirror", "--all")
    run("mirror", "sign", "mirror", "--key", private_file(tmp_path))
    shutil.rmtree(site.home)
    shutil.rmtree(site.state)
    (tmp_path / "signers").write_text(f"ada@example.org ssh-ed25519 {KEY_TEXT}\n")
    monkeypatch.setenv("WEIGHTSTORE_ALLOWED_SIGNERS", str(tmp_path / "signers"))
    return tmp_path / "mirror"


def serve(liar: HostileServer, signed: Signed) -> None:
    liar.serve(f"/{SIGNED_INDEX}", signed.document, signed.on_document)
    liar.serve(f"/{SIGNATURE}", signed.signature, signed.on_signature)


@pytest.mark.parametrize("told", LIES)
def test_the_next_mirror_that_is_signed_says_what_names_mean(
    site: Site, kept: Path, liar: HostileServer, told: str
) -> None:
    serve(liar, LIES[told](site))
    site.server.stop()
    names = ("Small_Weights.A", "Small_Weights.B", "Other_Weights.C")
    done = weightstore("prefetch", *names, WEIGHTSTORE_MIRRORS=f"{liar.url('/')} {kept}")
    judge(site, "A", "B", "C")
    (line,) = done.lines_about("127.0.0.2")
    assert "is passed over" in line
    assert len(line) < 1000


@pytest.mark.parametrize("told", LIES)
def test_the_origin_says_what_it_is_where_no_mirror_is_believed(
    site: Site, kept: Path, liar: HostileServer, told: str
) -> None:
    serve(liar, LIES[told](site))
    urls = [plain(site, member) for member in "ABC"]
    done = weightstore("prefetch", *urls, WEIGHTSTORE_MIRRORS=liar.url("/"))
    judge(site, "A", "B", "C")
    assert len(done.lines_about("127.0.0.2")) == 1
    assert not (site.state / "signed").exists()


def test_an_old_index_is_not_believed_by_who_has_seen_a_newer_one(site: Site, kept: Path, liar: HostileServer) -> None:
    mirrors = {"WEIGHTSTORE_MIRRORS": f"{liar.url('/')} {kept}"}
    serve(liar, well_signed(document_of(site)))
    assert not weightstore("prefetch", plain(site, "A"), **mirrors).lines_about("127.0.0.2")
    serve(liar, well_signed(document_of(site, version=NEWEST - 1, swapped=True)))
    site.server.stop()
    done = weightstore("prefetch", plain(site, "B"), plain(site, "C"), **mirrors)
    judge(site, "A", "B", "C")
    (line,) = done.lines_about("127.0.0.2")
    assert "somebody serves an old one" in line


@pytest.mark.parametrize("what", [SIGNED_INDEX, SIGNATURE])
def test_an_index_that_was_taken_away_is_told_of(site: Site, kept: Path, liar: HostileServer, what: str) -> None:
    mirrors = {"WEIGHTSTORE_MIRRORS": f"{liar.url('/')} {kept}"}
    serve(liar, well_signed(document_of(site)))
    weightstore("prefetch", plain(site, "A"), **mirrors)
    liar.serve(f"/{what}", b"", does.status(404))
    site.server.stop()
    done = weightstore("prefetch", plain(site, "B"), plain(site, "C"), **mirrors)
    judge(site, "A", "B", "C")
    (line,) = done.lines_about("127.0.0.2")
    assert "took it away" in line


@pytest.mark.parametrize(
    "option", ['namespaces="file"', 'valid-before="20200101Z"', 'namespaces="!weightstore-index,*"']
)
def test_a_key_that_may_not_sign_this_now_is_not_believed(
    site: Site, kept: Path, liar: HostileServer, tmp_path: Path, option: str
) -> None:
    text = (tmp_path / "signers").read_text()
    (tmp_path / "signers").write_text(text.replace("ssh-ed25519", f"{option} ssh-ed25519"))
    serve(liar, well_signed(document_of(site, swapped=True)))
    done = weightstore("prefetch", *(plain(site, member) for member in "ABC"), WEIGHTSTORE_MIRRORS=liar.url("/"))
    judge(site, "A", "B", "C")
    assert len(done.lines_about("127.0.0.2")) == 1


def test_what_is_signed_is_held_against_the_bytes_and_the_next_mirror_gives_the_right_ones(
    site: Site, kept: Path, liar: HostileServer
) -> None:
    serve(liar, well_signed(document_of(site)))
    for member in "ABC":
        liar.serve(f"/blobs/sha256/{site.digest(member)}", site.data(member)[::-1])
    site.server.stop()
    mirrors = f"{liar.url('/')} {kept}"
    done = weightstore("prefetch", *(plain(site, member) for member in "ABC"), WEIGHTSTORE_MIRRORS=mirrors)
    judge(site, "A", "B", "C")
    (line,) = done.lines_about("127.0.0.2")
    assert "mirror passed over" in line


def test_what_is_signed_does_not_go_against_what_names_carry(site: Site, kept: Path, liar: HostileServer) -> None:
    """Also not where who may sign signs it: a wrong digest, or a size of 10 TB."""
    values = json.loads(document_of(site, swapped=True))
    serve(liar, well_signed(json.dumps(values).encode()))
    site.server.stop()
    names = ("Small_Weights.A", "Small_Weights.B", "Other_Weights.C")
    weightstore("prefetch", *names, WEIGHTSTORE_MIRRORS=f"{liar.url('/')} {kept}")
    judge(site, "A", "B", "C")
    shutil.rmtree(site.home)
    shutil.rmtree(site.state)
    values = json.loads(document_of(site))
    values["entries"] = [{**one, "size_bytes": 10 * 10**12} for one in values["entries"]]
    serve(liar, well_signed(json.dumps(values).encode()))
    weightstore("prefetch", *names, WEIGHTSTORE_MIRRORS=f"{liar.url('/')} {kept}")
    judge(site, "A", "B", "C")


@pytest.mark.parametrize("told", LIES)
def test_verify_says_that_it_is_not_to_be_believed(site: Site, kept: Path, liar: HostileServer, told: str) -> None:
    serve(liar, LIES[told](site))
    done = weightstore("mirror", "verify", liar.url("/"), code=None)
    assert done.code in {5, 6}, done.stderr
    assert len(done.lines_about("127.0.0.2")) == 1
    assert len(done.stderr) < 1000
