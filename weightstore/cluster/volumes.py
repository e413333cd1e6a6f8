"""A bundle as files: one, or volumes that are its bytes in pieces, so that ``cat`` puts them together again."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING, Self

from weightstore.cluster.tar import BLOCK, begins_bundle
from weightstore.errors import InvalidBundle, InvalidInput, NoSpace, StoreError
from weightstore.store.durability import sync_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

_SUFFIX = re.compile(r"\.([0-9]{3})")
_MOST_VOLUMES = 999
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}


def grouped(paths: Sequence[Path]) -> list[list[Path]]:
    """Return the files of each bundle, in the order in which these were first met; a file given twice counts once.

    Volumes go together by their numbered names. Any other file is a bundle where one begins in it, and else goes on
    with the one before it: volumes that somebody renamed, in the order in which they are given.
    """
    groups: list[list[Path]] = []
    by_stem: dict[Path, list[Path]] = {}
    last: list[Path] | None = None
    for path in {path.absolute(): path for path in paths}.values():
        stem = path.with_suffix("").absolute()
        if _SUFFIX.fullmatch(path.suffix):
            if stem not in by_stem:
                groups.append(by_stem.setdefault(stem, []))
            by_stem[stem].append(path)
        elif last is not None and not _begins_bundle(path):
            last.append(path)
        else:
            last = [path]
            groups.append(last)
    return groups


def _begins_bundle(path: Path) -> bool:
    """Tell whether a file is to be read by itself. One that cannot be read is: opening it says why."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        block = os.pread(fd, BLOCK, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        return not block or begins_bundle(block) or _compressed(block) is not None
    except OSError:
        return True
    finally:
        os.close(fd)


def _compressed(block: bytes) -> str | None:
    return next((kind for magic, kind in _COMPRESSED.items() if block.startswith(magic)), None)


class Volumes:
    """The files of a bundle, open for reading, as one row of bytes.

    ``short`` is the first volume that has fewer bytes than others have, and is not the last; None where there is none.
    It was cut, or somebody made the volumes by hand.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open them.

        Raises:
            InvalidInput: one cannot be opened, or by their numbers they are not all there.
        """
        self._files: list[tuple[int, int, int]] = []  # descriptor, first byte, size
        self.size = 0
        self.paths = _in_order(list(dict.fromkeys(paths)))
        self.name = str(self.paths[0])
        self.count = len(self.paths)
        try:
            for path in self.paths:
                self._open(path)
        except BaseException:
            self.close()
            raise
        sizes = [size for _, _, size in self._files]
        self.short = next((path for path, size in zip(self.paths[:-1], sizes, strict=False) if size < max(sizes)), None)

    def end_with_short(self) -> None:
        """Pass over what is behind the short volume: it cannot be told where that belongs."""
        if self.short is not None:
            at = self.paths.index(self.short) + 1
            for fd, _, _ in self._files[at:]:
                os.close(fd)
            del self._files[at:]
            self.size = sum(size for _, _, size in self._files)

    def beyond(self, offset: int) -> Path | None:
        """Return the first file that begins at or behind an offset, and with something else than zeros."""
        for path, (fd, first, _) in zip(self.paths, self._files, strict=False):
            if first >= offset and os.pread(fd, BLOCK, 0).strip(b"\0"):
                return path
        return None

    def _open(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be opened: {error.strerror}") from None
        found = os.fstat(fd)
        self._files.append((fd, self.size, found.st_size))
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput(
                f"{path}: is not a regular file. A bundle is read here and there: write it to a file first"
            )
        if self.size == 0 and (kind := _compressed(os.pread(fd, BLOCK, 0))) is not None:
            raise InvalidInput(f"{path}: is compressed by {kind}, and no bundle is. Unpack it first: {kind} -d {path}")
        self.size += found.st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Return that many bytes from a place, or what there is of them.

        Raises:
            InvalidBundle: a file cannot be read.
        """
        pieces: list[bytes] = []
        for fd, first, length in self._files:
            while size > 0 and first <= offset < first + length:
                try:
                    piece = os.pread(fd, min(size, first + length - offset), offset - first)
                except OSError as error:
                    raise InvalidBundle(place=self.name, reason=f"cannot be read: {error.strerror}") from None
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
                offset += len(piece)
                size -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        for fd, _, _ in self._files:
            os.close(fd)
        self._files = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _in_order(paths: Sequence[Path]) -> list[Path]:
    """Return volumes by their numbers, and anything else as it was given."""
    numbers = [_SUFFIX.fullmatch(path.suffix) for path in paths]
    if not all(numbers) or len({path.with_suffix("") for path in paths}) != 1:
        return list(paths)
    ordered = sorted(paths)
    for number, path in enumerate(ordered, 1):
        if path.suffix != f".{number:03}":
            wanted = path.with_suffix(f".{number:03}")
            raise InvalidInput(f"{wanted}: this volume is not among those given. Give all of them, in any order")
    return ordered


class Writer:
    """Writes a bundle under temporary names; :meth:`finish` gives it its own, all durable."""

    def __init__(self, output: Path, *, total: int, volume_size: int | None) -> None:
        """Make sure that it will fit; the first file is made when bytes come.

        Args:
            output: the bundle's path; its volumes have ``.001`` and so on behind it.
            total: the bytes that will be written.
            volume_size: the most bytes a volume; None for one file.

        Raises:
            InvalidInput: there is no such directory, or it would take too many volumes.
            NoSpace: it will not fit.
            StoreError: volumes of an earlier bundle are in the way.
        """
        self._volume_size = volume_size
        count = 1 if volume_size is None else max(1, -(-total // volume_size))
        if count > _MOST_VOLUMES:
            raise InvalidInput(f"{count} volumes, and {_MOST_VOLUMES} are the most. Make them larger")
        self.paths = [output] if volume_size is None else [_volume(output, number) for number in range(1, count + 1)]
        if not output.parent.is_dir():
            raise InvalidInput(f"{output}: there is no directory to write it to")
        if output.is_dir():
            raise InvalidInput(f"{output} is a directory")
        if volume_size is not None and (left := _volume(output, count + 1)).exists():
            raise StoreError(place=str(left), reason="is a volume of another bundle. Move those away first")
        found = os.statvfs(output.parent)
        if (free := found.f_bavail * found.f_frsize) < total:
            raise NoSpace(place=str(output.parent), needed=total, free=free, reason="too little free space")
        self._temporary: list[Path] = []
        self._fd = -1
        self._left = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes; a volume that is full is followed by the next."""
        view = memoryview(data)
        while view:
            if self._fd < 0 or self._left == 0:
                self._next()
            count = os.write(self._fd, view[: self._left] if self._volume_size is not None else view)
            view = view[count:]
            self._left -= count

    def _next(self) -> None:
        self._end()
        path = self.paths[len(self._temporary)]
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
        self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._temporary.append(temporary)
        self._left = self._volume_size if self._volume_size is not None else -1

    def _end(self) -> None:
        if self._fd >= 0:
            try:
                os.fchmod(self._fd, 0o644)
                os.fsync(self._fd)
            finally:
                os.close(self._fd)
                self._fd = -1

    def finish(self) -> list[Path]:
        """Give the files their names, and return these."""
        self._end()
        for temporary, path in zip(self._temporary, self.paths, strict=True):
            os.replace(temporary, path)
        self._temporary = []
        sync_directory(self.paths[0].parent)
        return self.paths

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        for temporary in self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _volume(output: Path, number: int) -> Path:
    return output.with_name(f"{output.name}.{number:03}")
