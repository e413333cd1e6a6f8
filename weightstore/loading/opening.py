"""From whatever names weights to open, verified files."""

from __future__ import annotations

import functools
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from weightstore.errors import DigestMismatch, SourceNotFound, StoreError
from weightstore.formats.access import OpenFile
from weightstore.formats.reading import read_checkpoint
from weightstore.source import is_path, parse_source
from weightstore.store.blobs import digest_of_open
from weightstore.store.filesystem import mount_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from weightstore.client import Client
    from weightstore.digest import Digest
    from weightstore.formats.checkpoint import Checkpoint
    from weightstore.records import Wanted
    from weightstore.store.receipts import Receipts
    from weightstore.transfer.progress import Meter


@dataclass(slots=True)
class OpenWeights:
    """An open file of weights. What was verified is what the descriptor reads, whoever swaps the name meanwhile.

    ``digest`` is None of a local file that nothing is known of. Close it, or use ``with``.
    """

    fd: int
    place: str
    digest: Digest | None
    path: Path
    receipts: Receipts

    @property
    def size(self) -> int:
        """In bytes."""
        return os.fstat(self.fd).st_size

    def known_digest(self) -> Digest:
        """Return the digest; a file that nothing is known of is hashed, once."""
        if self.digest is None:
            self.digest = digest_of_open(self.fd, self.receipts)
        return self.digest

    def checkpoint(self) -> Checkpoint:
        """Return what the file holds.

        Raises:
            InvalidCheckpoint: it is no checkpoint.
        """
        return read_checkpoint(OpenFile(self.fd), place=self.place)

    def is_near(self) -> bool:
        """Tell whether the file lies on a local file system, where pages come quickly one by one."""
        return _is_local(os.fstat(self.fd).st_dev, self.path.parent)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_weights(weights: object, *, client: Client, meter: Meter | None = None) -> Iterator[OpenWeights]:
    """Yield the files of some weights, verified and open at their start, one after the other; most have one.

    Args:
        weights: a weights name, a member of a weights enum (ours or TorchVision's), a URL, or a path. A local file is
            read where it lies: with a pin (``#sha256=``, or one in its name) it is verified, without one it is taken as
            it is.
        client: finds and fetches.
        meter: watches downloads.

    Raises:
        WeightStoreError: as for :meth:`Client.path`.
    """
    text = os.fspath(weights) if isinstance(weights, os.PathLike) else weights
    if isinstance(text, str) and (isinstance(weights, os.PathLike) or is_path(text) or text.startswith("file:")):
        if isinstance(weights, os.PathLike) and not is_path(text):
            text = f"./{text}"
        yield _open_local(text, client.receipts)
        return
    for wanted in client.wants(weights):  # type: ignore[arg-type]  # it says what is wrong with other things
        yield open_wanted(wanted, client=client, meter=meter)


def open_wanted(wanted: Wanted, *, client: Client, meter: Meter | None = None) -> OpenWeights:
    """Return one wanted blob, verified and open; or what was made from it, if this user knows that to be the same."""
    from weightstore.loading.conversion import converted_from, known_conversion

    made = known_conversion(wanted, client)
    if made is not None:
        return made
    opened = open_source(wanted, client, meter)
    try:
        made = converted_from(opened, client)
    except BaseException:
        opened.close()
        raise
    if made is None:
        return opened
    opened.close()
    return made


def open_source(wanted: Wanted, client: Client, meter: Meter | None = None) -> OpenWeights:
    """Return one wanted blob itself, verified and open."""
    with client.open_blob(wanted, meter=meter) as blob:
        return OpenWeights(blob.detach(), wanted.name, blob.digest, blob.path, client.receipts)


def _open_local(text: str, receipts: Receipts) -> OpenWeights:
    source, pin = parse_source(text)
    path = source.path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceNotFound(source=source.display, reason="no such file") from None
    except OSError as error:
        raise StoreError(place=str(path), reason=f"cannot be read: {error.strerror}") from None
    opened = OpenWeights(fd, str(path), None, path, receipts)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StoreError(place=str(path), reason="is not a regular file")
        if pin.is_pinned:
            digest = opened.known_digest()
            if not pin.matches(digest):
                raise DigestMismatch(source=source.display, expected=str(pin), actual=str(digest))
    except BaseException:
        opened.close()
        raise
    return opened


@functools.lru_cache(maxsize=64)
def _is_local(device: int, directory: Path) -> bool:  # noqa: ARG001 - the device: another mount, another answer
    mount = mount_of(directory)
    return mount is not None and mount.is_network is False
