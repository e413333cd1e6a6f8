"""What proves a file, what refutes it, and what says nothing."""

from __future__ import annotations

import hashlib
import os

import pytest

from tests.interop.shelf import NOON, digest_of
from weightstore.catalog.entries import Catalog
from weightstore.catalog.lockfile import Locked, Lockfile
from weightstore.interop.adopting.caches import Candidate, HubName
from weightstore.interop.adopting.proof import gather_claims, judge
from weightstore.records import Ref
from weightstore.source import Source

DATA = b"weights"
DIGEST = digest_of(DATA)
GIT = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest()
STAT = os.stat_result((0o100644, 1, 1, 1, 0, 0, len(DATA), 0, 0, 0))
CLIP = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"


def catalog(namespace: str, url: str, pin: str) -> Catalog:
    entry = {"source": url, "pin": pin}
    enum = {"builder": "tiny", "task": "x", "default": "A", "entries": {"A": entry}}
    return Catalog({"schema": 1, "namespace": namespace, "enums": {"Tiny_Weights": enum}}, place="here")


def verdict(name: str, *, catalogs=(), refs=(), lockfiles=None, digest=DIGEST, folder="", **facts):
    known = gather_claims(catalogs, refs, lockfiles or {})
    return judge(Candidate(name, name, STAT, **facts), digest=digest, git_id=GIT, known=known, folder=folder)


def test_a_forged_beginning_of_a_digest_is_refuted_by_who_knows_the_whole():
    name = f"tiny-{DIGEST.hex[:8]}.pth"
    whole = DIGEST.hex[:8] + "0" * 56
    refuted = verdict(name, catalogs=[catalog("x", f"https://h.example/{name}", whole)])
    assert refuted.answer == "refuted"
    assert f"says sha256:{whole}" in refuted.reason
    others = verdict(name, catalogs=[catalog("x", f"https://h.example/{name}", "f" * 64)])
    assert others.answer == "proven", "another file of that name says nothing of this one"


def test_the_digest_in_a_name_proves_and_refutes():
    assert verdict(f"tiny-{DIGEST.hex[:8]}.pth").answer == "proven"
    refuted = verdict("tiny-deadbeef.pth")
    assert refuted.answer == "refuted"
    assert "its name says sha256:deadbeef" in refuted.reason


def test_a_name_without_a_digest_proves_nothing():
    assert verdict("tiny.pth").answer == "unproven"
    assert verdict("tiny-20240131.pth").answer == "unproven"


def test_a_catalog_that_knows_the_name_proves_and_refutes():
    url = "https://h.example/m/tiny.pth"
    proven = verdict("tiny.pth", catalogs=[catalog("a", url, DIGEST.hex)])
    assert (proven.answer, proven.sources) == ("proven", (Source(url),))
    assert "Tiny_Weights.A" in proven.by
    assert verdict("tiny.pth", catalogs=[catalog("a", url, "deadbeef")]).answer == "refuted"


def test_of_two_urls_with_one_file_name_the_digest_decides():
    ours, other = "https://one.example/tiny.pth", "https://two.example/tiny.pth"
    catalogs = [catalog("a", other, "deadbeef"), catalog("b", ours, DIGEST.hex[:12])]
    assert verdict("tiny.pth", catalogs=catalogs).sources == (Source(ours),)


def test_an_earlier_download_of_the_same_content_proves_whatever_the_name_is():
    ref = Ref(Source("https://h.example/a.pth"), DIGEST, len(DATA), NOON)
    assert verdict("renamed.pth", refs=[ref]).sources == (ref.source,)
    assert verdict("a.pth", refs=[ref], digest=digest_of(b"other")).answer == "refuted"


def test_a_lockfile_proves_and_refutes():
    lockfile = Lockfile((Locked("a", Source("https://h.example/a.pth"), DIGEST, len(DATA)),))
    proven = verdict("renamed.pth", lockfiles={"weights.lock": lockfile})
    assert (proven.answer, proven.by) == ("proven", "weights.lock")
    assert verdict("a.pth", lockfiles={"weights.lock": lockfile}, digest=digest_of(b"x")).answer == "refuted"


def test_what_openai_serves_is_proven_by_its_content():
    from weightstore.digest import Digest

    proven = verdict("ViT-B-32.pt", digest=Digest(CLIP), folder="clip")
    assert proven.sources == (Source(f"https://openaipublic.azureedge.net/clip/models/{CLIP}/ViT-B-32.pt"),)
    assert verdict("ViT-B-32.pt", folder="clip").answer == "refuted"
    assert verdict("ViT-B-32.pt", folder="mine").answer == "unproven", "others use the name as well"


@pytest.mark.parametrize("etag", [DIGEST.hex, GIT])
def test_the_hubs_name_proves_by_either_algorithm(etag):
    name = HubName(Source("hf://org/m@main/w.bin"), "a" * 40)
    proven = verdict(etag, etag=etag, hub_names=(name,))
    assert (proven.answer, proven.sources) == ("proven", (name.source,))


@pytest.mark.parametrize("etag", ["b" * 40, "b" * 64])
def test_the_hubs_name_refutes(etag):
    assert verdict(etag, etag=etag).answer == "refuted"
