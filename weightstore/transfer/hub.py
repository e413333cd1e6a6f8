"""The transport for ``hf`` sources: what the Hugging Face Hub says beyond HTTP, over the transport for ``https``.

A file is asked for at ``{endpoint}/{repo}/resolve/{revision}/{file}``. The Hub's answer names the commit, and calls the
content by an ETag: the SHA-256 of a file that git LFS keeps, and then it redirects to a CDN; or the git object id of a
small one. Rules:

- The token goes to the endpoint's host, and to no host that it redirects to.
- The version of a file is the Hub's ETag of it. The CDN's own is not asked for: its URLs are signed anew each time, and
  may lead to other machines. A range is taken from the CDN only when the Hub says that the content is still the same.
- What does not say its commit is no Hub: a captive portal's login page would else be recorded as weights.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, urlsplit

from weightstore.errors import AccessDenied, InvalidConfig, RefusedResponse, SourceNotFound, SourceUnavailable
from weightstore.hub import HubFile, is_commit
from weightstore.records import MAX_SIZE, Validator, is_etag
from weightstore.source import Source
from weightstore.transfer.answers import url_in
from weightstore.transfer.transport import Answer, Body, Declared

if TYPE_CHECKING:
    from collections.abc import Mapping

    import urllib3

    from weightstore.hub import HubToken
    from weightstore.transfer.http import HttpTransport

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_TOKEN = re.compile(r"[\x21-\x7e]*")
_LONGEST_TOKEN = 4096
_DIGITS = re.compile(r"[0-9]{1,20}")
# A signed URL is good for an hour. Within so long the ranges of a file go straight to the CDN: the Hub, which counts
# requests, is asked for the first alone.
_WAY_S = 240.0
_MOST_WAYS = 256
_MOST_REDIRECTS = 4


@dataclass(frozen=True, slots=True)
class _Way:
    """Where the content of one version of a file was found, off the Hub. The URL is signed, and never shown."""

    url: str
    declared: Declared
    found_at: float


class HubTransport:
    """Opens files on the Hub. Safe to use from many threads."""

    def __init__(self, http: HttpTransport, *, endpoint: str, token: HubToken | None) -> None:
        """Make a transport; the token is read now.

        Raises:
            InvalidConfig: there is a token that cannot be read or sent.
        """
        self._http = http
        self._endpoint = endpoint.rstrip("/")
        self._token = token
        value = read_token(token) if token is not None else ""
        self._authorization = f"Bearer {value}" if value else None
        self._ways: dict[str, _Way] = {}
        self._lock = threading.Lock()

    def open(
        self, source: Source, *, start: int = 0, end: int | None = None, validator: Validator | None = None
    ) -> Body:
        file = source.hub_file
        if file is None:
            raise RefusedResponse(source=source.display, reason="is not on the Hub")
        # What is resumed goes the whole way: the connection that was cut may have been to a machine that is down.
        if end is not None and (way := self._way(source, validator)) is not None:
            guide = _Guide(self, source, file, validator, known=way.declared)
            try:
                return self._http.open_at(
                    source, way.url, start=start, end=end, validator=None, authorization=None, guide=guide
                )
            except (AccessDenied, SourceNotFound, RefusedResponse):  # the signature has run out, most likely
                with self._lock:
                    self._ways.pop(source.key, None)
        url = f"{self._endpoint}/{file.repo}/resolve/{quote(file.revision, safe='')}/{quote(file.file)}"
        return self._http.open_at(
            source,
            url,
            start=start,
            end=end,
            validator=validator,
            authorization=self._authorization,
            guide=_Guide(self, source, file, validator),
        )

    def api(self, path: str, *, limit: int) -> bytes:
        """Return what the Hub's API answers at a path below the endpoint. It is not verified.

        Raises:
            SourceNotFound, AccessDenied: there is no such thing, or not for us.
            SourceUnavailable, RefusedResponse: it does not answer, or not as the Hub does.
        """
        url = f"{self._endpoint}/{path}"
        place = Source(url)
        reply = self._http.ask(place, url, authorization=self._authorization, limit=limit)
        for _ in range(_MOST_REDIRECTS):
            if not 300 <= reply.status < 400 or not reply.field("Location"):
                break
            url = url_in(reply.field("Location"), source=place, base=url)  # of a repository that has another name now
            if _host(url) != _host(self._endpoint):
                raise RefusedResponse(source=place.display, reason="redirects to another host")
            reply = self._http.ask(place, url, authorization=self._authorization, limit=limit)
        if reply.status == 200:
            return reply.body
        reason = f"HTTP {reply.status}"
        if reply.status in {401, 403}:  # what is not there is answered as what is private, so that nobody guesses names
            raise AccessDenied(source=place.display, reason=reason)
        if reply.status in {404, 410}:
            raise SourceNotFound(source=place.display, reason=reason)
        raise SourceUnavailable(source=place.display, reason=reason)

    def interrupt(self) -> None:
        self._http.interrupt()

    def _way(self, source: Source, validator: Validator | None) -> _Way | None:
        with self._lock:
            way = self._ways.get(source.key)
        if way is None or validator is None or time.monotonic() - way.found_at > _WAY_S:
            return None
        return way if validator == way.declared.validator else None

    def found(self, source: Source, url: str, declared: Declared) -> None:
        """Note where a file's content is, if that is off the Hub."""
        if not declared.etag or _host(url) == _host(self._endpoint):
            return
        with self._lock:
            if len(self._ways) >= _MOST_WAYS:
                self._ways.clear()
            self._ways[source.key] = _Way(url, declared, time.monotonic())

    def is_hub(self, url: str, response: urllib3.BaseHTTPResponse) -> bool:
        """Tell whether an answer is a Hub's: the endpoint's, or that of the Hub that the endpoint redirects to."""
        return _host(url) == _host(self._endpoint) or "X-Error-Code" in response.headers

    def refuse(self, source: Source, file: HubFile, response: urllib3.BaseHTTPResponse) -> None:
        """Say what the Hub's refusal means, if it is one that only the Hub gives.

        Raises:
            SourceNotFound, AccessDenied: it is.
        """
        code, message = (response.headers.get(name, "") for name in ("X-Error-Code", "X-Error-Message"))
        if response.status == 401 and message == "Invalid credentials in Authorization header":
            _deny(source, f"the Hub does not accept the token from {self._token_place}: {_LOG_IN}")
        elif code == "RepoNotFound" or (response.status == 401 and not code):
            if self._authorization is None:  # and the answer is the same for both, so that nobody can guess names
                _deny(source, f"there is no repository {file.repo}, or it is private. If it is, {_LOG_IN}")
            reason = f"there is no repository {file.repo}, or the token from {self._token_place} may not see it"
            raise SourceNotFound(source=source.display, reason=reason)
        elif code == "GatedRepo":
            page = f"{self._endpoint}/{file.repo}"
            if self._authorization is None:
                _deny(source, f"{file.repo} is gated. Ask for access at {page}, then {_LOG_IN}")
            _deny(
                source,
                f"{file.repo} is gated, and the account of the token from {self._token_place} has no access. "
                f"Ask for it at {page}",
            )
        elif code == "RevisionNotFound":
            reason = f"{file.repo} has no branch, tag or commit {file.revision}"
            raise SourceNotFound(source=source.display, reason=reason)
        elif code == "EntryNotFound":
            reason = f"{file.repo} has no file {file.file} at {file.revision}"
            raise SourceNotFound(source=source.display, reason=reason)
        elif response.status == 403:
            whose = (
                f"the token from {self._token_place}" if self._authorization is not None else "a request without one"
            )
            _deny(source, f"the Hub refuses access (HTTP 403) to {whose}: {_LOG_IN}")

    @property
    def _token_place(self) -> str:
        return self._token.place if self._token is not None else "nowhere"


