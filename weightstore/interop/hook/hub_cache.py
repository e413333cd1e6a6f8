"""``huggingface_hub``'s downloads, answered from the store: the same path in the same cache as without.

A file that the store has is placed in the Hub's own cache layout (``models--org--name/{blobs,refs,snapshots}``), where
it is found by everything else that reads that cache. What is asked for in a way that the store does not serve (other
kinds of repositories, a local directory, a forced download) goes to the function as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightstore.digest import Pin
from weightstore.errors import InvalidSource, StoreError, TransferError
from weightstore.hub import MAIN, HubFile
from weightstore.interop.hook.cached import Verified, put_aside, verified_at
from weightstore.loading.progress import meter_for
from weightstore.records import Ref, Wanted
from weightstore.source import Source
from weightstore.store.blobs import digest_of_open, open_regular
from weightstore.store.layout import translated, write_record
from weightstore.store.refs import list_refs, write_ref
from weightstore.transfer.progress import Silent

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Iterator

    from weightstore.digest import Digest
    from weightstore.interop.hook.session import Session
    from weightstore.obtain import Located
    from weightstore.store.blobs import OpenBlob

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
# Files that Git itself stores are small; a larger one with such a name is something else.
_GIT_LIMIT = 64 << 20


def hf_hub_download(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Return the path of a file in the Hub's cache, as the function of this name does."""
    arguments = given.arguments
    hub_file = _file_asked_for(arguments)
    if hub_file is None:
        return original(*given.args, **_without_network(given, session))
    cache = _cache(arguments)
    wanted, located = session.look(Source(str(hub_file)))
    if located.hit is None:
        if (present := _present(hub_file, cache, wanted, located, session)) is not None:
            return present
        if session.is_offline or arguments.get("local_files_only"):
            return _from_cache_alone(original, given, session, wanted, located)
        if isinstance(arguments.get("token"), str):
            # Not ours to use for others: the library downloads it, and from then on it is found in its cache.
            path = original(*given.args, **given.kwargs)
            return _present(hub_file, cache, wanted, located, session) or path
        try:
            with meter_for(progress=_shows_progress()) as meter:
                session.obtain(wanted, meter=meter).close()
        except TransferError:
            # It says what is wrong in the library's own words, by which callers look for alternatives.
            return original(*given.args, **given.kwargs)
        located = session.client.obtainer.locate(wanted)
    known = _known(hub_file, session)
    if located.hit is None:
        return original(*given.args, **given.kwargs)
    with located.hit.blob as blob:
        if known is None:
            return original(*given.args, **_without_network(given, session))
        commit, etag = known
        pointer = _placed(hub_file, commit, etag, cache, wanted, located, session)
        asked = hub_file
        for branch in session.snapshots.get((hub_file.repo, commit), ()) if hub_file.is_commit else ():
            asked = hub_file.at(branch)
            _record_branch(asked, commit, etag, blob, session)
        session.record(
            wanted if asked is hub_file else Wanted(str(asked), Source(str(asked)), Pin()),
            blob.digest,
            blob.size,
            commit=commit,
        )
    return str(pointer)


