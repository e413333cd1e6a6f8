"""Mirrors are asked by digest and never trusted; one that fails costs a note, and the next source is asked."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import behaviours as does
from tests.servers.behaviours import Behaviour
from tests.servers.hostile import HostileServer
from tests.transfer.conftest import Remembering
from weightstore.batch import Item, NoProgress
from weightstore.client import Client
from weightstore.config import Config, Step
from weightstore.digest import Digest
from weightstore.errors import (
    AllSourcesFailed,
    DigestMismatch,
    MissingDependency,
    NoSpace,
    NotPresent,
    SourceNotFound,
    TransferError,
    WeightStoreError,
)
from weightstore.records import Wanted
from weightstore.source import Source, parse_source
from weightstore.store.layout import create_layout
from weightstore.transfer.progress import Meter

MakeClient = Callable[..., Client]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def pinned(server: HostileServer, data: bytes) -> str:
    """The origin's URL with a full pin."""
    return f"{server.serve('/origin.pth', data)}#sha256={digest_of(data)}"


@pytest.fixture
def mirror(other_host: HostileServer) -> Source:
    return Source(other_host.url("/mirror"))


def serve_blob(host: HostileServer, data: bytes, behaviour: Behaviour | tuple[()] = (), *, content: bytes) -> None:
    host.serve(f"/mirror/blobs/sha256/{digest_of(data)}", content, behaviour)


def blobs(config: Config) -> list[str]:
    return sorted(path.name for path in (config.home / "blobs" / "sha256").iterdir())


def test_a_directory_serves_as_a_mirror(
    server: HostileServer, make_client: MakeClient, pinned: str, data: bytes, tmp_path: Path
) -> None:
    held = create_layout(tmp_path / "mirror")
    held.blob(Digest(digest_of(data))).write_bytes(data)
    client = make_client(mirrors=(Source.of_path(tmp_path / "mirror"),))
    assert client.path(pinned).read_bytes() == data
    assert server.requests == []


def test_a_served_store_is_a_mirror(
    server: HostileServer,
    other_host: HostileServer,
    make_client: MakeClient,
    pinned: str,
    data: bytes,
    config: Config,
    tmp_path: Path,
) -> None:
    make_client(home=tmp_path / "theirs").path(pinned)
    other_host.serve_directory(tmp_path / "theirs")
    before = len(server.requests)
    assert make_client(mirrors=(Source(other_host.url("/")),)).path(pinned).read_bytes() == data
    assert len(server.requests) == before
    assert blobs(config) == [digest_of(data)]


def test_the_query_of_a_mirror_stays_at_the_end(
    other_host: HostileServer, make_client: MakeClient, pinned: str, data: bytes
) -> None:
    serve_blob(other_host, data, content=data)
    make_client(mirrors=(Source(other_host.url("/mirror/?token=abc")),)).path(pinned)
    assert other_host.requests[0].path == f"/mirror/blobs/sha256/{digest_of(data)}?token=abc"


@pytest.mark.parametrize(
    "behaviour",
    [
        does.corrupt(1000),
        does.truncate(300_000),
        does.status(404),
        does.status(403),
        does.status(503),
        does.declared_length(10),
        does.gzip_encoding(),
        does.garbage_status_line(),
        does.redirect("file:///etc/passwd"),
        does.endless_body(),
        does.endless_body(declared=10_000_000),
    ],
    ids=str,
)
def test_a_mirror_that_fails_is_passed_over_with_one_note(
    server: HostileServer,
    other_host: HostileServer,
    make_client: MakeClient,
    mirror: Source,
    config: Config,
    pinned: str,
    data: bytes,
    behaviour: Behaviour,
) -> None:
    serve_blob(other_host, data, behaviour, content=data)
    client, meter = make_client(mirrors=(mirror,)), Remembering()
    assert client.path(pinned, meter=meter).read_bytes() == data
    assert len([note for note in meter.notes if note.startswith("mirror passed over: ")]) == 1
    assert len(server.requests) >= 1
    assert blobs(config) == [digest_of(data)]


def test_what_a_cut_mirror_gave_is_gone_on_with_from_the_origin(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, pinned: str, data: bytes
) -> None:
    serve_blob(other_host, data, does.truncate(300_000), content=data)
    assert make_client(mirrors=(mirror,)).path(pinned).read_bytes() == data
    assert server.requests[0].range == "bytes=300000-"


