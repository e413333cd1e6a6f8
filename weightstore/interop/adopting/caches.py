"""What lies in other libraries' caches, and what their own metadata says of it. Only looks; nothing is believed yet.

No symbolic link leads out: what is adopted are regular files in real directories below the one that was named.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.digest import pin_in_file_name
from weightstore.errors import InvalidSource, StoreError
from weightstore.hub import HubFile, is_commit
from weightstore.interop.views.directory import real
from weightstore.interop.views.layouts import is_inside
from weightstore.source import Source
from weightstore.store.layout import read_limited

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightstore.interop.views.manifest import ManifestKind

_REPOSITORY = re.compile(r"models--(.+)")
_BLOB = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_SHARED = re.compile(r"[0-9a-f]{64}")
# What a file in a directory of nobody's layout must look like to be taken for a checkpoint.
_CHECKPOINT = re.compile(r".+\.(pth|pt|bin|ckpt|pkl|safetensors|onnx|npz|h5|msgpack|tar|th|t7)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HubName:
    """A file on the Hub as a cache tells of it: where it is, and at which commit."""

    source: Source
    commit: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be adopted. ``path`` is relative to its cache; ``problem`` says why it is not even looked at.

    ``etag`` and ``hub_names`` are of files in the Hub's cache: the name of the blob there, and the files that it is.
    """

    path: str
    name: str
    found: os.stat_result
    etag: str = ""
    hub_names: tuple[HubName, ...] = ()
    problem: str = ""

    @property
    def size(self) -> int:
        return self.found.st_size


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """A directory of one layout as it was found once, and what may be adopted of it."""

    root: Path
    kind: ManifestKind
    candidates: tuple[Candidate, ...]


def find_caches(directory: Path) -> list[Cache]:
    """Return the caches in a directory: a TORCH_HOME, an HF_HOME or HF_HUB_CACHE, or files in it.

    Raises:
        StoreError: there is no such directory, or it cannot be read.
    """
    root = real(directory)
    if not root.is_dir():
        raise StoreError(place=str(directory), reason="there is no such directory")
    found = [
        Cache(place, "huggingface", tuple(_in_hub_cache(place)))
        for place in (root, root / "hub")
        if any(_REPOSITORY.fullmatch(entry.name) for entry in _directories(place))
    ]
    checkpoints = [one for one in ("hub/checkpoints", "checkpoints") if _is_directory(root, one)]
    if checkpoints:
        candidates = [one for folder in checkpoints for one in _files(root, folder)]
        is_home = "hub/checkpoints" in checkpoints or root.name != "hub"
        found.append(Cache(root, "torch-hub" if is_home else "files", tuple(candidates)))
    if not found:
        candidates = [one for one in _files(root, "") if _is_checkpoint(one.name)]
        found.append(Cache(root, "files", tuple(candidates)))
    return found


def _is_checkpoint(name: str) -> bool:
    return _CHECKPOINT.fullmatch(name) is not None or pin_in_file_name(name).is_pinned


def _scan(place: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(place), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(place=str(place), reason=f"cannot be read: {error.strerror}") from None


def _directories(place: Path) -> list[os.DirEntry[str]]:
    if place.is_symlink():
        return []
    return [entry for entry in _scan(place) if entry.is_dir(follow_symlinks=False)]


def _is_directory(root: Path, path: str) -> bool:
    """Tell whether a path leads to a directory by directories only."""
    return all(stat.S_ISDIR(_mode(root / one)) for one in (path.partition("/")[0], path))


def _mode(path: Path) -> int:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_mode
    return 0


def _files(root: Path, folder: str) -> Iterator[Candidate]:
    for entry in _scan(root / folder):
        path = f"{folder}/{entry.name}" if folder else entry.name
        with contextlib.suppress(FileNotFoundError):
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode) or entry.name.startswith("."):
                continue
            yield Candidate(path, entry.name, found, problem=_problem(path, found))


def _problem(path: str, found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "a symbolic link, which is not followed"
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    return "" if is_inside(path) else "its name cannot be recorded"


def _in_hub_cache(root: Path) -> list[Candidate]:
    """Return the blobs of all repositories of models. One that several share has the names that it has in each."""
    found: dict[str, Candidate] = {}
    for candidate in _in_repositories(root):
        known = found.setdefault(candidate.path, candidate)
        if known is not candidate and known.etag == candidate.etag:
            found[candidate.path] = replace(known, hub_names=known.hub_names + candidate.hub_names)
    return list(found.values())


def _in_repositories(root: Path) -> Iterator[Candidate]:
    for repository in _directories(root):
        match = _REPOSITORY.fullmatch(repository.name)
        if match is None or not _is_directory(root, f"{repository.name}/blobs"):
            continue
        names = _hub_names(root / repository.name, match[1].replace("--", "/"))
        for candidate in _files(root, f"{repository.name}/blobs"):
            etag = candidate.name
            if not _BLOB.fullmatch(etag):
                continue  # what is still being downloaded
            known = tuple(names.get(etag, ()))
            label = known[-1].source.display if known else candidate.path
            shared = _shared(root, candidate) if stat.S_ISLNK(candidate.found.st_mode) else None
            yield replace(shared or candidate, name=label, etag=etag, hub_names=known)


def _shared(root: Path, candidate: Candidate) -> Candidate | None:
    """Return the file that a repository's blob leads to, where huggingface_hub keeps what repositories share.

    That is ``blobs/<2 digits>/<Xet's name>`` in the cache, since huggingface_hub 2.
    """
    with contextlib.suppress(OSError):
        target = os.path.normpath((root / candidate.path).parent / os.readlink(root / candidate.path))
        name = os.path.basename(target)
        folder = f"blobs/{name[:2]}"
        if _SHARED.fullmatch(name) and target == str(root / folder / name) and _is_directory(root, folder):
            found = os.lstat(target)
            return Candidate(f"{folder}/{name}", name, found, problem=_problem(f"{folder}/{name}", found))
    return None


def _hub_names(repository: Path, repo: str) -> dict[str, list[HubName]]:
    """Return what each blob of a repository is called: by commits first, then by branches and tags."""
    meant: dict[str, list[str]] = {}
    for revision, commit in _branches(repository):
        meant.setdefault(commit, []).append(revision)
    names: dict[str, list[HubName]] = {}
    for snapshot in _directories(repository / "snapshots"):
        commit = snapshot.name
        if not is_commit(commit):
            continue
        for file, etag in _pointers(Path(snapshot.path)):
            for revision in (commit, *meant.get(commit, ())):
                with contextlib.suppress(InvalidSource):
                    source = Source(str(HubFile(repo, revision, file)))
                    names.setdefault(etag, []).append(HubName(source, commit))
    return names


def _branches(repository: Path) -> Iterator[tuple[str, str]]:
    for path in _walk(repository / "refs"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            commit = read_limited(path).decode("ascii")
            if is_commit(commit):
                yield path.relative_to(repository / "refs").as_posix(), commit


def _pointers(snapshot: Path) -> Iterator[tuple[str, str]]:
    """Yield the files of a snapshot with the names of the blobs that they lead to, as far as these are next door."""
    blobs = snapshot.parent.parent / "blobs"
    for path in _walk(snapshot):
        with contextlib.suppress(OSError):
            target = os.path.normpath(path.parent / os.readlink(path))
            if os.path.dirname(target) == str(blobs):
                yield path.relative_to(snapshot).as_posix(), os.path.basename(target)


def _walk(directory: Path) -> Iterator[Path]:
    """Yield what is no directory below a directory, by directories only."""
    if directory.is_symlink():
        return
    for entry in _scan(directory):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)
