"""``torch.hub``'s two functions, answered from the store: the same arguments, result and file as without."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from weightstore.digest import Digest, Pin, pin_in_file_name
from weightstore.errors import DigestMismatch, InvalidDigest
from weightstore.interop.hook.cached import Verified, own_file_at, right_file_alone, verified_at
from weightstore.loading.progress import meter_for
from weightstore.store.filesystem import mount_of

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable

    from weightstore.interop.hook.session import Session
    from weightstore.source import Source

# torch.hub.HASH_REGEX: what it compares with the digest when check_hash is said.
_HASH_IN_NAME = re.compile(r"-([a-f0-9]*)\.")
_OLD_FORMAT = (
    "Falling back to the old format < 1.6. This support will be deprecated in favor of default zipfile format "
    "introduced in 1.6. Please redo torch.save() to save it in the new zipfile format."
)


def load_state_dict_from_url(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Do what the function of this name does, with a verified file, and ``weights_only`` unless it was said."""
    arguments = given.arguments
    url = arguments["url"]
    if not isinstance(url, str):
        return original(*given.args, **given.kwargs)
    directory = arguments.get("model_dir")
    if directory is None:
        import torch.hub

        directory = os.path.join(torch.hub.get_dir(), "checkpoints")
    given_name = arguments.get("file_name")
    name = os.path.basename(urlparse(url).path) if given_name is None else given_name
    path = Path(directory) / name
    weights_only = arguments.get("weights_only", True)
    source = session.serves(url, certain=True)
    if source is None or not name:
        return _alone(original, given, path, session, weights_only=weights_only)
    # What a lockfile says of a URL in full counts over the digits in its name, as it does when the blob is looked for.
    is_settled = given_name is None and source.key in session.locked
    prefix = _prefix(name) if arguments.get("check_hash", False) and not is_settled else ""
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        session.note(f"{directory} cannot be made ({error.strerror}), and the store's copies are used")
    with _bring(source, path, session, prefix=prefix, progress=arguments.get("progress", True)) as verified:
        return _load(verified, arguments.get("map_location"), weights_only=weights_only)


def download_url_to_file(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Do what the function of this name does: ``dst`` becomes the file, whatever was there before."""
    arguments = given.arguments
    url = arguments["url"]
    prefix = arguments.get("hash_prefix") or ""
    source = session.serves(url, certain=bool(prefix))
    path = Path(os.path.expanduser(arguments["dst"]))
    if source is None or path.is_dir() or not path.parent.is_dir():  # with the last two it fails in its own way
        if source is None and session.forbids(url):
            raise session.forbidden(url)
        return original(*given.args, **given.kwargs)
    _bring(source, path, session, prefix=prefix, progress=arguments.get("progress", True), own=True).close()
    return None


def _prefix(name: str) -> str:
    found = _HASH_IN_NAME.search(name)
    return found.group(1) if found else ""


def _alone(
    original: Callable[..., Any],
    given: inspect.BoundArguments,
    path: Path,
    session: Session,
    *,
    weights_only: bool,
) -> Any:
    """Let torch.hub do what the store cannot: but what lies there is verified by its name, and runs no code."""
    pin = pin_in_file_name(path.name)
    if pin.is_pinned and path.name:
        right_file_alone(path, pin.hex, session)
    if session.forbids(given.arguments["url"]) and not os.path.exists(path):
        raise session.forbidden(given.arguments["url"])
    return original(*given.args, **{**given.kwargs, **_said(given, weights_only=weights_only)})


def _said(given: inspect.BoundArguments, *, weights_only: bool) -> dict[str, bool]:
    is_said = "weights_only" in given.arguments
    return {} if is_said else {"weights_only": weights_only}


def _bring(
    source: Source, path: Path, session: Session, *, prefix: str, progress: object, own: bool = False
) -> Verified:
    wanted, located = session.look(source, _pin(prefix) or (None if own else pin_in_file_name(path.name)))
    if located.digest is not None and not located.digest.hex.startswith(prefix):
        if located.hit is not None:
            located.hit.blob.close()
        _check(located.digest, prefix)
    if located.hit is None and (own or not os.path.exists(path)) and not session.is_offline:
        sys.stdout.write(f'Downloading: "{source}" to {path}\n')  # as torch.hub does
    bring = own_file_at if own else verified_at
    try:
        with meter_for(progress=bool(progress)) as meter:
            if located.hit is None and prefix and not wanted.pin.hex.startswith(prefix):
                # Before it is put anywhere: shorter than a pin, it is compared when the bytes are here.
                with session.obtain(wanted, meter=meter) as blob:
                    _check(blob.digest, prefix)
                located = session.client.obtainer.locate(wanted)
            verified = bring(path, wanted, located, session=session, meter=meter)
    except DigestMismatch as error:
        if not prefix:
            raise
        raise RuntimeError(f'invalid hash value (expected "{prefix}", got "{error.actual}")') from error
    try:
        _check(verified.digest, prefix)
        session.record(wanted, verified.digest, verified.size)
    except BaseException:
        verified.close()
        raise
    return verified


def _pin(prefix: str) -> Pin | None:
    try:
        return Pin(prefix) if prefix else None
    except InvalidDigest:  # of fewer digits than a pin has
        return None


def _check(digest: Digest, prefix: str) -> None:
    if prefix and not digest.hex.startswith(prefix):
        raise RuntimeError(f'invalid hash value (expected "{prefix}", got "{digest.hex}")')


def _load(verified: Verified, map_location: Any, *, weights_only: bool) -> Any:
    import torch

    # By the descriptor's own name: it is the file that was verified, whoever swaps the path meanwhile.
    place: Any = f"/proc/self/fd/{verified.fd}"
    if not verified.is_steady or not os.path.exists(place):
        # Somebody else may write to it between the look and the loading: what is loaded is what was hashed.
        place = io.BytesIO(_read_again(verified))
    mmap = False
    if _is_zip(verified.fd):
        with zipfile.ZipFile(place) as archive:
            members = archive.infolist()
            if len(members) == 1 and not members[0].is_dir():  # torch.hub's old format: a file in an archive
                warnings.warn(_OLD_FORMAT, FutureWarning, stacklevel=_CALLER)
                inner = io.BytesIO(archive.read(members[0]))
                return torch.load(inner, map_location=map_location, weights_only=weights_only)
        # A blob is never written to, so that its pages can stay where they are.
        is_plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        mmap = is_plain and verified.is_blob and isinstance(place, str) and _is_near(verified)
    if not isinstance(place, str):
        place.seek(0)
    return torch.load(place, map_location=map_location, weights_only=weights_only, mmap=mmap)


# From warnings.warn over the handler, the swap and its code to whoever called the function.
_CALLER = 7


def _read_again(verified: Verified) -> bytes:
    data = os.pread(verified.fd, verified.size, 0)
    while len(data) < verified.size and (more := os.pread(verified.fd, verified.size - len(data), len(data))):
        data += more
    actual = _digest_of(data)
    if actual != verified.digest:
        raise DigestMismatch(source=str(verified.path), expected=str(verified.digest), actual=str(actual))
    return data


def _digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def _is_zip(fd: int) -> bool:
    return os.pread(fd, 4, 0) == b"PK\x03\x04"


def _is_near(verified: Verified) -> bool:
    return _is_local(os.fstat(verified.fd).st_dev, verified.path.parent)


@functools.lru_cache(maxsize=64)
def _is_local(device: int, directory: Path) -> bool:  # noqa: ARG001 - the device: another mount, another answer
    mount = mount_of(directory)
    return mount is not None and mount.is_network is False
