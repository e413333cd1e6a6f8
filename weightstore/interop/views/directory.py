"""What is in a directory that is or becomes a view, and what is to become of it: looking, and deciding."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.errors import BlobDamaged, NoSpace, StoreError
from weightstore.interop.views.layouts import MANIFEST, Entry, Link, Text
from weightstore.interop.views.manifest import (
    Manifest,
    Placement,
    Scope,
    is_as_made,
    is_manifest,
    read_manifest,
)
from weightstore.store.blobs import open_verified

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from weightstore.config import Link as Way
    from weightstore.digest import Digest
    from weightstore.interop.placing import Placed
    from weightstore.interop.views.plan import ViewPlan
    from weightstore.store.receipts import Receipts


UNFINISHED = ".weightstore-unfinished"
EDITED = ".edited"
_HALF_PLACED = re.compile(r"\.(?P<name>.+)\.(?P<pid>[0-9]+)\.[0-9a-f]{8}\.new")


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything below a directory, by relative path: what is no directory, and directories. Links are not followed."""

    files: Mapping[str, os.stat_result] = field(default_factory=dict)
    directories: Mapping[str, os.stat_result] = field(default_factory=dict)


def survey(root: Path) -> Survey:
    """Look at everything below ``root``, which may be absent. A manifest is not among it."""
    files: dict[str, os.stat_result] = {}
    directories: dict[str, os.stat_result] = {}
    pending = [""]
    while pending:
        directory = pending.pop()
        try:
            entries = list(os.scandir(root / directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise StoreError(place=str(root / directory), reason=error.strerror or str(error)) from None
        for entry in entries:
            path = f"{directory}/{entry.name}" if directory else entry.name
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    directories[path] = found
                    pending.append(path)
                elif not is_manifest(path) and path != UNFINISHED:
                    files[path] = found
    return Survey(files, directories)


def above(path: str) -> Iterator[str]:
    """Yield the directories that lead to a path, the topmost first."""
    steps = path.split("/")
    for count in range(1, len(steps)):
        yield "/".join(steps[:count])


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of a directory: what ``--dry-run`` prints and :func:`weightstore.interop.views.build.build`
    does.

    ``kept`` are placements that stay as they are, ``carried`` the files of others, by path. ``adopted`` are placements
    of files that were there before us and whose names stay. ``edited`` are those that somebody wrote to, and whose
    names are wanted: what was written is kept beside them, as ``<name>.edited``.
    """

    root: Path
    plan: ViewPlan
    scope: Scope
    link: Way
    found: Survey
    old: Manifest | None
    kept: Mapping[str, Placement] = field(default_factory=dict)
    adopted: tuple[Placement, ...] = ()
    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decide(
    plan: ViewPlan, directory: Path, *, scope: Scope, link: Way, receipts: Receipts, stores: Iterable[Path]
) -> Decision:
    """Decide what is to become of a directory that is to be a view. Changes nothing.

    Raises:
        StoreError: it holds something that is not ours and that a view would lose or hide, or it is no place for one.
        InvalidRecord: its manifest cannot be read.
    """
    root = real(directory)
    _refuse_stores(root, stores)
    old = read_manifest(root)
    if old is not None and old.kind != plan.kind:
        raise StoreError(place=str(root), reason=f"is a {old.kind} view; choose another directory")
    found = survey(root)
    # What was found by directories alone: of a manifest that somebody changed, no path leads out of the view.
    known = {piece.path: piece for piece in old.pieces() if piece.path in found.files} if old is not None else {}
    ours = {
        path: piece
        for path, piece in known.items()
        if is_as_made(root, piece) and (path in plan.paths or not _is_theirs_now(root, piece, receipts))
    }
    remnants = left_over(found, plan.paths | {piece.path for piece in (old.pieces() if old is not None else ())})
    foreign = [path for path in found.files if path not in ours and path not in remnants]
    plan, notes = _without_what_is_taken(plan, root, found, foreign)
    _refuse_foreign(plan, root, foreign, ours, receipts, is_view=old is not None)
    wanted = plan.paths
    adopted = []
    for piece in ours.values():
        if isinstance(piece, Placement) and piece.is_adopted and piece.path not in wanted:
            if (root / piece.path).exists():
                adopted.append(piece)
            else:
                notes.append(f"{piece.path} is given up: its blob is gone")
    edited = [path for path, piece in ours.items() if path in wanted and _is_theirs_now(root, piece, receipts)]
    notes += [f"{path} was written to: that is kept as {path}{EDITED}" for path in edited]
    staying = {one.path for one in adopted}
    kept = {}
    for entry in plan.entries:
        mine = ours.get(entry.path)
        if isinstance(mine, Placement) and mine.digest == entry.digest and _is_of_kind(mine.placed, link):
            path = root / entry.path
            if path.exists() if mine.placed == "symlink" else content_is(path, entry.digest, receipts):
                kept[entry.path] = mine
    untouched = {one.path for one in plan.pieces() if not isinstance(one, Entry) and is_as_made(root, one)}
    return Decision(
        root=root,
        plan=plan,
        scope=scope,
        link=link,
        found=found,
        old=old,
        kept=kept,
        adopted=tuple(adopted),
        added=tuple(sorted(wanted - found.files.keys())),
        replaced=tuple(sorted((wanted & found.files.keys()) - kept.keys() - untouched)),
        removed=tuple(sorted(ours.keys() - wanted - staying)),
        carried=tuple(sorted(set(foreign) - wanted)),
        edited=tuple(sorted(edited)),
        left_over=tuple(sorted(remnants)),
        notes=tuple(notes),
    )


def _is_theirs_now(root: Path, piece: Placement | Link | Text, receipts: Receipts) -> bool:
    """Tell whether somebody wrote to a file of its own that we made: where we would remove it, it is not ours."""
    if not isinstance(piece, Placement) or piece.placed == "symlink" or piece.is_adopted:
        return False
    return not content_is(root / piece.path, piece.digest, receipts)


def real(directory: Path) -> Path:
    """Return where a directory is, which may not be there yet: the last step may be a link to another disk."""
    return Path(os.path.realpath(directory))


def _is_of_kind(placed: Placed, link: Way) -> bool:
    return link in {"auto", placed}


@contextlib.contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Turn the operating system's refusals, while writing to a directory that is no store, into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(place=str(place), needed=None, free=None) from None
        raise StoreError(place=str(place), reason=f"cannot be written: {error.strerror}") from error


def content_is(path: Path, digest: Digest, receipts: Receipts) -> bool:
    """Tell whether a name leads to a regular file with this content, by links too."""
    try:
        blob = open_verified(Path(os.path.realpath(path)), digest, receipts)
    except (BlobDamaged, OSError):
        return False
    if blob is None:
        return False
    blob.close()
    return True


def _refuse_stores(root: Path, stores: Iterable[Path]) -> None:
    if root.exists() and not root.is_dir():
        raise StoreError(place=str(root), reason="is not a directory")
    for store in map(real, stores):
        if root == store or root in store.parents or store in root.parents:
            raise StoreError(place=str(root), reason=f"a view and the store {store} cannot lie within each other")


def left_over(found: Survey, paths: Iterable[str]) -> set[str]:
    """Return what a process left that was killed while it gave a blob one of these paths."""
    names = {path.rpartition("/")[2][:100] for path in (*paths, MANIFEST)}
    return {
        path
        for path in found.files
        if (match := _HALF_PLACED.fullmatch(path.rpartition("/")[2]))
        and match["name"] in names
        and not os.path.isdir(f"/proc/{match['pid']}")
    }


def _without_what_is_taken(
    plan: ViewPlan, root: Path, found: Survey, foreign: Iterable[str]
) -> tuple[ViewPlan, list[str]]:
    """Leave out what a view can do without, where somebody else has the name: a second way in, a branch's commit."""
    taken = {*foreign, *found.directories}
    others: tuple[Link | Text, ...] = (*(one for one in plan.links if one.digest is None), *plan.texts)
    theirs = [one for one in others if one.path in taken and not is_as_made(root, one)]
    links = tuple(one for one in plan.links if one not in theirs)
    texts = tuple(one for one in plan.texts if one not in theirs)
    notes = [f"{one.path} is another program's, and is left as it is" for one in theirs]
    return replace(plan, links=links, texts=texts), notes


def _refuse_foreign(
    plan: ViewPlan,
    root: Path,
    foreign: Iterable[str],
    ours: Mapping[str, Placement | Link | Text],
    receipts: Receipts,
    *,
    is_view: bool,
) -> None:
    wanted = {piece.path: piece for piece in plan.pieces()}
    of_others = set(foreign)
    if not is_view and (strangers := sorted(of_others - wanted.keys())):
        raise StoreError(
            place=str(root),
            reason=f"is no view, and holds files of its own ({strangers[0]}{', …' if len(strangers) > 1 else ''}). "
            f"Choose another directory, or bring these files into the store: weightstore adopt {root}",
        )
    problems = []
    inhabited = {directory for path in of_others for directory in above(path)}
    for path, piece in wanted.items():
        problems += [f"{one} is a file, and would be a directory" for one in above(path) if one in of_others]
        if path in inhabited:
            problems.append(f"{path} is a directory with files of others")
        elif path in of_others and not _agrees(root, piece, receipts):
            problems.append(f"{path} is another program's file, with other content than {_content(piece)}")
        elif (mine := ours.get(path)) and isinstance(mine, Placement) and mine.is_adopted:
            digest = piece.digest if isinstance(piece, Entry) else None
            if digest != mine.digest:
                problems.append(f"{path} was adopted with other content than {_content(piece)}")
    if problems:
        raise StoreError(
            place=str(root),
            reason="the view is not built:\n"
            + "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
            + "\nMove these away, or choose another directory.",
        )


def _agrees(root: Path, piece: Entry | Link | Text, receipts: Receipts) -> bool:
    if not isinstance(piece, Entry) and is_as_made(root, piece):
        return True
    if isinstance(piece, Text) or piece.digest is None:
        return False
    return content_is(root / piece.path, piece.digest, receipts)


def _content(piece: Entry | Link | Text) -> str:
    return piece.text if isinstance(piece, Text) else str(piece.source or piece.path)
