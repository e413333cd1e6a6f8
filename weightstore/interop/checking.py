"""Proving, before a job is queued, that all of a lockfile is present, verified and readable by this user.

Opens no socket, takes no lock and changes nothing in any store. What has a valid receipt costs an ``open`` and a
``stat``; the rest is hashed with all cores, and noted in this user's receipts.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from weightstore.errors import BlobDamaged, IntegrityError, NotPresent, StoreError
from weightstore.store.blobs import open_regular, open_verified
from weightstore.store.layers import open_layers
from weightstore.store.receipts import Receipts, identity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from weightstore.catalog.lockfile import Locked, Lockfile
    from weightstore.config import Config
    from weightstore.digest import Digest
    from weightstore.store.layers import Layer

    Watch: TypeAlias = Callable[[int], AbstractContextManager[Callable[[int], None]]]

Status: TypeAlias = Literal["present", "absent", "damaged", "wrong-size", "unreadable"]
# What the command exits with. Of several problems the worst counts, which is the largest.
EXIT_CODES: dict[Status, int] = {
    "present": 0,
    "absent": NotPresent.exit_code,
    "damaged": IntegrityError.exit_code,
    "wrong-size": IntegrityError.exit_code,
    "unreadable": StoreError.exit_code,
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one entry of a lockfile.

    Attributes:
        locked: the entry.
        status: ``present``; or ``absent`` from every layer, ``damaged`` (its content is something else), ``wrong-size``
            (its length is not the one that is locked), ``unreadable`` (this user may not open it, or the disk fails).
        layer: ``store`` for the writable one, else the directory of the layer that has it; empty where it is absent.
        path: of the blob that was judged, or None where it is absent.
        detail: what is wrong, in some words.
    """

    locked: Locked
    status: Status
    layer: str = ""
    path: Path | None = None
    detail: str = ""

    @property
    def is_present(self) -> bool:
        return self.status == "present"


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found under one digest and size."""

    status: Status
    layer: str = ""
    path: Path | None = None
    detail: str = ""


def check(
    lockfile: Lockfile,
    *,
    config: Config | None = None,
    rehash: bool = False,
    note: Callable[[str], None] | None = None,
    watch: Watch | None = None,
) -> list[Checked]:
    """Tell of each entry of a lockfile whether a layer has it, verified and readable; return that in its order.

    Args:
        lockfile: what must be there.
        config: names the layers; by default that of the environment.
        rehash: whether to hash every file, whatever is remembered of it.
        note: called with a sentence about each layer that could not be consulted.
        watch: called with the number of bytes before files are hashed, if any are; what it returns is entered while
            they are, and gives the function that is told of the bytes as they are hashed, from several threads.

    Raises:
        NotAStore: the writable root is something else, or of another layout version.
    """
    if config is None:
        from weightstore.config import Config  # start-up: the command brings its own

        config = Config.load()
    read_only = config.layers if "layers" in config.order else ()
    layers = open_layers(config.home, read_only, note=note or _silent)
    receipts = Receipts(config.state)
    wanted = dict.fromkeys((entry.digest, entry.size) for entry in lockfile.entries)
    found: dict[tuple[Digest, int], _Found] = {}
    if not rehash:
        with receipts.together():
            found = {key: seen for key in wanted if (seen := _glance(*key, layers, receipts)) is not None}
    if left := [key for key in wanted if key not in found]:
        found |= zip(left, _hash(left, layers, receipts, rehash=rehash, watch=watch or _unwatched), strict=True)
    return [
        Checked(entry, seen.status, seen.layer, seen.path, seen.detail)
        for entry in lockfile.entries
        for seen in [found[entry.digest, entry.size]]
    ]


def _silent(_: str) -> None:
    pass


def _unwatched(_: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _: None)


def _glance(digest: Digest, size: int, layers: Sequence[Layer], receipts: Receipts) -> _Found | None:
    """Return what can be said of a blob without hashing anything; None where something has to be hashed."""
    worst = _Found("absent")
    for layer in layers:
        if layer.layout is None:
            continue
        path = layer.layout.blob(digest)
        try:
            fd = open_regular(path)
        except OSError as error:
            worst = _worse(worst, _refused(layer, path, error))
            continue
        if fd is None:
            continue
        try:
            stat = os.fstat(fd)
            is_known = receipts.attests(digest, identity_of(stat))
            if is_known and stat.st_size == size:
                os.pread(fd, 1, 0)  # a disk or a server that fails says so here, and not in the job
                return _Found("present", layer.name, path)
            if stat.st_size == size:
                return None
        except OSError as error:
            worst = _worse(worst, _refused(layer, path, error))
            continue
        finally:
            os.close(fd)
        worst = _worse(worst, _wrong_size(layer, path, stat.st_size, size, is_known=is_known))
    return worst


def _hash(
    keys: Sequence[tuple[Digest, int]],
    layers: Sequence[Layer],
    receipts: Receipts,
    *,
    rehash: bool,
    watch: Watch,
) -> list[_Found]:
    """Hash the blobs with all cores: hashlib releases the GIL, so threads use them."""
    from concurrent.futures import ThreadPoolExecutor  # start-up: not where receipts say enough

    with watch(sum(size for _, size in keys)) as on_bytes:

        def prove(key: tuple[Digest, int]) -> _Found:
            return _prove(*key, layers, receipts, rehash=rehash, on_bytes=on_bytes)

        with ThreadPoolExecutor(min(os.cpu_count() or 1, len(keys)), thread_name_prefix="check") as pool:
            return list(pool.map(prove, keys))


def _prove(
    digest: Digest,
    size: int,
    layers: Iterable[Layer],
    receipts: Receipts,
    *,
    rehash: bool,
    on_bytes: Callable[[int], None],
) -> _Found:
    """Return the first layer's good copy, whose content is hashed where need be, or the worst of what there is."""
    worst = _Found("absent")
    for layer in layers:
        if layer.layout is None:
            continue
        path = layer.layout.blob(digest)
        try:
            length = os.lstat(path).st_size
            if length != size and not path.is_symlink():
                worst = _worse(worst, _wrong_size(layer, path, length, size, is_known=False))
                continue
            blob = open_verified(path, digest, receipts, on_bytes=on_bytes, always_hash=rehash)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except BlobDamaged as damage:
            worst = _worse(worst, _Found("damaged", layer.name, path, f"its content is {damage.actual}"))
        except OSError as error:
            worst = _worse(worst, _refused(layer, path, error))
        else:
            if blob is not None:
                blob.close()
                return _Found("present", layer.name, path)
    return worst


def _refused(layer: Layer, path: Path, error: OSError) -> _Found:
    if path.is_symlink():  # no blob is one, and none is followed
        return _Found("damaged", layer.name, path, "it is a symbolic link")
    return _Found("unreadable", layer.name, path, error.strerror or str(error))


def _wrong_size(layer: Layer, path: Path, actual: int, locked: int, *, is_known: bool) -> _Found:
    blame = ": the lockfile is wrong, for the content is what its digest says" if is_known else ""
    return _Found("wrong-size", layer.name, path, f"it has {actual} bytes, and {locked} are locked{blame}")


def _worse(one: _Found, other: _Found) -> _Found:
    """Return the one that says more: of two as bad, the first layer's."""
    return other if EXIT_CODES[other.status] > EXIT_CODES[one.status] else one
