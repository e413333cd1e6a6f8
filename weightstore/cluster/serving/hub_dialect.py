"""The Hugging Face Hub's endpoints, as far as models are downloaded, told from the refs of ``hf`` sources.

With pull-through the Hub is asked what files there are: a snapshot under a commit's name has all that the commit has.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import web

from weightstore.cluster.serving.repositories import HeldFile, HeldRepo, held_repos
from weightstore.cluster.serving.sending import send_blob
from weightstore.errors import InvalidSource
from weightstore.hub import MAIN, HubFile, is_commit
from weightstore.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.cluster.serving.shelf import Shelf
    from weightstore.transfer.transport import Declared

_REPO = r"{repo:[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)?}"
_REVISION = r"{revision:[^/]+}"
_NO_CACHE = {"Cache-Control": "no-cache"}
_OTHERS = ("datasets", "spaces", "kernels", "buckets")
_KNOWN = {"search", "author", "limit", "sort", "direction", "full", "config", "cardData", "expand"}
_DAWN = "1970-01-01T00:00:00.000Z"  # when a repository was made is not recorded


class HubDialect:
    """Answers what ``huggingface_hub`` asks when ``HF_ENDPOINT`` leads here."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def routes(self) -> list[web.RouteDef]:
        api = f"/api/models/{_REPO}"
        return [
            web.get("/api/models", self._models),
            web.post(f"{api}/paths-info/{_REVISION}", self._paths_info),
            web.get(f"{api}/commits/{_REVISION}", self._commits),
            *(web.get(f"{prefix}/{kind}{{rest:/.*|$}}", _only_models) for prefix in ("", "/api") for kind in _OTHERS),
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
            puller = self._shelf.puller
            if puller is None:
                raise
            held = (await self._repos()).get(name)
            if held is not None and (commit := held.commit_of(revision)):
                source = Source(str(asked.at(commit)))  # a branch means what it meant when its first file came
            else:
                source = Source(str(asked))
            if request.method == "HEAD":  # clients do not wait for a head as long as a large file may take
                said = await puller.look(source)
                if said is None:
                    raise
                return _head(*said)
            branch = puller.branch_of(name, revision)
            if branch and (held is None or branch not in held.revisions):
                await puller.fetch_file(Source(str(asked.at(branch))))  # so that the branch is known as well
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
        blob = await self._shelf.open(file.digest) if file.digest is not None else None
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
        snapshot, files = await self._snapshot(name, revision)
        with_blobs = request.query.get("blobs", "").lower() == "true"
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
        _, files = await self._snapshot(name, revision)
        is_recursive = request.query.get("recursive", "").lower() == "true"
        return _json(_tree(files, request.match_info.get("path", "").strip("/"), is_recursive=is_recursive))

    async def _paths_info(self, request: web.Request) -> web.Response:
        """Answer with those of some files and folders that there are."""
        _, files = await self._snapshot(request.match_info["repo"], request.match_info["revision"])
        is_form = request.content_type == "application/x-www-form-urlencoded"
        paths = (await request.post()).getall("paths", []) if is_form else []
        wanted = {str(path).strip("/") for path in paths}
        return _json([entry for entry in _tree(files, "", is_recursive=True) if entry["path"] in wanted])

    async def _commits(self, request: web.Request) -> web.Response:
        """Answer with the one commit that is known: what was before it is not recorded."""
        snapshot, _ = await self._snapshot(request.match_info["repo"], request.match_info["revision"])
        is_first = request.query.get("p", "0") == "0"
        commit = {"id": snapshot, "title": "", "message": "", "authors": [], "date": _DAWN}
        return _json([commit] if is_first else [])

    async def _models(self, request: web.Request) -> web.Response:
        """Answer with the repositories of which something is here; with none where more is asked than names tell."""
        query = request.query
        search, author, limit = (query.get(name, "").lower() for name in ("search", "author", "limit"))
        names = [
            name
            for name in sorted(await self._repos())
            if search in name.lower() and author in {"", name.rpartition("/")[0].lower()} and query.keys() <= _KNOWN
        ]
        most = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 9 else len(names)
        about = {"private": False, "downloads": 0, "likes": 0, "tags": [], "createdAt": _DAWN}
        return _json([{"_id": "", "id": name, "modelId": name, **about} for name in names[:most]])

    async def _refs(self, request: web.Request) -> web.Response:
        repo = await self._repo(request.match_info["repo"])
        branches = [
            {"name": revision, "ref": f"refs/heads/{revision}", "targetCommit": snapshot}
            for revision, snapshot in sorted(repo.snapshots.items())
            if not is_commit(revision)
        ]
        return _json({"branches": branches, "tags": [], "converts": []})

    async def _snapshot(self, name: str, revision: str) -> tuple[str, dict[str, HeldFile]]:
        """Return the commit that a revision means here, and its files: those that are here or can be pulled through."""
        held = (await self._repos()).get(name)
        snapshot = held.snapshots.get(revision, "") if held is not None else ""
        is_made_up = held is not None and snapshot in held.made_up
        if self._shelf.puller is not None and not is_made_up and _is_askable(name, revision):
            listing = await self._shelf.puller.listing(name, snapshot or revision)
            if listing is not None:
                return listing.commit, dict(listing.files)
        repo = await self._repo(name)
        return snapshot, await self._present(_files(repo, revision))

    async def _repos(self) -> dict[str, HeldRepo]:
        return await self._shelf.call(lambda: self._shelf.kept("hub", lambda: held_repos(self._shelf.refs())))

    async def _repo(self, name: str) -> HeldRepo:
        repos = await self._repos()
        if name not in repos:
            _refuse("RepoNotFound", "Repository not found")
        return repos[name]

    async def _present(self, files: Mapping[str, HeldFile]) -> dict[str, HeldFile]:
        return await self._shelf.call(functools.partial(self._of_which_blobs_are_here, files))

    def _of_which_blobs_are_here(self, files: Mapping[str, HeldFile]) -> dict[str, HeldFile]:
        return {path: file for path, file in files.items() if file.digest is not None and self._shelf.has(file.digest)}


async def _only_models(_: web.Request) -> NoReturn:
    _refuse("RepoNotFound", "This server has models, and no repositories of other kinds")


def _is_askable(name: str, revision: str) -> bool:
    """Tell whether the Hub may have such a repository and revision: nothing else becomes part of a URL."""
    try:
        HubFile(name, revision, "any")
    except InvalidSource:
        return False
    return True


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
    if not file.is_lfs or file.digest is None:
        return {}
    pointer_size = len(f"version https://git-lfs.github.com/spec/v1\noid {file.digest}\nsize {file.size}\n")
    return {"lfs": {name: file.digest.hex, "size": file.size, "pointerSize": pointer_size}}


def _sibling(path: str, file: HeldFile, *, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs or file.size is None:
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
            size = file.size or 0
            entries[path] = {"type": "file", "oid": file.oid, "size": size, "path": path, **_lfs(file, "oid")}
    return list(entries.values())
