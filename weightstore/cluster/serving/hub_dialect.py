"""The Hugging Face Hub's endpoints, as far as models are downloaded, told from the refs of ``hf`` sources.

What the Hub calls the content of a file (its ETag) and the commit that a revision meant are what was recorded when the
file was fetched. Files of one revision that were seen at several commits make a snapshot of their own, as in views: its
name has a commit's form and is none, so that no commit is said to have what it was not seen to have.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import web

from weightstore.cluster.serving.sending import send_blob
from weightstore.errors import InvalidSource
from weightstore.hub import MAIN, HubFile, is_commit
from weightstore.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightstore.cluster.serving.shelf import Shelf
    from weightstore.digest import Digest
    from weightstore.records import Ref
    from weightstore.transfer.transport import Declared

_REPO = r"{repo:[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)?}"
_REVISION = r"{revision:[^/]+}"
_NO_CACHE = {"Cache-Control": "no-cache"}
_DAWN = "1970-01-01T00:00:00.000Z"  # when a repository was made is not recorded


@dataclass(frozen=True, slots=True)
class HeldFile:
    """One file of a repository: its content, and the commit at which it was seen."""

    digest: Digest
    size: int
    etag: str
    commit: str

    @property
    def oid(self) -> str:
        """The name of the Git object: what git LFS keeps is a pointer in Git."""
        if not self.is_lfs:
            return self.etag
        text = f"version https://git-lfs.github.com/spec/v1\noid {self.digest}\nsize {self.size}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()

    @property
    def is_lfs(self) -> bool:
        return len(self.etag) == 64


@dataclass(slots=True)
class HeldRepo:
    """What is held of one repository: files by revision and path, where a commit is a revision as well."""

    revisions: dict[str, dict[str, HeldFile]] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)


def held_repos(refs: Iterable[Ref]) -> dict[str, HeldRepo]:
    """Return what refs tell of repositories on the Hub."""
    repos: dict[str, HeldRepo] = {}
    at_commits: list[tuple[HeldRepo, str, str, HeldFile]] = []
    for ref in refs:
        hub_file = ref.source.hub_file
        if hub_file is None:
            continue
        # An ETag in the form of a SHA-256 is the digest or a lie.
        etag = ref.etag if len(ref.etag) == 40 else ref.digest.hex
        commit = hub_file.revision if hub_file.is_commit else ref.commit
        file = HeldFile(ref.digest, ref.size, etag, commit)
        repo = repos.setdefault(hub_file.repo, HeldRepo())
        repo.revisions.setdefault(hub_file.revision, {})[hub_file.file] = file
        if commit:
            at_commits.append((repo, commit, hub_file.file, file))
    for repo, commit, path, file in at_commits:
        repo.revisions.setdefault(commit, {}).setdefault(path, file)
    for name, repo in repos.items():
        for revision, files in list(repo.revisions.items()):
            snapshot = _snapshot(name, revision, files)
            repo.snapshots[revision] = snapshot
            repo.revisions.setdefault(snapshot, files)
            repo.snapshots[snapshot] = snapshot
    return repos


def _snapshot(repo: str, revision: str, files: Mapping[str, HeldFile]) -> str:
    if is_commit(revision):
        return revision
    commits = {file.commit for file in files.values()}
    if len(commits) == 1 and (commit := commits.pop()):
        return commit
    facts = sorted((path, str(file.digest), file.commit) for path, file in files.items())
    return hashlib.sha1(repr((repo, revision, facts)).encode(), usedforsecurity=False).hexdigest()


class HubDialect:
    """Answers what ``huggingface_hub`` asks when ``HF_ENDPOINT`` leads here."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def routes(self) -> list[web.RouteDef]:
        api = f"/api/models/{_REPO}"
        return [
            web.get(f"{api}/revision/{_REVISION}", self._info),
            web.get(f"{api}/tree/{_REVISION}", self._tree),
            web.get(f"{api}/tree/{_REVISION}/{{path:.+}}", self._tree),
            web.get(f"{api}/refs", self._refs),
            web.get(api, self._info),
            web.get(f"/{_REPO}/resolve/{_REVISION}/{{path:.+}}", self._resolve),
        ]

    # -- files --------------------------------------------------------------------------------------------------

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        name, revision, path = (request.match_info[part] for part in ("repo", "revision", "path"))
        try:
            asked = HubFile(name, revision, path)
        except InvalidSource:
            _refuse("EntryNotFound", "Entry not found")
        try:
            return await self._serve(request, asked)
        except web.HTTPNotFound:
            puller, source = self._shelf.puller, Source(str(asked))
            if puller is None:
                raise
            if request.method == "HEAD":  # clients do not wait for a head as long as a large file may take
                said = await puller.look(source)
                if said is None:
                    raise
                return _head(*said)
            if not await puller.fetch_file(source):
                raise
        return await self._serve(request, asked)

    async def _serve(self, request: web.Request, asked: HubFile) -> web.StreamResponse:
        name, revision = asked.repo, asked.revision
        repo = await self._repo(name)
        files = _files(repo, revision)
        file = files.get(asked.file)
        if file is None:
            _refuse("EntryNotFound", "Entry not found", commit=repo.snapshots[revision])
        commit = revision if is_commit(revision) else file.commit or repo.snapshots[revision]
        blob = await self._shelf.open(file.digest)
        self._shelf.figures.blobs["miss" if blob is None else "hit"] += 1
        if blob is None:
            _refuse("EntryNotFound", "The mirror does not hold this file now", commit=commit)
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{file.etag}"',
            "X-Linked-Size": str(blob.size),
            "Content-Disposition": "attachment",
            **({} if is_commit(revision) else _NO_CACHE),
        }
        return await send_blob(request, blob, etag=file.etag, headers=headers)

    # -- the API ------------------------------------------------------------------------------------------------

    async def _info(self, request: web.Request) -> web.Response:
        name, revision = request.match_info["repo"], request.match_info.get("revision", MAIN)
        repo = await self._repo(name)
        files = await self._present(_files(repo, revision))
        with_blobs = request.query.get("blobs", "").lower() == "true"
        snapshot = repo.snapshots[revision]
        return _json(
            {
                "_id": snapshot[:24],
                "id": name,
                "modelId": name,
                "author": name.rpartition("/")[0] or None,
                "sha": snapshot,
                "lastModified": _DAWN,
                "createdAt": _DAWN,
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [_sibling(path, file, with_blobs=with_blobs) for path, file in sorted(files.items())],
            }
        )

    async def _tree(self, request: web.Request) -> web.Response:
        name, revision = request.match_info["repo"], request.match_info["revision"]
        repo = await self._repo(name)
        files = await self._present(_files(repo, revision))
        is_recursive = request.query.get("recursive", "").lower() == "true"
        return _json(_tree(files, request.match_info.get("path", "").strip("/"), is_recursive=is_recursive))

    async def _refs(self, request: web.Request) -> web.Response:
        repo = await self._repo(request.match_info["repo"])
        branches = [
            {"name": revision, "ref": f"refs/heads/{revision}", "targetCommit": snapshot}
            for revision, snapshot in sorted(repo.snapshots.items())
            if not is_commit(revision)
        ]
        return _json({"branches": branches, "tags": [], "converts": []})

    async def _repo(self, name: str) -> HeldRepo:
        repos = await self._shelf.call(lambda: self._shelf.kept("hub", lambda: held_repos(self._shelf.refs())))
        if name not in repos:
            _refuse("RepoNotFound", "Repository not found")
        return repos[name]

    async def _present(self, files: Mapping[str, HeldFile]) -> dict[str, HeldFile]:
        return await self._shelf.call(functools.partial(self._of_which_blobs_are_here, files))

    def _of_which_blobs_are_here(self, files: Mapping[str, HeldFile]) -> dict[str, HeldFile]:
        return {path: file for path, file in files.items() if self._shelf.has(file.digest)}


