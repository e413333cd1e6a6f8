"""Buckets of S3, Google Cloud Storage and Azure, through obstore: ``s3://bucket/prefix``, ``gs://…``, ``az://…``.

obstore finds credentials, regions and endpoints in the vendors' variables, and asks the machine's own role:
``docs/how-to/buckets.md`` tells which. A file is read in pieces, each a request of its own: no request has to outlast a
slow network, and a piece that fails is asked for again by itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from weightstore.errors import AccessDenied, InvalidConfig, MissingDependency, SourceUnavailable
from weightstore.records import Validator
from weightstore.transfer.bucket_reading import read_range, read_sizes, read_whole
from weightstore.transfer.bucket_refusals import is_superseded, refusal, status_in
from weightstore.transfer.transport import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from weightstore.source import Source

BUCKETS = ("s3", "gs", "az")
PIECE = 16 << 20
# What a piece may take, and how long obstore tries by itself before the next source is asked.
_TIMEOUT_S = 120
_RETRIES = 2
# What a service calls a version of an object: its ETag, or its number.
Version = dict[str, str]


class Superseded(SourceUnavailable):
    """What was written is not there, since others completed an object of the same name while we did."""


class Bucket:
    """One bucket. Safe to use from many threads."""

    def __init__(
        self, source: Source, *, connect_timeout_s: float, read_timeout_s: float, ca_bundle: Path | None
    ) -> None:
        parts = urlsplit(source.url)
        self.display = f"{parts.scheme}://{parts.netloc}"
        self._scheme = parts.scheme
        self._slow_s = read_timeout_s
        self._answer_s = answer_s = connect_timeout_s + read_timeout_s
        _check_endpoint(parts.scheme, self.display)
        with self._translated(key_in(source)):
            self._obstore: Any = _obstore()

            def opened(timeout_s: float, **more: timedelta) -> Any:
                return self._obstore.store.from_url(
                    self.display,
                    client_options={
                        "connect_timeout": timedelta(seconds=connect_timeout_s),
                        "timeout": timedelta(seconds=timeout_s),
                        **more,
                        **({"allow_http": True} if _endpoint_is_here(parts.scheme) else {}),
                        **({"root_certificate": _certificates(ca_bundle)} if ca_bundle else {}),
                    },
                    retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=answer_s)},
                    # The bucket compares what it received with the digest of each part.
                    **({"config": {"checksum_algorithm": "SHA256"}} if parts.scheme == "s3" else {}),
                )

            self._store = opened(_TIMEOUT_S)
            # A time-out of reading counts while a part is sent, too.
            self._pieces = opened(_TIMEOUT_S, read_timeout=timedelta(seconds=read_timeout_s))
            self._small = opened(answer_s)

    def size(self, key: str) -> int:
        """Return an object's size in bytes. Errors as for :meth:`read`."""
        with self._translated(key):
            return int(self._obstore.head(self._small, key)["size"])

    def read(self, key: str, start: int, end: int) -> bytes:
        """Return a range of an object.

        Raises:
            SourceNotFound, AccessDenied, SourceUnavailable: it cannot be read.
        """
        with self._translated(key):
            place = self._place(key)
            return read_range(self._obstore, self._pieces, key, start, end, place=place, slow_s=self._slow_s)

    def read_whole(self, key: str, limit: int) -> tuple[bytes, Version]:
        """Return a small object, and which version of it that is. Errors as for :meth:`read`.

        Raises:
            RefusedResponse: it has more than ``limit`` bytes.
        """
        with self._translated(key):
            place = self._place(key)
            data, meta = read_whole(self._obstore, self._small, key, limit, place=place, slow_s=self._slow_s)
            return data, {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}

    def replace(self, key: str, data: bytes, version: Version | None) -> bool:
        """Write a small object in the place of one version of it, or of none; tell whether that was still so.

        A service that knows no such condition writes it whatever was there. Errors as for :meth:`read`.
        """
        with self._translated(key):
            try:
                # What has no validator cannot be compared.
                mode = "create" if version is None else version or "overwrite"
                self._obstore.put(self._store, key, data, use_multipart=False, mode=mode)
            except Exception as error:
                if not type(error).__module__.startswith("obstore"):
                    raise
                name, status = type(error).__name__, status_in(str(error))
                if name in {"AlreadyExistsError", "PreconditionError"} or status in {409, 412}:
                    return False
                if name != "NotSupportedError" and status != 501:
                    raise
                self._obstore.put(self._store, key, data, use_multipart=False)
        return True

    def write(self, key: str, content: bytes | Iterable[bytes]) -> None:
        """Write an object, whole or not at all; what ``content`` raises ends it. Errors as for :meth:`read`.

        Raises:
            Superseded: others completed the same object meanwhile, and it is theirs now.
        """
        with self._translated(key):
            whole = content if isinstance(content, bytes) else _joined_if_small(content)
            if isinstance(whole, bytes):
                self._obstore.put(self._store, key, whole, use_multipart=False)
                return
            try:
                self._obstore.put(self._store, key, whole, chunk_size=PIECE, max_concurrency=1)
            except Exception as error:
                if not is_superseded(error):
                    raise
                raise Superseded(source=self._place(key), reason="others wrote it at the same moment") from None

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the sizes of all objects below a prefix, by key: one listing. Errors as for :meth:`read`."""
        with self._translated(prefix):
            place = self._place(prefix)
            return read_sizes(self._obstore, self._small, prefix, place=place, answer_s=self._answer_s)

    def _place(self, key: str) -> str:
        return f"{self.display}/{key}"

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Turn obstore's refusals about an object, or those below a prefix, into ours."""
        try:
            yield
        except Exception as error:
            # Missing objects, permissions and settings are errors of Python's own; what content raises is none of ours.
            is_obstores = isinstance(error, OSError | ValueError) or type(error).__module__.startswith("obstore")
            if not is_obstores:
                raise
            raise refusal(error, display=self._place(key), scheme=self._scheme) from None


