"""Files beside a mirror's index in a registry: what is made is read again, and what is none is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from weightstore.digest import Digest
from weightstore.errors import RefusedResponse, SourceNotFound
from weightstore.source import Source
from weightstore.transfer.attached import MANIFEST_LIMIT, attached_file, digest_of_attached, make_attached

FILE = Source("oci://registry.example.org/site/weights/signed-index.json")
FILES = {"signed-index.json": b"{}\n", "signed-index.json.sig": b"-----BEGIN"}


def test_what_is_made_is_read_again() -> None:
    manifest, blobs = make_attached(FILES)
    for name, data in FILES.items():
        assert blobs[digest_of_attached(manifest, name, source=FILE)] == data
    config = json.loads(manifest)["config"]
    assert blobs[Digest.parse(config["digest"])] == b"{}"
    assert config["size"] == 2


def test_equal_files_give_an_equal_manifest() -> None:
    assert make_attached(FILES) == make_attached(dict(FILES))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("oci://host/a/b/signed-index.json", ("oci://host/a/b", "signed-index.json")),
        ("oci://host:5000/a/signed-index.json.sig", ("oci://host:5000/a", "signed-index.json.sig")),
        ("oci://host/a/b", None),
        ("oci://host/a/b.json.d", None),
        (f"oci://host/a/blobs/sha256/{'0' * 64}", None),
    ],
)
def test_an_address_of_a_file_is_told_from_one_of_a_repository(url: str, found: tuple[str, str] | None) -> None:
    expected = (Source(found[0]), found[1]) if found is not None else None
    assert attached_file(Source(url)) == expected


def test_a_file_that_is_not_in_it_is_not_found() -> None:
    with pytest.raises(SourceNotFound, match="weightstore-signed has no such file"):
        digest_of_attached(make_attached(FILES)[0], "other.json", source=FILE)


def _with(**changes: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(json.loads(make_attached(FILES)[0]) | changes).encode()


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"[]",
        lambda: b"[" * 100_000,
        lambda: b" " * (MANIFEST_LIMIT + 1),
        _with(artifactType="application/vnd.example"),
        _with(layers={}),
        _with(layers=[1]),
        _with(layers=[{"digest": "sha256:../../x", "annotations": {}}]),
        _with(layers=[{"digest": f"sha256:{'0' * 64}"}]),
        _with(layers=[{"digest": f"sha256:{'0' * 64}", "annotations": []}]),
    ],
)
def test_what_is_no_such_manifest_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(RefusedResponse):
        digest_of_attached(make(), "signed-index.json", source=FILE)