class _Guide:
    """One request on its way: reads what the Hub declares, and keeps ranges to the version that they are wanted of."""

    def __init__(
        self,
        transport: HubTransport,
        source: Source,
        file: HubFile,
        validator: Validator | None,
        *,
        known: Declared | None = None,
    ) -> None:
        self._transport = transport
        self._source = source
        self._file = file
        self._validator = validator
        self._declared = known
        self._is_new = known is None

    def met(self, response: urllib3.BaseHTTPResponse, url: str, headers: dict[str, str], *, redirects: bool) -> None:
        if self._is_new and "X-Repo-Commit" in response.headers:
            self._declared = self._read(response.headers, redirects=redirects)
            # The CDN's own ETag says nothing to us. A Hub that gives none leaves it to the CDN.
            is_ours = redirects and self._declared.etag and headers.pop("If-Range", None) is not None
            if is_ours and self._declared.validator != self._validator:
                headers.pop("Range", None)  # of another version the whole is wanted
        if response.status >= 400 and self._transport.is_hub(url, response):
            self._transport.refuse(self._source, self._file, response)

    def complete(self, answer: Answer, url: str) -> Answer:
        declared = self._declared
        if declared is None:
            self._refuse("does not say which commit the file is of, so that it is no Hub. Is HF_ENDPOINT right?")
        if self._file.is_commit and declared.commit != self._file.revision:
            self._refuse(f"answers with another commit: {declared.commit}")
        if declared.size is not None and answer.total is not None and answer.total != declared.size:
            self._refuse(f"contradicts itself: the file has {declared.size} bytes, and {answer.total} are sent")
        if self._is_new:
            self._transport.found(self._source, url, declared)
        return replace(answer, validator=declared.validator or answer.validator, declared=declared)

    def _read(self, headers: Mapping[str, str], *, redirects: bool) -> Declared:
        """Return what this answer declares, and else what those before it did."""
        commit = headers["X-Repo-Commit"].strip()
        if not is_commit(commit):
            self._refuse("names a commit that is none")
        before = self._declared or Declared(commit, "", None)
        if before.commit != commit:
            self._refuse(f"contradicts itself: its commit is {before.commit}, and then {commit}")
        # The ETag of a redirect is of no file.
        etag = headers.get("X-Linked-Etag") or ("" if redirects else headers.get("ETag")) or ""
        etag = etag.strip().removeprefix("W/").strip('"')
        size = headers.get("X-Linked-Size", "").strip()
        is_size = _DIGITS.fullmatch(size) is not None and int(size) <= MAX_SIZE
        return Declared(commit, etag if is_etag(etag) else before.etag, int(size) if is_size else before.size)

    def _refuse(self, reason: str) -> NoReturn:
        raise RefusedResponse(source=self._source.display, reason=reason)


def read_token(token: HubToken) -> str:
    """Return the token itself; empty where there is none.

    Raises:
        InvalidConfig: it cannot be read, or is no token.
    """
    text = token.text
    if token.file is not None:
        try:
            with token.file.open("rb") as file:
                text = file.read(_LONGEST_TOKEN + 1).decode("ascii", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return ""  # nobody has logged in
        except OSError as error:
            raise InvalidConfig(f"the Hub's token cannot be read from {token.place}: {error.strerror}") from None
    text = text.replace("\r", "").replace("\n", "").strip()
    if len(text) > _LONGEST_TOKEN or not _TOKEN.fullmatch(text):  # and not shown
        raise InvalidConfig(f"{token.place} holds no token of the Hub. Log in again: hf auth login")
    return text


def _deny(source: Source, reason: str) -> NoReturn:
    raise AccessDenied(source=source.display, reason=reason)


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()
