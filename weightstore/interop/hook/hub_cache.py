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
from weightstore.store.blobs import open_regular
from weightstore.store.layout import translated, write_record
from weightstore.store.refs import list_refs, write_ref

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Iterator

    from weightstore.interop.hook.session import Session
    from weightstore.obtain import Located

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
# Files that Git itself stores are small; a larger one with such a name is something else.
_GIT_LIMIT = 64 << 20


def hf_hub_download(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Return the path of a file in the Hub's cache, as the function of this name does."""
    arguments = given.arguments
    hub_file = _file_asked_for(arguments)
    if hub_file is None:
        return original(*given.args, **given.kwargs)
    cache = _cache(arguments)
    branch = session.snapshots.get(hub_file.repo, "") if hub_file.is_commit else ""
    source = Source(str(hub_file))
    wanted, located = session.look(source.url)
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
    if located.hit is None or known is None:
        if located.hit is not None:
            located.hit.blob.close()
        return original(*given.args, **given.kwargs)
    commit, etag = known
    if branch:
        _record_branch(hub_file.at(branch), commit, etag, located, session)
    pointer = _placed(hub_file, commit, etag, cache, wanted, located, session)
    asked = Wanted(str(hub_file.at(branch)), Source(str(hub_file.at(branch))), Pin()) if branch else wanted
    found = located.hit.blob
    session.record(asked, found.digest, found.size, commit=commit)
    return str(pointer)


def snapshot_download(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Return the directory of a repository's files, as the function of this name does.

    Each file comes by :func:`hf_hub_download`. Offline they are those that the stores know of this revision.
    """
    arguments = given.arguments
    repo, revision = arguments["repo_id"], _revision(arguments)
    if not _is_simple(arguments) or revision is None:
        return original(*given.args, **given.kwargs)
    if not (session.is_offline or arguments.get("local_files_only")):
        session.snapshots[repo] = "" if _SHA1.fullmatch(revision) else revision
        try:
            return original(*given.args, **given.kwargs)
        finally:
            session.snapshots.pop(repo, None)
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
        wanted, located = session.look(str(hub_file))
        known = _known(hub_file, session)
        if located.hit is not None and known is not None:
            commit, etag = known
            _placed(hub_file, commit, etag, cache, wanted, located, session)
            session.record(wanted, located.hit.blob.digest, located.hit.blob.size, commit=commit)
    return original(*given.args, **{**given.kwargs, "local_files_only": True})


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
    with meter_for(progress=False) as meter:
        # Where links were not to be had, the library itself keeps the file, and not a link, among the snapshots.
        place = pointer if pointer.is_file() and not pointer.is_symlink() else blob
        verified_at(place, wanted, located, session=session, meter=meter).close()
    if not place.exists():
        raise StoreError(place=str(place), reason="cannot be written")
    with translated(pointer):
        if place == blob and not (pointer.exists() and os.path.samefile(pointer, blob)):
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


def _record_branch(at_branch: HubFile, commit: str, etag: str, located: Located, session: Session) -> None:
    """Record what the Hub just said of a branch, when it was asked which files a snapshot of it has."""
    source = Source(str(at_branch))
    if session.ref_of(source) is not None or located.hit is None:
        return
    blob = located.hit.blob
    ref = Ref(source, blob.digest, blob.size, datetime.now(UTC), "origin", commit, etag)
    try:
        write_ref(session.client.obtainer.writable(), ref)
    except StoreError as error:
        session.note(f"the digest of {source} could not be recorded: {error}")


def _present(hub_file: HubFile, cache: Path, wanted: Wanted, located: Located, session: Session) -> str | None:
    """Return a file that the library itself downloaded before, verified by its name, or None."""
    folder = _folder(cache, hub_file.repo)
    try:
        commit = hub_file.revision if hub_file.is_commit else (folder / "refs" / hub_file.revision).read_text().strip()
    except OSError:
        return None
    if not _SHA1.fullmatch(commit):
        return None
    pointer = folder / "snapshots" / commit / hub_file.file
    real = Path(os.path.realpath(pointer))
    fd = open_regular(real) if real.parent == Path(os.path.realpath(folder / "blobs")) else None
    if fd is None:
        return None
    size = os.fstat(fd).st_size
    with Verified(fd, session.digest_of(fd), size, real, is_ours=False) as found:
        digest = found.digest
        expected = located.digest
        if expected is None and _SHA256.fullmatch(real.name):
            expected = Pin(real.name).digest
        right = digest == expected if expected is not None else real.name == _git_name(found.fd, size)
    if not right:
        put_aside(real, digest, expected or f"git:{real.name}", session)
        return None
    session.record(wanted, digest, size, commit=commit)
    return str(pointer)


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
