"""Where other libraries look for what they would download: a view's kinds, and their rules as pure functions.

``torch-hub``
    A TORCH_HOME. :func:`torch.hub.load_state_dict_from_url` looks for the last segment of the URL's path, not decoded,
    in ``hub/checkpoints``; facenet-pytorch in ``checkpoints``.
``huggingface``
    An HF_HUB_CACHE: ``models--org--name`` with ``blobs``, ``refs`` and ``snapshots``, as huggingface_hub describes it.
``fvcore``
    A FVCORE_CACHE: iopath's HTTPURLHandler (detectron2, fvcore, PyTorchVideo) puts a URL at its path without the host.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlparse

from weightstore.hub import is_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from weightstore.digest import Digest
    from weightstore.hub import HubFile
    from weightstore.source import Source

Kind: TypeAlias = Literal["torch-hub", "huggingface", "fvcore"]
KINDS: tuple[Kind, ...] = ("torch-hub", "huggingface", "fvcore")
MANIFEST = ".weightstore-view.json"

_LONGEST_NAME = 255
_LONGEST_PATH = 3000
# iopath's own limit; beyond it the name contains a random number.
_IOPATH_LONGEST = 250
_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Held:
    """One source and the blob that a store has of it. ``commit`` and ``etag`` are what a ref recorded of a Hub file."""

    source: Source
    digest: Digest
    size: int
    commit: str = ""
    etag: str = ""
    seen_at: datetime = _LONG_AGO


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a view that leads to a blob. ``path`` is relative to the view, with slashes."""

    path: str
    digest: Digest
    size: int
    source: Source


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link inside of a view. Whoever follows it to a file gets the blob ``digest``."""

    path: str
    target: str
    digest: Digest | None = None
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A small file in a view that is no blob: the commit that a branch means."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A source that a view of this kind cannot show, and why."""

    source: Source
    reason: str


Piece: TypeAlias = "Entry | Link | Text | PassedOver"


def is_inside(path: str) -> bool:
    """Tell whether a relative path stays inside of the view, can be a file's name, and is not the manifest's."""
    steps = path.split("/")
    return (
        all(step not in {"", ".", ".."} and len(_encoded(step)) <= _LONGEST_NAME for step in steps)
        and path.isprintable()
        and len(_encoded(path)) <= _LONGEST_PATH
        and MANIFEST not in steps
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def pieces(kind: Kind, held: Iterable[Held]) -> Iterator[Piece]:
    """Yield what a view shows of each source, as the library that owns the layout would name it."""
    yield from _LAYOUTS[kind](sorted(held, key=lambda one: one.source.display))


def torch_hub_name(source: Source) -> str:
    """Return the file name under which torch.hub keeps a URL. It may be empty, or no file name at all."""
    return os.path.basename(urlparse(source.display).path)


def iopath_path(source: Source) -> str:
    """Return the path under which iopath keeps a URL. It may be empty, or lead anywhere."""
    directory = os.path.dirname(urlparse(source.display).path.lstrip("/"))
    return "/".join(filter(None, [directory, source.display.rpartition("/")[2]]))


def _torch_hub(held: Iterable[Held]) -> Iterator[Piece]:
    yield Link("checkpoints", "hub/checkpoints")
    for one in held:
        if one.source.scheme not in {"https", "http"}:
            yield _no_url(one)
        elif is_inside(name := torch_hub_name(one.source)) and "/" not in name:
            yield Entry(f"hub/checkpoints/{name}", one.digest, one.size, one.source)
        else:
            yield PassedOver(one.source, "its URL does not end with a file name")


def _fvcore(held: Iterable[Held]) -> Iterator[Piece]:
    for one in held:
        path = iopath_path(one.source)
        if one.source.scheme not in {"https", "http"}:
            yield _no_url(one)
        elif len(path.rpartition("/")[2]) > _IOPATH_LONGEST:
            yield PassedOver(one.source, "iopath gives names as long as this one a random end")
        elif is_inside(path):
            yield Entry(path, one.digest, one.size, one.source)
        else:
            yield PassedOver(one.source, "its URL does not end with a file name")


def _no_url(one: Held) -> PassedOver:
    where = "is on the Hub: see the view huggingface" if one.source.scheme == "hf" else "is no http(s) URL"
    return PassedOver(one.source, where)


def _huggingface(held: Iterable[Held]) -> Iterator[Piece]:
    files = [(one, file) for one in held if (file := one.source.hub_file) is not None]
    yield from (PassedOver(one.source, "is not on the Hub") for one in held if one.source.hub_file is None)
    names = _blob_names(files)
    newest = _newest(files)
    for one, file in files:
        commit = file.revision if file.is_commit else one.commit
        folder = "models--" + file.repo.replace("/", "--")
        pointer = f"{folder}/snapshots/{commit}/{file.file}"
        branch = f"{folder}/refs/{file.revision}"
        if not is_commit(commit):
            yield PassedOver(one.source, f"which commit {file.revision} meant is not recorded; prefetch it again")
            continue
        if not is_inside(pointer) or not (file.is_commit or is_inside(branch)):
            yield PassedOver(one.source, "its name is too long for a file name")
            continue
        name = names[file.repo, one.digest]
        yield Entry(f"{folder}/blobs/{name}", one.digest, one.size, one.source)
        up = "../" * (2 + file.file.count("/"))
        yield Link(pointer, f"{up}blobs/{name}", one.digest, one.source)
        if file.is_commit:
            continue
        if newest[file.repo, file.revision] == commit:
            yield Text(branch, commit)
        else:
            yield PassedOver(
                one.source,
                f"was seen at an earlier commit of {file.revision} than other files of it, and is found by that commit "
                "only; prefetch it again",
            )


def _blob_names(files: Iterable[tuple[Held, HubFile]]) -> Mapping[tuple[str, Digest], str]:
    """Return what huggingface_hub calls each content: its etag, if any ref has it, else the SHA-256, which it is for
    all but small files. An etag of that form is the digest or a lie.
    """
    names: dict[tuple[str, Digest], str] = {}
    for one, file in files:
        names.setdefault((file.repo, one.digest), one.digest.hex)
        if len(one.etag) == 40:
            names[file.repo, one.digest] = one.etag
    return names


def _newest(files: Iterable[tuple[Held, HubFile]]) -> Mapping[tuple[str, str], str]:
    """Return the commit that each branch meant when it was last seen: a branch's ref can hold one only."""
    dated = sorted(files, key=lambda item: (item[0].seen_at, item[0].commit))
    return {(file.repo, file.revision): one.commit for one, file in dated if is_commit(one.commit)}


_LAYOUTS: Mapping[Kind, Callable[[list[Held]], Iterator[Piece]]] = {
    "torch-hub": _torch_hub,
    "huggingface": _huggingface,
    "fvcore": _fvcore,
}
