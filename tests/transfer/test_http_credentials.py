"""Credentials come from the URL or .netrc, go to the first host alone, and are never shown or written down."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import behaviours as does
from tests.servers.hostile import HostileServer
from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import AccessDenied, SourceUnavailable, WeightStoreError

MakeClient = Callable[..., Client]
SECRET = "5ecret-w0rd"


def write_netrc(path: Path, host: str = "127.0.0.1") -> None:
    path.write_text(f"machine {host} login me password {SECRET}\n")
    path.chmod(0o600)


def with_credentials(url: str, password: str = SECRET) -> str:
    return url.replace("://", f"://me:{password}@")


def files_of(config: Config) -> list[bytes]:
    roots = (config.home, config.state)
    return [file.read_bytes() for root in roots for file in root.rglob("*") if file.is_file()]


def test_credentials_of_the_url_are_sent(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    url = server.serve("/model.pth", data, does.basic_auth("me", SECRET))
    assert make_client().path(with_credentials(url)).read_bytes() == data


def test_percent_encoded_credentials_are_decoded(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    url = server.serve("/model.pth", data, does.basic_auth("me", "p@ss:w/rd"))
    assert make_client().path(with_credentials(url, "p%40ss%3Aw%2Frd")).read_bytes() == data


def test_credentials_of_netrc_are_sent(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    write_netrc(Path.home() / ".netrc")
    url = server.serve("/model.pth", data, does.basic_auth("me", SECRET))
    assert make_client().path(url).read_bytes() == data


def test_the_netrc_that_the_environment_names_is_read(
    server: HostileServer, make_client: MakeClient, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_netrc(tmp_path / "my.netrc")
    monkeypatch.setenv("NETRC", str(tmp_path / "my.netrc"))
    url = server.serve("/model.pth", data, does.basic_auth("me", SECRET))
    assert make_client().path(url).read_bytes() == data


def test_credentials_of_the_url_win_over_netrc(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    write_netrc(Path.home() / ".netrc")
    url = server.serve("/model.pth", data, does.basic_auth("me", "other"))
    assert make_client().path(with_credentials(url, "other")).read_bytes() == data


def test_netrc_is_not_asked_for_the_host_of_a_redirect(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    write_netrc(Path.home() / ".netrc", "127.0.0.2")
    other_host.serve("/model.pth", data)
    make_client().path(server.serve("/here", behaviour=does.redirect(other_host.url("/model.pth"))))
    assert other_host.requests[0].headers["Authorization"] is None


def test_netrc_of_the_first_host_does_not_travel(
    server: HostileServer, other_host: HostileServer, make_client: MakeClient, data: bytes
) -> None:
    write_netrc(Path.home() / ".netrc")
    other_host.serve("/model.pth", data)
    make_client().path(server.serve("/here", behaviour=does.redirect(other_host.url("/model.pth"))))
    assert server.requests[0].headers["Authorization"] is not None
    assert other_host.requests[0].headers["Authorization"] is None


def test_a_broken_netrc_is_as_good_as_none(server: HostileServer, make_client: MakeClient, data: bytes) -> None:
    (Path.home() / ".netrc").write_text("machine machine machine {")
    assert make_client().path(server.serve("/model.pth", data)).read_bytes() == data


def test_a_refusal_says_where_credentials_come_from(server: HostileServer, make_client: MakeClient) -> None:
    url = server.serve("/model.pth", b"x", does.basic_auth("me", SECRET))
    with pytest.raises(AccessDenied, match=r"401.*\.netrc"):
        make_client(retries=3).path(url)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        does.basic_auth("somebody", "else"),
        does.status(404),
        does.status(503),
        does.truncate(100),
        does.garbage_status_line(),
        does.redirect("http://[::1"),
        does.gzip_encoding(),
        does.declared_length(7),
    ],
    ids=str,
)
def test_no_error_shows_credentials(
    server: HostileServer, make_client: MakeClient, notes: list[str], behaviour: does.Behaviour
) -> None:
    url = server.serve("/model.pth", b"x" * 1000, behaviour)
    wanted = with_credentials(url) + f"?token={SECRET}#sha256={'0' * 64}"
    with pytest.raises(WeightStoreError) as caught:
        make_client().path(wanted)
    said = [str(caught.value), repr(caught.value), repr(caught.value.fields), *notes]
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert not any(SECRET in text or encoded in text for text in said)


def test_no_error_shows_credentials_where_nobody_listens(make_client: MakeClient, server: HostileServer) -> None:
    server.stop()
    with pytest.raises(SourceUnavailable, match="no connection") as caught:
        make_client().path(with_credentials(server.url("/model.pth")))
    assert SECRET not in str(caught.value)


def test_nothing_on_disk_holds_credentials(
    server: HostileServer, make_client: MakeClient, config: Config, data: bytes
) -> None:
    whole = with_credentials(server.serve("/whole.pth", data)) + f"?x-amz-signature={SECRET}"
    cut = with_credentials(server.serve("/cut.pth", data, does.truncate(500_000))) + f"?token={SECRET}"
    make_client().path(whole)
    with pytest.raises(SourceUnavailable):
        make_client().path(cut)
    files = files_of(config)
    assert any(b"/whole.pth" in content for content in files), "the ref"
    assert any(b"/cut.pth" in content for content in files), "the journal"
    assert not any(SECRET.encode() in content for content in files)
