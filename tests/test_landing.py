"""Downloads that are complete at the same time land together."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.hostile import HostileServer
from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import NoSpace
from weightstore.landing import Lander, Landing
from weightstore.store.blobs import list_blobs
from weightstore.store.parts import list_parts
from weightstore.transfer.progress import Silent


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(Config(home=tmp_path / "store", state=tmp_path / "state", retries=0))


@pytest.fixture
def bring(client: Client) -> Callable[[str], Landing]:
    def bring(url: str) -> Landing:
        landing = client.obtainer.bring(client.wanted(url), meter=Silent(), stop=threading.Event())
        assert isinstance(landing, Landing)
        return landing

    return bring


def _serve(server: HostileServer, count: int) -> list[str]:
    return [server.serve(f"/{number}.bin", bytes([number]) * 5000) for number in range(count)]


def test_what_has_not_landed_has_no_name_and_keeps_others_waiting(
    client: Client, bring: Callable[[str], Landing]
) -> None:
    with HostileServer() as server:
        (url,) = _serve(server, 1)
        landing = bring(url)
        layout = client.obtainer.writable()
        assert list_blobs(layout) == {}
        assert len(list_parts(layout)) == 1

        waited = threading.Event()
        meter = Silent()
        meter.note = lambda text: waited.set() if "waiting" in text else None  # type: ignore[method-assign]
        found = []
        other = threading.Thread(
            target=lambda: found.append(client.obtainer.bring(client.wanted(url), meter=meter, stop=threading.Event()))
        )
        other.start()
        assert waited.wait(10)
        obtained = landing.land()
        other.join(10)

    assert [one.path for one in found] == [obtained.path]
    assert len(server.requests) == 1
    assert obtained.path.read_bytes() == bytes(5000)
    assert list_parts(layout) == []


def test_all_contents_are_synced_before_the_first_name(
    client: Client, bring: Callable[[str], Landing], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(os, "link", lambda *args, **kwargs: (events.append("link"), link(*args, **kwargs))[1])
    with HostileServer() as server:
        landings = [bring(url) for url in _serve(server, 3)]
        events.clear()
        arriving = threading.Event()
        lander = Lander(client.receipts, more_to_come=lambda: not arriving.is_set())
        for landing in landings:
            lander.take(landing, landing.land)
        arriving.set()
        lander.close()

    assert events == ["sync"] * 3 + ["link"] * 3
    assert len(list_blobs(client.obtainer.writable())) == 3


def test_one_that_cannot_be_synced_does_not_keep_the_others_from_landing(
    client: Client, bring: Callable[[str], Landing], monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostileServer() as server:
        landings = [bring(url) for url in _serve(server, 3)]
    fsync = os.fsync
    calls: list[int] = []

    def fail_second(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail_second)
    outcomes: list[object] = []

    def land(landing: Landing) -> None:
        try:
            outcomes.append(landing.land().path)
        except NoSpace as error:
            outcomes.append(error)

    lander = Lander(client.receipts, more_to_come=lambda: False)
    for landing in landings:
        lander.take(landing, lambda landing=landing: land(landing))
    lander.close()

    assert [isinstance(outcome, NoSpace) for outcome in outcomes] == [False, True, False]
    layout = client.obtainer.writable()
    assert len(list_blobs(layout)) == 2
    assert list_parts(layout) == []


def test_a_download_whose_part_was_taken_over_is_found_or_fetched_again(
    client: Client, bring: Callable[[str], Landing]
) -> None:
    with HostileServer() as server:
        (url,) = _serve(server, 1)
        landing = bring(url)
        (part,) = list_parts(client.obtainer.writable())
        part.path.unlink()

        obtained = client.obtainer.land(landing, meter=Silent(), stop=threading.Event())

    assert obtained.path.read_bytes() == bytes(5000)


def test_a_prefetch_of_many_files_lands_them_all(client: Client) -> None:
    with HostileServer() as server:
        urls = _serve(server, 80)
        report = client.prefetch(urls, jobs=8)
    assert [result.status for result in report.results] == ["fetched"] * 80
    assert len(list_blobs(client.obtainer.writable())) == 80
    assert list_parts(client.obtainer.writable()) == []
