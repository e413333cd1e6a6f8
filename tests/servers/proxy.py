"""A forward proxy that remembers what was asked of it: absolute-form requests and CONNECT tunnels."""

import base64
import contextlib
import ipaddress
import select
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.servers.wire import POLL_S, ClientGone, Connection, Head, Listener, has_event, render_head

_HOP_BY_HOP = {"connection", "keep-alive", "proxy-authorization", "proxy-connection"}


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A request as the proxy got it."""

    method: str
    target: str
    """A whole URL, or host:port for CONNECT."""
    headers: Message
    """Case-insensitive; includes Proxy-Authorization."""
    connection_id: int
    time: float
    status: int | None
    """What the proxy itself answered: 407, 400, 502, or 200 for a tunnel; None if it passed the origin's on."""


class ForwardProxy:
    """Forwards to loopback, and to the names in `routes`, which only the proxy can resolve.

    With `credentials` it answers 407 to whoever does not send these, user and password.
    `routes` maps "name:port" or "name" to an address: a request for such a name that arrives shows that the client
    went through the proxy. All else that is not on loopback is answered 502.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        credentials: tuple[str, str] | None = None,
        routes: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        self._credentials = credentials
        self._routes = dict(routes or {})
        self._listener = Listener(self._converse, host=host)
        self._lock = threading.Lock()
        self._requests: list[ProxyRequest] = []

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.stop()

    @property
    def url(self) -> str:
        """What HTTP_PROXY and HTTPS_PROXY are set to, without credentials."""
        return f"http://{self._listener.host}:{self._listener.port}"

    @property
    def url_with_credentials(self) -> str:
        """The same with the credentials that are asked for."""
        if self._credentials is None:
            return self.url
        user, password = self._credentials
        return f"http://{user}:{password}@{self._listener.host}:{self._listener.port}"

    @property
    def requests(self) -> list[ProxyRequest]:
        """All requests so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self._listener.accepted

    def _converse(self, connection: Connection) -> None:
        while (head := connection.read_head()) is not None:
            is_tunnel = head.method == "CONNECT"
            if not self._is_permitted(head):
                self._refuse(407, head, connection, {"Proxy-Authenticate": 'Basic realm="proxy"'})
            elif not is_tunnel and not head.target.startswith("http://"):
                self._refuse(400, head, connection)
            elif (upstream := self._reach(f"//{head.target}" if is_tunnel else head.target)) is None:
                self._refuse(502, head, connection)
            else:
                self._note(head, connection, 200 if is_tunnel else None)
                with upstream:
                    (_tunnel if is_tunnel else _forward)(head, upstream, connection)
                return
            if head.wants_close:
                return

    def _is_permitted(self, head: Head) -> bool:
        if self._credentials is None:
            return True
        wanted = base64.b64encode(":".join(self._credentials).encode()).decode()
        return head.headers.get("Proxy-Authorization") == f"Basic {wanted}"

    def _note(self, head: Head, connection: Connection, status: int | None) -> None:
        request = ProxyRequest(head.method, head.target, head.headers, connection.number, time.time(), status)
        with self._lock:
            self._requests.append(request)

    def _refuse(
        self, status: int, head: Head, connection: Connection, headers: Mapping[str, str] | None = None
    ) -> None:
        self._note(head, connection, status)
        connection.send(render_head(f"HTTP/1.1 {status} No", {"Content-Length": "0", **(headers or {})}))

    def _reach(self, url: str) -> socket.socket | None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        address = self._routes.get(f"{host}:{port}") or self._routes.get(host)
        if address is None and _is_loopback(host):
            address = (host, port)
        if address is None:
            return None
        try:
            upstream = socket.create_connection(address, timeout=10)
        except OSError:
            return None
        upstream.settimeout(None)
        return upstream


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _forward(head: Head, upstream: socket.socket, connection: Connection) -> None:
    headers = {name: value for name, value in head.headers.items() if name.lower() not in _HOP_BY_HOP}
    target = urlsplit(head.target)._replace(scheme="", netloc="").geturl() or "/"
    with contextlib.suppress(ConnectionError):  # the client finds out in what is relayed
        upstream.sendall(render_head(f"{head.method} {target} HTTP/1.1", {**headers, "Connection": "close"}))
    _relay(upstream, connection)


def _tunnel(_: Head, upstream: socket.socket, connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    back = threading.Thread(target=_relay_and_hang_up, args=(upstream, connection), name="tunnel", daemon=True)
    back.start()
    try:
        while data := connection.receive():
            upstream.sendall(data)
    except (ClientGone, OSError):
        pass  # the other direction ends as well
    finally:
        with contextlib.suppress(OSError):
            upstream.shutdown(socket.SHUT_RDWR)
        back.join(timeout=10)


def _relay(upstream: socket.socket, connection: Connection) -> None:
    """Pass on what comes from the origin until it ends; raises ClientGone."""
    with contextlib.suppress(ConnectionError):
        while True:
            if not has_event(upstream, select.POLLIN, timeout_s=POLL_S):
                # A waiting client may have left, or the proxy may be stopping, which looks the same.
                if connection.is_abandoned():
                    raise ClientGone
            elif data := upstream.recv(64 * 1024):
                connection.send(data)
            else:
                return


def _relay_and_hang_up(upstream: socket.socket, connection: Connection) -> None:
    with contextlib.suppress(ClientGone):
        _relay(upstream, connection)
    connection.hang_up()
