"""Files on the Hub: over its redirects, with its commits and ETags, its token kept to it, and its word held to."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.servers import behaviours as does
from tests.servers.hostile import HostileServer
from tests.servers.hub import HubServer
from tests.servers.tls import Certificates
from tests.transfer.conftest import Fetch
from weightstore.client import Client
from weightstore.config import Config
from weightstore.digest import Pin
from weightstore.errors import (
    AccessDenied,
    AllSourcesFailed,
    DigestMismatch,
    InvalidConfig,
    NotPresent,
    RefusedResponse,
    SourceNotFound,
    SourceUnavailable,
    WeightStoreError,
)
from weightstore.hub import HubToken
from weightstore.records import Ref, Validator
from weightstore.source import Source
from weightstore.store.layout import open_layout
from weightstore.store.refs import read_ref
from weightstore.transfer.download import DeclaredOtherwise, Limits
from weightstore.transfer.http import HttpTransport
from weightstore.transfer.hub import HubTransport

MakeClient = Callable[..., Client]
TOKEN = "hf_5ecretT0ken"
MAIN = "hf://org/model/model.safetensors"
SMALL = b'{"architecture": "resnet18"}\n'


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(fresh_etags=True) as hub:
        yield hub


@pytest.fixture
def make_client(hub: HubServer, make_client: MakeClient) -> MakeClient:
    """Clients whose Hub is the one of this test."""

    def make(*, token: str | None = None, **changes: object) -> Client:
        known = HubToken("HF_TOKEN", text=token) if token else None
        return make_client(**{"hub_endpoint": Source(hub.url), "hub_token": known, **changes})

    return make


@pytest.fixture
def fetch(hub: HubServer, fetch: Fetch) -> Iterator[Fetch]:
    """Downloads from the Hub of this test."""
    http = fetch.transport
    assert isinstance(http, HttpTransport)
    fetch.transport = HubTransport(http, endpoint=hub.url, token=None)
    yield fetch
    fetch.transport = http


def ref_of(config: Config, source: str) -> Ref | None:
    layout = open_layout(config.home)
    assert layout is not None
    return read_ref(layout, Source.parse(source))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- what comes, and what is recorded ---------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True], ids=["redirected", "at once"])
def test_small_and_large_files_come_and_commit_and_etag_are_recorded(
    make_client: MakeClient, config: Config, data: bytes, direct: bool
) -> None:
    with HubServer(direct=direct) as hub:
        commit = hub.add("org/model", {"model.safetensors": data, "sub/config.json": SMALL})
        client = make_client(hub_endpoint=Source(hub.url))
        assert client.path(MAIN).read_bytes() == data
        assert client.path("hf://org/model/sub/config.json").read_bytes() == SMALL
    large, small = ref_of(config, MAIN), ref_of(config, "hf://org/model@main/sub/config.json")
    assert large is not None
    assert small is not None
    assert (large.commit, large.etag, large.size) == (commit, sha256(data), len(data))
    git = hashlib.sha1(b"blob %d\0" % len(SMALL) + SMALL).hexdigest()
    assert (small.commit, small.etag, small.digest.hex) == (commit, git, sha256(SMALL))


def test_the_real_client_names_its_cache_by_the_same_commit_and_etag(
    hub: HubServer, make_client: MakeClient, config: Config, data: bytes, tmp_path: Path
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub.add("org/model", {"model.safetensors": data, "config.json": SMALL})
    for file in ("model.safetensors", "config.json"):
        judged = Path(
            huggingface_hub.hf_hub_download("org/model", file, endpoint=hub.url, cache_dir=tmp_path / "hf", token=False)
        )
        source = f"hf://org/model@main/{file}"
        assert make_client().path(source).read_bytes() == judged.read_bytes()
        ref = ref_of(config, source)
        assert ref is not None
        assert (ref.commit, ref.etag) == (judged.parent.name, judged.resolve().name)


def test_a_branch_and_its_commit_are_both_found_offline(hub: HubServer, make_client: MakeClient, data: bytes) -> None:
    commit = hub.add("org/model", {"model.safetensors": data})
    make_client().path(MAIN)
    for revision in ("main", commit):
        found = make_client(offline=True).path(f"hf://org/model@{revision}/model.safetensors")
        assert found.read_bytes() == data
    with pytest.raises(NotPresent):
        make_client(offline=True).path("hf://org/model@next/model.safetensors")


def test_a_commit_records_itself_alone(hub: HubServer, make_client: MakeClient, config: Config, data: bytes) -> None:
    commit = hub.add("org/model", {"model.safetensors": data})
    source = f"hf://org/model@{commit}/model.safetensors"
    make_client().path(source)
    ref = ref_of(config, source)
    assert ref is not None
    assert ref.commit == commit
    assert ref_of(config, MAIN) is None


def test_a_revision_with_a_slash_and_a_name_with_blanks_are_found(
    hub: HubServer, make_client: MakeClient, data: bytes
) -> None:
    hub.add("org/model", {"a dir/ü+ñ.pth": data}, revision="refs/pr/1")
    source = "hf://org/model@refs%2Fpr%2F1/a%20dir/%C3%BC+%C3%B1.pth"
    assert make_client().path(source).read_bytes() == data


def test_a_repository_without_an_organisation_and_a_renamed_one_are_found(
    hub: HubServer, make_client: MakeClient, data: bytes
) -> None:
    hub.add("gpt2", {"model.safetensors": data})
    hub.add("org/old", {"model.bin": data[::-1]})
    hub.rename("org/old", "team/new")
    assert make_client().path("hf://gpt2@main/model.safetensors").read_bytes() == data
    assert make_client(token=None).path("hf://org/old/model.bin").read_bytes() == data[::-1]


def test_what_a_branch_was_is_fetched_again_from_its_commit(
    hub: HubServer, make_client: MakeClient, data: bytes
) -> None:
    hub.add("org/model", {"model.safetensors": data})
    path = make_client().path(MAIN)
    path.unlink()
    hub.add("org/model", {"model.safetensors": data[::-1]})
    why = [step.place for step in make_client().why(MAIN).steps]
    assert len(why) == 3  # the store, the branch, and the commit that is recorded
    assert make_client().path(MAIN).read_bytes() == data


def test_inspecting_brings_only_the_head(hub: HubServer, make_client: MakeClient) -> None:
    tensor = {"dtype": "U8", "shape": [3_000_000], "data_offsets": [0, 3_000_000]}
    header = json.dumps({"w": tensor}).encode()
    hub.add("org/model", {"model.safetensors": struct.pack("<Q", len(header)) + header + bytes(3_000_000)})
    assert make_client().inspect(MAIN).nbytes == 3_000_000
    (request,) = hub.cdn.requests
    assert request.status == 206
    with pytest.raises(NotPresent):
        make_client(offline=True).inspect(MAIN)


def test_inspecting_what_is_pinned_looks_into_that_version(hub: HubServer, make_client: MakeClient) -> None:
    def file(name: str) -> bytes:
        header = json.dumps({name: {"dtype": "U8", "shape": [200_000], "data_offsets": [0, 200_000]}}).encode()
        return struct.pack("<Q", len(header)) + header + bytes(200_000)

    commit = hub.add("org/model", {"model.safetensors": file("old")})
    hub.add("org/model", {"model.safetensors": file("new")})
    wanted = make_client().wanted(f"{MAIN}#sha256={sha256(file('old'))}")
    with pytest.raises(DigestMismatch):
        make_client().inspect(wanted)
    pinned = replace(wanted, alternatives=(Source(f"hf://org/model@{commit}/model.safetensors"),))
    assert [tensor.name for tensor in make_client().inspect(pinned).tensors] == ["old"]


def test_the_plain_url_is_a_source_of_its_own_and_shares_the_blob(
    hub: HubServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    hub.add("org/model", {"model.safetensors": data})
    url = f"{hub.url}/org/model/resolve/main/model.safetensors"
    client = make_client(token=TOKEN)
    hub.admit(TOKEN)
    assert client.path(url) == client.path(MAIN)
    assert hub.requests[0].headers["Authorization"] is None, "the token is for hf sources"
    plain, ours = ref_of(config, url), ref_of(config, MAIN)
    assert plain is not None
    assert ours is not None
    assert (plain.digest, plain.commit) == (ours.digest, "")


# -- the Hub's word ---------------------------------------------------------------------------------------------------


def test_a_declared_digest_that_the_pin_forbids_fails_before_a_byte_comes(
    hub: HubServer, make_client: MakeClient, data: bytes
) -> None:
    hub.add("org/model", {"model.safetensors": data})
    hub.cdn_behaviours = [does.stall(0, 3600)]
    with pytest.raises(DigestMismatch) as caught:
        make_client(retries=5, read_timeout_s=60).path(f"{MAIN}#sha256={'0' * 64}")
    assert caught.value.actual == f"sha256:{sha256(data)}"
    assert len(hub.requests) == 1


def test_bytes_that_the_declared_digest_contradicts_are_not_kept(
    hub: HubServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    hub.add("org/model", {"model.safetensors": data})
    hub.cdn_behaviours = [does.corrupt(1000)]
    with pytest.raises(DigestMismatch, match="by the Hub"):
        make_client().path(MAIN)
    assert ref_of(config, MAIN) is None
    assert [path.name for path in (config.home / "blobs" / "sha256").iterdir()] == []


def test_a_cdn_that_sends_another_size_than_the_hub_says_is_refused(make_client: MakeClient, data: bytes) -> None:
    with HubServer() as hub:
        hub.add("org/model", {"model.safetensors": data})
        hub.cdn.serve(hub.cdn_path(data), data[:-1])
        with pytest.raises(RefusedResponse, match=f"has {len(data)} bytes"):
            make_client(hub_endpoint=Source(hub.url)).path(MAIN)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "no Hub. Is HF_ENDPOINT right"),
        ({"X-Repo-Commit": "main"}, "names a commit that is none"),
        ({"X-Repo-Commit": "b" * 40}, "answers with another commit: bbbb"),
    ],
    ids=["none", "no commit", "another"],
)
def test_a_commit_is_answered_with_that_commit_or_refused(
    server: HostileServer, make_client: MakeClient, headers: dict[str, str], said: str
) -> None:
    reply = does.Reply(status=200, headers=headers, body=b"<html>log in</html>")
    path = f"/org/model/resolve/{'a' * 40}/x.bin"
    server.serve(path, b"", does.status(reply))
    with pytest.raises(RefusedResponse, match=said):
        make_client(hub_endpoint=Source(server.url(""))).path(f"hf://org/model@{'a' * 40}/x.bin")


@pytest.mark.parametrize(
    ("etag", "size"),
    [
        ('"../../x"', "1e3"),
        ("a" * 63, "-1"),
        (f'"{"A" * 64}"', "9" * 30),
        ("", ""),
        ('W/"', "٣".encode().decode("latin-1")),
    ],
)
def test_what_a_hub_says_in_vain_is_not_recorded(
    server: HostileServer, make_client: MakeClient, config: Config, etag: str, size: str
) -> None:
    headers = {"X-Repo-Commit": "a" * 40, "X-Linked-Etag": etag, "X-Linked-Size": size}
    server.serve("/org/model/resolve/main/x", b"", does.status(does.Reply(status=200, headers=headers, body=b"x")))
    make_client(hub_endpoint=Source(server.url(""))).path("hf://org/model/x")
    ref = ref_of(config, "hf://org/model/x")
    assert ref is not None
    assert (ref.commit, ref.etag) == ("a" * 40, "")


def test_a_hub_that_names_two_commits_on_the_way_is_refused(server: HostileServer, make_client: MakeClient) -> None:
    moved = {"X-Repo-Commit": "a" * 40, "Location": "/there"}
    there = does.Reply(status=200, headers={"X-Repo-Commit": "b" * 40}, body=b"x")
    server.serve("/org/model/resolve/main/x", b"", does.status(does.Reply(status=307, headers=moved)))
    server.serve("/there", b"", does.status(there))
    with pytest.raises(RefusedResponse, match="contradicts itself"):
        make_client(hub_endpoint=Source(server.url(""))).path("hf://org/model/x")


def test_a_hub_whose_api_redirects_to_no_url_is_refused(server: HostileServer, make_client: MakeClient) -> None:
    server.serve("/api/models/org/model", b"", does.redirect("https://[x"))
    client = make_client(hub_endpoint=Source(server.url("")))
    with pytest.raises(RefusedResponse, match="not a URL"):
        client.obtainer.transports().hub(Source(MAIN)).api("api/models/org/model", limit=1000)


# -- the token --------------------------------------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_not_to_its_cdn(
    hub: HubServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    hub.add("org/model", {"model.safetensors": data, "config.json": SMALL})
    hub.require_token("org/model", TOKEN)
    client = make_client(token=TOKEN)
    assert client.path(MAIN).read_bytes() == data
    assert client.path("hf://org/model/config.json").read_bytes() == SMALL
    assert {request.headers["Authorization"] for request in hub.requests} == {f"Bearer {TOKEN}"}
    assert {request.headers["Authorization"] for request in hub.cdn.requests} == {None}
    files = [path for root in (config.home, config.state) for path in root.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in path.read_bytes() for path in files)


def test_the_token_is_not_sent_where_the_hub_redirects_to(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient
) -> None:
    headers = {"X-Repo-Commit": "a" * 40}
    other_host.serve("/org/model/resolve/main/x", b"", does.status(does.Reply(status=200, headers=headers, body=b"x")))
    server.serve(
        "/org/model/resolve/main/x", behaviour=does.redirect(other_host.url("/org/model/resolve/main/x"), status=308)
    )
    make_client(hub_endpoint=Source(server.url("")), token=TOKEN).path("hf://org/model/x")
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert other_host.requests[0].headers["Authorization"] is None


def test_the_hub_redirects_from_https_to_https_alone(
    certificates: Certificates, server: HostileServer, make_client: MakeClient
) -> None:
    path = "/org/model/resolve/main/x"
    server.serve(path, b"x")
    with HostileServer(tls=certificates) as hub:
        hub.serve(path, behaviour=does.redirect(server.url(path)))
        client = make_client(hub_endpoint=Source(hub.url("")), token=TOKEN, ca_bundle=certificates.ca)
        with pytest.raises(RefusedResponse, match="from https to http"):
            client.path("hf://org/model/x")
    assert server.requests == []


def test_netrc_is_not_asked_for_the_hub(hub: HubServer, make_client: MakeClient, data: bytes) -> None:
    netrc = Path.home() / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password 5ecret\n")
    netrc.chmod(0o600)
    hub.add("org/model", {"model.safetensors": data})
    make_client().path(MAIN)
    assert hub.requests[0].headers["Authorization"] is None


def test_the_token_s_file_is_read_when_the_hub_is_asked(
    hub: HubServer, make_client: MakeClient, data: bytes, tmp_path: Path
) -> None:
    hub.add("org/model", {"model.safetensors": data})
    hub.require_token("org/model", TOKEN)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert make_client(hub_token=HubToken(str(file), file=file)).path(MAIN).read_bytes() == data


def test_without_the_token_s_file_nobody_is_logged_in(
    hub: HubServer, make_client: MakeClient, data: bytes, tmp_path: Path
) -> None:
    hub.add("org/model", {"model.safetensors": data})
    missing = tmp_path / "missing" / "token"
    assert make_client(hub_token=HubToken(str(missing), file=missing)).path(MAIN).read_bytes() == data
    assert hub.requests[0].headers["Authorization"] is None


@pytest.mark.parametrize("text", ["two words", "hf_ü", "hf_\x00", "x" * 5000], ids=["words", "umlaut", "nul", "long"])
def test_what_is_no_token_is_refused_and_not_shown(make_client: MakeClient, hub: HubServer, text: str) -> None:
    with pytest.raises(InvalidConfig, match="HF_TOKEN holds no token") as caught:
        make_client(token=text).path(MAIN)
    assert text not in str(caught.value)
    assert hub.requests == []


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_told_apart(hub: HubServer, make_client: MakeClient, data: bytes) -> None:
    hub.add("org/model", {"model.safetensors": data})
    with pytest.raises(SourceNotFound, match=r"org/model has no file missing.bin at main"):
        make_client().path("hf://org/model/missing.bin")
    with pytest.raises(SourceNotFound, match="no branch, tag or commit v9"):
        make_client().path("hf://org/model@v9/model.safetensors")
    with pytest.raises(AccessDenied, match=r"no repository org/none, or it is private.*hf auth login"):
        make_client().path("hf://org/none/x")
    assert len(hub.requests) == 3, "none of them is asked for again"


def test_who_is_logged_in_is_told_that_a_repository_is_not_there(
    hub: HubServer, make_client: MakeClient, data: bytes
) -> None:
    hub.add("org/model", {"model.safetensors": data})
    hub.require_token("org/model", "hf_other")
    hub.admit(TOKEN)
    for source in (MAIN, "hf://org/none/x"):
        with pytest.raises(SourceNotFound, match=r"no repository org/.*, or the token from HF_TOKEN may not see it"):
            make_client(token=TOKEN).path(source)


def test_a_gated_repository_says_where_to_ask_for_access(hub: HubServer, make_client: MakeClient, data: bytes) -> None:
    hub.add("org/model", {"model.safetensors": data})
    hub.require_token("org/model", "hf_right", gated=True)
    hub.admit(TOKEN)
    with pytest.raises(AccessDenied, match=rf"gated. Ask for access at {hub.url}/org/model, then log in"):
        make_client().path(MAIN)
    with pytest.raises(AccessDenied, match=r"gated, and the account of the token from HF_TOKEN has no access"):
        make_client(token=TOKEN).path(MAIN)
    assert make_client(token="hf_right").path(MAIN).read_bytes() == data


def test_a_token_that_the_hub_does_not_know_is_named_by_its_place(
    hub: HubServer, make_client: MakeClient, data: bytes
) -> None:
    hub.add("org/model", {"model.safetensors": data})
    with pytest.raises(AccessDenied, match=r"does not accept the token from HF_TOKEN"):
        make_client(token=TOKEN).path(MAIN)


@pytest.mark.parametrize("status", [401, 403, 404, 418, 503])
def test_no_refusal_shows_the_token(
    server: HostileServer, make_client: MakeClient, notes: list[str], status: int
) -> None:
    headers = {"X-Error-Code": TOKEN, "X-Error-Message": TOKEN}
    reply = does.Reply(status=status, headers=headers, body=TOKEN.encode())
    server.serve("/org/model/resolve/main/model.safetensors", b"", does.status(reply))
    with pytest.raises(WeightStoreError) as caught:
        make_client(hub_endpoint=Source(server.url("")), token=TOKEN).path(MAIN)
    said = [str(caught.value), repr(caught.value), repr(caught.value.fields), *notes]
    assert not any(TOKEN in text for text in said)


def test_a_hub_that_is_down_is_asked_again(server: HostileServer, make_client: MakeClient) -> None:
    page = does.Reply(status=200, headers={"X-Repo-Commit": "a" * 40}, body=b"weights")
    down = does.status(does.Reply(status=503, retry_after_s=0), times=1)
    server.serve("/org/model/resolve/main/x", b"", [down, does.status(page)])
    client = make_client(hub_endpoint=Source(server.url("")), retries=1)
    assert client.path("hf://org/model/x").read_bytes() == b"weights"


# -- resuming and ranges ----------------------------------------------------------------------------------------------


def test_a_cut_is_resumed_although_the_cdn_s_url_and_etag_are_others(hub: HubServer, fetch: Fetch, data: bytes) -> None:
    hub.add("org/model", {"model.safetensors": data})
    hub.cdn_behaviours = [does.truncate(400_000, times=1)]
    assert fetch(MAIN, retries=1) == data
    first, second = hub.cdn.requests
    assert (first.range, second.range) == (None, "bytes=400000-")
    assert second.status == 206
    assert second.path != first.path
    assert second.headers["If-Range"] is None, "the Hub has said that it is the same"


def test_what_an_earlier_process_left_is_resumed(hub: HubServer, fetch: Fetch, data: bytes) -> None:
    hub.add("org/model", {"model.safetensors": data})
    hub.cdn_behaviours = [does.truncate(400_000, times=1)]
    with pytest.raises(SourceUnavailable):
        fetch(MAIN, retries=0)
    hub.cdn_behaviours = []
    assert fetch(MAIN) == data
    assert hub.cdn.requests[-1].range == "bytes=400000-"


def test_a_branch_that_moved_on_meanwhile_starts_anew(hub: HubServer, fetch: Fetch, data: bytes) -> None:
    hub.add("org/model", {"model.safetensors": data})
    hub.cdn_behaviours = [does.truncate(400_000, times=1)]
    with pytest.raises(SourceUnavailable):
        fetch(MAIN, retries=0)
    hub.cdn_behaviours = []
    hub.add("org/model", {"model.safetensors": data[::-1]})
    assert fetch(MAIN) == data[::-1]
    assert hub.cdn.requests[-1].status == 200


@pytest.mark.parametrize("direct", [False, True], ids=["redirected", "at once"])
def test_a_small_file_is_resumed_by_the_hub_s_own_etag(fetch: Fetch, data: bytes, direct: bool) -> None:
    http = HttpTransport(connect_timeout_s=5, read_timeout_s=5, pool_size=2, user_agent="test", trust_env=False)
    with HubServer(direct=direct) as hub:
        hub.add("org/model", {"model.txt": data})
        hub.small_file_behaviours = [does.truncate(400_000)]
        fetch.transport = HubTransport(http, endpoint=hub.url, token=None)
        assert fetch("hf://org/model/model.txt", retries=1) == data
        assert [request.status for request in hub.requests if request.body_bytes_sent > 1000] == [200, 206]
    http.close()


def test_ranges_go_to_the_cdn_and_the_hub_is_asked_once(hub: HubServer, fetch: Fetch, big: bytes) -> None:
    hub.add("org/model", {"model.safetensors": big})
    hub.cdn_behaviours = [does.rate_cap(8e6)]
    assert fetch(MAIN) == big
    assert len(hub.cdn.requests) > 2
    assert len(hub.requests) == 1


def test_a_range_whose_signature_ran_out_is_asked_for_anew(hub: HubServer, fetch: Fetch, data: bytes) -> None:
    hub.add("org/model", {"model.safetensors": data})
    source, transport = Source.parse(MAIN), fetch.transport
    validator = Validator(f'"{sha256(data)}"')
    transport.open(source).close()
    first = hub.cdn.requests[0].path
    transport.open(source, start=5, end=9, validator=validator).close()
    assert [request.path for request in hub.cdn.requests] == [first, first]
    hub.cdn.serve(first, data, does.status(403))
    body = transport.open(source, start=5, end=9, validator=validator)
    assert body.read(10) == data[5:9]
    body.close()
    assert len(hub.requests) == 2
    assert hub.cdn.requests[-1].path != first


def test_a_range_of_a_version_that_is_gone_brings_the_whole(hub: HubServer, fetch: Fetch, data: bytes) -> None:
    hub.add("org/model", {"model.safetensors": data})
    body = fetch.transport.open(Source.parse(MAIN), start=5, end=9, validator=Validator(f'"{"0" * 64}"'))
    assert (body.answer.start, body.answer.total) == (0, len(data))
    assert body.answer.validator == Validator(f'"{sha256(data)}"')
    body.close()


def test_a_part_survives_a_branch_that_moved_on_and_the_commit_goes_on_with_it(
    hub: HubServer, fetch: Fetch, data: bytes
) -> None:
    commit = hub.add("org/model", {"model.safetensors": data})
    hub.cdn_behaviours = [does.truncate(400_000, times=1)]
    pin, key = Pin(sha256(data)), f"sha256-{sha256(data)}"
    with pytest.raises(SourceUnavailable):
        fetch(MAIN, pin, retries=0, key=key)
    hub.cdn_behaviours = []
    hub.add("org/model", {"model.safetensors": data[::-1]})
    with pytest.raises(DeclaredOtherwise):
        fetch(MAIN, pin, key=key)
    assert fetch(f"hf://org/model@{commit}/model.safetensors", pin, key=key) == data
    assert hub.cdn.requests[-1].range == "bytes=400000-"


def test_sizes_are_held_to(hub: HubServer, fetch: Fetch, data: bytes) -> None:
    hub.add("org/model", {"model.safetensors": data})
    with pytest.raises(RefusedResponse, match="max_size"):
        fetch(MAIN, limits=Limits(max_size=1000))


# -- mirrors and alternatives -----------------------------------------------------------------------------------------


def test_a_repository_can_be_a_mirror_and_says_nothing_of_the_origin(
    hub: HubServer, server: HostileServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    hub.add("site/weights", {f"mirror/blobs/sha256/{sha256(data)}": data}, lfs=[f"mirror/blobs/sha256/{sha256(data)}"])
    url = server.url("/gone.pth")
    client = make_client(mirrors=(Source("hf://site/weights@main/mirror"),))
    assert client.path(f"{url}#sha256={sha256(data)}").read_bytes() == data
    ref = ref_of(config, url)
    assert ref is not None
    assert (ref.via, ref.commit, ref.etag) == ("mirror", "", "")


def test_a_file_on_the_hub_comes_from_a_mirror_by_its_digest(
    hub: HubServer, make_client: MakeClient, data: bytes, tmp_path: Path
) -> None:
    blob = tmp_path / "mirror" / "blobs" / "sha256" / sha256(data)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(data)
    client = make_client(mirrors=(Source((tmp_path / "mirror").as_uri()),), order=("mirrors", "origin"))
    assert client.path(f"{MAIN}#sha256={sha256(data)}").read_bytes() == data
    assert hub.requests == []


def test_all_that_failed_is_told_when_the_commit_is_gone_too(
    hub: HubServer, make_client: MakeClient, data: bytes
) -> None:
    hub.add("org/model", {"model.safetensors": data})
    wanted = make_client().wanted(f"{MAIN}#sha256={'0' * 64}")
    gone = Source(f"hf://org/model@{'c' * 40}/model.safetensors")
    with pytest.raises(AllSourcesFailed) as caught:
        make_client().path(replace(wanted, alternatives=(gone,)))
    assert [type(failure) for failure in caught.value.failures] == [DigestMismatch, SourceNotFound]
