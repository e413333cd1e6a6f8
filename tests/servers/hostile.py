"""A threaded HTTP/1.1 server that behaves well by default and can be told to misbehave, down to the byte.

    with HostileServer() as server:
        server.serve("/w/model-abcdef12.pth", data, truncate(after=1000, times=1))
        fetch(server.url("/w/model-abcdef12.pth"))
        assert [request.status for request in server.requests] == [200, 206]

`python -m tests.servers.hostile --root DIR --port-file F --log F` serves a directory in a process of its own,
well-behaved, until SIGTERM or SIGINT.
"""

import argparse
import functools
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from tests.servers.behaviours import Behaviour, Stage
from tests.servers.exchange import DERIVED, CutShort, Exchange, Mark, Request, Resource, answer_well, transmit
from tests.servers.tls import Certificate, Certificates, server_context
from tests.servers.wire import Connection, Head, Listener, Pacer

FIRST_DATE = 1_704_067_200.0
"""Last-Modified of what is served: 1 January 2024; each replacement is a day younger than what it replaces."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A gate in the body of every GET for one path."""

    after: int
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def wait_until_reached(self, timeout_s: float = 10.0) -> None:
        """Return once some client was sent `after` bytes of a body (they may still be on their way to it)."""
        if not self.reached.wait(timeout_s):
            raise TimeoutError(f"nobody was sent {self.after} bytes within {timeout_s} s")

    def release(self) -> None:
        """Let all held answers go on; later ones are not held."""
        self.released.set()

    def pause(self, connection: Connection) -> None:
        """Hold this connection until release."""
        self.reached.set()
        connection.wait_for(self.released)


@dataclass(slots=True)
class _Path:
    """What the server knows of one path."""

    resource: Resource | None = None
    behaviours: tuple[Behaviour, ...] = ()
    seen: list[int] = field(default_factory=list)
    """For each behaviour, the number of requests that concerned it."""
    holds: list[Hold] = field(default_factory=list)
    answering: int = 0


