"""A file where another library keeps its downloads: verified if it is there, put there if not."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from weightstore.digest import Digest
from weightstore.errors import InvalidRecord, StoreError
from weightstore.interop.placing import is_blob, place
from weightstore.records import Ref
from weightstore.store.layout import read_limited, write_record

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from weightstore.interop.hook.session import Session
    from weightstore.obtain import Located
    from weightstore.records import Wanted
    from weightstore.source import Source
    from weightstore.store.blobs import OpenBlob
    from weightstore.transfer.progress import Meter


@dataclass(slots=True)
class Verified:
    """An open file whose content has ``digest``: a blob, or another library's own file. Close it, or use ``with``.

    ``is_ours`` tells a blob, which nobody changes in place.
    """

    fd: int
    digest: Digest
    size: int
    path: Path
    is_ours: bool

    @classmethod
    def of(cls, blob: OpenBlob) -> Verified:
        return cls(blob.detach(), blob.digest, blob.size, blob.path, is_ours=True)

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


def verified_at(
    path: Path, wanted: Wanted, located: Located, *, session: Session, meter: Meter, own: bool = False
) -> Verified:
    """Return a verified file for what is wanted, and see to it that ``path`` is that, as a download would leave it.

    What lies there is verified by what is known of it: a pin, a record of a store, or what this user found there the
    first time. A wrong file is put aside, and that is told. A place that cannot be written costs nothing but a note:
    the file that is returned is the store's. ``own`` asks for a file of its own there, and no link to the blob.

    Raises:
        WeightStoreError: it is not to be had.
    """
    hit = located.hit.blob if located.hit is not None else None
    if hit is not None and is_blob(path, hit) and not own:
        return Verified.of(hit)
    try:
        if (found := _right_file_at(path, wanted, located, session)) is not None:
            if hit is not None:
                hit.close()
            return found
        if hit is None:
            hit = session.obtain(wanted, meter=meter)
    except BaseException:
        if hit is not None:
            hit.close()
        raise
    try:
        place(hit, path, link=session.link, own=own, receipts=session.client.receipts)
    except StoreError as error:
        session.note(f"{path} could not be made, and the store's copy is used: {error.reason}")
    except BaseException:
        hit.close()
        raise
    return Verified.of(hit)


def _right_file_at(path: Path, wanted: Wanted, located: Located, session: Session) -> Verified | None:
    """Return what lies at a path if it is what is wanted; else put it aside."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None  # or a link that leads nowhere: it is replaced
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return None
        session.note(f"{path} cannot be read ({error.strerror}), and the store's copy is used")
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(place=str(path), reason="is not a file")
        digest = session.digest_of(fd)
        expected = _expected(wanted, located, session)
        if expected is None:
            _remember(wanted.source, digest, found.st_size, session)
        elif expected != digest and not (isinstance(expected, str) and digest.hex.startswith(expected)):
            put_aside(path, digest, expected, session)
            os.close(fd)
            return None
        return Verified(fd, digest, found.st_size, path, is_ours=False)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise


def _expected(wanted: Wanted, located: Located, session: Session) -> Digest | str | None:
    """Return the digest that a file ought to have, or its first digits, or None where nothing is known."""
    if located.digest is not None:
        return located.digest
    if wanted.pin.is_pinned:
        return wanted.pin.hex
    try:
        data = read_limited(_memory(wanted.source, session))
    except OSError:
        return None
    try:
        ref = Ref.parse(data, place=str(_memory(wanted.source, session)))
    except InvalidRecord as damage:
        session.note(str(damage))
        return None
    return ref.digest


def _memory(source: Source, session: Session) -> Path:
    # The user's own, and not a ref of the store: what lies in somebody's cache is nothing that others should believe.
    return session.client.config.state / "found" / f"{source.key}.json"


def _remember(source: Source, digest: Digest, size: int, session: Session) -> None:
    path = _memory(source, session)
    ref = Ref(source, digest, size, datetime.now(UTC), via="adopted")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_record(path, ref.encode(), mode=0o600)
    except OSError as error:
        session.note(f"the digest of {source} could not be recorded: {error.strerror}")


def put_aside(path: Path, digest: Digest, expected: Digest | str, session: Session) -> None:
    """Give a wrong file another name, beside the one that it had, and tell."""
    aside = path.with_name(f"{path.name}.wrong-{digest.hex[:8]}")
    said = expected if isinstance(expected, Digest) or ":" in expected else f"sha256:{expected}…"
    wrong = f"{path} is not what it should be: its digest is {digest}, and {said} is expected. It was not loaded"
    try:
        os.replace(path, aside)
    except OSError as error:
        session.note(f"{wrong}. It could not be put aside ({error.strerror}): remove it")
        return
    session.note(f"{wrong}, and is now {aside.name}")
