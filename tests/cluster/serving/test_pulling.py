"""Pull-through: fetched once for all, from whom it may be, and never served unverified."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.cluster.serving.conftest import record
from tests.cluster.serving.test_hub_dialect import judge
from tests.servers.behaviours import truncate
from tests.servers.hostile import HostileServer
from tests.servers.hub import HubServer
from weightstore.hub import HubToken
from weightstore.source import Source
from weightstore.store.blobs import list_blobs

DATA = random.Random(6).randbytes(200_000)
HEX = hashlib.sha256(DATA).hexdigest()
REPO = "ada/tiny"


@pytest.fixture
def mirror():
    with HostileServer() as server:
        yield server


@pytest.fixture
def hub():
    with HubServer() as server:
        server.add(REPO, {"model.safetensors": DATA, "config.json": b"{}"})
        yield server


def test_a_missing_blob_comes_from_a_mirror_once_for_all_who_ask(start, shared_config, mirror):
    mirror.serve(f"/blobs/sha256/{HEX}", DATA)
    served = start(config=shared_config.but(mirrors=(Source(mirror.url("")),)), pulls_through=True, has_metrics=True)
    url = f"{served.url}/blobs/sha256/{HEX}"
    with ThreadPoolExecutor(8) as pool:
        assert {answer.content for answer in pool.map(requests.get, [url] * 8)} == {DATA}
    assert sum(request.body_bytes_sent > 0 for request in mirror.requests) == 1
    assert 'weightstore_blobs_total{answer="pulled"} 1' in requests.get(f"{served.url}/metrics").text


def test_without_pull_through_nobody_is_asked(start, shared_config, mirror, hub):
    mirror.serve(f"/blobs/sha256/{HEX}", DATA)
    config = shared_config.but(mirrors=(Source(mirror.url("")),), hub_endpoint=Source(hub.url))
    served = start(config=config)
    assert requests.get(f"{served.url}/blobs/sha256/{HEX}").status_code == 404
    assert requests.get(f"{served.url}/{REPO}/resolve/main/config.json").status_code == 404
    assert not mirror.requests
    assert not hub.requests


@pytest.mark.parametrize("wrong", [b"x" * len(DATA), b"", DATA + b"x"])
def test_a_mirror_that_lies_is_passed_over(start, shared, shared_config, mirror, wrong):
    mirror.serve(f"/blobs/sha256/{HEX}", wrong)
    served = start(config=shared_config.but(mirrors=(Source(mirror.url("")),)), pulls_through=True)
    assert requests.get(f"{served.url}/blobs/sha256/{HEX}").status_code == 404
    assert not list_blobs(shared)
    with HostileServer() as honest:
        honest.serve(f"/blobs/sha256/{HEX}", DATA)
        mirrors = (Source(mirror.url("")), Source(honest.url("")))
        second = start(config=shared_config.but(mirrors=mirrors), pulls_through=True)
        assert requests.get(f"{second.url}/blobs/sha256/{HEX}").content == DATA


def test_each_kind_of_fault_of_a_mirror_is_told_once_with_its_name_and_without_its_password(
    start, shared_config, mirror
):
    blobs = [random.Random(number).randbytes(5000) for number in range(4)]
    for number, data in enumerate(blobs):
        cut = truncate(1000 + number) if number % 2 else ()
        mirror.serve(f"/blobs/sha256/{hashlib.sha256(data).hexdigest()}", data if cut else b"x" * 5000, cut)
    with HostileServer(host="127.0.0.2") as honest:
        for data in blobs:
            honest.serve(f"/blobs/sha256/{hashlib.sha256(data).hexdigest()}", data)
        address = mirror.url("").replace("http://", "http://ada:geheim@")
        mirrors = (Source(address), Source(honest.url("")))
        served = start(config=shared_config.but(mirrors=mirrors), pulls_through=True)
        for data in blobs:
            digest = hashlib.sha256(data).hexdigest()
            assert requests.get(f"{served.url}/blobs/sha256/{digest}").content == data
            assert digest not in "".join(served.notes)
    told = [note for note in served.notes if "could not be pulled" in note]
    assert len(told) == 2
    assert all(f"mirror {Source(address)}: " in note and "geheim" not in note for note in told)
    assert "gave other bytes than those of the digest" in told[0]
    assert "incomplete read" in told[1]


def test_what_was_refused_is_not_asked_for_at_once_again(start, shared_config, mirror):
    served = start(config=shared_config.but(mirrors=(Source(mirror.url("")),)), pulls_through=True)
    for _ in range(3):
        assert requests.get(f"{served.url}/blobs/sha256/{HEX}").status_code == 404
    assert len(mirror.requests) == 1


def test_a_file_of_the_hub_is_told_of_by_its_head_and_fetched_when_it_is_wanted(start, shared, shared_config, hub):
    served = start(config=shared_config.but(hub_endpoint=Source(hub.url)), pulls_through=True)
    url = f"{served.url}/{REPO}/resolve/main/model.safetensors"
    told = requests.head(url)
    assert not list_blobs(shared)
    fetched = requests.get(url)
    assert fetched.content == DATA
    for name in ("X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "ETag", "Content-Length"):
        assert told.headers[name] == fetched.headers[name]
    asked = len(hub.requests) + len(hub.cdn.requests)
    assert requests.get(url).content == requests.get(url, headers={"Range": "bytes=0-"}).content == DATA
    assert len(hub.requests) + len(hub.cdn.requests) == asked
    assert requests.get(f"{served.url}/{REPO}/resolve/main/none.bin").headers["X-Error-Code"] == "EntryNotFound"


def test_what_came_by_digest_is_said_to_come_from_nowhere(start, shared, shared_config, mirror):
    mirror.serve(f"/blobs/sha256/{HEX}", DATA)
    served = start(config=shared_config.but(mirrors=(Source(mirror.url("")),)), pulls_through=True)
    assert requests.get(f"{served.url}/blobs/sha256/{HEX}").content == DATA
    assert not list(shared.refs.iterdir())
    assert requests.get(f"{served.url}/v2/weights/tags/list").json()["tags"] == []


SNAPSHOT = f"""
import os
folder = hub.snapshot_download({REPO!r})
print(json.dumps([os.path.basename(folder), sorted(os.listdir(folder))]))
"""


def test_the_first_snapshot_of_a_repository_is_whole(start, shared_config, hub, tmp_path):
    commit = hub.add(REPO, {"extra/tokenizer.json": b"[]"})
    served = start(config=shared_config.but(hub_endpoint=Source(hub.url)), pulls_through=True)
    found = judge(served.url, tmp_path / "a", SNAPSHOT)
    assert found == [commit, ["config.json", "extra", "model.safetensors"]]
    ours, theirs = (requests.get(f"{url}/api/models/{REPO}?blobs=true").json() for url in (served.url, hub.url))
    assert ours["sha"] == theirs["sha"]
    assert sorted(ours["siblings"], key=str) == sorted(theirs["siblings"], key=str)


def test_a_snapshot_is_whole_that_begins_with_one_file_even_when_the_branch_has_moved(
    start, shared_config, hub, tmp_path
):
    first = requests.get(f"{hub.url}/api/models/{REPO}").json()["sha"]
    served = start(config=shared_config.but(hub_endpoint=Source(hub.url)), pulls_through=True)
    assert requests.get(f"{served.url}/{REPO}/resolve/main/config.json").content == b"{}"
    hub.add(REPO, {"config.json": b"changed", "added.json": b"[]"})
    assert judge(served.url, tmp_path, SNAPSHOT) == [first, ["config.json", "model.safetensors"]]
    head = requests.head(f"{served.url}/{REPO}/resolve/main/model.safetensors")
    assert head.headers["X-Repo-Commit"] == first


def test_a_snapshot_that_came_is_there_when_the_origin_is_gone(start, shared_config, hub, tmp_path):
    config = shared_config.but(hub_endpoint=Source(hub.url), connect_timeout_s=2.0)
    served = start(config=config, pulls_through=True)
    found = judge(served.url, tmp_path / "a", SNAPSHOT)
    hub.__exit__(None, None, None)
    assert judge(served.url, tmp_path / "b", SNAPSHOT) == found
    assert judge(start(config=config, pulls_through=True).url, tmp_path / "c", SNAPSHOT) == found
    assert judge(start(config=config).url, tmp_path / "d", SNAPSHOT) == found


def test_of_a_repository_that_is_private_nothing_is_told(start, shared_config, hub):
    hub.require_token(REPO, "hf_mine")
    config = shared_config.but(hub_endpoint=Source(hub.url), hub_token=HubToken("HF_TOKEN", text="hf_mine"))
    answer = requests.get(f"{start(config=config, pulls_through=True).url}/api/models/{REPO}")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_a_hub_that_lists_nonsense_is_passed_over(start, shared_config, mirror):
    mirror.serve(f"/api/models/{REPO}/revision/main?blobs=true", b'{"sha": "../../x", "siblings": []}')
    served = start(config=shared_config.but(hub_endpoint=Source(mirror.url(""))), pulls_through=True)
    assert requests.get(f"{served.url}/api/models/{REPO}").status_code == 404
    assert len(served.notes) == 1


def test_a_download_from_the_hub_that_is_cut_goes_on_and_is_whole(start, shared_config, hub):
    hub.cdn_behaviours = [truncate(after=100_000, times=1)]
    served = start(config=shared_config.but(hub_endpoint=Source(hub.url)), pulls_through=True)
    assert requests.get(f"{served.url}/{REPO}/resolve/main/model.safetensors").content == DATA


def test_the_token_of_who_serves_opens_nothing_for_others(start, shared_config, hub):
    hub.require_token(REPO, "hf_mine")
    config = shared_config.but(hub_endpoint=Source(hub.url), hub_token=HubToken("HF_TOKEN", text="hf_mine"))
    served = start(config=config, pulls_through=True)
    for method in ("HEAD", "GET"):
        assert requests.request(method, f"{served.url}/{REPO}/resolve/main/config.json").status_code == 404
    assert not any("hf_mine" in str(request.headers) for request in hub.requests)


def test_offline_and_without_the_origin_in_the_order_nothing_is_asked(start, shared, shared_config, hub):
    record(shared, "https://example.org/a.pth", DATA)
    for more in ({"offline": True}, {"order": ("layers", "mirrors")}):
        served = start(config=shared_config.but(hub_endpoint=Source(hub.url), **more), pulls_through=True)
        assert requests.get(f"{served.url}/{REPO}/resolve/main/config.json").status_code == 404
        assert requests.get(f"{served.url}/blobs/sha256/{HEX}").content == DATA
    assert not hub.requests
