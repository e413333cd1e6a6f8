"""The little of GitHub that torch.hub talks to, reached by its real names: for torch's own test of torch.hub.

``python -m tests.servers.github COMMAND…`` runs a command with it: a proxy leads there, and its certificate is trusted.
torch's ``test/test_hub.py`` (which is not in the wheel) loads models of two repositories, and their checkpoints, in
three formats; what is served here are repositories and checkpoints that answer to its expectations.
"""

import contextlib
import http.server
import io
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.proxy import ForwardProxy

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RELEASES = "https://github.com/ailzhang/torchhub_example/releases/download/0.1/"
# 431080 ones: what test_hub.py sums up to.
_EXAMPLE = f"""
dependencies = ["torch"]
import torch
from torch import nn
from torch.hub import load_state_dict_from_url

class MNIST(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5, 1), nn.Conv2d(20, 50, 5, 1)
        self.fc1, self.fc2 = nn.Linear(4 * 4 * 50, 500), nn.Linear(500, 10)

def _loaded(name, pretrained):
    model = MNIST()
    if pretrained:
        model.load_state_dict(load_state_dict_from_url("{_RELEASES}" + name, progress=False))
    return model

def mnist(pretrained=False):
    return _loaded("mnist_init_ones", pretrained)

def mnist_zip(pretrained=False):
    return _loaded("mnist_init_ones.zip", pretrained)

def mnist_zip_1_6(pretrained=False):
    return _loaded("mnist_init_ones_1_6", pretrained)
"""
_VISION = """
dependencies = ["torch"]
from torch import nn

def resnet18(pretrained=False):
    return nn.Linear(1, 1)
"""


def _archive(owner: str, name: str, code: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        folder = f"{owner}-{name}-{_COMMIT[:7]}/"
        archive.writestr(folder, "")
        archive.writestr(folder + "hubconf.py", code)
    return file.getvalue()


def _checkpoints() -> dict[str, bytes]:
    import torch

    scope: dict[str, object] = {}
    exec(_EXAMPLE, scope)
    make = scope["MNIST"]
    assert callable(make)
    state = {name: torch.ones_like(value) for name, value in make().state_dict().items()}
    legacy, modern, zipped = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    torch.save(state, modern)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("mnist_init_ones", legacy.getvalue())
    return {
        "mnist_init_ones": legacy.getvalue(),
        "mnist_init_ones.zip": zipped.getvalue(),
        "mnist_init_ones_1_6": modern.getvalue(),
    }


def _answers() -> Callable[[str, str], bytes | None]:
    files = {"/ailzhang/torchhub_example/releases/download/0.1/" + k: v for k, v in _checkpoints().items()}
    code = {
        ("ailzhang", "torchhub_example"): (_EXAMPLE, ["master", "ci/test_slash"]),
        ("pytorch", "vision"): (_VISION, ["main"]),
    }

    def answer(host: str, target: str) -> bytes | None:
        path = urlsplit(target).path
        if path in files:
            return files[path]
        steps = path.strip("/").split("/")
        if host == "api.github.com":
            _, owner, name, kind = steps
            is_first = target.endswith("&page=1")
            branches = code[owner, name][1] if kind == "branches" and is_first else []
            return json.dumps([{"name": one, "commit": {"sha": _COMMIT}} for one in branches]).encode()
        owner, name, kind, *rest = steps
        text, branches = code[owner, name]
        if "/".join(rest) not in branches:
            return None
        return _archive(owner, name, text) if kind == "zipball" else b"a page"

    return answer


@contextlib.contextmanager
def github() -> Iterator[dict[str, str]]:
    """Yield the environment variables by which a program finds it."""
    import trustme

    answer = _answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = answer(self.headers["Host"], self.path)
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_: object) -> None:
            pass

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("github.com", "api.github.com").configure_cert(context)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    routes = {f"{host}:443": ("127.0.0.1", server.server_port) for host in ("github.com", "api.github.com")}
    try:
        with ForwardProxy(routes=routes) as proxy, tempfile.TemporaryDirectory() as directory:
            bundle = Path(directory, "authority.pem")
            authority.cert_pem.write_to_path(bundle)
            proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), proxy.url)
            bundles = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(bundle))
            yield proxies | bundles
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with github() as variables:
        sys.exit(subprocess.run(sys.argv[1:], env=os.environ | variables, check=False).returncode)
