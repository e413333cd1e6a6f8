"""A file where another library keeps its downloads: verified if it is there, put there if not."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from weightstore.errors import NoSpace, NotPresent, StoreError
from weightstore.interop.placing import is_blob, place
from weightstore.store.blobs import digest_of_open

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from weightstore.digest import Digest
    from weightstore.interop.hook.session import Session
    from weightstore.obtain import Located
    from weightstore.records import Wanted
    from weightstore.store.blobs import OpenBlob
    from weightstore.transfer.progress import Meter


@dataclass(slots=True)
class Verified:
    """An open file whose content has ``digest``: a blob, or another library's own file. Close it, or use ``with``.

    ``is_blob`` tells a blob, which nobody changes in place; ``is_there``, that the other library's path is right, too.
    """

    fd: int
    digest: Digest
    size: int
    path: Path
    is_blob: bool = False
    is_there: bool = True

    @classmethod
    def of(cls, blob: OpenBlob, *, is_there: bool = True) -> Verified:
        return cls(blob.detach(), blob.digest, blob.size, blob.path, is_blob=True, is_there=is_there)

    @property
    def is_steady(self) -> bool:
        """Whether nobody else can change the content: a blob, or a file that only this user may write to."""
        found = os.fstat(self.fd)
        return self.is_blob or (found.st_uid == os.geteuid() and not found.st_mode & 0o022)

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


def verified_at(path: Path, wanted: Wanted, located: Located, *, session: Session, meter: Meter) -> Verified:
    """Return a verified file for what is wanted, and see to it that ``path`` is that, as a download would leave it.

    What lies there is verified by what is known of it: a pin, a record of a store, or what this user found there the
    first time. A wrong file is put aside, and that is told. A place that cannot be written costs nothing but a note:
    the file that is returned is the store's, and ``is_there`` is False.

    Raises:
        WeightStoreError: it is not to be had.
    """
    hit = located.hit.blob if located.hit is not None else None
    with contextlib.ExitStack() as stack:
        if hit is not None:
            stack.callback(hit.close)
            if is_blob(path, hit):
                return Verified.of(hit)
        if (found := _right_file_at(path, wanted, located, session)) is not None:
            return found
        if hit is None:
            hit = session.obtain(wanted, meter=meter)
            stack.callback(hit.close)
        try:
            place(hit, path, link=session.link, receipts=session.client.receipts)
        except (StoreError, NoSpace) as error:
            session.note(f"{path} could not be made, and the store's copy is used: {error.reason}")
            return Verified.of(hit, is_there=False)
        return Verified.of(hit)


def own_file_at(path: Path, wanted: Wanted, located: Located, *, session: Session, meter: Meter) -> Verified:
    """Make ``path`` a file of its own with what is wanted, whatever was there before, and return the blob that it is.

    Raises:
        WeightStoreError: it is not to be had, or cannot be written there.
    """
    hit = located.hit.blob if located.hit is not None else session.obtain(wanted, meter=meter)
    with hit:
        link = session.link if session.link in {"copy", "reflink"} else "auto"
        place(hit, path, link=link, own=True, receipts=session.client.receipts)
        return Verified.of(hit)


def right_file_alone(path: Path, expected: str, session: Session) -> None:
    """Put aside what lies at a path, and tell, if its digest does not begin as expected.

    Raises:
        StoreError: it is wrong and cannot be put aside.
    """
    fd = _open(path, session)
    if fd is None:
        return
    try:
        digest = digest_of_open(fd, session.client.receipts)
        if not digest.hex.startswith(expected):
            put_aside(path, fd, digest, expected, session)
    finally:
        os.close(fd)


def _open(path: Path, session: Session) -> int | None:
    """Return a descriptor of the file at a path, by whatever links; None where there is none, or none for us."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None  # or a link that leads nowhere: it is replaced
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENXIO}:
            session.note(f"{path} cannot be read ({error.strerror}), and the store's copy is used")
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StoreError(place=str(path), reason="is not a file")
    return fd


def _right_file_at(path: Path, wanted: Wanted, located: Located, session: Session) -> Verified | None:
    """Return what lies at a path if it is what is wanted; else put it aside."""
    fd = _open(path, session)
    if fd is None:
        return None
    with Verified(fd, digest_of_open(fd, session.client.receipts), os.fstat(fd).st_size, path) as found:
        expected = _expected(wanted, located, session)
        if expected is None:
            digest, source = found.digest, wanted.source
            if session.is_of_another(digest, source) or session.found.is_of_another(digest, source):
                _refuse_stranger(path, wanted, session)
                return None
            session.found.remember(wanted.source, found.digest, found.size)
        elif not found.digest.hex.startswith(expected):
            put_aside(path, found.fd, found.digest, expected, session)
            return None
        kept, found.fd = found.fd, -1
        return Verified(kept, found.digest, found.size, path)


def _refuse_stranger(path: Path, wanted: Wanted, session: Session) -> None:
    """Do not take what belongs to another URL with the same last segment for what this one means.

    Raises:
        NotPresent: offline there is nothing else.
    """
    if session.is_offline:
        raise NotPresent(
            name=wanted.name,
            digest="digest unknown",
            searched=[str(layer.root) for layer in session.client.obtainer.layers()],
            offline=True,
            remedy=f"weightstore prefetch '{wanted.source}'",
            notes=[f"{path} has this name, and is what another URL means"],
        )
    session.note(f"{path} is what another URL means; {wanted.source} is fetched, and takes its place")


def _expected(wanted: Wanted, located: Located, session: Session) -> str | None:
    """Return the digest that a file ought to have, or its first digits, or None where nothing is known."""
    if located.digest is not None:
        return located.digest.hex
    if wanted.pin.is_pinned:
        return wanted.pin.hex
    found = session.found.digest_of(wanted.source)
    return None if found is None else found.hex


def put_aside(path: Path, fd: int, digest: Digest, expected: str, session: Session) -> None:
    """Give a wrong file another name, beside the one that it had, and tell.

    Raises:
        StoreError: it cannot be renamed, and so would be found by others.
    """
    said = f"sha256:{expected}{'' if len(expected) == 64 else '…'}" if ":" not in expected else expected
    wrong = f"{path} is not what it should be: its digest is {digest}, and {said} is expected. It was not loaded"
    aside = path.with_name(f"{path.name[:200]}.wrong-{digest.hex[:8]}")
    if os.path.lexists(aside):
        aside = aside.with_name(f"{aside.name}-{secrets.token_hex(2)}")
    try:
        if not os.path.samestat(os.stat(path), os.fstat(fd)):
            return  # somebody else has put it aside
        os.replace(path, aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(
            place=str(path),
            reason=f"is wrong ({digest}, and {said} is expected), and cannot be put aside: {error.strerror}. Remove it",
        ) from None
    session.note(f"{wrong}, and is now {aside.name}")
