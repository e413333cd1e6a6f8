"""OCI registries: the distribution API (https://github.com/opencontainers/distribution-spec), as a client of it.

A source is ``oci://host[:port]/repository``, and a blob in it ``oci://host[:port]/repository/blobs/sha256/<hex>``, as
in every mirror. Only a registry on this machine is spoken to without TLS.

Credentials come from the address, or from where ``docker login`` writes them. They go to the registry, and to the
service that it names for tokens, if that speaks TLS; never anywhere else.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode, urljoin, urlsplit

from weightstore.errors import AccessDenied, InvalidSource, RefusedResponse, SourceNotFound, SourceUnavailable
from weightstore.transfer.attached import (
    ATTACHED_TAG,
    MANIFEST_LIMIT,
    MANIFEST_TYPE,
    attached_file,
    digest_of_attached,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weightstore.records import Validator
    from weightstore.source import Source
    from weightstore.transfer.http import HttpBody, HttpTransport, Reply

_BLOB = re.compile(r"(?P<repository>.+)/blobs/sha256/(?P<hex>[0-9a-f]{64})")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_SMALL = 1 << 20
_CONFIG_LIMIT = 1 << 20
# What a token lasts where the service does not say (its specification), and how long before its end it is renewed.
_TOKEN_S = 60.0
_MARGIN_S = 10.0
_DEAD_S = 30.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of a registry. ``base`` is the URL that the API's paths are below."""

    base: str
    host: str
    name: str

    @classmethod
    def of(cls, source: Source) -> tuple[Repository, str]:
        """Return the repository that an ``oci`` source is in, and the digits of the blob that it names, or none."""
        parts = urlsplit(source.url)
        path = parts.path.strip("/")
        blob = _BLOB.fullmatch(path)
        name = blob["repository"] if blob else path
        host = parts.netloc.rpartition("@")[2]
        scheme = "http" if _is_here(parts.hostname or "") else "https"
        return cls(f"{scheme}://{host}/v2/", host, name), blob["hex"] if blob else ""


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Registry:
    """Asks registries, and gets the tokens that they want. Safe to use from many threads."""

    def __init__(self, http: HttpTransport, *, docker_config: Path) -> None:
        self.http = http
        self._docker_config = docker_config
        self._lock = threading.Lock()
        self._challenges: dict[str, tuple[str, dict[str, str]]] = {}
        self._tokens: dict[tuple[str, str, str], tuple[str, float]] = {}
        self._failures: dict[str, tuple[str, float]] = {}

    def ask(
        self,
        source: Source,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        writes: bool = False,
        mounts: str = "",
        limit: int = _SMALL,
    ) -> Reply:
        """Return the answer to a request below a repository, or at the URL that an earlier answer gave.

        Raises:
            AccessDenied: the registry wants other credentials.
            SourceUnavailable, RefusedResponse: there is no answer that can be used.
        """
        repository, _ = Repository.of(source)
        url = urljoin(f"{repository.base}{repository.name}/", path)
        same = urlsplit(url)[:2] == urlsplit(repository.base)[:2]
        authorization = self.authorization(source, writes=writes, mounts=mounts) if same else None
        if not same and (method != "PUT" or urlsplit(url).scheme != "https"):
            raise RefusedResponse(source=source.display, reason="sends an upload to another host without TLS")
        reply = self.http.ask(
            source, url, method=method, headers=headers, body=body, authorization=authorization, limit=limit
        )
        if reply.status in {401, 403}:
            login = f"docker login {repository.host}"
            raise AccessDenied(source=source.display, reason=f"HTTP {reply.status}. Log in to the registry: {login}")
        if reply.status in _PASSING:
            raise SourceUnavailable(source=source.display, reason=f"HTTP {reply.status}")
        return reply

    def authorization(self, source: Source, *, writes: bool = False, mounts: str = "") -> str | None:
        """Return the value of an ``Authorization`` field for a repository, or None where none is wanted."""
        repository, _ = Repository.of(source)
        with self._lock:
            challenge = self._challenges.get(repository.host) or self._asked_once(source, repository)
            kind, wanted = challenge
            if not kind:
                return None
            credentials = self._credentials(source, repository.host)
            if kind == "basic":
                return _basic(credentials) if credentials else None
            actions = "pull,push" if writes else "pull"
            scopes = [f"repository:{repository.name}:{actions}"]
            if mounts:
                scopes.append(f"repository:{mounts}:pull")
            key = (repository.host, repository.name, " ".join(scopes))
            token, until = self._tokens.get(key, ("", 0.0))
            if time.monotonic() > until - _MARGIN_S:
                token, lasts_s = self._token(source, repository, wanted, scopes, credentials)
                self._tokens[key] = (token, time.monotonic() + lasts_s)
            return f"Bearer {token}"

    def _asked_once(self, source: Source, repository: Repository) -> tuple[str, dict[str, str]]:
        """Ask a registry how, and remember it; also that it does not answer, so that many files wait for it once."""
        reason, until = self._failures.get(repository.host, ("", 0.0))
        if time.monotonic() < until:
            raise SourceUnavailable(source=source.display, reason=reason)
        try:
            challenge = self._ask_how(source, repository)
        except SourceUnavailable as error:
            self._failures[repository.host] = (error.reason, time.monotonic() + _DEAD_S)
            raise
        self._challenges[repository.host] = challenge
        return challenge

    def _ask_how(self, source: Source, repository: Repository) -> tuple[str, dict[str, str]]:
        """Return how the registry wants to be shown who asks: nothing, "basic", or "bearer" with what it said."""
        reply = self.http.ask(source, repository.base, limit=_SMALL)
        if reply.status == 401:
            kind, _, rest = reply.field("WWW-Authenticate").partition(" ")
            if kind.lower() in {"basic", "bearer"}:
                return kind.lower(), dict(_CHALLENGE.findall(rest))
            raise AccessDenied(
                source=source.display, reason="wants to be shown who asks in a way that is not known here"
            )
        if reply.status in _PASSING:
            raise SourceUnavailable(source=source.display, reason=f"HTTP {reply.status}")
        if reply.status != 200:
            raise RefusedResponse(source=source.display, reason=f"there is no registry (HTTP {reply.status})")
        return "", {}

    def _token(
        self,
        source: Source,
        repository: Repository,
        wanted: Mapping[str, str],
        scopes: list[str],
        credentials: tuple[str, str] | None,
    ) -> tuple[str, float]:
        realm = wanted.get("realm", "")
        parts = urlsplit(realm)
        is_local = parts.scheme == "http" and _is_here(parts.hostname or "") and repository.base.startswith("http://")
        if parts.scheme != "https" and not is_local:
            raise RefusedResponse(source=source.display, reason="names a token service that does not speak TLS")
        query = [("scope", scope) for scope in scopes]
        if "service" in wanted:
            query.insert(0, ("service", wanted["service"]))
        url = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"
        reply = self.http.ask(
            source, url, authorization=_basic(credentials) if credentials else None, limit=_CONFIG_LIMIT
        )
        if reply.status != 200:
            login = f"docker login {repository.host}"
            raise AccessDenied(
                source=source.display, reason=f"its token service says HTTP {reply.status}. Log in: {login}"
            )
        try:
            answer = json.loads(reply.body)
            token = answer.get("token") or answer["access_token"]
            lasts_s = float(answer.get("expires_in", _TOKEN_S))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            token, lasts_s = "", 0.0
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise RefusedResponse(source=source.display, reason="its token service's answer is no token")
        return token, lasts_s

    def _credentials(self, source: Source, host: str) -> tuple[str, str] | None:
        parts = urlsplit(source.url)
        if parts.username is not None:
            return unquote(parts.username), unquote(parts.password or "")
        try:
            with self._docker_config.open("rb") as file:
                auths = json.loads(file.read(_CONFIG_LIMIT))["auths"]
            user, colon, password = base64.b64decode(auths[host]["auth"]).decode().partition(":")
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # no file, or nothing in it for this host: asked without
        return (user, password) if colon else None