def snapshot_download(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Return the directory of a repository's files, as the function of this name does.

    Each file comes by :func:`hf_hub_download`. Offline they are those that the stores know of this revision, and what
    lies in the cache already is verified.
    """
    arguments = given.arguments
    repo, revision = arguments["repo_id"], _revision(arguments)
    if not _is_simple(arguments) or revision is None:
        return original(*given.args, **_without_network(given, session))
    if not (session.is_offline or arguments.get("local_files_only")):
        return _online_snapshot(original, given, repo, revision, session)
    from huggingface_hub.utils import filter_repo_objects

    files = {hub_file.file: hub_file for hub_file in _files_known(repo, revision, session)}
    chosen = filter_repo_objects(
        sorted(files),
        allow_patterns=arguments.get("allow_patterns"),
        ignore_patterns=arguments.get("ignore_patterns"),
    )
    cache = _cache(arguments)
    for name in chosen:
        hub_file = files[name]
        wanted, located = session.look(Source(str(hub_file)))
        if located.hit is None:
            continue
        with located.hit.blob as blob:
            if (known := _known(hub_file, session)) is not None:
                _placed(hub_file, *known, cache, wanted, located, session)
                session.record(wanted, blob.digest, blob.size, commit=known[0])
    folder = original(*given.args, **{**given.kwargs, "local_files_only": True})
    for path in sorted(Path(folder).rglob("*")):
        if not path.is_dir() and not path.name.startswith("."):
            _verify_present(path, _folder(cache, repo), "", session)
    return folder


def _online_snapshot(
    original: Callable[..., Any], given: inspect.BoundArguments, repo: str, revision: str, session: Session
) -> Any:
    """Have the library ask for each file at the commit that a branch means now, and record them for the branch."""
    if _SHA1.fullmatch(revision):
        return original(*given.args, **given.kwargs)
    commit = _commit_of(given, repo, revision)
    if commit is None:
        return original(*given.args, **given.kwargs)
    branches = session.snapshots.setdefault((repo, commit), [])
    branches.append(revision)
    try:
        folder = original(*given.args, **{**given.kwargs, "revision": commit})
    finally:
        branches.remove(revision)
    with translated(Path(folder)):
        _say_commit(_folder(_cache(given.arguments), repo) / "refs" / revision, commit)
    return folder


def _commit_of(given: inspect.BoundArguments, repo: str, revision: str) -> str | None:
    """Return what a branch means now; None where the library had better find out, and say what is wrong, by itself."""
    from huggingface_hub import HfApi

    names = ("library_name", "library_version", "user_agent", "endpoint", "token")
    try:
        info = HfApi(**{name: given.arguments[name] for name in names if name in given.arguments}).model_info(
            repo, revision=revision
        )
    except (OSError, ValueError, RuntimeError):  # its errors are of all these kinds, and none is ours to report
        return None
    return info.sha if isinstance(info.sha, str) and _SHA1.fullmatch(info.sha) else None


def _without_network(given: inspect.BoundArguments, session: Session) -> dict[str, Any]:
    """Return the keyword arguments of a call that is left to the library: offline it asks nobody."""
    return {**given.kwargs, "local_files_only": True} if session.is_offline else given.kwargs


def _is_simple(arguments: dict[str, Any]) -> bool:
    return (
        arguments.get("repo_type") in (None, "model")
        and not any(arguments.get(name) for name in ("local_dir", "dry_run", "force_download", "headers"))
        and arguments.get("endpoint") in (None, _endpoint())
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _cache(arguments: dict[str, Any]) -> Path:
    from huggingface_hub import constants

    given = arguments.get("cache_dir")
    return Path(constants.HF_HUB_CACHE if given is None else given).expanduser().resolve()


def _shows_progress() -> bool:
    from huggingface_hub.utils import are_progress_bars_disabled

    return not are_progress_bars_disabled()


def _revision(arguments: dict[str, Any]) -> str | None:
    revision = arguments.get("revision")
    if revision is None:
        return MAIN
    resolved = getattr(revision, "resolved", revision)  # of a ResolvedRevision the commit
    return str(resolved) if isinstance(resolved, str) else None


def _file_asked_for(arguments: dict[str, Any]) -> HubFile | None:
    """Return the file that a call asks for, or None where it is nothing that the store serves."""
    revision = _revision(arguments)
    if not _is_simple(arguments) or revision is None:
        return None
    folder = arguments.get("subfolder")
    name = f"{folder}/{arguments['filename']}" if folder else arguments["filename"]
    try:
        return HubFile(arguments["repo_id"], revision, name)
    except (InvalidSource, TypeError, AttributeError):
        return None


def _known(hub_file: HubFile, session: Session) -> tuple[str, str] | None:
    """Return the commit that a file's revision means and what the Hub calls its content, as far as somebody knows."""
    source = Source(str(hub_file))
    locked = session.locked.get(source.key)
    commit = hub_file.revision if hub_file.is_commit else locked.commit if locked is not None else ""
    etag = ""
    for candidate in (hub_file, hub_file.at(commit)) if commit else (hub_file,):
        ref = session.ref_of(Source(str(candidate)))
        if ref is not None and commit in {"", ref.commit}:
            commit, etag = ref.commit, ref.etag or ref.digest.hex
            break
    if commit and not etag and locked is not None:
        etag = locked.digest.hex
    return (commit, etag) if commit and etag else None


def _files_known(repo: str, revision: str, session: Session) -> Iterator[HubFile]:
    """Yield the files of a repository at a revision that the stores, or what is locked, know of."""
    sources = [entry.source for entry in session.locked.values()]
    for layer in session.client.obtainer.layers():
        if layer.layout is not None:
            sources += [ref.source for ref in list_refs(layer.layout) if isinstance(ref, Ref)]
    for source in sources:
        hub_file = source.hub_file
        if hub_file is not None and (hub_file.repo, hub_file.revision) == (repo, revision):
            yield hub_file


def _folder(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}"


def _placed(
    hub_file: HubFile, commit: str, etag: str, cache: Path, wanted: Wanted, located: Located, session: Session
) -> Path:
    """Return the path in the Hub's cache that leads to a blob, made where it is not there yet."""
    folder = _folder(cache, hub_file.repo)
    blob, pointer = folder / "blobs" / etag, folder / "snapshots" / commit / hub_file.file
    with translated(pointer):
        blob.parent.mkdir(parents=True, exist_ok=True)
        pointer.parent.mkdir(parents=True, exist_ok=True)
    # Where links were not to be had, the library itself keeps the file, and not a link, among the snapshots.
    place = pointer if pointer.is_file() and not pointer.is_symlink() else blob
    with verified_at(place, wanted, located, session=session, meter=Silent()) as verified:
        if not verified.is_there:
            raise StoreError(place=str(place), reason="cannot be written, and the Hub's library reads nothing else")
    with translated(pointer):
        if place == blob and not (os.path.exists(pointer) and os.path.samefile(pointer, blob)):
            temporary = pointer.with_name(f".{pointer.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.new")
            os.symlink(os.path.relpath(blob, pointer.parent), temporary)
            os.replace(temporary, pointer)
        if not hub_file.is_commit:
            _say_commit(folder / "refs" / hub_file.revision, commit)
    return pointer


def _say_commit(path: Path, commit: str) -> None:
    with contextlib.suppress(OSError):
        if path.read_text() == commit:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, commit.encode(), mode=0o644)


