"""Looking into a checkpoint wherever it is: in a store, at a path, or at its source without downloading it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.digest import Pin
from weightstore.errors import (
    AllSourcesFailed,
    DigestMismatch,
    IntegrityError,
    SizeMismatch,
    TransferError,
    WeightStoreError,
)
from weightstore.formats.access import OpenFile
from weightstore.formats.reading import read_checkpoint

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from weightstore.digest import Digest
    from weightstore.formats.checkpoint import Checkpoint
    from weightstore.obtain import Obtainer
    from weightstore.records import Wanted
    from weightstore.source import Source


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a checkpoint holds, and how that is known.

    Attributes:
        checkpoint: what it holds.
        place: the file or source that was read.
        size: the size of the whole file in bytes.
        received: how many of them came through the network.
        digest: of the whole file, where it was verified; None where it was not.
    """

    checkpoint: Checkpoint
    place: str
    size: int
    received: int
    digest: Digest | None


def inspect(wanted: Wanted, *, obtainer: Obtainer, note: Callable[[str], None], stop: threading.Event) -> Inspection:
    """Look into weights. See :meth:`weightstore.client.Client.inspect` for what is read where, and what is raised."""
    source = wanted.source
    if source.scheme == "file" and os.path.exists(source.path):
        return _in_file(source)
    located = obtainer.locate(wanted)
    if located.hit is not None:
        with located.hit.blob as blob:
            checkpoint = read_checkpoint(OpenFile(blob.fd), place=str(blob.path))
            return Inspection(checkpoint, str(blob.path), blob.size, 0, blob.digest)
    failures: list[WeightStoreError] = []
    candidates = obtainer.candidates(wanted, located)
    for candidate in candidates:
        try:
            if candidate.source.scheme == "file":
                return _in_file(candidate.source)
            return _at_source(candidate.source, wanted, located.digest, obtainer, stop)
        except (IntegrityError, TransferError) as error:
            if candidate.kind == "origin":
                failures.append(error)
            else:
                note(f"mirror passed over: {error}")
    if not failures:
        raise TransferError(source=wanted.name, reason=f"none of the {len(candidates)} mirrors has it")
    raise failures[0] if len(failures) == 1 else AllSourcesFailed(name=wanted.name, failures=failures)


def _in_file(source: Source) -> Inspection:
    from weightstore.transfer.file import open_file  # start-up: not for a hit

    fd = open_file(source)
    try:
        data = OpenFile(fd)
        return Inspection(read_checkpoint(data, place=source.display), source.display, data.size, 0, None)
    finally:
        os.close(fd)


def _at_source(
    source: Source, wanted: Wanted, digest: Digest | None, obtainer: Obtainer, stop: threading.Event
) -> Inspection:
    from weightstore.transfer.remote import RemoteFile  # start-up: not for a hit
    from weightstore.transfer.retry import RetryPolicy

    transports = obtainer.transports()
    data = RemoteFile(
        source,
        transport=transports.transport_for(source),
        connections=transports.connections,
        retry=RetryPolicy(attempts=obtainer.config.retries),
        slow_s=obtainer.config.read_timeout_s,
        stop=stop,
    )
    pin = Pin.of(digest) if digest is not None else wanted.pin
    declared = data.declared.digest if data.declared is not None else None
    if declared is not None and not pin.matches(declared):
        raise DigestMismatch(source=source.display, expected=str(pin), actual=str(declared))
    if wanted.exact_size is not None and data.size != wanted.exact_size:
        raise SizeMismatch(source=source.display, expected=wanted.exact_size, actual=data.size)
    return Inspection(read_checkpoint(data, place=source.display), source.display, data.size, data.received, None)
