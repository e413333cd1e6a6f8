"""The transport for ``https`` and ``http``: requests, with the redirects, credentials and limits under our control.

Rules, each against something that was seen in the wild:

- Redirects are followed by hand, at most ten, never from https to anything else. Credentials (from the URL or
  ``.netrc``) go to the first host only: object stores refuse them, and others must not get them.
- ``Accept-Encoding: identity``, and an answer that is encoded all the same is refused: its digest would be of the wrong
  bytes.
- Proxies and CA bundles come from the environment as requests finds them.
- No cookie is kept.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3
from requests.utils import get_netrc_auth, select_proxy

from weightstore.errors import (
    InvalidSource,
    RefusedResponse,
    SourceUnavailable,
)
from weightstore.records import Validator
from weightstore.source import Source
from weightstore.transfer.answers import read_answer
from weightstore.transfer.hosts import Hosts
from weightstore.transfer.small import read_whole
from weightstore.transfer.transport import Answer
from weightstore.transfer.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_REDIRECTS = 10
_UNKNOWN = Answer(0, None, None, Validator(), accepts_ranges=False, self_delimiting=False)
_REDIRECTS = {301, 302, 303, 307, 308}
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})")
_SMALLEST_BLOCK = 16 << 10
_LARGEST_BLOCK = 1 << 20
# With so much a file may begin, where the one before it came quickly.
_FIRST_BLOCK = 512 << 10
# A block that came within the first time may double, one that took longer than the second shrinks. What a cut in the
# middle of a block costs is what came in so long; a connection slower than about 1 MB/s is read receive by receive.
_QUICK_S = 0.005
_SLOW_S = 0.05


class HttpBody:
    """An open response. Reading it translates everything that can break on the way.

    Reads ask for blocks whose size follows the pace: a fast connection fills a large block in one call (over TLS, where
    every receive brings at most 16 KiB, that is four times as fast), a slow one hands over what has come.
    """

    def __init__(
        self,
        source: Source,
        response: urllib3.BaseHTTPResponse,
        answer: Answer,
        watch: Watch,
        blocks: dict[str, int],
        *,
        host: str,
    ) -> None:
        self.blocked_since: float | None = None
        self._source = source
        self._response = response
        self._answer = answer
        self._left = None if answer.end is None else answer.end - answer.start
        # What the host's last file came in: of many small files, only the first is read in small steps.
        self._blocks = blocks
        self._host = host
        self._block = blocks.get(self._host, _SMALLEST_BLOCK)
        self._watch = watch
        # urllib3's own readinto() reads and copies. The answer below it counts its bytes too, where they are declared.
        raw = getattr(response, "_fp", None)
        is_plain = self._left is not None and isinstance(raw, http.client.HTTPResponse) and not raw.chunked
        self._raw: http.client.HTTPResponse | None = raw if is_plain else None
        watch.add(self)

    @property
    def answer(self) -> Answer:
        return self._answer

    def read(self, size: int, *, into: memoryview | None = None) -> bytes | memoryview:
        if self._left == 0:
            return b""
        data: bytes | memoryview
        wanted = min(size, self._block) if self._left is None else min(size, self._block, self._left)
        began = self.blocked_since = time.monotonic()
        try:
            if self._block <= _SMALLEST_BLOCK:
                data = self._response.read1(wanted, decode_content=False)
            elif into is not None and self._raw is not None:
                data = into[: self._raw.readinto(into[:wanted])]
            else:
                data = self._response.read(wanted, decode_content=False)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError, AttributeError) as error:
            # ValueError and AttributeError: closed by another thread that wants us to stop.
            silent = isinstance(_innermost(error), (TimeoutError, urllib3.exceptions.TimeoutError))
            raise SourceUnavailable(source=self._source.display, reason=_reason(error), is_silent=silent) from None
        finally:
            self.blocked_since = None
        self._adapt(time.monotonic() - began, is_full=len(data) == self._block)
        if self._left is not None:
            if not data:
                raise SourceUnavailable(
                    source=self._source.display, reason=f"the connection ended {self._left} bytes early"
                )
            self._left -= len(data)
        return data

    def _adapt(self, elapsed_s: float, *, is_full: bool) -> None:
        if is_full and elapsed_s < _QUICK_S:
            self._block = min(self._block * 2, _LARGEST_BLOCK)
        elif elapsed_s > _SLOW_S:
            self._block = max(self._block // 4, _SMALLEST_BLOCK)

    def interrupt(self) -> None:
        """End a read that is under way in another thread."""
        with contextlib.suppress(OSError, ValueError):
            self._response.shutdown()

    def finish(self) -> None:
        """Leave the connection for the next request, after the last byte."""
        self._watch.discard(self)
        self._response.release_conn()

    def close(self) -> None:
        self._watch.discard(self)
        self._blocks[self._host] = min(self._block, _FIRST_BLOCK)
        if self._left == 0:
            # Let urllib3 see the end, so that the connection goes back to the pool.
            try:
                if self._raw is None or not self._raw.isclosed():
                    self._response.read1(1, decode_content=False)
                self._response.release_conn()
            except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError):
                pass
            else:
                return
        _drop(self._response)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: its status, its fields as they came, and its body."""

    status: int
    fields: dict[str, str]
    body: bytes
    url: str

    def field(self, name: str) -> str:
        """Return a header field, whatever its name's case; empty where there is none."""
        return next((value for key, value in self.fields.items() if key.lower() == name.lower()), "")