def _record_branch(at_branch: HubFile, commit: str, etag: str, blob: OpenBlob, session: Session) -> None:
    """Record what the Hub just said of a branch, when it was asked which files a snapshot of it has."""
    source = Source(str(at_branch))
    if session.ref_of(source) is not None:
        return
    ref = Ref(source, blob.digest, blob.size, datetime.now(UTC), "origin", commit, etag)
    try:
        write_ref(session.client.obtainer.writable(), ref)
    except StoreError as error:
        session.note(f"the digest of {source} could not be recorded: {error}")


def _present(hub_file: HubFile, cache: Path, wanted: Wanted, located: Located, session: Session) -> str | None:
    """Return a file that the library itself downloaded before, verified, or None.

    Raises:
        StoreError: there is a wrong one that cannot be put aside: the library would use it.
    """
    folder = _folder(cache, hub_file.repo)
    try:
        commit = hub_file.revision if hub_file.is_commit else (folder / "refs" / hub_file.revision).read_text().strip()
    except OSError:
        return None
    if not _SHA1.fullmatch(commit):
        return None
    pointer = folder / "snapshots" / commit / hub_file.file
    found = _verify_present(pointer, folder, located.digest.hex if located.digest is not None else "", session)
    if found is None:
        return None
    digest, size = found
    session.record(wanted, digest, size, commit=commit)
    return str(pointer)


def _verify_present(pointer: Path, folder: Path, expected: str, session: Session) -> tuple[Digest, int] | None:
    """Return the digest and size of a file in a snapshot if it is right; a wrong one is put aside.

    It is right by what is known of it, or by the name of what it leads to, which is the Hub's for the content.
    """
    real = Path(os.path.realpath(pointer))
    fd = open_regular(real)
    if fd is None:
        return None
    with Verified(fd, digest_of_open(fd, session.client.receipts), os.fstat(fd).st_size, real) as found:
        blobs = Path(os.path.realpath(folder / "blobs"))
        name = real.name
        if real.parent != blobs:  # a view's blob is a link into a store; then the link beside it has the name
            first = Path(os.path.normpath(pointer.parent / os.readlink(pointer))) if pointer.is_symlink() else pointer
            name = first.name if first.parent == folder / "blobs" or first.parent == blobs else ""
        if not expected and _SHA256.fullmatch(name):
            expected = name
        if not expected and not name and not any(blobs.glob("*")):
            # There are no links here: the library keeps the files themselves, and says nothing of their content.
            return found.digest, found.size
        is_git = bool(name) and name == _git_name(found.fd, found.size)
        is_right = found.digest.hex == expected if expected else is_git
        if is_right:
            return found.digest, found.size
        said = expected or (f"git:{name}" if name else "a link into the cache's blobs")
        put_aside(real if real.parent == blobs else pointer, found.fd, found.digest, said, session)
        return None


def _git_name(fd: int, size: int) -> str:
    """Return what Git calls a file of this content (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    if size > _GIT_LIMIT:
        return ""
    name = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    name.update(os.pread(fd, size, 0))
    return name.hexdigest()


def _from_cache_alone(
    original: Callable[..., Any],
    given: inspect.BoundArguments,
    session: Session,
    wanted: Wanted,
    located: Located,
) -> Any:
    try:
        return original(*given.args, **{**given.kwargs, "local_files_only": True})
    except OSError as error:  # LocalEntryNotFoundError, by which callers look for alternatives
        error.add_note(str(session.client.obtainer.not_present(wanted, located)))
        raise
