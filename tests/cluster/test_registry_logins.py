"""Who the user is to a registry: from the files of docker and podman, and from the programs that they name."""

from __future__ import annotations

import base64
import http.server
import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cli.conftest import Run, Site
from tests.servers.pipe import Pipe
from tests.servers.registry import DockerRegistry
from tests.servers.tokens import SignedTokens
from weightstore.cluster.mirror.registry import PIECE
from weightstore.errors import AccessDenied, SourceUnavailable
from weightstore.source import Source
from weightstore.transfer.http import HttpTransport
from weightstore.transfer.logins import Login, Logins, auth_files
from weightstore.transfer.registry import Registry, Repository

# The password is "secret"; bcrypt is all that the registry reads.
USER = "ada:$2y$05$HaxjFnkXJFuOyMQPmVxvxuOuHQ9CqWQwDpwPjXRS6y81HlDh5FnO.\n"
HOST = "registry.example.org:5000"


class Helper:
    """A program ``docker-credential-NAME`` on the PATH, which writes down what it was asked."""

    def __init__(self, folder: Path, name: str, then: str) -> None:
        self._asked = folder / f"{name}.asked"
        program = folder / f"docker-credential-{name}"
        program.write_text(f'#!/bin/sh\n{{ printf "%s " "$1"; cat; echo; }} >> "{self._asked}"\n{then}\n')
        program.chmod(0o755)

    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines() if self._asked.exists() else []


def says(user: str, secret: str) -> str:
    return f"echo '{json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret})}'"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that docker login writes."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder / "config.json"


def find(path: Path, *, host: str = HOST, repository: str = "group/weights", timeout_s: float = 20) -> Login | None:
    return Logins([path], helper_timeout_s=timeout_s).find(host, repository, display="oci://it")


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


# -- what the files say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [auth("ada", "secret:s"), {"username": "ada", "password": "secret:s"}],
)
def test_a_password_stands_in_the_file(tmp_path: Path, entry: dict[str, str]) -> None:
    (tmp_path / "file").write_text(json.dumps({"auths": {HOST: entry}}))
    found = find(tmp_path / "file")
    assert found is not None
    assert (found.user, found.password) == ("ada", "secret:s")


@pytest.mark.parametrize("key", [f"https://{HOST}", f"https://{HOST}/v1/", f"{HOST}/v2/", f"http://{HOST}/"])
def test_docker_writes_urls_as_well(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text(json.dumps({"auths": {key: auth("ada", "secret")}}))
    assert find(tmp_path / "file") is not None


def test_the_narrowest_of_podmans_keys_counts(tmp_path: Path) -> None:
    auths = {HOST: auth("all", "1"), f"{HOST}/group": auth("group", "2"), f"{HOST}/group/other": auth("other", "3")}
    (tmp_path / "file").write_text(json.dumps({"auths": auths}))
    found = [find(tmp_path / "file", repository=name) for name in ("group/weights", "group/other", "alone", "groups/x")]
    assert [login.user for login in found if login] == ["group", "other", "all", "all"]


def test_a_login_for_one_host_is_for_no_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps({"auths": {HOST: auth("ada", "secret")}}))
    others = ("registry.example.org", "registry.example.org:5001", f"evil.{HOST}", "example.org:5000")
    assert [find(tmp_path / "file", host=host) for host in others] == [None] * 4


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"auths": []}',
        '{"credHelpers": [], "credsStore": 7}',
        *(json.dumps({"auths": {HOST: entry}}) for entry in (1, {}, {"auth": "*"}, {"auth": 7}, {"auth": "YWRh"})),
    ],
)
def test_a_file_that_says_nothing_is_no_login(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)
    assert find(tmp_path / "file") is None


def test_the_files_are_those_of_docker_and_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert [str(path) for path in auth_files({})] == [
        "/home/ada/.docker/config.json",
        "/home/ada/.config/containers/auth.json",
    ]
    environ = {"REGISTRY_AUTH_FILE": "/a", "DOCKER_CONFIG": "/d", "XDG_RUNTIME_DIR": "/run/7", "XDG_CONFIG_HOME": "/c"}
    assert [str(path) for path in auth_files(environ)] == [
        "/a",
        "/d/config.json",
        "/run/7/containers/auth.json",
        "/c/containers/auth.json",
    ]


# -- helpers ------------------------------------------------------------------------------------------------------