def test_a_mirror_where_nobody_listens_is_passed_over(
    other_host: HostileServer, make_client: MakeClient, mirror: Source, pinned: str, data: bytes
) -> None:
    other_host.stop()
    assert make_client(mirrors=(mirror,)).path(pinned).read_bytes() == data


def test_a_dead_mirror_is_asked_once_by_a_client(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    urls = []
    for number in range(3):
        content = data[number:]
        serve_blob(other_host, content, does.status(503), content=content)
        urls.append(f"{server.serve(f'/{number}', content)}#sha256={digest_of(content)}")
    assert make_client(mirrors=(mirror,), jobs=1).prefetch(urls).failures == ()
    assert len(other_host.requests) == 1


def test_the_next_process_asks_a_mirror_that_never_answers_after_the_origin(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    for number in range(3):
        content = data[number:]
        serve_blob(other_host, content, does.no_answer(), content=content)
        url = f"{server.serve(f'/{number}', content)}#sha256={digest_of(content)}"
        assert make_client(mirrors=(mirror,), read_timeout_s=0.3).path(url).read_bytes() == content
    assert len(other_host.requests) == 1


def test_a_mirror_that_did_not_answer_is_asked_where_it_is_all_there_is_and_forgiven_when_it_serves(
    other_host: HostileServer, make_client: MakeClient, mirror: Source, pinned: str, data: bytes, config: Config
) -> None:
    serve_blob(other_host, data, does.no_answer(times=1), content=data)
    alone = {"mirrors": (mirror,), "order": ("layers", "mirrors"), "read_timeout_s": 0.3}
    with pytest.raises(TransferError):
        make_client(**alone).path(pinned)
    assert len(list((config.state / "silent").iterdir())) == 1
    assert make_client(**alone).path(pinned).read_bytes() == data
    assert list((config.state / "silent").iterdir()) == []


def test_of_two_mirrors_the_one_that_did_not_answer_is_asked_last(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    for number in range(2):
        content = data[number:]
        serve_blob(other_host, content, does.no_answer(), content=content)
        serve_blob(server, content, content=content)
        mirrors = (mirror, Source(server.url("/mirror")))
        client = make_client(mirrors=mirrors, order=("layers", "mirrors"), read_timeout_s=0.3)
        assert client.path(f"https://o.example/x#sha256={digest_of(content)}").read_bytes() == content
    assert len(other_host.requests) == 1


def test_a_dead_mirror_is_told_of_once_by_many_files_at_once(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    urls = []
    for number in range(8):
        content = data[number:]
        serve_blob(other_host, content, does.status(503), content=content)
        urls.append(f"{server.serve(f'/{number}', content)}#sha256={digest_of(content)}")
    notes: list[str] = []

    class Progress(NoProgress):
        def meter(self, item: Item) -> Meter:
            meter = Remembering()
            meter.notes = notes
            return meter

    report = make_client(mirrors=(mirror,), jobs=8).prefetch(urls, progress=Progress())
    assert report.failures == ()
    assert len([note for note in notes if note.startswith("mirror passed over")]) == 1


def test_a_mirror_that_lacks_one_blob_is_asked_for_the_next(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    urls = [f"{server.serve(f'/{number}', data[number:])}#sha256={digest_of(data[number:])}" for number in range(2)]
    make_client(mirrors=(mirror,), jobs=1).prefetch(urls)
    assert [request.status for request in other_host.requests] == [404, 404]


def test_mirrors_are_asked_in_order(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, pinned: str, data: bytes
) -> None:
    serve_blob(other_host, data, content=data)
    empty = Source(server.url("/empty"))
    make_client(mirrors=(empty, mirror)).path(pinned)
    assert [request.status for request in server.requests] == [404]
    assert len(other_host.requests) == 1


@pytest.mark.parametrize("order", [("origin",), ("layers", "origin"), ("origin", "mirrors"), ("layers",)])
def test_the_configured_order_is_kept(
    server: HostileServer,
    other_host: HostileServer,
    make_client: MakeClient,
    mirror: Source,
    pinned: str,
    data: bytes,
    order: tuple[Step, ...],
) -> None:
    serve_blob(other_host, data, content=data)
    client = make_client(mirrors=(mirror,), order=order)
    if "origin" in order:
        client.path(pinned)
        assert len(server.requests) == 1
    else:
        with pytest.raises(NotPresent, match="left out by the configured order"):
            client.path(pinned)
    assert other_host.requests == []


def test_mirrors_alone_that_lack_it_are_an_error(
    other_host: HostileServer, make_client: MakeClient, mirror: Source, pinned: str
) -> None:
    with pytest.raises(TransferError, match="no mirror gave it"):
        make_client(mirrors=(mirror,), order=("layers", "mirrors")).path(pinned)
    assert len(other_host.requests) == 1


def test_mirrors_alone_that_declare_more_than_fits_are_no_space(
    other_host: HostileServer, make_client: MakeClient, mirror: Source, pinned: str, data: bytes
) -> None:
    serve_blob(other_host, data, does.endless_body(declared=10**12), content=data)
    with pytest.raises(NoSpace, match="declares more than there is room for"):
        make_client(mirrors=(mirror,), order=("mirrors",)).path(pinned)


def test_a_mirror_is_held_to_what_is_known_of_a_size_and_else_to_a_bound(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    source, pin = parse_source(f"{server.url('/gone')}#sha256={digest_of(data)}")
    client = make_client(mirrors=(mirror,), order=("mirrors",))
    for declared, size, bound in ((10**13, None, 1 << 40), (10**8, len(data), 2 * len(data) + (1 << 20))):
        serve_blob(other_host, data, does.endless_body(declared=declared), content=data)
        (result,) = client.prefetch(plan=client.plan([Wanted("x", source, pin, size=size)])).results
        assert f"{declared} bytes are more than the {bound}" in str(result.error)
    serve_blob(other_host, data, does.endless_body(declared=None), content=data)
    (result,) = client.prefetch(plan=client.plan([Wanted("x", source, pin)])).results
    assert "does not say how long the file is" in str(result.error)


def test_of_a_recorded_source_a_mirror_has_to_give_the_size_too(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    url = server.serve("/unpinned.pth", data)
    make_client().path(url).unlink()
    serve_blob(other_host, data, does.endless_body(declared=10**9), content=data)
    client, meter = make_client(mirrors=(mirror,)), Remembering()
    assert client.path(url, meter=meter).read_bytes() == data
    (note,) = [note for note in meter.notes if note.startswith("mirror passed over")]
    assert f"expected {len(data)} bytes, got 1000000000" in note


def test_who_watches_no_progress_is_told_of_a_mirror_once_as_well(
    server: HostileServer,
    other_host: HostileServer,
    make_client: MakeClient,
    mirror: Source,
    data: bytes,
    notes: list[str],
) -> None:
    client = make_client(mirrors=(mirror,))
    for number in range(3):
        content = data[number:]
        serve_blob(other_host, content, content=content[::-1])
        url = server.serve(f"/{number}", content)
        assert client.path(f"{url}#sha256={digest_of(content)}").read_bytes() == content
    (note,) = notes
    assert note.startswith(f"mirror passed over: {mirror}")


def test_a_mirror_that_gave_much_wrong_is_asked_last_and_told_of_once(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    urls = []
    for number in range(6):
        content = data[number:]
        serve_blob(other_host, content, content=content[::-1])
        urls.append(f"{server.serve(f'/{number}', content)}#sha256={digest_of(content)}")
    notes: list[str] = []

    class Progress(NoProgress):
        def meter(self, item: Item) -> Meter:
            meter = Remembering()
            meter.notes = notes
            return meter

    client = make_client(mirrors=(mirror,), jobs=1)
    assert client.prefetch(urls, progress=Progress()).failures == ()
    assert len(other_host.requests) <= 4, "three, and what a second thread had asked for meanwhile"
    assert len([note for note in notes if note.startswith("mirror passed over")]) == 1


def test_a_mirror_that_failed_once_is_asked_again_where_nobody_else_has_it(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    first, second = data[1:], data[2:]
    serve_blob(other_host, first, does.truncate(1000), content=first)
    serve_blob(other_host, second, content=second)
    other = Source(server.url("/nothing-here"))
    client = make_client(mirrors=(mirror, other), order=("mirrors",), jobs=1)
    pinned = [f"{server.url('/gone')}{number}#sha256={digest_of(one)}" for number, one in enumerate((first, second))]
    report = client.prefetch(pinned)
    assert [result.status for result in report.results] == ["failed", "fetched"]


def test_a_layer_is_asked_before_everybody(
    server: HostileServer, make_client: MakeClient, pinned: str, data: bytes, config: Config, tmp_path: Path
) -> None:
    make_client(home=tmp_path / "site").path(pinned)
    before = len(server.requests)
    found = make_client(layers=(tmp_path / "site",)).path(pinned)
    assert found.is_relative_to(tmp_path / "site")
    assert len(server.requests) == before
    assert not config.home.exists()


def test_a_layer_that_the_order_leaves_out_is_not_asked(
    make_client: MakeClient, pinned: str, config: Config, tmp_path: Path
) -> None:
    make_client(home=tmp_path / "site").path(pinned)
    found = make_client(layers=(tmp_path / "site",), order=("origin",)).path(pinned)
    assert found.is_relative_to(config.home)


def test_a_prefix_alone_is_not_asked_of_mirrors(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    serve_blob(other_host, data, content=data)
    url = server.serve(f"/model-{digest_of(data)[:8]}.pth", data)
    client = make_client(mirrors=(mirror,))
    reasons = [step.answer for step in client.why(url).steps if step.place.startswith("mirror")]
    assert client.path(url).read_bytes() == data
    assert other_host.requests == []
    assert reasons == [f"needs the full digest, and only sha256:{digest_of(data)[:8]} is known"]


def test_a_recorded_digest_is_asked_of_mirrors(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, mirror: Source, data: bytes
) -> None:
    serve_blob(other_host, data, content=data)
    url = server.serve("/unpinned.pth", data)
    path = make_client().path(url)
    path.unlink()
    assert make_client(mirrors=(mirror,)).path(url).read_bytes() == data
    assert len(server.requests) == 1
    assert len(other_host.requests) == 1


def test_a_damaged_file_in_a_layer_does_not_lend_its_name_to_a_prefix(
    server: HostileServer, make_client: MakeClient, data: bytes, tmp_path: Path
) -> None:
    """Its name begins like the pin, its content does not: what it claims must not become the full pin."""
    prefix = digest_of(data)[:8]
    site = create_layout(tmp_path / "site")
    (site.blobs / (prefix + "0" * 56)).write_bytes(b"forged")
    url = server.serve(f"/model-{prefix}.pth", data)
    assert make_client(layers=(tmp_path / "site",)).path(url).read_bytes() == data


def test_alternatives_are_asked_after_the_source(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    source, pin = parse_source(f"{server.url('/gone')}#sha256={digest_of(data)}")
    wanted = Wanted("x", source, pin, alternatives=(Source(other_host.serve("/there", data)),))
    client = make_client()
    report = client.prefetch(plan=client.plan([wanted]))
    assert [result.status for result in report.results] == ["fetched"]
    assert [request.status for request in server.requests] == [404]


def test_all_that_failed_is_told(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    source, pin = parse_source(f"{server.url('/gone')}#sha256={digest_of(data)}")
    wanted = Wanted("x", source, pin, alternatives=(Source(other_host.serve("/there", data[::-1])),))
    client = make_client()
    (result,) = client.prefetch(plan=client.plan([wanted])).results
    assert isinstance(result.error, AllSourcesFailed)
    assert [type(failure) for failure in result.error.failures] == [SourceNotFound, DigestMismatch]
    assert "/gone" in str(result.error)
    assert "/there" in str(result.error)


def test_a_mirror_by_path_that_is_gone_is_passed_over(
    make_client: MakeClient, pinned: str, data: bytes, tmp_path: Path
) -> None:
    client = make_client(mirrors=(Source.of_path(tmp_path / "unmounted"),))
    assert client.path(pinned).read_bytes() == data
    shutil.rmtree(client.config.home)
    with pytest.raises(WeightStoreError):
        make_client(mirrors=(Source.of_path(tmp_path / "unmounted"),), order=("mirrors",)).path(pinned)


def test_a_mirror_whose_package_is_not_installed_is_passed_over(
    make_client: MakeClient,
    other_host: HostileServer,
    pinned: str,
    data: bytes,
    notes: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    serve_blob(other_host, data, content=data)
    bucket, mirror = Source("s3://weights/site"), Source(other_host.url("/mirror"))
    client = make_client(mirrors=(bucket, mirror))
    assert client.path(pinned).read_bytes() == data
    assert [note for note in notes if 'pip install "weightstore[cloud]"' in note]
    with pytest.raises(MissingDependency, match="obstore"):
        make_client(home=tmp_path / "other", mirrors=(bucket,), order=("mirrors",)).path(pinned)
