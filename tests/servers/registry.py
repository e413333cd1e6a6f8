"""A real OCI registry, docker-registry, on a port of its own, with a log of what it was asked."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

_CONFIGURATION = """
version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {home}/data}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}", secret: of-the-tests}}
{auth}
"""
_ACCESS = re.compile(r'"(GET|HEAD|POST|PUT|PATCH|DELETE) (/v2/\S*) HTTP')


class DockerRegistry:
    """Serves at ``address``. With ``htpasswd`` lines, or with ``auth``, it wants to be shown who asks."""

    def __init__(self, *, htpasswd: str = "", auth: str = "") -> None:
        self._htpasswd = htpasswd
        self._auth = auth
        self._cleanup = ExitStack()
        self._home = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._home = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="registry-")))
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            self.address = f"127.0.0.1:{port}"
            auth = self._auth
            if self._htpasswd:
                (self._home / "htpasswd").write_text(self._htpasswd)
                auth = f"auth: {{htpasswd: {{realm: site, path: {self._home}/htpasswd}}}}"
            configuration = self._home / "config.yml"
            configuration.write_text(_CONFIGURATION.format(home=self._home, port=port, auth=auth))
            cleanup.callback(self.stop)
            self.start()
            self._cleanup = cleanup.pop_all()
        return self

    def start(self) -> None:
        """Start it, again on what it has where it was stopped."""
        program = shutil.which("docker-registry") or "docker-registry"
        # Variables REGISTRY_… are its configuration as well, among them podman's REGISTRY_AUTH_FILE.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "serve", self._home / "config.yml"], stdout=log, stderr=subprocess.STDOUT, env=environ
            )
        self._wait_until_ready(int(self.address.rpartition(":")[2]))

    def forget_uploads(self) -> None:
        """Lose the uploads that are not complete, as it does by itself after a while."""
        for uploads in (self._home / "data").glob("docker/registry/v2/repositories/**/_uploads"):
            shutil.rmtree(uploads)

    def lose(self, repository: str, what: str) -> None:
        """Delete ``blobs/DIGEST`` or ``manifests/DIGEST``, and with a manifest its tags."""
        request = urllib.request.Request(f"http://{self.address}/v2/{repository}/{what}", method="DELETE")
        urllib.request.urlopen(request, timeout=10).close()

    def lose_tag(self, repository: str, tag: str) -> None:
        """Delete a tag, which this version does only in its files."""
        shutil.rmtree(self.files_of_tag(repository, tag))

    def files_of_tag(self, repository: str, tag: str) -> Path:
        """Return the directory of a tag. It is made before ``current``, in which is what the tag means."""
        return self._home / f"data/docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}"

    def file_of(self, digits: str) -> Path:
        """Return the file in which a blob lies."""
        return self._home / f"data/docker/registry/v2/blobs/sha256/{digits[:2]}/{digits}/data"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def requests(self) -> list[tuple[str, str]]:
        """Methods and paths of all requests so far."""
        return _ACCESS.findall((self._home / "log").read_text())

    def _wait_until_ready(self, port: int) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"the registry did not start: {(self._home / 'log').read_text()}")

    def stop(self) -> None:
        """Stop it. Its port, and what it has, are kept."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
