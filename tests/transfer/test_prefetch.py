"""Many files side by side: planned, checked for room, fetched under one cap, and reported one by one."""

from __future__ import annotations

import _thread
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import behaviours as does
from tests.servers.hostile import HostileServer
from tests.transfer.conftest import Remembering
from weightstore.batch import Item, NoProgress, Plan, Report, Result, check_room
from weightstore.client import Client
from weightstore.config import Config
from weightstore.digest import Pin
from weightstore.errors import Cancelled, NoSpace, NotPresent, SourceNotFound
from weightstore.records import Wanted
from weightstore.source import Source
from weightstore.transfer.progress import Meter

MakeClient = Callable[..., Client]


class Watching(NoProgress):
    """A progress that remembers, and can interrupt."""

    def __init__(self, on_advance: Callable[[int], None] | None = None) -> None:
        self.plans: list[Plan] = []
        self.results: list[Result] = []
        self.on_advance = on_advance

    def begin(self, plan: Plan) -> None:
        self.plans.append(plan)

    def meter(self, item: Item) -> Meter:
        return Remembering(on_advance=self.on_advance)

    def done(self, result: Result) -> None:
        self.results.append(result)


def statuses(report: Report) -> list[str]:
    return [result.status for result in report.results]


def serve_many(server: HostileServer, data: bytes, count: int, *behaviours: does.Behaviour) -> list[str]:
    return [server.serve(f"/{number}", data[number:], behaviours) for number in range(count)]


