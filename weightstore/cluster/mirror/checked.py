"""What a mirror has, read and hashed: nothing but its content tells that a blob of the right name and size is right."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from weightstore.cluster.mirror.directory import Directory
from weightstore.errors import RefusedResponse, SourceNotFound, SourceUnavailable
from weightstore.transfer.policy import blob_in
from weightstore.transfer.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.client import Client
    from weightstore.cluster.mirror.place import OnBytes, Place
    from weightstore.digest import Digest

# Of a bucket each reads pieces of 16 MiB; more of them fill the memory sooner than the line.
_SIDE_BY_SIDE = 4
_READ_SIZE = 1 << 20


def damaged_at(place: Place, blobs: Mapping[Digest, int], *, client: Client, on_bytes: OnBytes) -> set[Digest]:
    """Return which blobs, given with their sizes, a mirror does not have as their names say. It is read from there.

    Raises:
        TransferError: the mirror cannot be asked.
    """
    if isinstance(place, Directory):
        return place.damaged(blobs, on_bytes=on_bytes)

    def is_good(digest: Digest) -> bool:
        return _is_good(place, digest, blobs[digest], client=client, on_bytes=on_bytes)

    ordered = sorted(blobs)
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="verify") as pool:
        return {digest for digest, good in zip(ordered, pool.map(is_good, ordered), strict=True) if not good}


def make_sure_of(place: Place, digest: Digest, size: int, *, client: Client, on_bytes: OnBytes) -> None:
    """Read a blob that was damaged and has been written again: a registry may keep the bytes that it had.

    Raises:
        RefusedResponse: it is damaged still.
        TransferError: the mirror cannot be asked.
    """
    if not _is_good(place, digest, size, client=client, on_bytes=on_bytes):
        reason = (
            f"has {digest} damaged still, though it took it again: it does not replace what it has. Whoever keeps it "
            "removes that blob from its storage; then push once more with --check"
        )
        raise RefusedResponse(source=place.display, reason=reason)


def _is_good(place: Place, digest: Digest, size: int, *, client: Client, on_bytes: OnBytes) -> bool:
    """Tell whether a blob is what its name says. One whose connection breaks is read anew, as often as settings say."""
    retry = RetryPolicy(attempts=client.config.retries)
    attempt = 0
    while True:
        told = 0
        try:
            hasher = hashlib.sha256()
            source = blob_in(place.source, digest)
            body = client.obtainer.transports().transport_for(source).open(source)
            try:
                while told <= size and (data := body.read(_READ_SIZE)):
                    hasher.update(data)
                    told += len(data)
                    on_bytes(len(data))
            finally:
                body.close()
        except SourceNotFound:
            return False
        except SourceUnavailable as error:
            attempt += 1
            if attempt > retry.attempts:
                raise
            on_bytes(-told)
            time.sleep(retry.delay_s(attempt, error))
        else:
            return hasher.hexdigest() == digest.hex
