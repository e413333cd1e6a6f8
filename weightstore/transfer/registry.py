"""OCI registries: the distribution API (https://github.com/opencontainers/distribution-spec), as a client of it.

A source is ``oci://host[:port]/repository``, and a blob in it ``oci://host[:port]/repository/blobs/sha256/<hex>``, as
in every mirror. Only a registry on this machine is spoken to without TLS.

Credentials come from the address, or from where ``docker login`` and its like keep them. They go to the registry, and
to the service that it names for tokens, if that speaks TLS; never anywhere else.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode, urlsplit

from weightstore.errors import AccessDenied, InvalidSource, RefusedResponse, SourceNotFound, SourceUnavailable
from weightstore.transfer.answers import url_in
from weightstore.transfer.attached import (
    ATTACHED_TAG,
    MANIFEST_LIMIT,
    MANIFEST_TYPE,
    attached_file,
    digest_of_attached,
)
from weightstore.transfer.logins import Login, log_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.records import Validator
    from weightstore.source import Source
    from weightstore.transfer.http import HttpBody, HttpTransport, Reply
    from weightstore.transfer.logins import Logins

_BLOB = re.compile(r"(?P<repository>.+)/blobs/sha256/(?P<hex>[0-9a-f]{64})")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_HUB = "registry-1.docker.io"
_SMALL = 1 << 20
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
        at = _HUB if host == "docker.io" else host  # where docker, skopeo and oras go for that name
        return cls(f"{scheme}://{at}/v2/", host, name), blob["hex"] if blob else ""


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Registry:
    """Asks registries, and gets the tokens that they want. Safe to use from many threads."""

    def __init__(self, http: HttpTransport, *, logins: Logins) -> None:
        self.http = http
        self._logins = logins
        self._lock = threading.Lock()
        self._challenges: dict[str, tuple[str, dict[str, str]]] = {}
        self._tokens: dict[tuple[str, str, str], tuple[str, float]] = {}
        self._failures: dict[str, tuple[SourceUnavailable, float]] = {}

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
        url = url_in(path, source=source, base=f"{repository.base}{repository.name}/")
        same = urlsplit(url)[:2] == urlsplit(repository.base)[:2]
        if not same and (method != "PUT" or urlsplit(url).scheme != "https"):
            raise RefusedResponse(source=source.display, reason="sends an upload to another host without TLS")

        def answer() -> tuple[Reply, bool]:
            shown = self.authorization(source, writes=writes, mounts=mounts) if same else None
            reply = self.http.ask(
                source, url, method=method, headers=headers, body=body, authorization=shown, limit=limit
            )
            return reply, reply.status == 401 and shown is not None

        reply, is_outdated = answer()
        if is_outdated:
            self.forget(source)
            reply, _ = answer()
        if reply.status in {401, 403}:
            raise AccessDenied(source=source.display, reason=f"HTTP {reply.status}. {log_in(repository.host)}")
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
            if kind == "basic":
                login = self._login(source, repository)
                if login is not None and login.identity_token:
                    raise AccessDenied(
                        source=source.display,
                        reason=f"takes a password, and {login.place} has an identity token. {log_in(repository.host)}",
                    )
                return login.basic if login else None
            actions = "pull,push" if writes else "pull"
            scopes = [f"repository:{repository.name}:{actions}"]
            if mounts:
                scopes.append(f"repository:{mounts}:pull")
            key = (repository.host, repository.name, " ".join(scopes))
            token, until = self._tokens.get(key, ("", 0.0))
            if time.monotonic() > until - _MARGIN_S:
                login = self._login(source, repository)
                token, lasts_s = self._token(source, repository, wanted, scopes, login)
                self._tokens[key] = (token, time.monotonic() + lasts_s)
            return f"Bearer {token}"

    def _asked_once(self, source: Source, repository: Repository) -> tuple[str, dict[str, str]]:
        """Ask a registry how, and remember it; also that it does not answer, so that many files wait for it once."""
        failure, until = self._failures.get(repository.host, (None, 0.0))
        if failure is not None and time.monotonic() < until:
            raise SourceUnavailable(source=source.display, reason=failure.reason, is_silent=failure.is_silent)
        try:
            challenge = self._ask_how(source, repository)
        except SourceUnavailable as error:
            self._failures[repository.host] = (error, time.monotonic() + _DEAD_S)
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
        login: Login | None,
    ) -> tuple[str, float]:
        realm = url_in(wanted.get("realm", ""), source=source)
        parts = urlsplit(realm)
        is_local = parts.scheme == "http" and _is_here(parts.hostname or "") and repository.base.startswith("http://")
        if parts.scheme != "https" and not is_local:
            raise RefusedResponse(source=source.display, reason="names a token service that does not speak TLS")
        reply = self._asked_for_token(source, realm, wanted.get("service", ""), scopes, login)
        if reply.status in _PASSING:
            raise SourceUnavailable(source=source.display, reason=f"its token service says HTTP {reply.status}")
        if reply.status != 200:
            reason = f"its token service says HTTP {reply.status}. {log_in(repository.host)}"
            raise AccessDenied(source=source.display, reason=reason)
        try:
            answer = json.loads(reply.body)
            token = answer.get("token") or answer["access_token"]
            lasts_s = float(answer.get("expires_in", _TOKEN_S))
        except (ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError):
            token, lasts_s = "", 0.0
        if not math.isfinite(lasts_s):
            token = ""
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise RefusedResponse(source=source.display, reason="its token service's answer is no token")
        return token, lasts_s

    def _asked_for_token(
        self, source: Source, realm: str, service: str, scopes: list[str], login: Login | None
    ) -> Reply:
        """Ask a token service: with an identity token as OAuth 2 does it, else with a password or with nothing."""
        if login is not None and login.identity_token:
            # https://distribution.github.io/distribution/spec/auth/oauth/
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": "weightstore",
                "scope": " ".join(scopes),
                "refresh_token": login.identity_token,
            }
            return self.http.ask(
                source,
                realm,
                method="POST",
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(form).encode(),
                limit=_SMALL,
            )
        query = [("scope", scope) for scope in scopes]
        if service:
            query.insert(0, ("service", service))
        url = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}"
        return self.http.ask(source, url, authorization=login.basic if login else None, limit=_SMALL)

    def _login(self, source: Source, repository: Repository) -> Login | None:
        parts = urlsplit(source.url)
        if parts.username is not None:
            return Login(unquote(parts.username), unquote(parts.password or ""), place="the address")
        return self._logins.find(repository.host, repository.name, display=source.display)

    def forget(self, source: Source) -> None:
        """Have tokens and logins looked for anew: a token, or a helper's password, may end before its time."""
        repository, _ = Repository.of(source)
        with self._lock:
            self._logins.forget(repository.host, repository.name)
            for key in [key for key in self._tokens if key[:2] == (repository.host, repository.name)]:
                del self._tokens[key]


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

        def opened() -> HttpBody:
            return self.registry.http.open_at(
                source,
                f"{repository.base}{repository.name}/blobs/sha256:{digits}",
                start=start,
                end=end,
                validator=validator,
                authorization=self.registry.authorization(source),
            )

        try:
            return opened()
        except SourceNotFound as error:
            reason = f"{error.reason}. If the index names it, this brings it again: weightstore mirror push … --check"
            raise SourceNotFound(source=source.display, reason=reason) from None
        except AccessDenied as error:
            if not error.reason.startswith("HTTP 401"):
                raise
        self.registry.forget(source)
        try:
            return opened()
        except AccessDenied as error:
            if not error.reason.startswith("HTTP 401"):
                raise
            raise AccessDenied(source=source.display, reason=f"HTTP 401. {log_in(repository.host)}") from None

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
