"""The store's own layout over HTTP: what is served, how, and what never is."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import requests
from urllib3.exceptions import ProtocolError

from tests.cluster.serving.conftest import put, record
from tests.servers.tls import make_certificates
from weightstore.client import Client
from weightstore.cluster.index import build_index, make_entry, model_index, parse_index, write_index
from weightstore.cluster.sign import sign_mirror, signing_with
from weightstore.digest import Digest
from weightstore.signing.document import SIGNATURE, SIGNED_INDEX
from weightstore.source import Source
from weightstore.store.layout import create_layout
from weightstore.store.receipts import Receipts

DATA = random.Random(1).randbytes(300_000)


def _raw(url: str, target: str, method: str = "GET", headers: dict[str, str] | None = None):
    """Ask for a target as it stands: no library tidies it up."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def test_a_blob_is_served_with_what_caches_need(start, shared):
    digest = put(shared, DATA)
    answer = requests.get(f"{start().url}/blobs/sha256/{digest.hex}")
    assert answer.content == DATA
    assert answer.headers["ETag"] == f'"{digest}"'
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_head_is_get_without_the_body(start, shared):
    digest = put(shared, DATA)
    url = f"{start().url}/blobs/sha256/{digest.hex}"
    head, whole = requests.head(url), requests.get(url)
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers, "Date": ""} == {**whole.headers, "Date": ""}


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        ("bytes=5-99999999", 5, len(DATA)),
        ("bytes=-99999999", 0, len(DATA)),
    ],
)
def test_a_range_is_served(start, shared, asked, first, end):
    digest = put(shared, DATA)
    answer = requests.get(f"{start().url}/blobs/sha256/{digest.hex}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, DATA[first:end])
    assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(DATA)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=9-3", "bytes=x-", "lines=1-2", "bytes=--1", "bytes=-"])
def test_what_is_no_single_range_gets_the_whole(start, shared, asked):
    digest = put(shared, DATA)
    answer = requests.get(f"{start().url}/blobs/sha256/{digest.hex}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, DATA)


@pytest.mark.parametrize("asked", [f"bytes={len(DATA)}-", "bytes=-0", f"bytes={10**17}-"])
def test_a_range_beyond_the_end_is_416_and_says_how_long_the_file_is(start, shared, asked):
    digest = put(shared, DATA)
    answer = requests.get(f"{start().url}/blobs/sha256/{digest.hex}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(DATA)}"


def test_conditions_are_compared_with_the_digest(start, shared):
    digest = put(shared, DATA)
    url = f"{start().url}/blobs/sha256/{digest.hex}"
    mine, other = f'"{digest}"', f'"sha256:{"0" * 64}"'
    assert requests.get(url, headers={"If-None-Match": mine}).status_code == 304
    assert requests.get(url, headers={"If-None-Match": f"{other}, W/{mine}"}).status_code == 304
    assert requests.get(url, headers={"If-None-Match": other}).content == DATA
    assert requests.get(url, headers={"If-Match": other}).status_code == 412
    assert requests.get(url, headers={"Range": "bytes=0-9", "If-Range": mine}).content == DATA[:10]
    assert requests.get(url, headers={"Range": "bytes=0-9", "If-Range": other}).content == DATA


def test_an_empty_blob_is_served(start, shared):
    digest = put(shared, b"")
    answer = requests.get(f"{start().url}/blobs/sha256/{digest.hex}")
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0")


def test_a_damaged_blob_is_never_served(start, shared):
    digest = put(shared, DATA)
    path = shared.blob(digest)
    path.chmod(0o644)
    path.write_bytes(DATA[:-1] + b"?")
    served = start()
    for method in ("GET", "HEAD"):
        assert requests.request(method, f"{served.url}/blobs/sha256/{digest.hex}").status_code == 404
    assert any("was damaged" in note for note in served.notes)


def test_a_blob_that_is_damaged_after_it_was_served_is_not_served_again(start, shared):
    digest = put(shared, DATA)
    url = f"{start().url}/blobs/sha256/{digest.hex}"
    assert requests.get(url).content == DATA
    path = shared.blob(digest)
    path.chmod(0o644)
    path.write_bytes(b"x" * len(DATA))
    assert requests.get(url).status_code == 404


def test_a_good_copy_of_another_layer_is_served_in_the_place_of_a_damaged_one(start, shared, shared_config, tmp_path):
    layer = create_layout(tmp_path / "layer")
    digest = put(layer, DATA)
    put(shared, DATA)
    layer.blob(digest).chmod(0o644)
    layer.blob(digest).write_bytes(b"other")
    served = start(config=shared_config.but(layers=(layer.root,)))
    assert requests.get(f"{served.url}/blobs/sha256/{digest.hex}").content == DATA


def test_a_link_is_never_followed(start, shared, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    digest = put(shared, DATA)
    os.unlink(shared.blob(digest))
    os.symlink(secret, shared.blob(digest))
    assert requests.get(f"{start().url}/blobs/sha256/{digest.hex}").status_code == 404


@pytest.mark.parametrize("prefix", ["", "/blobs/sha256", "/blobs", "/refs", "/o/m/resolve/main", "/v2/weights/blobs"])
@pytest.mark.parametrize("step", ["..", "%2e%2e", "%2E.", "..%2f", "%2e%2e%2f", "..%5c", "%252e%252e", ".%00."])
def test_no_path_leads_out_of_what_is_served(start, shared, prefix, step):
    for name in ("tmp", "locks", "quarantine"):
        (shared.root / name / "store.json.part").write_bytes(b"SECRET")
    (shared.root / "secret").write_bytes(b"SECRET")
    (shared.root.parent / "secret").write_bytes(b"SECRET")
    url = start().url
    for target in (f"{prefix}/{step}/secret", f"{prefix}/{step}/{step}/secret", f"{prefix}/{step}/tmp/store.json.part"):
        status, _, body = _raw(url, target)
        assert status in {400, 404}
        assert b"SECRET" not in body


@pytest.mark.parametrize(
    "target",
    ["/tmp/", "/tmp/x.part", "/locks/x.lock", "/quarantine/x", "/CACHEDIR.TAG", "/blobs/", "/blobs/sha256/", "/refs/"],
)
def test_nothing_else_of_the_directory_is_served(start, shared, target):
    for name in ("tmp/x.part", "locks/x.lock", "quarantine/x"):
        (shared.root / name).write_bytes(b"SECRET")
    assert _raw(start().url, target)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_is_written(start, shared, method):
    digest = put(shared, DATA)
    url = f"{start().url}/blobs/sha256/{digest.hex}"
    assert requests.request(method, url, data=b"x").status_code == 405
    assert requests.get(url).content == DATA


def test_refs_and_the_descriptions_of_the_store_are_served(start, shared):
    ref = record(shared, "https://example.org/a.pth", DATA)
    url = start().url
    assert requests.get(f"{url}/refs/{ref.source.key}.json").content == ref.encode()
    assert requests.get(f"{url}/refs/{'0' * 64}.json").status_code == 404
    assert requests.get(f"{url}/store.json").content == (shared.root / "store.json").read_bytes()
    assert requests.get(f"{url}/oci-layout").content == (shared.root / "oci-layout").read_bytes()
    written = build_index(shared, [])
    write_index(shared, written, receipts=Receipts(shared.root.parent / "writer"))
    assert requests.get(f"{url}/index.json").content == (shared.root / "index.json").read_bytes()


def _titles(url: str) -> list[str]:
    index = parse_index(requests.get(f"{url}/index.json").content, place="index.json")
    tags = requests.get(f"{url}/v2/weights/tags/list").json()["tags"]
    assert sorted(entry.ref_name for entry in index.entries) == tags
    for entry in index.entries:
        assert requests.get(f"{url}/v2/weights/manifests/{entry.ref_name}").json()["layers"][0]["digest"] == str(
            entry.digest
        )
    return sorted(entry.title for entry in index.entries)


def test_the_index_tells_what_came_and_went_since_it_was_written(start, shared, tmp_path):
    record(shared, "https://example.org/a.pth", DATA)
    gone = record(shared, "https://example.org/gone.pth", DATA[3:])
    url = start().url
    write_index(shared, build_index(shared, []), receipts=Receipts(tmp_path / "writer"))
    assert _titles(url) == ["a.pth", "gone.pth"]
    record(shared, "https://example.org/b.pth", DATA[1:])
    shared.blob(gone.digest).unlink()
    assert _titles(url) == ["a.pth", "b.pth"]


def test_what_a_written_index_names_and_no_ref_is_told_as_long_as_it_is_here(start, shared, tmp_path):
    digest = put(shared, DATA)
    entry, documents = make_entry(digest, len(DATA), sources=[Source("https://example.org/pushed.pth")], name="x/Y.Z")
    write_index(shared, model_index([entry], documents=documents), receipts=Receipts(tmp_path / "writer"))
    url = start().url
    assert _titles(url) == ["pushed.pth"]
    shared.blob(digest).unlink()
    assert _titles(url) == []


def test_the_indexes_of_several_layers_are_one(start, shared, shared_config, tmp_path):
    below = create_layout(tmp_path / "below")
    for layout, name, data in ((shared, "a.pth", DATA), (below, "b.pth", DATA[1:])):
        record(layout, f"https://example.org/{name}", data)
        write_index(layout, build_index(layout, []), receipts=Receipts(tmp_path / "writer"))
    assert _titles(start(config=shared_config.but(layers=(below.root,))).url) == ["a.pth", "b.pth"]


def test_manifests_that_other_tools_put_into_an_index_are_served_as_they_lie(start, shared):
    manifest = b'{"schemaVersion": 2, "config": {}, "layers": []}'
    kind = "application/vnd.oci.image.manifest.v1+json"
    described = {"mediaType": kind, "digest": str(put(shared, manifest)), "size": len(manifest)}
    absent = {**described, "digest": f"sha256:{'0' * 64}"}
    tagged = {**described, "annotations": {"org.opencontainers.image.ref.name": "theirs"}}
    text = json.dumps({"schemaVersion": 2, "manifests": [tagged, absent]})
    (shared.root / "index.json").write_text(text)
    url = start().url
    assert requests.get(f"{url}/index.json").json()["manifests"] == [tagged]
    assert requests.get(f"{url}/v2/weights/tags/list").json()["tags"] == ["theirs"]
    answer = requests.get(f"{url}/v2/weights/manifests/theirs")
    assert (answer.content, answer.headers["Content-Type"]) == (manifest, kind)


def test_an_index_that_is_damaged_is_noted_and_made_anew(start, shared):
    record(shared, "https://example.org/a.pth", DATA)
    (shared.root / "index.json").write_text('{"schemaVersion": 2, "manifests": "x"}')
    served = start()
    assert _titles(served.url) == ["a.pth"]
    assert len(served.notes) == 1


@pytest.mark.parametrize("path", ["/", "/index.json", "/store.json", "/oci-layout"])
def test_what_may_change_has_an_etag_and_is_not_sent_again(start, shared, path):
    record(shared, "https://example.org/a.pth", DATA)
    url = start().url + path
    answer = requests.get(url)
    assert answer.headers["Cache-Control"] == "no-cache"
    again = requests.get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", answer.headers["ETag"])
    assert requests.get(url, headers={"If-None-Match": '"sha256:other"'}).content == answer.content


def test_the_index_is_made_where_there_is_none_with_all_that_it_names(start, shared):
    ref = record(shared, "https://example.org/a.pth", DATA)
    url = start().url
    index = parse_index(requests.get(f"{url}/index.json").content, place="index.json")
    (entry,) = index.entries
    assert entry.digest == ref.digest
    manifest = requests.get(f"{url}/blobs/sha256/{entry.manifest.hex}")
    assert hashlib.sha256(manifest.content).hexdigest() == entry.manifest.hex
    config = Digest.parse(manifest.json()["config"]["digest"])
    assert hashlib.sha256(requests.get(f"{url}/blobs/sha256/{config.hex}").content).hexdigest() == config.hex


def test_paths_on_the_servers_machine_are_not_told(start, shared):
    ref = record(shared, "file:///home/ada/secret.pth", DATA)
    served = start()
    assert requests.get(f"{served.url}/refs/{ref.source.key}.json").status_code == 404
    page = requests.get(served.url).text
    assert ref.digest.hex in page
    assert "/home/ada" not in page


def test_a_client_takes_it_as_a_mirror(start, shared, config):
    record(shared, "https://nowhere.example/a.pth", DATA)
    digest = put(shared, DATA)
    mirror = Source(start().url)
    client = Client(config.but(mirrors=(mirror,), order=("layers", "mirrors")))
    path = client.path("https://nowhere.example/a.pth", sha256=digest.hex)
    assert path.read_bytes() == DATA
    assert path.is_relative_to(config.home)


def test_many_clients_at_once_are_all_served_right(start, shared):
    data = random.Random(2).randbytes(4 << 20)
    digest = put(shared, data)
    url = f"{start().url}/blobs/sha256/{digest.hex}"
    at_once = threading.Barrier(24)

    def fetch(number: int) -> bool:
        at_once.wait(30)
        return requests.get(url, headers={"Range": f"bytes={number}-"}, timeout=60).content == data[number:]

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(fetch, range(24)))


def test_a_file_that_is_shortened_while_it_is_sent_ends_the_connection(start, shared):
    data = bytes(64 << 20)  # more than the buffers between the two hold
    digest = put(shared, data)
    with requests.get(f"{start().url}/blobs/sha256/{digest.hex}", stream=True, timeout=20) as answer:
        answer.raw.read(1000)
        shared.blob(digest).chmod(0o644)
        os.truncate(shared.blob(digest), 40 << 20)
        with pytest.raises(ProtocolError):
            while answer.raw.read(1 << 20, decode_content=False):
                pass


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_that_leaves_in_the_middle_disturbs_nobody(start, shared, tmp_path, caplog, tls):
    data = bytes(20 << 20)
    digest = put(shared, data)
    certificates = make_certificates(tmp_path)
    verify = str(certificates.ca)
    served = start(certificate=certificates.valid.chain, key=certificates.valid.key) if tls else start()
    url = f"{served.url}/blobs/sha256/{digest.hex}"
    for _ in range(3):
        with requests.get(url, stream=True, verify=verify) as answer:
            answer.raw.read(1000)
    assert len(requests.get(url, verify=verify).content) == len(data)
    deadline = time.monotonic() + 20
    while len(served.log) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(line.split()[4] for line in served.log) == ["200", "499", "499", "499"]
    assert not caplog.records


def test_what_was_signed_is_served_and_believed(start, shared, config, tmp_path):
    source = "https://models.invalid/net.pth"
    record(shared, source, DATA)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
    receipts = Receipts(config.state)
    write_index(shared, build_index(shared, []), receipts=receipts)
    now = datetime.now(UTC)
    expires = now + timedelta(hours=1)
    sign_mirror(shared.root, make_signature=signing_with(key), now=now, expires=expires, receipts=receipts)
    signers = tmp_path / "signers"
    signers.write_text(f"site@example.org {key.with_suffix('.pub').read_text()}")
    url = start().url
    mine = config.but(home=tmp_path / "mine", mirrors=(Source(url),), allowed_signers=signers, order=("mirrors",))

    assert Client(mine).path(source).read_bytes() == DATA


def test_without_a_signature_nothing_is_signed(start, shared):
    record(shared, "https://models.invalid/net.pth", DATA)
    url = start().url
    assert [requests.get(f"{url}/{name}").status_code for name in (SIGNED_INDEX, SIGNATURE)] == [404, 404]
