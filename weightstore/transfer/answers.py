"""What a web server's answer says of a file: read strictly, before the first byte of the body is used."""

from __future__ import annotations

import email.utils
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from weightstore.errors import AccessDenied, RefusedResponse, SourceNotFound, SourceUnavailable
from weightstore.records import MAX_SIZE, Validator
from weightstore.transfer.transport import Answer, RangeNotSatisfiable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import urllib3

    from weightstore.source import Source

_PASSING = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_LONGEST_VALIDATOR = 1024
_STRONG_DATE_S = 60


def url_in(text: str, *, source: Source, base: str = "") -> str:
    """Return the URL that a server's text is, seen from ``base``: one whose parts can be read.

    Raises:
        RefusedResponse: it is none, as with a bracket that is never closed.
    """
    try:
        url = urljoin(base, text)
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:  # and not shown: it may quote whatever was sent
        raise RefusedResponse(source=source.display, reason="leads to something that is not a URL") from None
    return url


def read_answer(
    source: Source, response: urllib3.BaseHTTPResponse, *, start: int, end: int | None, ranged: bool
) -> Answer:
    """Return what a response says of the file, of which ``[start, end)`` was asked for if ``ranged``.

    Raises:
        SourceNotFound, AccessDenied, RangeNotSatisfiable, RefusedResponse: asking again is no use.
        SourceUnavailable: it may pass.
    """
    _refuse_errors(source, response)
    headers = response.headers
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise RefusedResponse(source=source.display, reason=f"sent the file encoded ({encoding[:40]!r}), unasked")
    chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    length = None if chunked else _length(source, headers.get("Content-Length"))
    validator = _validator(headers)
    if response.status == 206:
        if not ranged:
            raise RefusedResponse(source=source.display, reason="sent a range that was not asked for")
        first, last, total = _content_range(source, headers.get("Content-Range", ""))
        if first != start or (end is not None and last > end):
            raise RangeNotSatisfiable(source=source.display, reason="sent another range than was asked for")
        if length is not None and length != last - first:
            raise RangeNotSatisfiable(source=source.display, reason="contradicts itself about the length of a range")
        return Answer(first, last, total, validator, accepts_ranges=True, self_delimiting=total is not None)
    accepts = "bytes" in headers.get("Accept-Ranges", "").lower() and not chunked
    return Answer(0, length, length, validator, accepts, self_delimiting=chunked or length is not None)


def _refuse_errors(source: Source, response: urllib3.BaseHTTPResponse) -> None:
    status = response.status
    if status in {200, 206}:
        return
    phrase = "".join(char for char in str(response.reason or "")[:60] if " " <= char <= "~")
    said = f"HTTP {status} {phrase}".rstrip()
    if status in {404, 410}:
        raise SourceNotFound(source=source.display, reason=said)
    if status in {401, 403, 407, 451}:
        hint = ". Credentials are read from .netrc" if status == 401 else ""
        raise AccessDenied(source=source.display, reason=said + hint)
    if status in _PASSING:
        retry_after_s = _retry_after(response.headers.get("Retry-After", ""))
        raise SourceUnavailable(source=source.display, reason=said, retry_after_s=retry_after_s)
    if status == 416:
        raise RangeNotSatisfiable(source=source.display, reason=said)
    raise RefusedResponse(source=source.display, reason=said)


def _length(source: Source, text: str | None) -> int | None:
    if text is None:
        return None
    values = {value.strip() for value in text.split(",")}
    value = values.pop()
    if values or not value.isascii() or not value.isdigit() or len(value) > 30 or int(value) > MAX_SIZE:
        raise RefusedResponse(source=source.display, reason=f"declared a length that is none: {text[:40]!r}")
    return int(value)


def _content_range(source: Source, text: str) -> tuple[int, int, int | None]:
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or len(text) > 80:
        raise RangeNotSatisfiable(source=source.display, reason=f"answered a range without saying which: {text[:40]!r}")
    first, last, total = int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])
    if first >= last or (total is not None and last > total):
        raise RangeNotSatisfiable(source=source.display, reason=f"answered an impossible range: {text[:60]!r}")
    return first, last, total


def _validator(headers: Mapping[str, str]) -> Validator:
    etag = headers.get("ETag", "").strip()
    if not _STRONG_ETAG.fullmatch(etag) or len(etag) > _LONGEST_VALIDATOR:
        etag = ""
    modified = headers.get("Last-Modified", "").strip()
    if len(modified) > _LONGEST_VALIDATOR or not modified.isascii() or not modified.isprintable():
        modified = ""
    return Validator(etag, modified if etag or _is_strong_date(modified, headers.get("Date", "")) else "")


def _is_strong_date(modified: str, date: str) -> bool:
    """Tell whether a modification time names one version: it lies a minute before the answer (RFC 9110, 8.8.2.2)."""
    try:
        answered = email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()
        return answered - email.utils.parsedate_to_datetime(modified).timestamp() >= _STRONG_DATE_S
    except (ValueError, OverflowError):
        return False


def _retry_after(text: str) -> float | None:
    """Return how many seconds the server asks us to wait (RFC 9110, 10.2.3), or None where it does not say."""
    if text.strip().isascii() and text.strip().isdigit() and len(text) < 12:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):  # OverflowError: a year that this machine's clock does not reach
        return None