def test_the_helper_of_a_registry_goes_before_that_of_all(tmp_path: Path, programs: Path) -> None:
    own, other = Helper(programs, "own", says("ada", "secret")), Helper(programs, "all", says("eve", "x"))
    (tmp_path / "file").write_text(json.dumps({"credHelpers": {HOST: "own"}, "credsStore": "all"}))
    found = find(tmp_path / "file")
    assert found is not None
    assert (found.user, found.password) == ("ada", "secret")
    assert own.asked() == [f"get {HOST}"]
    assert other.asked() == []
    found = find(tmp_path / "file", host="elsewhere.example.org")
    assert found is not None
    assert found.user == "eve"
    assert other.asked() == ["get elsewhere.example.org"]


def test_the_hub_has_the_name_under_which_docker_keeps_it(tmp_path: Path, programs: Path) -> None:
    helper = Helper(programs, "own", says("ada", "secret"))
    (tmp_path / "file").write_text(json.dumps({"credsStore": "own"}))
    assert find(tmp_path / "file", host="registry-1.docker.io") is not None
    assert helper.asked() == ["get https://index.docker.io/v1/"]


def test_the_hub_is_asked_where_it_is() -> None:
    repository, _ = Repository.of(Source("oci://docker.io/ada/weights"))
    assert (repository.base, repository.name) == ("https://registry-1.docker.io/v2/", "ada/weights")


def test_an_identity_token_is_no_password(tmp_path: Path, programs: Path) -> None:
    Helper(programs, "own", says("<token>", "refresh"))
    (tmp_path / "file").write_text(json.dumps({"credsStore": "own"}))
    found = find(tmp_path / "file")
    assert found is not None
    assert (found.user, found.password, found.identity_token) == ("", "", "refresh")


def test_what_a_helper_does_not_know_the_file_may(tmp_path: Path, programs: Path) -> None:
    Helper(programs, "own", "echo credentials not found in native keychain; exit 1")
    (tmp_path / "file").write_text(json.dumps({"credsStore": "own"}))
    assert find(tmp_path / "file") is None
    (tmp_path / "file").write_text(json.dumps({"credsStore": "own", "auths": {HOST: auth("ada", "secret")}}))
    found = find(tmp_path / "file")
    assert found is not None
    assert found.user == "ada"


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("echo the secret is hunter2; echo hunter2 >&2; exit 3", r"failed \(exit status 3\)"),
        ("echo hunter2", "something else than credentials"),
        ('echo \'{"Username": "ada", "Secret": ["hunter2"]}\'', "something else than credentials"),
        ("echo '[\"hunter2\"]'", "something else than credentials"),
    ],
)
def test_a_helper_that_fails_is_told_with_what_to_run_and_without_what_it_said(
    tmp_path: Path, programs: Path, then: str, said: str
) -> None:
    Helper(programs, "own", then)
    (tmp_path / "file").write_text(json.dumps({"credsStore": "own"}))
    with pytest.raises(AccessDenied, match=said) as refused:
        find(tmp_path / "file")
    assert f"docker login {HOST}" in str(refused.value)
    assert "docker-credential-own" in str(refused.value)
    assert "hunter2" not in repr(refused.value) + str(refused.value.fields)


@pytest.mark.parametrize("name", ["gone", "../programs/own", "a b"])
def test_a_helper_that_is_no_program_of_the_path_is_not_run(tmp_path: Path, programs: Path, name: str) -> None:
    helper = Helper(programs, "own", says("ada", "secret"))
    (tmp_path / "file").write_text(json.dumps({"credsStore": name}))
    with pytest.raises(AccessDenied, match="not on the PATH"):
        find(tmp_path / "file")
    assert helper.asked() == []


def test_a_helper_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, programs: Path) -> None:
    Helper(programs, "own", f"sleep 300 & echo $! > {tmp_path}/pid; wait")
    (tmp_path / "file").write_text(json.dumps({"credsStore": "own"}))
    logins = Logins([tmp_path / "file"], helper_timeout_s=2)
    for _ in range(3):  # of many files, one waits
        with pytest.raises(AccessDenied, match="did not answer within 2 seconds"):
            logins.find(HOST, "weights", display="oci://it")
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_helper_whose_password_is_refused_is_not_asked_for_every_file(tmp_path: Path, programs: Path) -> None:
    helper = Helper(programs, "own", says("ada", "secret"))
    (tmp_path / "file").write_text(json.dumps({"credsStore": "own"}))
    logins = Logins([tmp_path / "file"])
    for _ in range(5):
        assert logins.find(HOST, "weights", display="oci://it") is not None
        logins.forget(HOST, "weights")
    assert len(helper.asked()) == 1


