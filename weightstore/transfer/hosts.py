"""Pools of connections, one a host, made as requests makes them and asked through urllib3 directly.

Proxies, certificates and TLS settings are requests' business: what works with ``requests.get`` on a machine works here.
Its layer around each single request is left out: it prepares, copies and wraps what a download never looks at, and for
a small file costs as much as the rest of Python's work.
"""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import requote_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weightstore.transfer.watch import Watch

# Pools beyond so many are closed, the least recently used first.
_MOST_HOSTS = 64


@dataclass(frozen=True, slots=True)
class _Host:
    pool: Any  # urllib3.HTTPConnectionPool, which requests types as its parent
    wants_whole_url: bool


class _Watched:
    """A connection whose wait for an answer's head is bounded as a whole.

    A time-out is for the next byte alone: a server that drips its head, or is always about to continue, never meets it.
    """

    watch: Watch
    sock: socket.socket | None
    blocked_since: float | None = None
    was_interrupted = False

    def getresponse(self) -> Any:
        self.blocked_since, self.was_interrupted = time.monotonic(), False
        self.watch.add(self)
        try:
            response = super().getresponse()  # type: ignore[misc]
        finally:
            self.blocked_since = None
            self.watch.discard(self)
        if self.was_interrupted:  # what came of the head until then passes for a whole one
            response.close()
            raise TimeoutError("timed out")
        return response

    def interrupt(self) -> None:
        """End a wait that is under way in another thread."""
        self.was_interrupted = True
        if self.sock is not None:
            with contextlib.suppress(OSError, ValueError):
                self.sock.shutdown(socket.SHUT_RDWR)


class Hosts(HTTPAdapter):
    """Asks web servers. ``settings`` gives, for a URL, requests' keyword arguments ``proxies``, ``verify``, ``cert``.

    An adapter, because only adapters may ask requests how it would connect.
    """

    def __init__(
        self,
        settings: Callable[[str], Mapping[str, Any]],
        *,
        pool_size: int,
        timeout: urllib3.Timeout,
        watch: Watch,
    ) -> None:
        super().__init__(pool_connections=_MOST_HOSTS, pool_maxsize=pool_size)
        self._settings = settings
        self._timeout = timeout
        self._watch = watch
        self._hosts: dict[tuple[str, str], _Host] = {}

    def ask(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        authorization: str | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer to one request, its body still to be read. Redirects are answers.

        Raises:
            requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError: there is none.
        """
        parts = urlsplit(url)
        sent = dict(headers)
        if authorization is not None:
            sent["Authorization"] = authorization
        key = (parts.scheme, parts.netloc.rpartition("@")[2])
        for is_last in (False, True):
            host = self._hosts.get(key) or self._connect(url, key)
            target = f"{parts.scheme}://{key[1]}" if host.wants_whole_url else ""
            target += (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            if "%" in target or not target.isascii():
                target = requote_uri(target)
            try:
                response: urllib3.BaseHTTPResponse = host.pool.urlopen(
                    method,
                    target,
                    body=body,
                    headers=sent,
                    redirect=False,
                    assert_same_host=False,
                    preload_content=False,
                    decode_content=False,
                    retries=False,
                    timeout=self._timeout,
                )
            except urllib3.exceptions.ClosedPoolError:  # more hosts than pools: its turn came to be closed
                self._hosts.pop(key, None)
                if is_last:
                    raise
            else:
                return response
        raise AssertionError

    def _connect(self, url: str, key: tuple[str, str]) -> _Host:
        settings = self._settings(url)
        proxies, verify, cert = settings["proxies"], settings["verify"], settings["cert"]
        prepared = requests.Request("GET", url).prepare()
        pool: Any = self.get_connection_with_tls_context(prepared, verify, proxies=proxies, cert=cert)
        self.cert_verify(pool, prepared.url, verify, cert)  # type: ignore[no-untyped-call]
        if not issubclass(pool.ConnectionCls, _Watched):
            pool.ConnectionCls = type("Watched", (_Watched, pool.ConnectionCls), {"watch": self._watch})
        # Over a plain proxy the request line has the whole URL; in a tunnel, by SOCKS or directly, only the path.
        wants_whole_url = self.request_url(prepared, proxies).startswith("http://")
        host = self._hosts[key] = _Host(pool, wants_whole_url)
        return host