def _head(declared: Declared, size: int) -> web.Response:
    """Return the head of a file that is not here yet, as the Hub gave it."""
    etag = f'"{declared.etag}"'
    headers = {"X-Repo-Commit": declared.commit, "X-Linked-Size": str(size), "Accept-Ranges": "bytes", **_NO_CACHE}
    headers |= {"ETag": etag, "X-Linked-Etag": etag} if declared.etag else {}
    return web.Response(headers={**headers, "Content-Length": str(size)})


def _files(repo: HeldRepo, revision: str) -> dict[str, HeldFile]:
    if revision not in repo.revisions:
        _refuse("RevisionNotFound", "Invalid rev id")
    return repo.revisions[revision]


def _refuse(code: str, message: str, *, commit: str = "") -> NoReturn:
    headers = {"X-Error-Code": code, "X-Error-Message": message, **({"X-Repo-Commit": commit} if commit else {})}
    raise web.HTTPNotFound(text=f"{message}\n", headers=headers)


def _json(value: Any) -> web.Response:
    return web.json_response(value, headers=_NO_CACHE)


def _lfs(file: HeldFile, name: str) -> dict[str, Any]:
    if not file.is_lfs:
        return {}
    pointer_size = len(f"version https://git-lfs.github.com/spec/v1\noid {file.digest}\nsize {file.size}\n")
    return {"lfs": {name: file.digest.hex, "size": file.size, "pointerSize": pointer_size}}


def _sibling(path: str, file: HeldFile, *, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs:
        return {"rfilename": path}
    return {"rfilename": path, "size": file.size, "blobId": file.oid, **_lfs(file, "sha256")}


def _tree(files: Mapping[str, HeldFile], inside: str, *, is_recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{inside}/" if inside else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        steps = path.removeprefix(prefix).split("/")
        for depth in range(1, len(steps) if is_recursive else min(2, len(steps))):
            folder = prefix + "/".join(steps[:depth])
            oid = hashlib.sha1(folder.encode(), usedforsecurity=False).hexdigest()
            entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
        if is_recursive or len(steps) == 1:
            entries[path] = {"type": "file", "oid": file.oid, "size": file.size, "path": path, **_lfs(file, "oid")}
    return list(entries.values())