def test_many_files_come_side_by_side(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    urls = serve_many(server, data, 8, does.rate_cap(5e6))
    report = make_client(jobs=4).prefetch(urls)
    assert statuses(report) == ["fetched"] * 8
    assert [result.obtained.path.read_bytes() for result in report.results if result.obtained] == [
        data[number:] for number in range(8)
    ]
    assert report.bytes_received == sum(len(data) - number for number in range(8))
    assert server.peak_concurrency == 4


@pytest.mark.parametrize("cap", [1, 2])
def test_all_files_share_one_cap_on_connections(server: HostileServer, config: Config, data: bytes, cap: int) -> None:
    """From the very first moment: in a new process all threads wait for the imports, and then go on at once."""
    urls = serve_many(server, data[:50_000], 24, does.rate_cap(5e6))
    script = f"""
import sys
from pathlib import Path
from weightstore import Client
from weightstore.config import Config
config = Config(home=Path(sys.argv[1]), state=Path(sys.argv[2]), max_connections={cap}, jobs=24)
sys.exit(len(Client(config).prefetch(sys.argv[3:]).failures))
"""
    arguments = [sys.executable, "-c", script, str(config.home), str(config.state), *urls]
    subprocess.run(arguments, check=True, timeout=60, cwd=Path(__file__).parents[2])
    assert server.peak_concurrency == cap


def test_a_second_run_finds_everything_present(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    urls = serve_many(server, data, 3)
    make_client().prefetch(urls)
    before = len(server.requests)
    report = make_client().prefetch(urls)
    assert statuses(report) == ["present"] * 3
    assert report.bytes_received == 0
    assert len(server.requests) == before


def test_one_that_fails_does_not_keep_the_others_from_coming(
    server: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    urls = serve_many(server, data, 4)
    urls.insert(1, server.url("/nothing"))
    report = make_client(jobs=1).prefetch(urls)
    assert statuses(report) == ["fetched", "failed", "fetched", "fetched", "fetched"]
    assert isinstance(report.failures[0].error, SourceNotFound)


def test_one_that_declares_more_than_fits_does_not_keep_the_others_from_coming(
    server: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    urls = [server.serve("/lie", behaviour=does.endless_body()), *serve_many(server, data, 2)]
    stop = threading.Event()
    report = make_client(jobs=1).prefetch(urls, stop=stop)
    assert statuses(report) == ["failed", "fetched", "fetched"]
    assert isinstance(report.failures[0].error, NoSpace)
    assert not stop.is_set()


def test_two_names_of_one_source_are_one_item(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    url = server.serve("/x", data)
    report = make_client().prefetch([url, url, url.replace("http:", "HTTP:")])
    assert statuses(report) == ["fetched"]
    assert len(server.requests) == 1


def test_an_empty_file_was_fetched(server: HostileServer, make_client: MakeClient) -> None:
    assert statuses(make_client().prefetch([server.serve("/empty", b"")])) == ["fetched"]


def test_nothing_wanted_is_nothing_done(make_client: MakeClient, config: Config) -> None:
    assert make_client().prefetch([]).results == ()
    assert not config.home.exists()


def test_progress_is_told_of_the_plan_and_of_each_result(
    server: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    first, second = serve_many(server, data, 2)
    make_client().path(first)
    progress = Watching()
    make_client().prefetch([first, second], progress=progress)
    (plan,) = progress.plans
    assert [item.is_present for item in plan.items] == [True, False]
    assert sorted(result.status for result in progress.results) == ["fetched", "present"]


def test_a_plan_knows_sizes_and_sources(server: HostileServer, make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "local.pth").write_bytes(b"12345")
    url = server.url("/x?sig=secret")
    sized = Wanted("sized", Source("https://example.org/y"), Pin(), size=100)
    client = make_client()
    plan = client.plan([*client.gather([url, str(tmp_path / "local.pth")]), sized])
    assert [item.size for item in plan.items] == [None, 5, 100]
    assert (plan.bytes_to_fetch, plan.sizes_unknown) == (105, 1)
    assert plan.items[0].sources == (server.url("/x?"),) or plan.items[0].sources == (server.url("/x"),)
    assert server.requests == []


def test_what_does_not_fit_is_found_beforehand(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    url = server.serve("/x", data)
    client = make_client()
    wanted = client.gather([url])
    huge = Wanted("huge", Source(server.url("/huge")), Pin(), size=1 << 58)
    with pytest.raises(NoSpace, match="too little free space"):
        client.prefetch(plan=client.plan([*wanted, huge]))
    assert server.requests == []


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a tmpfs, which refuses at once")
def test_what_cannot_be_allocated_is_found_beforehand(make_client: MakeClient) -> None:
    """Where statvfs does not tell: only trying does."""
    item = make_client().plan([Wanted("x", Source("https://example.org/x"), Pin(), size=1 << 50)]).items
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        with pytest.raises(NoSpace, match="too little free space"):
            check_room(Plan(item, None), Path(directory))
        assert os.listdir(directory) == []


def test_a_directory_that_cannot_be_tried_is_not_refused(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    item = client.plan([Wanted("x", Source("https://example.org/x"), Pin(), size=1)]).items
    check_room(Plan(item, None), tmp_path / "missing")


def test_stopping_reports_the_rest_as_cancelled(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    urls = serve_many(server, data, 4, does.rate_cap(1e6))
    stop = threading.Event()
    report = make_client(jobs=2).prefetch(
        urls, stop=stop, progress=Watching(lambda received: stop.set() if received > 100_000 else None)
    )
    assert statuses(report) == ["cancelled"] * 4
    assert all(isinstance(result.error, Cancelled) for result in report.failures)
    assert len(server.requests) == 2


def test_ctrl_c_stops_cleanly_and_the_next_run_resumes(
    server: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    urls = serve_many(server, data, 2, does.rate_cap(1e6, times=1))
    interrupted = threading.Event()

    def interrupt(received: int) -> None:
        if received > 200_000 and not interrupted.is_set():
            interrupted.set()
            _thread.interrupt_main()

    report = make_client(jobs=2).prefetch(urls, progress=Watching(interrupt))
    assert statuses(report) == ["cancelled"] * 2
    assert statuses(make_client().prefetch(urls)) == ["fetched"] * 2
    assert all(request.status == 206 for request in server.requests[2:])


def test_a_defect_in_one_item_is_its_failure(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    def explode(_: int) -> None:
        raise ZeroDivisionError("a defect")

    (result,) = make_client().prefetch(serve_many(server, data, 1), progress=Watching(explode)).results
    assert result.status == "failed"
    assert "unexpected ZeroDivisionError" in str(result.error)


def test_offline_reports_what_is_missing_and_makes_nothing(
    server: HostileServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    report = make_client(offline=True).prefetch(serve_many(server, data, 2))
    assert statuses(report) == ["failed"] * 2
    assert all(isinstance(result.error, NotPresent) for result in report.failures)
    assert server.requests == []
    assert not config.home.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_made_is_an_error(
    server: HostileServer, make_client: MakeClient, data: bytes, tmp_path: Path
) -> None:
    from weightstore.errors import StoreError

    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StoreError):
        make_client(home=tmp_path / "closed" / "store").prefetch(serve_many(server, data, 1))


def test_the_digest_of_what_was_fetched_is_reported(
    server: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    (result,) = make_client().prefetch(serve_many(server, data, 1)).results
    assert result.obtained is not None
    assert result.obtained.digest.hex == hashlib.sha256(data).hexdigest()
    assert (result.obtained.via, result.obtained.size) == ("origin", len(data))
    assert result.elapsed_s > 0
