"""The manifest of a view: what of a directory is ours, and what it led to when it was made.

It lies in the view, where anybody who may write there can change it: it is read strictly, and believed only as far as
the file that it speaks of agrees. What content is right is decided by hashing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from weightstore.errors import InvalidRecord
from weightstore.interop.placing import Placed
from weightstore.interop.views.layouts import KINDS, MANIFEST, Kind, Link, Text, is_inside
from weightstore.records import Fields
from weightstore.store.layout import read_limited, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.source import Source

Scope: TypeAlias = Literal["all", "chosen"]
SCOPES: tuple[Scope, ...] = ("all", "chosen")

_PLACED: tuple[Placed, ...] = get_args(Placed)
_LIMIT = 64 << 20
# huggingface_hub complains of any file at the top of its cache; it leaves this directory of its own alone.
_WHERE: dict[Kind, str] = {"torch-hub": MANIFEST, "fvcore": MANIFEST, "huggingface": f".locks/{MANIFEST}"}


@dataclass(frozen=True, slots=True)
class Placement:
    """One blob's name in a view.

    ``target`` is where a symbolic link leads, and ``inode`` tells any other file from one that was put in its place.
    ``is_adopted`` marks a file that was in the directory before us: a rebuilt view keeps its name. Only of such a file
    the ``source`` may be unknown.
    """

    path: str
    digest: Digest
    size: int
    placed: Placed
    source: Source | None = None
    target: str = ""
    inode: int = 0
    is_adopted: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a view was made of. ``scope`` tells whether everything stored was meant, or what somebody chose."""

    kind: Kind
    scope: Scope
    placements: tuple[Placement, ...] = ()
    links: tuple[Link, ...] = ()
    texts: tuple[Text, ...] = ()

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Manifest:
        fields = Fields(data, what="manifest of a view", place=place, limit=_LIMIT)
        fields.take_version(1)
        kind, scope = fields.take("kind", str), fields.take("scope", str)
        manifest = cls(
            kind=_one_of(fields, "kind", kind, KINDS),
            scope=_one_of(fields, "scope", scope, SCOPES),
            placements=tuple(_placement(item) for item in fields.take_each("entries")),
            links=tuple(_link(item) for item in fields.take_each("links")),
            texts=tuple(_text(item) for item in fields.take_each("texts")),
        )
        fields.done()
        paths = [piece.path for piece in manifest.pieces()]
        if len(set(paths)) != len(paths):
            raise fields.error("a path is given twice")
        return manifest

    def encode(self) -> bytes:
        values = {
            "version": 1,
            "kind": self.kind,
            "scope": self.scope,
            "entries": [_placement_fields(one) for one in self.placements],
            "links": [{"path": one.path, "target": one.target} for one in self.links],
            "texts": [{"path": one.path, "text": one.text} for one in self.texts],
        }
        return (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode()

    def pieces(self) -> Iterator[Placement | Link | Text]:
        yield from self.placements
        yield from self.links
        yield from self.texts


def _one_of(fields: Fields, name: str, value: str, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise fields.error(f"{name!r} is not one of {', '.join(known)}")
    return value


def _path(fields: Fields) -> str:
    path = fields.take("path", str)
    if not is_inside(path):
        raise fields.error("'path' is not a path in the view")
    return path


def _placement(fields: Fields) -> Placement:
    placed = fields.take("placed", str)
    found = Placement(
        path=_path(fields),
        digest=fields.take_digest("digest"),
        size=fields.take_size("size"),
        placed=_one_of(fields, "placed", placed, _PLACED),
        source=fields.take_source("source") if "source" in fields.values else None,
        target=fields.take("target", str) if placed == "symlink" else "",
        inode=fields.take("inode", int) if placed != "symlink" else 0,
        is_adopted=fields.take("adopted", bool) if "adopted" in fields.values else False,
    )
    fields.done()
    if "\0" in found.target or (placed == "symlink" and not found.target.startswith("/")):
        raise fields.error("'target' is not an absolute path")
    return found


def _placement_fields(one: Placement) -> dict[str, Any]:
    return {
        "path": one.path,
        "digest": str(one.digest),
        "size": one.size,
        "placed": one.placed,
        **({"source": one.source.display} if one.source else {}),
        **({"target": one.target} if one.placed == "symlink" else {"inode": one.inode}),
        **({"adopted": True} if one.is_adopted else {}),
    }


def _link(fields: Fields) -> Link:
    link = Link(_path(fields), fields.take("target", str))
    fields.done()
    if link.target.startswith("/") or not link.target:
        raise fields.error("'target' is not a relative path")
    return link


def _text(fields: Fields) -> Text:
    text = Text(_path(fields), fields.take("text", str))
    fields.done()
    return text


def manifest_path(root: Path, kind: Kind) -> Path:
    return root / _WHERE[kind]


def read_manifest(root: Path) -> Manifest | None:
    """Return the manifest of the view at ``root``, or None where there is no view.

    Raises:
        InvalidRecord: there is one that cannot be read.
    """
    for where in dict.fromkeys(_WHERE.values()):
        path = root / where
        try:
            data = read_limited(path, _LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InvalidRecord(place=str(path), reason=f"cannot be read: {error.strerror}") from None
        manifest = Manifest.parse(data, place=str(path))
        if _WHERE[manifest.kind] != where:
            raise InvalidRecord(place=str(path), reason=f"is not where a {manifest.kind} view has it")
        return manifest
    return None


def write_manifest(root: Path, manifest: Manifest) -> None:
    path = manifest_path(root, manifest.kind)
    path.parent.mkdir(exist_ok=True)
    write_record(path, manifest.encode(), mode=0o644)


def is_manifest(path: str) -> bool:
    """Tell whether a path in a view is its manifest's."""
    return path in _WHERE.values()


def placement_at(
    root: Path, path: str, *, digest: Digest, size: int, placed: Placed, source: Source | None, is_adopted: bool = False
) -> Placement:
    """Return the placement of what was just placed at a path."""
    file = root / path
    target = os.readlink(file) if placed == "symlink" else ""
    inode = 0 if placed == "symlink" else os.lstat(file).st_ino
    return Placement(path, digest, size, placed, source, target, inode, is_adopted)


def is_as_made(root: Path, piece: Placement | Link | Text) -> bool:
    """Tell whether a path still is what we made there: this link, this file, this text. Content is not looked at."""
    path = root / piece.path
    try:
        found = os.lstat(path)
        if isinstance(piece, Text):
            return stat.S_ISREG(found.st_mode) and read_limited(path) == piece.text.encode()
        if isinstance(piece, Link) or piece.placed == "symlink":
            return stat.S_ISLNK(found.st_mode) and os.readlink(path) == piece.target
        return stat.S_ISREG(found.st_mode) and found.st_ino == piece.inode
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP}:
            return False
        raise


def exists(path: Path) -> bool:
    """Tell whether there is anything of that name, a dangling link too."""
    with contextlib.suppress(OSError):
        os.lstat(path)
        return True
    return False