def _basic(credentials: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(credentials).encode()).decode()


class RegistryTransport:
    """Opens blobs of registries, and whatever else reads mirrors by digest."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def open(
        self, source: Source, *, start: int = 0, end: int | None = None, validator: Validator | None = None
    ) -> HttpBody:
        repository, digits = Repository.of(source)
        if not digits and (file := attached_file(source)) is not None:
            digits = self._attached(source, *file)
            repository, _ = Repository.of(source := file[0])
        if not digits:
            raise InvalidSource(f"{source.display}: names a repository, and no blob in it")
        return self.registry.http.open_at(
            source,
            f"{repository.base}{repository.name}/blobs/sha256:{digits}",
            start=start,
            end=end,
            validator=validator,
            authorization=self.registry.authorization(source),
        )

    def _attached(self, source: Source, repository: Source, name: str) -> str:
        """Return the digits of the blob that is a file beside a mirror's index."""
        reply = self.registry.ask(
            repository, f"manifests/{ATTACHED_TAG}", headers={"Accept": MANIFEST_TYPE}, limit=MANIFEST_LIMIT
        )
        expect(reply, source, 200)
        return digest_of_attached(reply.body, name, source=source).hex

    def interrupt(self) -> None:
        self.registry.http.interrupt()


def said(reply: Reply) -> str:
    """Return what a registry says of a failure: its status, and the code of its first error."""
    try:
        answer: Any = json.loads(reply.body)
        code = str(answer["errors"][0]["code"])[:40]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        code = ""
    plain = "".join(char for char in code if char.isalnum() or char == "_")
    return f"HTTP {reply.status} {plain}".rstrip()


def expect(reply: Reply, source: Source, *statuses: int) -> None:
    """Make sure of an answer's status.

    Raises:
        SourceNotFound: it is 404.
        RefusedResponse: it is another.
    """
    if reply.status in statuses:
        return
    if reply.status == 404:
        raise SourceNotFound(source=source.display, reason=said(reply))
    raise RefusedResponse(source=source.display, reason=said(reply))