class Guide(Protocol):
    """Sees what a request meets on its way, where a kind of server says more than HTTP does."""

    def met(self, response: urllib3.BaseHTTPResponse, url: str, headers: dict[str, str], *, redirects: bool) -> None:
        """Look at a URL's answer; ``headers`` are what the next request on the way will send, and may be changed.

        Raises:
            TransferError: the way ends here.
        """
        ...

    def complete(self, answer: Answer, url: str) -> Answer:
        """Return what the last answer says, at the URL where the way led, with what was learnt on the way.

        Raises:
            TransferError: the two contradict each other.
        """
        ...


class HttpTransport:
    """Opens web sources through one pool of connections, safe to use from many threads."""

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        pool_size: int,
        user_agent: str,
        ca_bundle: str | None = None,
        trust_env: bool = True,
    ) -> None:
        self._watch = Watch(2 * read_timeout_s)
        self._slow_s = read_timeout_s
        self._blocks: dict[str, int] = {}
        self._netrc: dict[str, tuple[str, str] | None] = {}
        self._ca_bundle = ca_bundle
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity", "Accept": "*/*"}
        self._trust_env = trust_env
        self._session = requests.Session()  # only asked what the environment says; nothing is sent through it
        timeout = urllib3.Timeout(connect=connect_timeout_s, read=read_timeout_s)
        self._hosts = Hosts(self._settings, pool_size=pool_size, timeout=timeout, watch=self._watch)

    def open(
        self, source: Source, *, start: int = 0, end: int | None = None, validator: Validator | None = None
    ) -> HttpBody:
        return self.open_at(
            source,
            source.url,
            start=start,
            end=end,
            validator=validator,
            authorization=self._authorization(source),
        )

    def open_at(
        self,
        source: Source,
        url: str,
        *,
        start: int,
        end: int | None,
        validator: Validator | None,
        authorization: str | None,
        guide: Guide | None = None,
    ) -> HttpBody:
        """Open a source that is to be had at a URL. ``authorization`` is for the URL's host, and never goes further.

        Raises: as :meth:`open`, and what the guide raises.
        """
        headers = dict(self._headers)
        if start > 0 or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
            if validator and validator.if_range:
                headers["If-Range"] = validator.if_range
        response, place = self._follow(source, url, headers, authorization, guide)
        try:
            answer = read_answer(source, response, start=start, end=end, ranged="Range" in headers)
            if guide is not None:
                answer = guide.complete(answer, place)
        except BaseException:
            _drop(response)
            raise
        return HttpBody(source, response, answer, self._watch, self._blocks, host=urlsplit(place).netloc)

    def interrupt(self) -> None:
        self._watch.interrupt_all()

    def close(self) -> None:
        self._hosts.close()

    def _follow(
        self, source: Source, url: str, headers: dict[str, str], authorization: str | None, guide: Guide | None
    ) -> tuple[urllib3.BaseHTTPResponse, str]:
        """Return the answer at the end of all redirects, and where that was."""
        first_host = _origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(source, url, headers, authorization if _origin(url) == first_host else None)
            redirects = response.status in _REDIRECTS and "Location" in response.headers
            if guide is not None:
                try:
                    guide.met(response, url, headers, redirects=redirects)
                except BaseException:
                    _drop(response)
                    raise
            if not redirects:
                return response, url
            location = response.headers["Location"]
            _drop(response)
            url = _redirected(source, url, location)
        raise RefusedResponse(source=source.display, reason=f"more than {MAX_REDIRECTS} redirects")

    def ask(
        self,
        source: Source,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        authorization: str | None = None,
        limit: int,
    ) -> Reply:
        """Return a server's answer to one request about a source, whatever its status is. Redirects are answers.

        Raises:
            RefusedResponse: it cannot be asked, or sends more than ``limit`` bytes, or does not come to an end.
            SourceUnavailable: there is no answer, or not all of it, or it comes at no useful pace.
        """
        response = self._send(
            source, url, {**self._headers, **(headers or {})}, authorization, method=method, body=body
        )
        whole = HttpBody(source, response, _UNKNOWN, self._watch, {}, host="")
        try:
            data = read_whole(whole, source, limit, slow_s=self._slow_s)
        except BaseException:
            whole.close()
            raise
        whole.finish()
        return Reply(response.status, dict(response.headers), data, url)

    def _send(
        self,
        source: Source,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        *,
        method: str = "GET",
        body: bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._hosts.ask(url, headers, authorization=authorization, method=method, body=body)
        except urllib3.exceptions.SSLError as error:
            if not isinstance(_innermost(error), ssl.SSLCertVerificationError):
                raise SourceUnavailable(
                    source=source.display, reason=f"no TLS connection ({_reason(error)})", is_silent=True
                ) from None
            raise RefusedResponse(
                source=source.display,
                reason=f"its certificate is not trusted ({_reason(error)}). Behind a site's own CA, name its bundle in "
                "WEIGHTSTORE_CA_BUNDLE, or as ca_bundle in the configuration",
            ) from None
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            urllib3.exceptions.LocationValueError,
            UnicodeError,
        ) as error:
            raise RefusedResponse(source=source.display, reason=f"cannot be asked for: {_reason(error)}") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise SourceUnavailable(source=source.display, reason=_reason(error), is_silent=True) from None

    def _settings(self, url: str) -> dict[str, Any]:
        """Return proxies, CA bundle and client certificate for a URL's host, as requests finds them."""
        settings = self._environ_settings(url)
        proxy = select_proxy(url, settings.get("proxies", {}))
        verify = settings.get("verify", True)
        if isinstance(verify, str) and not os.path.exists(verify):
            raise RefusedResponse(source=Source(url).display, reason=f"the CA bundle {verify} does not exist")
        return {
            "proxies": {urlsplit(url).scheme: proxy} if proxy else {},
            "verify": verify,
            "cert": settings.get("cert"),
        }

    def _environ_settings(self, url: str) -> dict[str, Any]:
        if not self._trust_env:
            return {"verify": self._ca_bundle or True}
        # REQUESTS_CA_BUNDLE and its like are read by the configuration, which names what counts.
        return dict(self._session.merge_environment_settings(url, {}, True, self._ca_bundle, None))

    def _authorization(self, source: Source) -> str | None:
        """Return the value of an ``Authorization`` field for a source's host: of its URL, or of .netrc."""
        found = self._credentials(source.url)
        if found is None:
            return None
        try:
            return "Basic " + base64.b64encode(":".join(found).encode("latin-1")).decode()
        except UnicodeError as error:
            raise RefusedResponse(source=source.display, reason=f"cannot be asked for: {_reason(error)}") from None

    def _credentials(self, url: str) -> tuple[str, str] | None:
        parts = urlsplit(url)
        if parts.username is not None:
            return unquote(parts.username), unquote(parts.password or "")
        if not self._trust_env:
            return None
        if parts.netloc not in self._netrc:
            self._netrc[parts.netloc] = get_netrc_auth(url)
        return self._netrc[parts.netloc]


def _drop(response: urllib3.BaseHTTPResponse) -> None:
    """Close an answer whose rest is not wanted, and its connection with it."""
    response.close()
    response.release_conn()


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port


def _redirected(source: Source, url: str, location: str) -> str:
    no_url = RefusedResponse(source=source.display, reason="redirects to something that is not a URL")
    # Header bytes come as latin-1; sites send UTF-8.
    text = requests.utils.requote_uri(location.encode("latin-1", "replace").decode("utf-8", "replace"))
    try:
        target = urljoin(url, text)
        before, parts = urlsplit(url), urlsplit(target)
    except ValueError:
        raise no_url from None
    if parts.scheme not in {"http", "https"}:
        raise RefusedResponse(source=source.display, reason="redirects to something that is not http or https")
    if before.scheme == "https" and parts.scheme != "https":
        raise RefusedResponse(
            source=source.display, reason=f"redirects from https to http (at {parts.hostname}), which is refused"
        )
    target = target.partition("#")[0]
    if parts.username is not None:
        target = target.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)
    try:
        return Source(target).url
    except InvalidSource:
        raise no_url from None


def _innermost(error: BaseException) -> BaseException:
    """Return what the libraries wrapped."""
    seen = error
    for _ in range(8):
        inner = getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in seen.args if isinstance(arg, BaseException)), None)
        if inner is None or inner is seen:
            break
        seen = inner
    return seen


def _reason(error: BaseException) -> str:
    """Say in a few words what broke. The libraries' own texts repeat URLs, with what may stand in them."""
    seen = _innermost(error)
    if isinstance(seen, urllib3.exceptions.NameResolutionError):
        return "the host's name cannot be resolved"
    if isinstance(seen, urllib3.exceptions.NewConnectionError):  # before TimeoutError, whose subclass it is
        return "no connection"
    if isinstance(seen, (TimeoutError, urllib3.exceptions.TimeoutError)):
        return "timed out"
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    if isinstance(error, urllib3.exceptions.ProxyError):
        status = _TUNNEL_REFUSED.search(str(seen))
        return f"the proxy refused{f' (HTTP {status[1]})' if status else ''}"
    if isinstance(seen, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(seen, http.client.HTTPException) and not isinstance(seen, http.client.IncompleteRead):
        return "the answer is not HTTP"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(seen).__name__).lower()