def test_a_login_does_not_show_its_secrets() -> None:
    assert "hunter2" not in repr(Login("ada", "hunter2", place="here")) + repr(Login(identity_token="hunter2"))


# -- with registries ----------------------------------------------------------------------------------------------


@pytest.mark.needs("docker-registry")
def test_a_registry_is_pushed_to_and_pulled_from_as_the_helper_says(
    site: Site, run: Run, docker: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prefetch", "Small_Weights.A")
    helper = Helper(programs, "own", says("ada", "secret"))
    with DockerRegistry(htpasswd=USER) as registry:
        place = f"oci://{registry.address}/weights"
        assert "skopeo login" in run("mirror", "push", place, "--all", code=6).stderr
        docker.write_text(json.dumps({"credHelpers": {registry.address: "own"}, "auths": {registry.address: {}}}))
        pushed = run("mirror", "push", place, "--all")
        assert "1 pushed" in pushed.stderr
        assert helper.asked() == [f"get {registry.address}"]  # once for all of a push
        assert json.loads(run("mirror", "status", place, "--json").stdout)["both"] == 1
        monkeypatch.setenv("WEIGHTSTORE_HOME", str(site.home) + "2")
        site.server.stop()
        pulled = run("mirror", "pull", place, "Small_Weights.A", "--trust-mirror")
        assert "1 fetched" in pulled.stderr
        Helper(programs, "own", says("ada", "hunter2"))
        refused = run("mirror", "status", place, code=6).stderr
        assert "HTTP 401" in refused
        assert f"docker login {registry.address}" in refused
        assert "hunter2" not in refused


@pytest.mark.needs("docker-registry")
@pytest.mark.parametrize(
    ("user", "secret", "method"), [("ada", "secret", "GET"), ("<token>", "refresh", "POST")], ids=["password", "token"]
)
def test_a_registry_with_a_token_service_is_pushed_to_and_pulled_from(
    site: Site, run: Run, docker: Path, programs: Path, user: str, secret: str, method: str
) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.*")
    run("prefetch", "Small_Weights.*")
    helper = Helper(programs, "own", says(user, secret))
    with SignedTokens() as tokens, DockerRegistry(auth=tokens.auth) as registry:
        docker.write_text(json.dumps({"credHelpers": {registry.address: "own"}}))
        place = f"oci://{registry.address}/group/weights"
        assert "2 pushed" in run("mirror", "push", place, "--all").stderr
        run("mirror", "push", f"oci://{registry.address}/other", "--all", "--mount-from", "group/weights")
        shutil.rmtree(site.home)
        site.server.stop()
        assert "2 fetched" in run("mirror", "pull", place, "--locked", "weights.lock").stderr
        assert helper.asked() == [f"get {registry.address}"] * 3
        scopes = [scope for _, scope in tokens.asked]
        assert {how for how, _ in tokens.asked} == {method}
        assert ["repository:group/weights:pull,push"] in scopes
        assert ["repository:other:pull,push", "repository:group/weights:pull"] in scopes
        assert scopes[-1] == ["repository:group/weights:pull"]  # no more than is needed
        Helper(programs, "own", says(user, "hunter2"))
        refused = run("mirror", "status", place, code=6).stderr
        assert f"docker login {registry.address}" in refused
        assert "hunter2" not in refused


@pytest.mark.needs("docker-registry")
def test_a_token_that_ends_in_the_middle_of_a_push_is_renewed(
    site: Site, run: Run, docker: Path, programs: Path
) -> None:
    Helper(programs, "own", says("ada", "secret"))
    with SignedTokens() as tokens, DockerRegistry(auth=tokens.auth) as registry, Pipe(registry.address) as pipe:
        docker.write_text(json.dumps({"credHelpers": {pipe.address: "own"}}))
        run("prefetch", site.server.serve("/large.pth", random.Random(3).randbytes(5 * PIECE)))
        tokens.lasts_s = -57  # with the minute that registries allow for clocks that differ, three seconds
        pipe.bytes_per_s = 10_000_000
        assert "1 pushed" in run("mirror", "push", f"oci://{pipe.address}/w", "--all").stderr
        assert len([scopes for _, scopes in tokens.asked if scopes == ["repository:w:pull,push"]]) > 1


@pytest.mark.needs("docker-registry", "skopeo")
def test_what_skopeo_login_wrote_is_read(site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("prefetch", "Small_Weights.A")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    with DockerRegistry(htpasswd=USER) as registry:
        command = ["skopeo", "login", "--tls-verify=false", "-u", "ada", "--password-stdin", registry.address]
        subprocess.run(command, input="secret", text=True, check=True, capture_output=True, timeout=60)
        assert "1 pushed" in run("mirror", "push", f"oci://{registry.address}/weights", "--all").stderr


def test_offline_no_helper_is_run(
    site: Site, run: Run, docker: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.A")
    helper = Helper(programs, "own", says("ada", "secret"))
    docker.write_text(json.dumps({"credsStore": "own"}))
    place = "oci://127.0.0.1:9/weights"
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    monkeypatch.setenv("WEIGHTSTORE_OFFLINE", "1")
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(site.home) + "2")
    run("mirror", "pull", place, "--locked", "weights.lock", code=2)
    run("mirror", "push", place, "--all", code=2)
    run("prefetch", "--locked", "weights.lock", code=4)
    run("doctor")
    assert helper.asked() == []


class TokenService(http.server.ThreadingHTTPServer):
    """A registry of one empty repository, whose token service knows one identity token, until it is told another."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.identity = "refresh-1"
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.valid = 1
        self.is_overloaded = False


class _Handler(http.server.BaseHTTPRequestHandler):
    server: TokenService

    def do_GET(self) -> None:
        server = self.server
        if urlsplit(self.path).path == "/token":
            server.asked.append(("GET", parse_qs(urlsplit(self.path).query)))
            return self.reply(401)
        if self.headers.get("Authorization") != f"Bearer t{server.valid}":
            realm = f"http://127.0.0.1:{server.server_port}/token"
            return self.reply(401, fields={"WWW-Authenticate": f'Bearer realm="{realm}",service="site"'})
        return self.reply(404)

    def do_POST(self) -> None:
        server = self.server
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        server.asked.append(("POST", form))
        if server.is_overloaded:
            return self.reply(503)
        if form["refresh_token"] != [server.identity] or "Authorization" in self.headers:
            return self.reply(401)
        return self.reply(200, json.dumps({"access_token": f"t{server.valid}", "expires_in": 300}).encode())

    def reply(self, status: int, body: bytes = b"", fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(fields or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[TokenService]:
    with TokenService() as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        yield service
        service.shutdown()


@pytest.fixture
def registry(service: TokenService, tmp_path: Path, programs: Path) -> Iterator[Registry]:
    (tmp_path / "file").write_text(json.dumps({"credsStore": "own"}))
    http = HttpTransport(connect_timeout_s=5, read_timeout_s=5, pool_size=2, user_agent="test")
    yield Registry(http, logins=Logins([tmp_path / "file"], fresh_s=0))
    http.close()


def place_at(service: TokenService) -> Source:
    return Source(f"oci://127.0.0.1:{service.server_port}/group/weights")


def test_an_identity_token_is_exchanged_as_oauth_does_it(
    registry: Registry, service: TokenService, programs: Path
) -> None:
    Helper(programs, "own", says("<token>", "refresh-1"))
    assert registry.ask(place_at(service), "manifests/x", writes=True, mounts="other").status == 404
    ((method, form),) = service.asked
    assert method == "POST"
    assert form == {
        "grant_type": ["refresh_token"],
        "service": ["site"],
        "client_id": ["weightstore"],
        "scope": ["repository:group/weights:pull,push repository:other:pull"],
        "refresh_token": ["refresh-1"],
    }


def test_a_token_that_was_taken_back_is_gotten_anew_and_the_helper_asked_again(
    registry: Registry, service: TokenService, programs: Path
) -> None:
    helper = Helper(programs, "own", says("<token>", "refresh-1"))
    assert registry.ask(place_at(service), "manifests/x").status == 404
    Helper(programs, "own", says("<token>", "refresh-2"))
    service.valid, service.identity = 2, "refresh-2"
    assert registry.ask(place_at(service), "manifests/x").status == 404
    assert len(service.asked) == len(helper.asked()) == 2


def test_an_identity_token_that_is_refused_is_told_without_it(
    registry: Registry, service: TokenService, programs: Path
) -> None:
    Helper(programs, "own", says("<token>", "hunter2"))
    with pytest.raises(AccessDenied, match="docker login") as refused:
        registry.ask(place_at(service), "manifests/x")
    assert "hunter2" not in repr(refused.value) + str(refused.value)


def test_a_token_service_that_is_overloaded_is_worth_another_try(
    registry: Registry, service: TokenService, programs: Path
) -> None:
    Helper(programs, "own", says("<token>", "refresh-1"))
    service.is_overloaded = True
    with pytest.raises(SourceUnavailable, match="token service says HTTP 503"):
        registry.ask(place_at(service), "manifests/x")
