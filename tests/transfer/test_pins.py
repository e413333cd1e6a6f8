"""Where a digest is known from decides what is accepted; what was accepted once is what is accepted from then on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import pytest

from tests.servers import behaviours as does
from tests.servers.hostile import HostileServer
from tests.transfer.conftest import Remembering
from weightstore.client import Client
from weightstore.config import Config
from weightstore.digest import Digest
from weightstore.errors import DigestMismatch, SizeMismatch, SourceUnavailable, UntrustedSource
from weightstore.records import Wanted
from weightstore.source import Source, parse_source

MakeClient = Callable[..., Client]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def refs(config: Config) -> list[str]:
    return sorted(path.name for path in (config.home / "refs").iterdir())


def test_a_full_pin_in_the_fragment_is_compared(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    url = server.serve("/x", data)
    assert make_client().path(f"{url}#sha256={digest_of(data)}").read_bytes() == data
    with pytest.raises(DigestMismatch):
        make_client().path(f"{url}#sha256={'0' * 64}")


def test_a_full_pin_by_argument_is_compared(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    url = server.serve("/x", data)
    assert make_client().path(url, sha256=digest_of(data).upper()).read_bytes() == data
    with pytest.raises(DigestMismatch):
        make_client().path(url, sha256="0" * 64)


def test_a_prefix_in_the_file_name_is_compared(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    good = server.serve(f"/model-{digest_of(data)[:8]}.pth", data)
    assert make_client().path(good).read_bytes() == data
    with pytest.raises(DigestMismatch) as caught:
        make_client().path(server.serve("/model-0123abcd.pth", data))
    assert not caught.value.recorded


@pytest.mark.parametrize("name", ["model-20240131.pth", "model-2.0.pth", "model-12345678.0.pth", "model_01234567.pth"])
def test_what_is_no_pin_is_not_compared(server: HostileServer, make_client: MakeClient, data: bytes, name: str) -> None:
    assert make_client().path(server.serve(f"/{name}", data)).read_bytes() == data


def test_an_unpinned_source_is_recorded_at_first_use(
    server: HostileServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    url = server.serve("/x", data)
    client = make_client()
    client.path(url)
    assert refs(config) == [f"{Source(url).key}.json"]
    assert client.why(url).digest == Digest(digest_of(data))
    assert client.path(url).read_bytes() == data
    assert len(server.requests) == 1


def test_an_unpinned_source_that_drifts_is_an_error(
    server: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    url = server.serve("/x", data)
    make_client().path(url).unlink()
    server.replace("/x", data[::-1])
    with pytest.raises(DigestMismatch, match="recorded when first fetched") as caught:
        make_client().path(url)
    assert caught.value.recorded
    assert caught.value.expected == f"sha256:{digest_of(data)}"


def test_an_unpinned_source_that_is_cut_is_never_recorded(
    server: HostileServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    url = server.serve("/x", data, does.truncate(300_000))
    with pytest.raises(SourceUnavailable):
        make_client().path(url)
    assert refs(config) == []
    assert list((config.home / "blobs" / "sha256").iterdir()) == []


def test_nothing_wrong_is_published_or_recorded(
    server: HostileServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    with pytest.raises(DigestMismatch):
        make_client().path(f"{server.serve('/x', data)}#sha256={'0' * 64}")
    assert refs(config) == []
    assert list((config.home / "blobs" / "sha256").iterdir()) == []
    assert list((config.home / "tmp").iterdir()) == []


def test_trust_in_pins_alone_refuses_an_unpinned_source(
    server: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    with pytest.raises(UntrustedSource, match="#sha256="):
        make_client(trust="pinned").path(server.serve("/x", data))
    assert server.requests == []


def test_trust_in_pins_alone_accepts_what_is_pinned_or_recorded(
    server: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    url = server.serve("/x", data)
    pinned = f"{server.serve('/y', data[1:])}#sha256={digest_of(data[1:])}"
    assert make_client(trust="pinned").path(pinned).read_bytes() == data[1:]
    make_client().path(url).unlink()
    assert make_client(trust="pinned").path(url).read_bytes() == data


def test_an_exact_size_is_compared(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    source, pin = parse_source(f"{server.serve('/x', data)}#sha256={digest_of(data)}")
    client = make_client()
    wanted = Wanted("x", source, pin, size=len(data) + 1, size_is_exact=True)
    (result,) = client.prefetch(plan=client.plan([wanted])).results
    assert isinstance(result.error, SizeMismatch)


def test_a_declared_size_is_but_an_estimate(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    source, pin = parse_source(server.serve("/x", data))
    client = make_client()
    (result,) = client.prefetch(plan=client.plan([Wanted("x", source, pin, size=len(data) + 1)])).results
    assert result.status == "fetched"


@pytest.mark.parametrize("locks", [True, False])
def test_threads_of_one_client_that_want_one_url_ask_once(
    server: HostileServer, make_client: MakeClient, data: bytes, locks: bool
) -> None:
    url = server.serve("/x", data, does.rate_cap(3e6))
    client = make_client(locks=locks)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(client.path(url).read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found == [data] * 4
    if locks:
        assert len(server.requests) == 1


def test_a_blob_that_is_open_outlives_its_removal(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    client = make_client()
    url = server.serve("/x", data)
    with client.open(url) as file:
        client.path(url).unlink()
        assert file.read() == data


def test_what_a_ref_cannot_record_is_noted_and_the_blob_is_there(
    server: HostileServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    client, meter = make_client(), Remembering()
    client.path(server.serve("/first", data[1:]))
    url = server.serve("/x", data)
    (config.home / "refs" / f"{Source(url).key}.json").mkdir()
    assert client.path(url, meter=meter).read_bytes() == data
    assert any("could not be recorded" in note for note in meter.notes)


def test_a_part_that_another_process_took_is_looked_for_again_and_else_fetched_again(
    server: HostileServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    def take(received: int) -> None:
        if received == len(data):
            for part in (config.home / "tmp").glob("*.part"):
                part.unlink()

    meter = Remembering(on_advance=take)
    assert make_client().path(server.serve("/x", data), meter=meter).read_bytes() == data
    assert any("taken over" in note for note in meter.notes)
    assert len(server.requests) == 2
