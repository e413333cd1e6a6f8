"""An S3 server: moto's, in a process of its own so that its libraries stay out of the tests' process."""

import json
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from types import TracebackType
from typing import Self

_PROGRAM = """
import json, sys
from moto.server import ThreadedMotoServer
from werkzeug.serving import WSGIRequestHandler

asked = []
WSGIRequestHandler.log_request = lambda self, *_: asked.append((self.command, self.path))
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(json.dumps(server.get_host_and_port()), flush=True)
for line in sys.stdin:
    print(json.dumps(asked), flush=True)
"""


class S3Server:
    """Serves one bucket, ``weights``. ``environment`` is what clients need."""

    def __init__(self) -> None:
        self._cleanup = ExitStack()
        self._process: subprocess.Popen[str] | None = None
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._process = process
        self._cleanup.callback(process.wait)
        self._cleanup.callback(process.terminate)
        try:
            host, port = json.loads(self._answer())
        except ValueError:
            self._cleanup.close()
            raise RuntimeError("moto's server did not start") from None
        address = f"http://{host}:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "ada",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        urllib.request.urlopen(urllib.request.Request(f"{address}/weights", method="PUT")).close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.stdin is not None and self._process.stdout is not None:
            self._process.stdin.close()
            self._cleanup.close()
            self._process.stdout.close()

    def requests(self) -> list[tuple[str, str]]:
        """Methods and targets of all requests so far."""
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the server was not started")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [(method, path) for method, path in json.loads(self._answer())]

    def _answer(self) -> str:
        if self._process is None or self._process.stdout is None:
            raise RuntimeError("the server was not started")
        return self._process.stdout.readline()
