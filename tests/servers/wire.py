"""Sockets as the test servers use them: an accept loop that stops cleanly, connections, and pacing.

Every wait in here ends when the server stops or the client goes away, so that a test with an hour's stall
still finishes at once and leaves no thread behind.
"""

import contextlib
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, parse_headers
from typing import Protocol

Buffer = bytes | memoryview

_LONGEST_LINE = 64 * 1024
_LARGEST_SEND = 256 * 1024
POLL_S = 0.05
_LINGER_S = 1.0
# A client that merely closed its side still has an open socket here; only Linux has an event of its own for it.
_GONE = select.POLLHUP | select.POLLERR | (select.POLLRDHUP if sys.platform == "linux" else 0)


class ClientGone(Exception):
    """The client closed the connection, or the server is stopping: nothing more can be sent or read."""

    def __init__(self, unsent: int = 0) -> None:
        super().__init__(f"{unsent} bytes were not sent")
        self.unsent = unsent


@dataclass(frozen=True, slots=True)
class Head:
    """The request line and header fields as they were read."""

    method: str
    target: str
    version: str
    headers: Message

    @property
    def wants_close(self) -> bool:
        """Whether the client asks that the connection be closed after the answer."""
        return self.version != "HTTP/1.1" or "close" in self.headers.get("Connection", "").lower()