class HostileServer:
    """Serves what it is given on a loopback address, and remembers every request.

    `tls` makes it an https server; `link_bytes_per_s` caps all connections together, as a site's link does.
    `log` is a file to which a JSON object is appended, one a line, when a request has been answered.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: Certificates | Certificate | None = None,
        link_bytes_per_s: float | None = None,
        log: Path | None = None,
    ) -> None:
        certificate = tls.valid if isinstance(tls, Certificates) else tls
        context: ssl.SSLContext | None = None if certificate is None else server_context(certificate)
        self._scheme = "http" if context is None else "https"
        self._listener = Listener(self._converse, host=host, port=port, tls=context)
        self._link = None if link_bytes_per_s is None else Pacer(link_bytes_per_s)
        self._log = log
        self._lock = threading.Lock()
        self._paths: dict[str, _Path] = {}
        self._directory: Path | None = None
        self._exchanges: list[Exchange] = []
        self._answering = 0
        self._peak = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen and accept."""
        self._listener.start()

    def stop(self) -> None:
        """Cut all connections and stop listening: from here on the port refuses, and nothing is left running."""
        self._listener.stop()

    def serve(
        self,
        path: str,
        content: bytes | Path = b"",
        behaviour: Behaviour | Iterable[Behaviour] = (),
        *,
        etag: str | None = DERIVED,
        last_modified: float | None = FIRST_DATE,
    ) -> str:
        """Serve `content` at `path` from now on, its counts starting at zero, and return its URL.

        `etag` is sent as it is (quote it, or not); DERIVED makes a strong one of the content, None sends none.
        A path with a query is another path; a path without one answers whatever the query is.
        """
        behaviours = (behaviour,) if isinstance(behaviour, Behaviour) else tuple(behaviour)
        resource = Resource.of(content, etag=etag, last_modified=last_modified)
        with self._lock:
            self._paths[path] = _Path(resource, behaviours, [0] * len(behaviours))
        return self.url(path)

    def serve_directory(self, root: Path) -> None:
        """Serve the files under `root`, as they are at each request, at all paths not given to `serve`."""
        self._directory = root.resolve()

    def replace(
        self, path: str, content: bytes | Path, *, etag: str | None = DERIVED, last_modified: float | None = None
    ) -> None:
        """Change what is at `path`; answers already begun go on with the old content.

        Behaviours and their counts stay. Without `last_modified` the new content is a day younger than the old,
        if that had a date at all.
        """
        with self._lock:
            old = self._paths[path].resource
            if last_modified is None and old is not None and old.last_modified is not None:
                last_modified = old.last_modified + 86_400
            self._paths[path].resource = Resource.of(content, etag=etag, last_modified=last_modified)

    def hold(self, path: str, *, after: int) -> Hold:
        """Stop every GET of `path` once `after` bytes of its body are sent, until the hold is released."""
        hold = Hold(after)
        with self._lock:
            self._paths[path].holds.append(hold)
        return hold

    def release(self, path: str) -> None:
        """Release all holds on `path`."""
        with self._lock:
            holds = list(self._paths[path].holds)
        for hold in holds:
            hold.release()

    def url(self, path: str, *, host: str | None = None) -> str:
        """The URL of `path`; `host` is another name for this machine, such as localhost."""
        return f"{self._scheme}://{host or self._listener.host}:{self.port}{path}"

    @property
    def port(self) -> int:
        """The port, which stays known after `stop()`."""
        return self._listener.port

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._listener.host, self.port

    @property
    def requests(self) -> list[Request]:
        """All requests so far in order of arrival, those still being answered included."""
        with self._lock:
            return [exchange.snapshot() for exchange in self._exchanges]

    @property
    def connections(self) -> int:
        """How many connections were accepted, whether or not a request came through them."""
        return self._listener.accepted

    @property
    def peak_concurrency(self) -> int:
        """The largest number of requests that were being answered at one time."""
        with self._lock:
            return self._peak

    def _converse(self, connection: Connection) -> None:
        while (head := connection.read_head()) is not None:
            path, exchange = self._prepare(head, connection)
            leave = functools.partial(self._leave, path, exchange)
            try:
                if not transmit(exchange, connection, wants_close=head.wants_close, leave=leave):
                    return
            except CutShort as cut:
                leave()
                if cut.reset:
                    connection.abort()
                return
            finally:
                leave()
                exchange.let_go()
                self._write_log(exchange.snapshot())

    def _prepare(self, head: Head, connection: Connection) -> tuple[_Path, Exchange]:
        """Note the request and decide on its answer; all of it under the lock, so that counts are exact."""
        request = Request(head.method, head.target, head.headers, connection.number, time.time())
        with self._lock:
            path = self._find(head.target)
            exchange = Exchange(request=request, resource=path.resource, range=request.range)
            exchange.concurrent = path.answering + 1
            self._exchanges.append(exchange)
            self._apply(Stage.ADMIT, path, exchange)
            if exchange.is_settled:
                return path, exchange
            exchange.is_counted = True
            path.answering += 1
            self._answering += 1
            self._peak = max(self._peak, self._answering)
            self._apply(Stage.SELECT, path, exchange)
            if not exchange.is_settled:
                answer_well(exchange)
            self._apply(Stage.ANSWER, path, exchange)
            self._apply(Stage.SEND, path, exchange)
            exchange.marks += [Mark(hold.after, hold.pause) for hold in path.holds if not hold.released.is_set()]
            if self._link is not None:
                exchange.pacers.append(self._link)
        return path, exchange

    def _find(self, target: str) -> _Path:
        bare = urlsplit(target).path
        known = self._paths.get(target) or self._paths.get(bare)
        if known is not None or self._directory is None:
            return known or _Path()
        file = (self._directory / unquote(bare).lstrip("/")).resolve()
        if not (file.is_relative_to(self._directory) and file.is_file()):
            return _Path()
        return _Path(Resource.of(file, last_modified=file.stat().st_mtime))

    def _apply(self, stage: Stage, path: _Path, exchange: Exchange) -> None:
        for number, behaviour in enumerate(path.behaviours):
            if exchange.is_settled:
                return
            if behaviour.stage is not stage or not behaviour.concerns(exchange.request):
                continue
            exchange.turn = path.seen[number] - behaviour.spared
            path.seen[number] += 1
            if exchange.turn >= 0 and (behaviour.times is None or exchange.turn < behaviour.times):
                behaviour.effect(exchange)

    def _leave(self, path: _Path, exchange: Exchange) -> None:
        with self._lock:
            if exchange.is_counted:
                exchange.is_counted = False
                path.answering -= 1
                self._answering -= 1

    def _write_log(self, request: Request) -> None:
        if self._log is None:
            return
        row = {
            "time": request.time,
            "connection_id": request.connection_id,
            "method": request.method,
            "path": request.path,
            "range": request.range,
            "status": request.status,
            "body_bytes_sent": request.body_bytes_sent,
        }
        with self._lock, self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Serve a directory until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.hostile", description=main.__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the directory to serve")
    parser.add_argument("--port-file", type=Path, required=True, help="appears, with the port in it, when listening")
    parser.add_argument("--log", type=Path, help="gets a JSON object a line for every request answered")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--link-bytes-per-s", type=float, help="a cap on all connections together")
    options = parser.parse_args(arguments)
    endings = {signal.SIGTERM, signal.SIGINT}
    # Blocked before there are threads, which inherit it: the signal waits for sigwait and interrupts nothing.
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    with HostileServer(host=options.host, link_bytes_per_s=options.link_bytes_per_s, log=options.log) as server:
        server.serve_directory(options.root)
        unready = options.port_file.with_name(f"{options.port_file.name}.{os.getpid()}")
        unready.write_text(f"{server.port}\n")
        unready.replace(options.port_file)
        signal.sigwait(endings)


if __name__ == "__main__":
    main()
