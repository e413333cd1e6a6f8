"""Buckets of S3, Google Cloud Storage and Azure, through obstore: ``s3://bucket/prefix``, ``gs://…``, ``az://…``.

obstore finds credentials, regions and endpoints in the same variables and services as the vendors' own tools. A file is
read in pieces, each a request of its own: no request has to outlast a slow network, and a piece that fails is asked for
again by itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from weightstore.errors import (
    AccessDenied,
    MissingDependency,
    RefusedResponse,
    SourceNotFound,
    SourceUnavailable,
)
from weightstore.records import Validator
from weightstore.transfer.transport import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weightstore.source import Source

BUCKETS = ("s3", "gs", "az")
PIECE = 16 << 20
# What a piece may take, and how long obstore tries by itself before the next source is asked.
_TIMEOUT_S = 120
_RETRIES = 2
_RETRYING_S = 60
# What a service calls a version of an object: its ETag, or its number.
Version = dict[str, str]
_STATUS = re.compile(r"status code: (\d{3})")


class Bucket:
    """One bucket. Safe to use from many threads."""

    def __init__(self, source: Source, *, connect_timeout_s: float) -> None:
        parts = urlsplit(source.url)
        self.source = source
        with self._translated():
            self._obstore: Any = _obstore()
            self._store: Any = self._obstore.store.from_url(
                f"{parts.scheme}://{parts.netloc}",
                client_options={
                    "connect_timeout": timedelta(seconds=connect_timeout_s),
                    "timeout": timedelta(seconds=_TIMEOUT_S),
                    **({"allow_http": True} if _endpoint_is_here() else {}),
                },
                retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRYING_S)},
                # The bucket compares what it received with the digest of each part.
                **({"config": {"checksum_algorithm": "SHA256"}} if parts.scheme == "s3" else {}),
            )

    def size(self, key: str) -> int:
        """Return an object's size in bytes. Errors as for :meth:`read`."""
        with self._translated():
            return int(self._obstore.head(self._store, key)["size"])

    def read(self, key: str, start: int, end: int) -> bytes:
        """Return a range of an object.

        Raises:
            SourceNotFound, AccessDenied, SourceUnavailable: it cannot be read.
        """
        with self._translated():
            return bytes(self._obstore.get_range(self._store, key, start=start, end=end))

    def read_whole(self, key: str, limit: int) -> tuple[bytes, Version]:
        """Return a small object, and which version of it that is. Errors as for :meth:`read`.

        Raises:
            RefusedResponse: it has more than ``limit`` bytes.
        """
        with self._translated():
            found = self._obstore.get(self._store, key)
            size = int(found.meta["size"])
            if size <= limit:
                told = {name: found.meta[name] for name in ("e_tag", "version") if found.meta.get(name) is not None}
                return bytes(found.bytes()), told
        raise RefusedResponse(source=self.source.display, reason=f"an object has more than {limit} bytes")

    def replace(self, key: str, data: bytes, version: Version | None) -> bool:
        """Write a small object in the place of one version of it, or of none; tell whether that was still so.

        A service that knows no such condition writes it whatever was there. Errors as for :meth:`read`.
        """
        with self._translated():
            try:
                # What has no validator cannot be compared.
                mode = "create" if version is None else version or "overwrite"
                self._obstore.put(self._store, key, data, use_multipart=False, mode=mode)
            except Exception as error:
                if not type(error).__module__.startswith("obstore"):
                    raise
                name, status = type(error).__name__, _STATUS.search(str(error))
                if name in {"AlreadyExistsError", "PreconditionError"} or (status and status[1] in {"409", "412"}):
                    return False
                if name != "NotSupportedError" and not (status and status[1] == "501"):
                    raise
                self._obstore.put(self._store, key, data, use_multipart=False)
        return True

    def write(self, key: str, content: bytes | Iterable[bytes]) -> None:
        """Write an object, whole or not at all; what ``content`` raises ends it. Errors as for :meth:`read`."""
        with self._translated():
            if isinstance(content, bytes):
                self._obstore.put(self._store, key, content, use_multipart=False)
            else:
                self._obstore.put(self._store, key, iter(content), chunk_size=PIECE, max_concurrency=1)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the sizes of all objects below a prefix, by key: one listing. Errors as for :meth:`read`."""
        with self._translated():
            pages = self._obstore.list(self._store, prefix=prefix)
            return {str(one["path"]): int(one["size"]) for page in pages for one in page}

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn obstore's refusals into ours. Its texts repeat URLs, in which signatures may stand."""
        display = self.source.display
        try:
            yield
        except FileNotFoundError:
            raise SourceNotFound(source=display, reason="no such object or bucket") from None
        except PermissionError:
            raise AccessDenied(source=display, reason="no permission") from None
        except (OSError, ValueError) as error:
            raise SourceUnavailable(source=display, reason=f"cannot be asked ({type(error).__name__})") from None
        except Exception as error:
            if not type(error).__module__.startswith("obstore"):
                raise
            name = type(error).__name__
            if name in {"PermissionDeniedError", "UnauthenticatedError"}:
                raise AccessDenied(source=display, reason="no permission, or no credentials were found") from None
            status = _STATUS.search(str(error))
            reason = f"HTTP {status[1]}" if status else f"cannot be asked ({name})"
            raise SourceUnavailable(source=display, reason=reason) from None


