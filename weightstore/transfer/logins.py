"""Who this user is to a registry: from where ``docker login``, ``podman login``, ``skopeo login`` and ``oras login``
write it, and from the credential helpers that these files name.

A helper is a program ``docker-credential-NAME`` (https://github.com/docker/docker-credential-helpers): it is given the
registry on standard input and answers in JSON. It is run only when a registry wants to be shown who asks, and nothing
that it says is ever repeated: not even its errors, which may have a secret in them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightstore.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FILE_LIMIT = 1 << 20
_ANSWER_LIMIT = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# Long enough for somebody to unlock a key ring; a helper that hangs must not hang a job.
_HELPER_S = 60.0
# Helpers of clouds give passwords that expire: asked again after so long, and once a registry refuses one.
_KEPT_S = 300.0
# What a helper said so lately is not asked for again: of many files that are refused, each would.
_FRESH_S = 10.0
_IDENTITY = "<token>"
_HUB = "index.docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = {"docker.io", _HUB, "registry-1.docker.io"}


@dataclass(frozen=True, slots=True)
class Login:
    """What shows a registry who asks: a user and a password, or an identity token. ``place`` is where it came from."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    place: str = ""

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` field."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def auth_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files in which credentials are looked for, in order: docker's, and those of podman and skopeo.

    ``REGISTRY_AUTH_FILE`` names one that goes before all others.
    """
    home = Path(os.path.expanduser("~"))
    files = [Path(environ["REGISTRY_AUTH_FILE"])] if environ.get("REGISTRY_AUTH_FILE") else []
    files.append(Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json")
    if environ.get("XDG_RUNTIME_DIR"):
        files.append(Path(environ["XDG_RUNTIME_DIR"]) / "containers/auth.json")
    files.append(Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json")
    return tuple(files)


class Logins:
    """Finds logins. Safe to use from many threads."""

    def __init__(
        self, files: Sequence[Path], *, helper_timeout_s: float = _HELPER_S, fresh_s: float = _FRESH_S
    ) -> None:
        self._files = tuple(files)
        self._helper_timeout_s = helper_timeout_s
        self._fresh_s = fresh_s
        self._kept: dict[tuple[str, str], tuple[Login | AccessDenied | None, float]] = {}
        self._lock = threading.Lock()

    def find(self, host: str, repository: str, *, display: str) -> Login | None:
        """Return the login for a repository of a registry, or None where there is none.

        Raises:
            AccessDenied: a file names a helper for it which does not work, and nothing else knows a login.
        """
        with self._lock:
            found, until = self._kept.get((host, repository), (None, 0.0))
            if time.monotonic() >= until:
                try:
                    found = self._look(host, repository, display)
                except AccessDenied as error:
                    found = error  # kept as well: many files wait for a helper that hangs once
                self._kept[host, repository] = (found, time.monotonic() + _KEPT_S)
        if isinstance(found, AccessDenied):
            raise AccessDenied(source=display, reason=found.reason)
        return found

    def forget(self, host: str, repository: str) -> None:
        """Look again the next time: the registry refused what was found, and not only a moment ago."""
        with self._lock:
            _, until = self._kept.get((host, repository), (None, 0.0))
            if time.monotonic() - (until - _KEPT_S) >= self._fresh_s:
                self._kept.pop((host, repository), None)

    def _look(self, host: str, repository: str, display: str) -> Login | None:
        broken: AccessDenied | None = None
        for path in self._files:
            content = _read(path)
            helper = _helper_for(content, host)
            if helper:
                try:
                    login = self._ask(helper, host, path, display)
                except AccessDenied as error:
                    broken, login = broken or error, None
                if login is not None:
                    return login
            login = _in_file(content, host, repository, path)
            if login is not None:
                return login
        if broken is not None:
            raise broken
        return None

    def _ask(self, name: str, host: str, path: Path, display: str) -> Login | None:
        """Return what a helper knows, or None where it knows nothing.

        Raises:
            AccessDenied: it cannot be asked, or does not answer.
        """
        program = f"docker-credential-{name}"

        def failure(what: str) -> AccessDenied:
            return AccessDenied(
                source=display, reason=f"the credential helper {program}, which {path} names, {what}. {log_in(host)}"
            )

        found = shutil.which(program) if _HELPER.fullmatch(name) else None
        if found is None:
            raise failure("is not on the PATH")
        server = _HUB_KEY if host in _HUB_HOSTS else host
        try:
            # A group of its own, so that what it started ends with it.
            process = subprocess.Popen(
                [found, "get"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise failure(f"cannot be run ({error.strerror})") from None
        try:
            answer, _ = process.communicate(server.encode(), timeout=self._helper_timeout_s)
        except subprocess.TimeoutExpired:
            raise failure(f"did not answer within {self._helper_timeout_s:g} seconds") from None
        finally:
            if process.returncode is None:
                _end(process)
        if process.returncode != 0:
            if b"credentials not found" in answer[:200]:  # the protocol's own words
                return None
            raise failure(f"failed (exit status {process.returncode})")
        login = _parsed(answer, program)
        if login is None:
            raise failure("answered something else than credentials")
        return login if login.user or login.password or login.identity_token else None


def log_in(host: str) -> str:
    """Return what to run in order to be known to a registry."""
    return f"Log in to the registry: docker login {host}, or skopeo login {host}"


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def _parsed(answer: bytes, place: str) -> Login | None:
    try:
        said = json.loads(answer[:_ANSWER_LIMIT])
        user, secret = said["Username"], said["Secret"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(user, str) or not isinstance(secret, str):
        return None
    return Login(identity_token=secret, place=place) if user == _IDENTITY else Login(user, secret, place=place)


def _read(path: Path) -> dict[str, Any]:
    """Return what a file says; nothing where there is none, or something else in it."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_FILE_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _helper_for(content: dict[str, Any], host: str) -> str:
    """Return the name of the helper that a file names for a registry: of its own, or of all; empty for none."""
    helpers = content.get("credHelpers")
    if isinstance(helpers, dict):
        for key, name in helpers.items():
            if _plain(key) == _plain(host) and isinstance(name, str):
                return name
    store = content.get("credsStore")
    return store if isinstance(store, str) else ""


def _in_file(content: dict[str, Any], host: str, repository: str, path: Path) -> Login | None:
    """Return what a file itself says of a repository, of the groups that it is in, or of the registry."""
    auths = content.get("auths")
    if not isinstance(auths, dict):
        return None
    known = {_plain(key): entry for key, entry in auths.items() if isinstance(entry, dict)}
    parts = repository.split("/")
    for length in range(len(parts), -1, -1):
        login = _of_entry(known.get("/".join([_plain(host), *parts[:length]]), {}), path)
        if login is not None:
            return login
    return None


def _of_entry(entry: dict[str, Any], path: Path) -> Login | None:
    token, auth, user, password = (entry.get(key) for key in ("identitytoken", "auth", "username", "password"))
    if isinstance(token, str) and token:
        return Login(identity_token=token, place=str(path))
    if isinstance(auth, str) and auth:
        try:
            name, colon, secret = base64.b64decode(auth, validate=True).decode().rstrip("\0").partition(":")
        except ValueError:
            return None
        if name == _IDENTITY:
            return Login(identity_token=secret, place=str(path)) if secret else None
        return Login(name, secret, place=str(path)) if colon else None
    if isinstance(user, str) and isinstance(password, str) and user:
        return Login(user, password, place=str(path))
    return None


def _plain(key: str) -> str:
    """Return a registry's key as all tools mean it: docker also writes URLs, and the Hub under several names."""
    key = re.sub(r"^https?://", "", key).rstrip("/")
    key = re.sub(r"/v[12]$", "", key)
    host, slash, rest = key.partition("/")
    return f"{_HUB if host in _HUB_HOSTS else host}{slash}{rest}"