class Connection:
    """One accepted connection, used by the one thread that serves it."""

    def __init__(self, sock: socket.socket, number: int, stopping: threading.Event) -> None:
        self.number = number
        self._sock = sock
        self._stopping = stopping
        self._reader = sock.makefile("rb")

    def handshake(self) -> None:
        """Do the TLS handshake, if this is a TLS connection."""
        if isinstance(self._sock, ssl.SSLSocket):
            with _client_may_be_gone():
                self._sock.do_handshake()

    def read_head(self) -> Head | None:
        """Return the next request with its body read and dropped, or None when the client has no more."""
        with _client_may_be_gone():
            line = self._reader.readline(_LONGEST_LINE)
            words = line.decode("latin-1").split()
            if len(words) != 3:
                return None
            try:
                headers = parse_headers(self._reader)
            except HTTPException:
                return None
            method, target, version = words
            self._reader.read(int(headers.get("Content-Length", "0")))
            return Head(method, target, version, headers)

    def receive(self) -> bytes:
        """Return whatever arrives next, b"" at the end: for tunnels."""
        with _client_may_be_gone():
            return self._reader.read1(_LARGEST_SEND)

    def send(self, data: Buffer) -> None:
        """Send all of `data`; raises ClientGone with the number of bytes that were not taken."""
        view = memoryview(data)
        while view:
            try:
                sent = self._sock.send(view[:_LARGEST_SEND])
            except OSError as error:
                raise ClientGone(unsent=len(view)) from error
            view = view[sent:]

    def pause(self, seconds: float) -> None:
        """Wait; raises ClientGone as soon as there is nobody to wait for."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._stopping.wait(min(left, POLL_S)) or (left > POLL_S and self.is_abandoned()):
                raise ClientGone

    def wait_for(self, event: threading.Event) -> None:
        """Wait for `event`; raises ClientGone as soon as there is nobody to wait for."""
        while not event.wait(POLL_S):
            if self._stopping.is_set() or self.is_abandoned():
                raise ClientGone

    def is_abandoned(self) -> bool:
        """Whether the client closed its end (or died)."""
        return has_event(self._sock, _GONE, timeout_s=0)

    def abort(self) -> None:
        """Send RST instead of an orderly end, once the peer's kernel has all that was sent before."""
        deadline = time.monotonic() + _LINGER_S
        while _unsent_bytes(self._sock) and time.monotonic() < deadline and not self._stopping.wait(0.001):
            pass
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def finish(self) -> None:
        """End in good order: close_notify, FIN, and no RST because of something unread."""
        if isinstance(self._sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self._sock.setblocking(False)
                self._sock.unwrap()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
            self._sock.setblocking(False)
            deadline = time.monotonic() + _LINGER_S
            while time.monotonic() < deadline and not self._stopping.is_set():
                # The base class's recv: below TLS, whose session is over.
                if has_event(self._sock, select.POLLIN, timeout_s=POLL_S) and not socket.socket.recv(
                    self._sock, _LARGEST_SEND
                ):
                    break
        self.close()

    def hang_up(self) -> None:
        """Wake the serving thread from whatever it waits for; called by another thread."""
        with contextlib.suppress(OSError):
            # The base class's method: SSLSocket.shutdown would drop the session while the other thread uses it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back to the system; closing twice does no harm."""
        self._reader.close()
        self._sock.close()


class Pacer:
    """Hands out sending times such that all who share it send `bytes_per_s` together.

    Time lost to the scheduler is made up for, but never more than `_SMOOTHING_S` of it: there are no bursts.
    """

    _SMOOTHING_S = 0.1

    def __init__(self, bytes_per_s: float, *, piece: int | None = None) -> None:
        self.piece = piece or max(1, min(64 * 1024, int(bytes_per_s / 100)))
        self._bytes_per_s = bytes_per_s
        self._due = 0.0
        self._lock = threading.Lock()

    def delay_s(self, size: int) -> float:
        """Seconds to wait before sending the next `size` bytes; they are taken as sent."""
        with self._lock:
            now = time.monotonic()
            if self._due < now - self._SMOOTHING_S:
                # Idle so far: a new start. The allowance is only for a sender that was late.
                self._due = now
            self._due += size / self._bytes_per_s
            return max(0.0, self._due - now)


class Service(Protocol):
    """What a server does with a connection; the listener closes it in good order afterwards."""

    def __call__(self, connection: Connection, /) -> None: ...


class Listener:
    """Accepts connections on `host` and serves each in a thread of its own, from `start()` to `stop()`."""

    def __init__(
        self, serve: Service, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.host = host
        self.accepted = 0
        self._serve = serve
        self._port = port
        self._tls = tls
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[int, tuple[threading.Thread, Connection]] = {}
        self._socket: socket.socket | None = None
        self._acceptor = threading.Thread(target=self._accept, name=f"accept on {host}", daemon=True)

    @property
    def port(self) -> int:
        """The port, known once started; it stays known after the end, when nobody listens there any more."""
        if not self._port:
            raise RuntimeError("the server was not started")
        return self._port

    def start(self) -> None:
        """Listen; connections are accepted from here on."""
        self._socket = socket.create_server((self.host, self._port), backlog=512)
        self._port = self._socket.getsockname()[1]
        self._acceptor.start()

    def stop(self) -> None:
        """Close the listening socket and all connections, and wait for the threads; stopping twice does no harm."""
        if self._socket is None or self._stopping.is_set():
            return
        self._stopping.set()
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
            pass  # wakes the acceptor
        self._acceptor.join(timeout=10)
        self._socket.close()
        with self._lock:
            left = list(self._open.values())
        for _, connection in left:
            connection.hang_up()
        for thread, _ in left:
            thread.join(timeout=10)
        stuck = [thread.name for thread in (self._acceptor, *(thread for thread, _ in left)) if thread.is_alive()]
        if stuck:
            raise RuntimeError(f"threads did not end: {', '.join(stuck)}")

    def _accept(self) -> None:
        assert self._socket is not None
        while True:
            try:
                accepted, _ = self._socket.accept()
            except ConnectionError:
                continue
            if self._stopping.is_set():
                accepted.close()
                return
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            number = self.accepted
            try:
                sock = self._wrapped(accepted)
            except OSError:  # gone before the handshake
                accepted.close()
                continue
            connection = Connection(sock, number, self._stopping)
            thread = threading.Thread(
                target=self._run,
                args=(connection,),
                name=f"connection {number} on {self.host}:{self.port}",
                daemon=True,
            )
            with self._lock:
                self._open[number] = thread, connection
            thread.start()

    def _wrapped(self, sock: socket.socket) -> socket.socket:
        if self._tls is None:
            return sock
        return self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _run(self, connection: Connection) -> None:
        try:
            connection.handshake()
            self._serve(connection)
            connection.finish()
        except ClientGone:
            pass
        finally:
            connection.close()
            with self._lock:
                del self._open[connection.number]


def render_head(first_line: str, headers: Mapping[str, str]) -> bytes:
    """The bytes of a request or status line and its header fields, with the empty line after them."""
    lines = [first_line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def cut_into_pieces(buffers: Iterator[Buffer], room: Callable[[], int]) -> Iterator[memoryview]:
    """Yield the bytes of `buffers` in pieces of at most `room()` bytes, asked before each piece."""
    for buffer in buffers:
        view = memoryview(buffer)
        while view:
            size = room()
            yield view[:size]
            view = view[size:]


@contextlib.contextmanager
def _client_may_be_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ClientGone from error


def has_event(sock: socket.socket, events: int, *, timeout_s: float) -> bool:
    """Whether one of `events` (or a hang-up) came within the time; a closed socket counts as hung up."""
    if sock.fileno() < 0:
        return True
    poller = select.poll()
    poller.register(sock, events)
    return bool(poller.poll(timeout_s * 1000))


def _unsent_bytes(sock: socket.socket) -> int:
    """How much the kernel still holds that the peer's kernel has not acknowledged (0 where it cannot tell)."""
    if sys.platform != "linux":
        return 0
    # Imported here because neither exists on all platforms.
    import fcntl
    import termios

    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))  # SIOCOUTQ, tcp(7)
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