def key_in(source: Source) -> str:
    """Return the key, or the prefix, that a source names in its bucket."""
    return urlsplit(source.url).path.strip("/")


def _obstore() -> Any:
    try:
        import obstore  # an extra, and only for buckets
        import obstore.store
    except ImportError:
        raise MissingDependency(package="obstore", purpose="a bucket as a mirror", extra="cloud") from None
    return obstore


def _endpoint_is_here() -> bool:
    """Tell whether S3 is a server on this machine, the only kind that is spoken to without TLS."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    try:
        host = urlsplit(endpoint).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class BucketBody:
    """An open object."""

    def __init__(self, bucket: Bucket, key: str, answer: Answer) -> None:
        self._bucket = bucket
        self._key = key
        self._answer = answer
        self._position = answer.start
        self._held = memoryview(b"")

    @property
    def answer(self) -> Answer:
        return self._answer

    def read(self, size: int) -> bytes:
        end = self._answer.end or 0
        if not self._held:
            if self._position >= end:
                return b""
            piece = self._bucket.read(self._key, self._position, min(self._position + PIECE, end))
            if not piece:
                raise SourceUnavailable(source=self._bucket.source.display, reason="became shorter while it was read")
            self._held = memoryview(piece)
        data, self._held = bytes(self._held[:size]), self._held[size:]
        self._position += len(data)
        return data

    def close(self) -> None:
        self._held = memoryview(b"")


class BucketTransport:
    """Opens objects of buckets."""

    def __init__(self, *, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._lock = threading.Lock()

    def bucket(self, source: Source) -> Bucket:
        """Return the bucket that a source is in."""
        parts = urlsplit(source.url)
        with self._lock:
            bucket = self._buckets.get((parts.scheme, parts.netloc))
            if bucket is None:
                bucket = Bucket(source, connect_timeout_s=self._connect_timeout_s)
                self._buckets[parts.scheme, parts.netloc] = bucket
            return bucket

    def open(
        self,
        source: Source,
        *,
        start: int = 0,
        end: int | None = None,
        validator: Validator | None = None,  # noqa: ARG002 - what is asked for by digest has no versions
    ) -> BucketBody:
        bucket, key = self.bucket(source), key_in(source)
        size = bucket.size(key)
        if start > size:
            start, end = 0, None
        last = size if end is None else min(end, size)
        return BucketBody(
            bucket, key, Answer(start, last, size, Validator(), accepts_ranges=False, self_delimiting=True)
        )

    def interrupt(self) -> None:
        """Requests end by themselves, each within its time-out."""
