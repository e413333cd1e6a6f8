"""As much of the Hugging Face hub as ``hf_hub_download`` asks of it: metadata, and where the bytes are."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = "bench/herd"
COMMIT = "0123456789" * 4


@contextlib.contextmanager
def redirecting_hub(files_url: str) -> Iterator[str]:
    """Runs a hub whose files are those below ``files_url``; yields its own URL.

    The real one answers a file that is not in git just so: a redirect to the CDN, with size and etag beside it.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            location = f"{files_url}/{self.path.rpartition('/')[2]}"
            with opener.open(urllib.request.Request(location, method="HEAD")) as answer:
                size = answer.headers["Content-Length"]
            self.send_response(302)
            self.send_header("Location", location)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Size", size)
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(location.encode()).hexdigest()}"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