def _joined_if_small(content: Iterable[bytes]) -> bytes | Iterator[bytes]:
    """Return content that a single request takes as one, and of more an iterator: parts cost three requests."""
    left = iter(content)
    held: list[bytes] = []
    size = 0
    for data in left:
        held.append(data)
        size += len(data)
        if size > PIECE:
            return itertools.chain(held, left)
    return b"".join(held)


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


def _certificates(bundle: Path) -> bytes:
    try:
        return bundle.read_bytes()
    except OSError as error:
        reason = f"certificates {bundle}: {error.strerror}. Buckets want one PEM file: set WEIGHTSTORE_CA_BUNDLE"
        raise InvalidConfig(reason) from None


# Which variables say that a cloud is elsewhere than at its vendor's.
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}


def _endpoint_is_here(scheme: str) -> bool:
    """Tell whether the cloud is a server on this machine, the only kind that is spoken to without TLS."""
    endpoints = [endpoint for name in _ENDPOINTS[scheme] if (endpoint := os.environ.get(name))]
    return bool(endpoints) and all(map(_is_here, endpoints))


def _check_endpoint(scheme: str, display: str) -> None:
    """Refuse an endpoint that is no URL: obstore ends in a panic at one.

    Raises:
        AccessDenied: it is none. Its value is not shown, for it may carry credentials.
    """
    for name in _ENDPOINTS[scheme]:
        if not (endpoint := os.environ.get(name)):
            continue
        try:
            parts = urlsplit(endpoint)
            is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:
            raise AccessDenied(
                source=display, reason=f"{name} is no URL. Write it as https://host or https://host:port"
            )


def _is_here(endpoint: str) -> bool:
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

    def read(self, size: int, *, into: memoryview | None = None) -> bytes:  # noqa: ARG002 - the protocol's signature
        end = self._answer.end or 0
        if not self._held:
            if self._position >= end:
                return b""
            piece = self._bucket.read(self._key, self._position, min(self._position + PIECE, end))
            if not piece:
                place = f"{self._bucket.display}/{self._key}"
                raise SourceUnavailable(source=place, reason="became shorter while it was read")
            self._held = memoryview(piece)
        data, self._held = bytes(self._held[:size]), self._held[size:]
        self._position += len(data)
        return data

    def close(self) -> None:
        self._held = memoryview(b"")


class BucketTransport:
    """Opens objects of buckets."""

    def __init__(self, *, connect_timeout_s: float, read_timeout_s: float, ca_bundle: Path | None = None) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._ca_bundle = ca_bundle
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._lock = threading.Lock()

    def bucket(self, source: Source) -> Bucket:
        """Return the bucket that a source is in."""
        parts = urlsplit(source.url)
        with self._lock:
            bucket = self._buckets.get((parts.scheme, parts.netloc))
            if bucket is None:
                bucket = Bucket(
                    source,
                    connect_timeout_s=self._connect_timeout_s,
                    read_timeout_s=self._read_timeout_s,
                    ca_bundle=self._ca_bundle,
                )
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
