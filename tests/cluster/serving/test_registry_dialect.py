"""The registry's dialect, judged by skopeo; and what a client that counts on the specification sees."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from urllib.parse import urlsplit

import pytest
import requests

from tests.cluster.serving.conftest import record

DATA = random.Random(4).randbytes(150_000)
NAMES = ("a.pth", "b.pth", "c.safetensors")


@pytest.fixture
def three(shared):
    for number, name in enumerate(NAMES):
        record(shared, f"https://example.org/{name}", DATA[number:])
    return shared


@pytest.mark.needs("skopeo")
def test_skopeo_lists_inspects_and_copies(start, three, tmp_path):
    host = urlsplit(start(token="s3cret").url).netloc
    access = ("--tls-verify=false", "--creds", "anybody:s3cret")

    def skopeo(*arguments: str) -> str:
        command = ["skopeo", "--insecure-policy", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    tags = json.loads(skopeo("list-tags", *access, f"docker://{host}/weights"))["Tags"]
    assert tags == list(NAMES)
    manifest = json.loads(skopeo("inspect", "--raw", *access, f"docker://{host}/weights:b.pth"))
    assert manifest["layers"][0]["digest"] == f"sha256:{hashlib.sha256(DATA[1:]).hexdigest()}"
    target = tmp_path / "copy"
    source_access = ("--src-tls-verify=false", "--src-creds", "anybody:s3cret")
    skopeo("copy", *source_access, f"docker://{host}/weights:b.pth", f"oci:{target}:b.pth")
    copied = target / "blobs" / "sha256" / hashlib.sha256(DATA[1:]).hexdigest()
    assert copied.read_bytes() == DATA[1:]


def test_manifests_are_served_by_tag_and_digest_and_name_what_they_are(start, three):
    url = start().url
    assert requests.get(f"{url}/v2/").headers["Docker-Distribution-API-Version"] == "registry/2.0"
    by_tag = requests.get(f"{url}/v2/weights/manifests/a.pth")
    digest = by_tag.headers["Docker-Content-Digest"]
    assert digest == f"sha256:{hashlib.sha256(by_tag.content).hexdigest()}"
    assert by_tag.headers["Content-Type"] == by_tag.json()["mediaType"]
    assert requests.get(f"{url}/v2/weights/manifests/{digest}").content == by_tag.content
    head = requests.head(f"{url}/v2/weights/manifests/{digest}")
    assert (head.headers["Content-Length"], head.content) == (str(len(by_tag.content)), b"")
    config = by_tag.json()["config"]["digest"]
    assert requests.get(f"{url}/v2/weights/blobs/{config}").json()["descriptor"]["title"] == "a.pth"
    layer = by_tag.json()["layers"][0]["digest"]
    assert requests.get(f"{url}/v2/weights/blobs/{layer}", headers={"Range": "bytes=5-"}).content == DATA[5:]


def test_the_index_lies_where_mirrors_in_registries_keep_it(start, three):
    url = start().url
    found = requests.get(f"{url}/v2/weights/manifests/weightstore-index")
    assert found.content == requests.get(f"{url}/index.json").content
    assert found.headers["Content-Type"] == "application/vnd.oci.image.index.v1+json"
    by_digest = requests.get(f"{url}/v2/weights/manifests/{found.headers['Docker-Content-Digest']}")
    assert by_digest.content == found.content
    assert "weightstore-index" not in requests.get(f"{url}/v2/weights/tags/list").json()["tags"]


def test_tags_come_in_pages(start, three):
    url = start().url
    first = requests.get(f"{url}/v2/weights/tags/list?n=2")
    assert first.json()["tags"] == ["a.pth", "b.pth"]
    assert requests.get(f"{url}{first.links['next']['url']}").json()["tags"] == ["c.safetensors"]


def test_the_one_repository_is_in_the_catalog(start, three):
    url = start().url
    found = requests.get(f"{url}/v2/_catalog")
    assert found.json() == {"repositories": ["weights"]}
    assert found.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    assert requests.get(f"{url}/v2/_catalog?n=1").json() == {"repositories": ["weights"]}
    assert "next" not in requests.get(f"{url}/v2/_catalog?n=1").links
    assert requests.get(f"{url}/v2/_catalog?n=5&last=weights").json() == {"repositories": []}
    assert requests.get(f"{start(token='s3cret').url}/v2/_catalog").status_code == 401


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("other/manifests/a.pth", 404, "NAME_UNKNOWN"),
        ("weights/manifests/none", 404, "MANIFEST_UNKNOWN"),
        (f"weights/manifests/sha256:{'0' * 64}", 404, "MANIFEST_UNKNOWN"),
        (f"weights/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        ("weights/blobs/sha512:00", 400, "DIGEST_INVALID"),
    ],
)
def test_what_is_not_here_is_told_as_registries_do(start, three, path, status, code):
    answer = requests.get(f"{start().url}/v2/{path}")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)
