"""What was served, in numbers: the text format that Prometheus reads."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SENT: ContextVar[int] = ContextVar("sent", default=0)
"""How many bytes of a blob were sent in answer to the request that this task is at."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Figures:
    """Counts of one process, from one event loop."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.blobs: Counter[str] = Counter({"hit": 0, "miss": 0})
        self.bytes_sent = 0
        self.in_flight = 0

    def text(self) -> str:
        """Return all of them."""
        requests = [
            (f'{{dialect="{dialect}",method="{method}",status="{status}"}}', count)
            for (dialect, method, status), count in sorted(self.requests.items())
        ]
        blobs = [(f'{{answer="{answer}"}}', count) for answer, count in sorted(self.blobs.items())]
        lines = [
            *_series("requests_total", "counter", "Requests that were answered.", requests),
            *_series("blobs_total", "counter", "Blobs that were asked for.", blobs),
            *_series("sent_bytes_total", "counter", "Bytes of blobs that were sent.", [("", self.bytes_sent)]),
            *_series("requests_in_flight", "gauge", "Requests that are being answered.", [("", self.in_flight)]),
        ]
        return "\n".join(lines) + "\n"


def _series(name: str, kind: str, about: str, values: Iterable[tuple[str, int]]) -> Iterator[str]:
    yield f"# HELP weightstore_{name} {about}"
    yield f"# TYPE weightstore_{name} {kind}"
    for labels, value in values:
        yield f"weightstore_{name}{labels} {value}"
