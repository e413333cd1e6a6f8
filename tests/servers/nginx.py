"""A real nginx as the origin: for what a server of our own cannot prove, and for measuring against.

It runs as the current user, in a directory of its own, on ports of the OS's choice. Used by the benchmark as
well, so nothing here knows of pytest.
"""

import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.tls import Certificate, Certificates

_MARK = "/-/mark"

# Five temporary paths, because each module of nginx creates its own, by default under /var/lib.
_CONFIGURATION = """
daemon off;
worker_processes {workers};
{user}
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  client_body_temp_path {home}/client_body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  log_format rows escape=json '{{"time":$msec,"connection_id":$connection,"method":"$request_method",'
    '"uri":"$request_uri","range":"$http_range","status":$status,"bytes_sent":$bytes_sent,'
    '"body_bytes_sent":$body_bytes_sent,"duration_s":$request_time}}';
  access_log {home}/access.log rows;
  default_type application/octet-stream;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  server {{
    {listen}
    root "{root}";
    location / {{ }}
    location /capped/ {{ alias "{root}/"; limit_rate {capped_bytes_per_s}; }}
    location = {mark} {{ return 204; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class AccessRow:
    """One line of nginx's access log."""

    time: float
    """When the answer was finished, in seconds since the epoch."""
    connection_id: int
    method: str
    uri: str
    range: str | None
    status: int
    bytes_sent: int
    body_bytes_sent: int
    duration_s: float


def find_nginx() -> str | None:
    """The nginx program, also where a user's PATH does not lead; None if there is none."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


class Nginx:
    """Serves the files of `root` at `/`, and again at `/capped/` with `capped_bytes_per_s` for each connection.

    With `tls` it listens on a second port for https. Raises FileNotFoundError on entry if there is no nginx, and
    RuntimeError with its error log if it does not start.
    """

    def __init__(
        self,
        root: Path,
        *,
        host: str = "127.0.0.1",
        capped_bytes_per_s: int = 20 * 1024 * 1024,
        tls: Certificates | Certificate | None = None,
        workers: int = 1,
    ) -> None:
        self.host = host
        self._root = root.resolve()
        self._capped_bytes_per_s = capped_bytes_per_s
        self._certificate = tls.valid if isinstance(tls, Certificates) else tls
        self._workers = workers
        self._marks = itertools.count()
        self._cleanup = ExitStack()
        self._home = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: list[int] = []

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._home = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="nginx-")))
            self._start()
            cleanup.callback(self._stop)
            self._wait_until_ready()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def port(self) -> int:
        """The http port."""
        return self._ports[0]

    @property
    def https_port(self) -> int:
        """The https port; only with `tls`."""
        return self._ports[1]

    @property
    def pid(self) -> int:
        """Of the master process."""
        return self._running().pid

    def url(self, path: str, *, scheme: str = "http", capped: bool = False) -> str:
        """The URL of a file: `path` starts with a slash and is relative to the root."""
        port = self.https_port if scheme == "https" else self.port
        return f"{scheme}://{self.host}:{port}{'/capped' if capped else ''}{path}"

    def log(self, *, at_least: int = 0, timeout_s: float = 5.0) -> list[AccessRow]:
        """All requests answered so far, in the order in which nginx was done with them.

        nginx writes a row after the last byte was sent. With one worker all rows of answers that a client has
        read to their end are there; with more, and where clients went away, wait for `at_least` so many rows.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            rows = self._complete_log(deadline)
            if len(rows) >= at_least:
                return rows
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(rows)} rows, not {at_least}, in the log after {timeout_s} s")
            time.sleep(0.01)

    def _complete_log(self, deadline: float) -> list[AccessRow]:
        """The rows up to one that a request made now leaves: a worker writes them in the order of its events."""
        mark = f"{_MARK}?{next(self._marks)}"
        self._ask(mark)
        while True:
            rows = list(_parse(self._home / "access.log"))
            if any(row.uri == mark for row in rows):
                return [row for row in rows if not row.uri.startswith(_MARK)]
            if time.monotonic() > deadline:
                raise TimeoutError("nginx does not write its log")
            time.sleep(0.001)

    def _start(self) -> None:
        program = find_nginx()
        if program is None:
            raise FileNotFoundError("there is no nginx on this machine")
        with ExitStack() as ours:
            # nginx cannot say which port the OS chose, so it inherits sockets that are bound already, by the variable
            # through which it hands them to its successor in an upgrade (NGINX_VAR in nginx.c). It expects them to
            # be non-blocking.
            sockets = [ours.enter_context(socket.create_server((self.host, 0), backlog=511)) for _ in range(2)]
            if self._certificate is None:
                sockets.pop().close()
            for inherited in sockets:
                inherited.setblocking(False)
            self._ports = [inherited.getsockname()[1] for inherited in sockets]
            configuration = self._home / "nginx.conf"
            configuration.write_text(self._configure())
            descriptors = [inherited.fileno() for inherited in sockets]
            self._process = subprocess.Popen(
                [program, "-p", self._home, "-e", self._home / "error.log", "-c", configuration],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                env={"NGINX": "".join(f"{descriptor};" for descriptor in descriptors)},
            )

    def _configure(self) -> str:
        listen = [f"listen {self.host}:{self.port};"]
        if self._certificate is not None:
            listen += [
                f"listen {self.host}:{self.https_port} ssl;",
                f'ssl_certificate "{self._certificate.chain}";',
                f'ssl_certificate_key "{self._certificate.key}";',
            ]
        return _CONFIGURATION.format(
            home=self._home,
            root=self._root,
            workers=self._workers,
            # As root its workers would become "nobody", who cannot read a temporary directory.
            user="user root;" if os.geteuid() == 0 else "",
            listen="\n    ".join(listen),
            capped_bytes_per_s=self._capped_bytes_per_s,
            mark=_MARK,
        )

    def _wait_until_ready(self) -> None:
        try:
            self._ask(_MARK)
        except OSError as error:
            reason = (self._home / "error.log").read_text() if (self._home / "error.log").exists() else ""
            raise RuntimeError(f"nginx did not start: {reason}") from error

    def _ask(self, path: str) -> None:
        """Make a request and wait for its answer; one made before the workers run waits in the socket's backlog."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        finally:
            connection.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("nginx was not started")
        return self._process

    def _stop(self) -> None:
        process = self._running()
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _parse(log: Path) -> Iterator[AccessRow]:
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):  # else still being written
            fields = json.loads(line)
            yield AccessRow(**{**fields, "range": fields["range"] or None})
