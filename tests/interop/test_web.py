"""Checkpoints that a program downloads by urllib come from the store, whatever it does with the response."""

from __future__ import annotations

import gc
import os
import urllib.request
import warnings
from http.client import HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import Request, build_opener, urlopen, urlretrieve

import pytest

import weightstore

if TYPE_CHECKING:
    from tests.interop.conftest import Checkpoint, Place


def test_urlopen_gives_the_whole_file_once(place: Place, net: Checkpoint) -> None:
    with weightstore.enabled():
        for _ in range(2):
            with urlopen(Request(net.url, headers={"User-Agent": "torch.hub"})) as response:
                assert response.status == response.getcode() == 200
                assert response.geturl() == net.url
                assert response.info().get_all("Content-Length") == [str(len(net.data))]
                assert int(response.headers["Content-Length"]) == len(net.data)
                assert b"".join(iter(lambda: response.read(8192), b"")) == net.data

    assert place.bodies(net) == 1


def test_urlretrieve_and_openers_are_reached(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    with weightstore.enabled():
        path, headers = urlretrieve(net.url, tmp_path / "a", lambda *told: seen.append(told))
        assert build_opener().open(net.url).read() == net.data
        assert urllib.request.urlopen(net.url, timeout=5).readlines()

    assert Path(path).read_bytes() == net.data
    assert headers["Content-Type"] == "application/octet-stream"
    assert seen[0][2] == len(net.data)
    assert place.bodies(net) == 1


def test_the_response_has_what_a_servers_has(net: Checkpoint) -> None:
    with weightstore.enabled():
        response = urlopen(net.url)
    assert isinstance(response, HTTPResponse)
    assert (response.reason, response.msg, response.version) == ("OK", "OK", 11)
    assert response.getheader("Content-Length") == str(len(net.data))
    assert dict(response.getheaders())["Content-Type"] == "application/octet-stream"
    assert response.length == len(net.data)
    buffer = bytearray(100)
    assert response.readinto(buffer) == 100
    assert bytes(buffer) + response.read() == net.data
    assert response.isclosed()


def test_a_response_that_is_dropped_lets_go_of_the_file(net: Checkpoint) -> None:
    with weightstore.enabled(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        urlopen(net.url).close()
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            urlopen(net.url).read(10)
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before
    assert not told


def test_openers_with_credentials_go_their_way(place: Place, net: Checkpoint) -> None:
    opener = build_opener()
    opener.addheaders.append(("Authorization", "Bearer secret"))
    with weightstore.enabled():
        opener.open(net.url).close()
    assert not place.store.exists()


def test_what_a_server_refuses_is_refused_in_urllibs_words(place: Place) -> None:
    with weightstore.enabled(), pytest.raises(HTTPError) as caught:
        urlopen(place.server.url("/absent.pth"))
    caught.value.close()
    assert caught.value.code == 404


def test_offline_no_connection_is_made(place: Place, net: Checkpoint) -> None:
    with weightstore.enabled():
        urlopen(net.url).close()
    place.server.stop()
    with weightstore.enabled(offline=True):
        assert urlopen(net.url).read() == net.data
        with pytest.raises(URLError, match="weightstore prefetch"):
            urlopen("https://example.org/other.pth")
        with pytest.raises(URLError, match=r"offline mode forbids to ask example.org"):
            urlopen("https://user:secret@example.org/page.html")


@pytest.mark.parametrize(
    "change",
    [
        {"headers": {"Range": "bytes=0-3"}},
        {"headers": {"Authorization": "Bearer x"}},
        {"method": "HEAD"},
        {"data": b"body"},
    ],
    ids=["a range", "credentials", "another method", "a body"],
)
def test_other_requests_go_their_way(place: Place, net: Checkpoint, change: dict[str, object]) -> None:
    with weightstore.enabled():
        try:
            urlopen(Request(net.url, **change)).close()  # type: ignore[arg-type]
        except HTTPError as error:
            error.close()

    assert not place.store.exists()
    assert len(place.server.requests) == 1


def test_what_is_no_checkpoint_goes_its_way(place: Place) -> None:
    url = place.server.serve("/data.json", b"{}")
    with weightstore.enabled():
        assert urlopen(url).read() == b"{}"

    assert not place.store.exists()


def test_a_file_url_goes_its_way(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"local")
    with weightstore.enabled():
        assert urlopen((tmp_path / "x.pth").as_uri()).read() == b"local"


def test_what_the_store_has_a_record_of_is_served_whatever_it_is_called(place: Place) -> None:
    url = place.server.serve("/release/mnist_init_ones", b"weights")
    weightstore.path(url)
    with weightstore.enabled(offline=True):
        assert urlopen(url).read() == b"weights"
