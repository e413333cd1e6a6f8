"""``torch.hub``'s two functions, answered from the store: the same arguments, result and file as without."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from weightstore.errors import StoreError
from weightstore.interop.hook.cached import Verified, verified_at
from weightstore.loading.progress import meter_for
from weightstore.store.filesystem import mount_of

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable

    from weightstore.interop.hook.session import Session

# torch.hub.HASH_REGEX: what it compares with the digest when check_hash is said.
_HASH_IN_NAME = re.compile(r"-([a-f0-9]*)\.")


def load_state_dict_from_url(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Do what the function of this name does, with a verified file, and ``weights_only`` unless it was said."""
    arguments = given.arguments
    url = arguments["url"]
    if not (isinstance(url, str) and session.serves(url, certain=True)):
        return original(*given.args, **given.kwargs)
    directory = arguments.get("model_dir")
    if directory is None:
        import torch.hub

        directory = os.path.join(torch.hub.get_dir(), "checkpoints")
    os.makedirs(directory, exist_ok=True)
    name = arguments.get("file_name")
    # What a lockfile says of a URL in full counts over the digits in its name, as it does when the blob is looked for.
    is_settled = name is None and session.locks(url)
    if name is None:
        name = os.path.basename(urlparse(url).path)
    prefix = None
    if arguments.get("check_hash", False) and not is_settled:
        found = _HASH_IN_NAME.search(name)
        prefix = found.group(1) if found else None
    path = Path(directory) / name
    weights_only = arguments.get("weights_only", True)
    with _bring(url, path, session, progress=arguments.get("progress", True)) as verified:
        _check(verified, prefix)
        return _load(verified, str(directory), arguments.get("map_location"), weights_only=weights_only)


def download_url_to_file(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Do what the function of this name does: ``dst`` becomes the file, whatever was there before."""
    arguments = given.arguments
    url, destination = arguments["url"], arguments["dst"]
    prefix = arguments.get("hash_prefix")
    if not (isinstance(url, str) and session.serves(url, certain=bool(prefix))):
        if session.forbids(url):
            raise session.forbidden(url)
        return original(*given.args, **given.kwargs)
    path = Path(os.path.expanduser(destination))
    if not path.parent.is_dir():
        return original(*given.args, **given.kwargs)  # which fails in its own way
    with _bring(url, path, session, progress=arguments.get("progress", True), own=True) as verified:
        _check(verified, prefix)
        if not os.path.exists(path):
            raise StoreError(place=str(path), reason="cannot be written")
    return None


def _bring(url: str, path: Path, session: Session, *, progress: object, own: bool = False) -> Verified:
    wanted, located = session.look(url)
    if located.hit is None and not path.exists() and not session.is_offline:
        sys.stdout.write(f'Downloading: "{wanted.source}" to {path}\n')  # as torch.hub does
    with meter_for(progress=bool(progress)) as meter:
        verified = verified_at(path, wanted, located, session=session, meter=meter, own=own)
    session.record(wanted, verified.digest, verified.size)
    return verified


def _check(verified: Verified, prefix: str | None) -> None:
    if prefix and not verified.digest.hex.startswith(prefix):
        raise RuntimeError(f'invalid hash value (expected "{prefix}", got "{verified.digest.hex}")')


def _load(verified: Verified, directory: str, map_location: Any, *, weights_only: bool) -> Any:
    import torch
    import torch.hub

    # By the descriptor's own name: it is the file that was verified, whoever swaps the path meanwhile.
    place: Any = f"/proc/self/fd/{verified.fd}"
    if not os.path.exists(place):
        with open(verified.fd, "rb", closefd=False) as file:
            file.seek(0)
            return torch.load(file, map_location=map_location, weights_only=weights_only)
    # torch.hub's old format: a zip archive that holds one file.
    if _is_zip(verified.fd) and torch.hub._is_legacy_zip_format(place):  # noqa: SLF001
        return torch.hub._legacy_zip_load(place, directory, map_location, weights_only)  # noqa: SLF001
    # A blob is never written to, so that its pages can stay where they are.
    mmap = verified.is_ours and _is_zip(verified.fd) and _is_near(os.fstat(verified.fd).st_dev, verified.path.parent)
    return torch.load(place, map_location=map_location, weights_only=weights_only, mmap=mmap)


def _is_zip(fd: int) -> bool:
    return os.pread(fd, 4, 0) == b"PK\x03\x04"


@functools.lru_cache(maxsize=64)
def _is_near(device: int, directory: Path) -> bool:  # noqa: ARG001 - the device: another mount, another answer
    mount = mount_of(directory)
    return mount is not None and mount.is_network is False
