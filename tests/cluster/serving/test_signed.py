"""What was signed of what is served: in the store's layout and in the registry's, and who believes it."""

from __future__ import annotations

import json
import random
import subprocess
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import requests

from tests.cluster.serving.conftest import record
from weightstore.client import Client
from weightstore.cluster.index import build_index, write_index
from weightstore.cluster.sign import sign_mirror, signing_with
from weightstore.signing.document import SIGNATURE, SIGNED_INDEX
from weightstore.source import Source
from weightstore.store.layout import create_layout
from weightstore.store.receipts import Receipts

pytestmark = pytest.mark.needs("ssh-keygen")
DATA = random.Random(1).randbytes(300_000)
SOURCE = "https://models.invalid/net.pth"  # without a digit of its digest


@pytest.fixture
def signers(tmp_path):
    """Ada's key, and a file of her as the one who may sign."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / "key"], check=True)
    signers = tmp_path / "signers"
    signers.write_text(f"ada@example.org {(tmp_path / 'key.pub').read_text()}")
    return signers


@pytest.fixture
def sign(signers, tmp_path):
    def sign(layout):
        receipts, now = Receipts(tmp_path / "signers-state"), datetime.now(UTC)
        write_index(layout, build_index(layout, []), receipts=receipts)
        sign_mirror(
            layout.root,
            make_signature=signing_with(tmp_path / "key"),
            now=now,
            expires=now + timedelta(hours=1),
            receipts=receipts,
        )

    return sign


@pytest.fixture
def somebody(shared_config, signers, tmp_path):
    """Return the client of somebody who trusts Ada, and knows nothing else."""

    def somebody(mirror):
        return Client(
            shared_config.but(
                home=tmp_path / "mine",
                state=tmp_path / "my-state",
                mirrors=(Source(mirror),),
                allowed_signers=signers,
                order=("layers", "mirrors"),
            )
        )

    return somebody


def test_an_unpinned_source_is_resolved_by_whoever_trusts_the_signer(start, shared, sign, somebody):
    record(shared, SOURCE, DATA)
    sign(shared)
    assert somebody(start().url).path(SOURCE).read_bytes() == DATA


def test_the_registrys_dialect_has_it_as_an_artifact(start, shared, sign, somebody):
    record(shared, SOURCE, DATA)
    sign(shared)
    url = start().url
    assert somebody(f"oci://{urlsplit(url).netloc}/weights").path(SOURCE).read_bytes() == DATA
    manifest = requests.get(f"{url}/v2/weights/manifests/weightstore-signed")
    digest = manifest.headers["Docker-Content-Digest"]
    assert requests.get(f"{url}/v2/weights/manifests/{digest}").content == manifest.content
    layers = {one["annotations"]["org.opencontainers.image.title"]: one["digest"] for one in manifest.json()["layers"]}
    for name in (SIGNED_INDEX, SIGNATURE):
        assert requests.get(f"{url}/v2/weights/blobs/{layers[name]}").content == (shared.root / name).read_bytes()
    assert requests.get(f"{url}/v2/weights/blobs/{manifest.json()['config']['digest']}").content == b"{}"
    assert requests.get(f"{url}/v2/weights/tags/list").json()["tags"] == ["net.pth"]


@pytest.mark.needs("skopeo")
def test_skopeo_copies_the_artifact(start, shared, sign, tmp_path):
    record(shared, SOURCE, DATA)
    sign(shared)
    source = f"docker://{urlsplit(start().url).netloc}/weights:weightstore-signed"
    command = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", source, f"oci:{tmp_path / 'copy'}:s"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    copied = {path.read_bytes() for path in (tmp_path / "copy/blobs/sha256").iterdir()}
    assert {(shared.root / name).read_bytes() for name in (SIGNED_INDEX, SIGNATURE)} <= copied


@pytest.mark.parametrize("name", [SIGNED_INDEX, SIGNATURE, "model.sig"])
def test_a_cache_asks_whether_it_changed_and_is_told(start, shared, sign, name):
    record(shared, SOURCE, DATA)
    sign(shared)
    (shared.root / "model.sig").write_bytes(b"{}")
    url = f"{start().url}/{name}"
    first = requests.get(url)
    assert first.content == (shared.root / name).read_bytes()
    assert first.headers["Cache-Control"] == "no-cache"
    known = {"If-None-Match": f'"other", W/{first.headers["ETag"]}'}
    unchanged = requests.get(url, headers=known)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["ETag"] == first.headers["ETag"]
    head = requests.head(url)
    assert (head.headers["Content-Length"], head.headers["ETag"]) == (str(len(first.content)), first.headers["ETag"])
    sign(shared)
    (shared.root / "model.sig").write_bytes(b'{"new": 1}')
    changed = requests.get(url, headers=known)
    assert (changed.status_code, changed.content) == (200, (shared.root / name).read_bytes())


def test_what_a_layer_signed_is_served_and_a_signature_over_its_files_is_not(
    start, shared, sign, somebody, shared_config, tmp_path
):
    layer = create_layout(tmp_path / "layer")
    record(layer, SOURCE, DATA)
    record(shared, "https://models.invalid/other.pth", DATA[1:])
    sign(layer)
    (layer.root / "model.sig").write_bytes(b"{}")
    url = start(config=shared_config.but(layers=(layer.root,))).url
    assert somebody(url).path(SOURCE).read_bytes() == DATA
    assert requests.get(f"{url}/model.sig").status_code == 404


def test_half_of_a_signature_is_none(start, shared, sign):
    record(shared, SOURCE, DATA)
    sign(shared)
    (shared.root / SIGNATURE).unlink()
    url = start().url
    assert [requests.get(f"{url}/{name}").status_code for name in (SIGNED_INDEX, SIGNATURE)] == [404, 404]
    refused = requests.get(f"{url}/v2/weights/manifests/weightstore-signed")
    assert (refused.status_code, json.loads(refused.text)["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
