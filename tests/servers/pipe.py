"""Between a client and a server: a pipe that counts, slows and cuts, and a reverse proxy that takes whole requests."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.nginx import find_nginx

_PIECE = 64 << 10


class Pipe:
    """Passes connections on to ``target``, at ``address``.

    Attributes:
        up: so many bytes came from clients.
        bytes_per_s: at most so many come in a second, of all connections together; None for no limit.
        cut_at: where ``up`` reaches this, all connections are cut, once.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_over = False
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.up = 0
        self.bytes_per_s: int | None = None
        self.cut_at: int | None = None

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        with contextlib.suppress(OSError):  # wakes accept()
            socket.create_connection(self._listener.getsockname()).close()
        self._acceptor.join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def wait_for(self, size: int) -> None:
        """Wait until so many bytes came from clients."""
        deadline = time.monotonic() + 60
        while self.up < size:
            assert time.monotonic() < deadline, f"only {self.up} bytes came"
            time.sleep(0.005)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._is_over:
                client.close()
                return
            thread = threading.Thread(target=self._join, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _join(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(self._target)
            except OSError:
                return
            with server:
                with self._lock:
                    self._open |= {client, server}
                back = threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True)
                back.start()
                self._pass_on(client, server, True)
                back.join()
                with self._lock:
                    self._open -= {client, server}

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        try:
            while data := source.recv(_PIECE):
                if is_up:
                    self._count(len(data))
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> None:
        with self._lock:
            self.up += size
            is_reached = self.cut_at is not None and self.up >= self.cut_at
            if is_reached:
                self.cut_at = None
        if is_reached:
            self.cut()
        if self.bytes_per_s is not None:
            time.sleep(size / self.bytes_per_s)


_CONFIGURATION = """
daemon off;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 256; }}
http {{
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  access_log off;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://{target};
      proxy_set_header Host $http_host;
    }}
  }}
}}
"""


class Front:
    """nginx before a registry, as its own documentation has it: a request is passed on when all of it has come."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._cleanup = ExitStack()
        self.address = ""

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            home = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="front-")))
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            self.address = f"127.0.0.1:{port}"
            (home / "conf").write_text(_CONFIGURATION.format(home=home, port=port, target=self._target))
            home.chmod(0o755)
            program = find_nginx() or shutil.which("nginx") or "nginx"
            process = subprocess.Popen([program, "-p", home, "-e", home / "error.log", "-c", home / "conf"])
            cleanup.callback(process.wait)
            cleanup.callback(process.terminate)
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, (home / "error.log").read_text()
                    time.sleep(0.05)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()
