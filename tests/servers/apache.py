"""A real Apache over a directory: what a site that runs one gives its people. It logs nothing, and needs no set-up."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

_MODULES = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/libexec/apache2")
# As root it gives up its rights for those of a user who may read what everybody may.
_CONFIGURATION = """
ServerRoot "{home}"
ServerName localhost
Listen 127.0.0.1:{port}
PidFile "{home}/pid"
ErrorLog "{home}/error.log"
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
{user}
DocumentRoot "{root}"
<Directory "{root}">
  Require all granted
</Directory>
"""


class Apache:
    """Serves the files of a directory, which everybody has to be able to read, at ``url``.

    Raises FileNotFoundError on entry if there is no Apache, and RuntimeError with its error log if it does not start.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._cleanup = ExitStack()
        self._port = 0

    def url(self, path: str) -> str:
        """The URL of a file: ``path`` starts with a slash and is relative to the root."""
        return f"http://127.0.0.1:{self._port}{path}"

    def __enter__(self) -> Self:
        program = shutil.which("apache2", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        modules = next((path for path in _MODULES if Path(path).is_dir()), None)
        if program is None or modules is None:
            raise FileNotFoundError("there is no Apache on this machine")
        with ExitStack() as cleanup:
            home = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="apache-")))
            home.chmod(0o755)
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self._port = probe.getsockname()[1]
            configuration = home / "httpd.conf"
            user = "User nobody\nGroup nogroup" if os.geteuid() == 0 else ""
            configuration.write_text(
                _CONFIGURATION.format(
                    home=home, port=self._port, modules=modules, root=self._root, user=_unixd(modules) + user
                )
            )
            process = subprocess.Popen(
                [program, "-D", "FOREGROUND", "-f", configuration],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            cleanup.callback(_stop, process)
            self._wait_until_ready(process, home / "error.log")
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            try:
                connection.request("HEAD", "/")
                connection.getresponse()
            except OSError:
                time.sleep(0.02)
            else:
                return
            finally:
                connection.close()
        raise RuntimeError(f"Apache did not start: {log.read_text() if log.exists() else ''}")


def _unixd(modules: str) -> str:
    """Debian's Apache has it built in; others load it."""
    path = f"{modules}/mod_unixd.so"
    return f"LoadModule unixd_module {path}\n" if Path(path).exists() else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
