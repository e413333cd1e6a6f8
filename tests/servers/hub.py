"""A small Hugging Face Hub: repositories with branches and commits, small files, and large ones that lie on a CDN.

    with HubServer() as hub:
        commit = hub.add("org/model", {"config.json": b"{}", "model.safetensors": weights})
        subprocess.run([...], env={"HF_ENDPOINT": hub.url})
        assert [request.path for request in hub.requests] == [...]

It speaks what the Hub does as far as models are downloaded: `/{repo}/resolve/{revision}/{file}`, its redirects and
headers, `/api/models/…` and the errors; that the real `huggingface_hub` client is content with it is tested. What
belongs to git LFS (see `add`) is redirected to `hub.cdn`, a HostileServer on another port, which can be told to
misbehave: `hub.cdn_behaviours = [truncate(after=1000, times=1)]`.
"""

import hashlib
import json
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from tests.servers.behaviours import Behaviour
from tests.servers.exchange import DERIVED, CutShort, Exchange, Request, Resource, answer_well, transmit
from tests.servers.hostile import HostileServer
from tests.servers.wire import Connection, Head, Listener

LFS_SUFFIXES = (".bin", ".ckpt", ".msgpack", ".onnx", ".pt", ".pth", ".safetensors")
"""What a new repository's `.gitattributes` gives to git LFS, as far as weights are concerned."""

_RESOLVE_CACHE = "/api/resolve-cache/models/"
_CACHE_HEADERS = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class HubContent:
    """A file as a commit has it."""

    data: bytes
    is_lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git has in the place of a file that LFS keeps."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return text.encode()

    @property
    def oid(self) -> str:
        """The name of the git object: of the content, or of the pointer."""
        blob = self.pointer if self.is_lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def etag(self) -> str:
        """What the Hub calls the content, without quotes: the name of its blob in the client's cache."""
        return self.sha256 if self.is_lfs else self.oid


@dataclass(slots=True)
class _Repo:
    commits: dict[str, dict[str, HubContent]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str = ""
    is_gated: bool = False

    def resolve(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


class _Refusal(Exception):
    """An answer that says no, with the code by which the client tells the reasons apart."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        if not code:
            del self.headers["X-Error-Code"]
        if status == HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'


class HubServer:
    """Serves model repositories on two loopback ports: the Hub's, and that of the CDN with the large files.

    Small files are redirected to a cached address of the Hub itself, as huggingface.co does; `direct` serves them at
    once, as mirrors of it do. With `fresh_etags` the CDN's own ETags change with every redirect. `cdn_behaviours` are
    what the CDN does to the answers at each URL that is redirected to from then on; of `small_file_behaviours` each is
    done once, to the next answer with a small file.
    """

    def __init__(self, *, direct: bool = False, fresh_etags: bool = False) -> None:
        self.cdn = HostileServer()
        self.cdn_behaviours: Sequence[Behaviour] = ()
        self.small_file_behaviours: list[Behaviour] = []
        self._listener = Listener(self._converse)
        self._direct = direct
        self._fresh_etags = fresh_etags
        self._lock = threading.Lock()
        self._repos: dict[str, _Repo] = {}
        self._renamed: dict[str, str] = {}
        self._tokens: set[str] = set()
        self._exchanges: list[Exchange] = []
        self._redirects = 0

    def __enter__(self) -> Self:
        self.cdn.start()
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.stop()
        self.cdn.stop()

    @property
    def url(self) -> str:
        """The endpoint: what HF_ENDPOINT is set to."""
        return f"http://{self._listener.host}:{self._listener.port}"

    @property
    def connections(self) -> int:
        """How many connections the Hub accepted; the CDN has its own count."""
        return self._listener.accepted

    @property
    def requests(self) -> list[Request]:
        """All requests to the Hub so far in order of arrival; those to the CDN are `cdn.requests`."""
        with self._lock:
            return [exchange.snapshot() for exchange in self._exchanges]

    def add(
        self, repo: str, files: Mapping[str, bytes], *, lfs: Collection[str] | None = None, revision: str = "main"
    ) -> str:
        """Commit files to a branch, beside what it has already, and return the commit.

        `lfs` are the names of those that git LFS keeps; by default what ends like weights. A branch that does not
        exist yet begins with these files.
        """
        added = {
            name: HubContent(data, name.endswith(LFS_SUFFIXES) if lfs is None else name in lfs)
            for name, data in files.items()
        }
        with self._lock:
            known = self._repos.setdefault(repo, _Repo())
            parent = known.branches.get(revision, "")
            tree = {**known.commits.get(parent, {}), **added}
            listing = "".join(f"{content.oid} {name}\n" for name, content in sorted(tree.items()))
            text = f"{repo} {parent} {len(known.commits)}\n{listing}"
            commit = hashlib.sha1(text.encode()).hexdigest()
            known.commits[commit] = tree
            known.branches[revision] = commit
        for content in added.values():
            if content.is_lfs:
                self.cdn.serve(self.cdn_path(content.data), content.data)
        return commit

    def point(self, repo: str, revision: str, commit: str) -> None:
        """Make a branch or tag mean a commit that there is."""
        with self._lock:
            known = self._repos[repo]
            if commit not in known.commits:
                raise ValueError(f"{repo} has no commit {commit}")
            known.branches[revision] = commit

    def rename(self, repo: str, name: str) -> None:
        """Give a repository another name; requests for the old one are redirected, as the Hub does."""
        with self._lock:
            self._repos[name] = self._repos.pop(repo)
            self._renamed[repo] = name

    def require_token(self, repo: str, token: str, *, gated: bool = False) -> None:
        """Make a repository private, or gated: visible to all, and given to this token's account only."""
        with self._lock:
            self._repos[repo].token, self._repos[repo].is_gated = token, gated
            self._tokens.add(token)

    def admit(self, token: str) -> None:
        """Know a token: the account behind it sees what is public, and none of what needs another's."""
        with self._lock:
            self._tokens.add(token)

    def cdn_path(self, content: bytes) -> str:
        """The path at which the CDN serves a large file, whatever the signature beside it."""
        return f"/repos/{hashlib.sha256(content).hexdigest()}"

    # -- answering ----------------------------------------------------------------------------------------------

    def _converse(self, connection: Connection) -> None:
        while (head := connection.read_head()) is not None:
            exchange = self._prepare(head, connection)
            try:
                if not transmit(exchange, connection, wants_close=head.wants_close, leave=lambda: None):
                    return
            except CutShort:
                return
            finally:
                exchange.let_go()

    def _prepare(self, head: Head, connection: Connection) -> Exchange:
        request = Request(head.method, head.target, head.headers, connection.number, time.time())
        exchange = Exchange(request=request, resource=None, range=request.range)
        with self._lock:
            self._exchanges.append(exchange)
            try:
                self._answer(exchange)
            except _Refusal as refusal:
                body = json.dumps({"error": str(refusal)}).encode()
                exchange.settle(refusal.status, {"Content-Type": "application/json", **refusal.headers}, body)
        return exchange

    def _answer(self, exchange: Exchange) -> None:
        parts = urlsplit(exchange.request.path)
        steps = parts.path.strip("/").split("/")
        if parts.path.startswith(_RESOLVE_CACHE):
            at = 4 if len(steps[4]) == 40 else 5  # a repository without an organisation, or with one
            file = unquote("/".join(steps[at + 1 :]))
            self._send(exchange, *self._content(exchange, "/".join(steps[3:at]), steps[at], file))
        elif steps[:2] == ["api", "models"]:
            self._api(exchange, steps[2:], parts.query)
        elif "resolve" in steps[1:3]:
            at = steps.index("resolve", 1)
            self._resolve(exchange, "/".join(steps[:at]), unquote(steps[at + 1]), unquote("/".join(steps[at + 2 :])))
        else:
            raise _Refusal(HTTPStatus.NOT_FOUND, "", "Sorry, we can't find the page you are looking for.")

    def _repo(self, exchange: Exchange, name: str) -> _Repo:
        """The repository, if whoever asks may see it."""
        scheme, _, token = exchange.request.headers.get("Authorization", "").partition(" ")
        if token and (scheme != "Bearer" or token not in self._tokens):
            raise _Refusal(HTTPStatus.UNAUTHORIZED, "", "Invalid credentials in Authorization header")
        repo = self._repos.get(name)
        if repo is None or (repo.token and not repo.is_gated and token != repo.token):
            status = HTTPStatus.NOT_FOUND if token else HTTPStatus.UNAUTHORIZED
            raise _Refusal(status, "RepoNotFound", "Repository not found")
        return repo

    def _commit(self, exchange: Exchange, name: str, revision: str) -> tuple[_Repo, str]:
        repo = self._repo(exchange, name)
        commit = repo.resolve(revision)
        if commit is None:
            raise _Refusal(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit

    def _content(self, exchange: Exchange, name: str, revision: str, file: str) -> tuple[str, HubContent]:
        repo, commit = self._commit(exchange, name, revision)
        headers = {"X-Repo-Commit": commit}
        token = exchange.request.headers.get("Authorization", "").partition(" ")[2]
        if repo.is_gated and token != repo.token:
            status = HTTPStatus.FORBIDDEN if token else HTTPStatus.UNAUTHORIZED
            message = f"Access to model {name} is restricted and you are not in the authorized list."
            raise _Refusal(status, "GatedRepo", message, headers)
        content = repo.commits[commit].get(file)
        if content is None:
            raise _Refusal(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found", headers)
        return commit, content

    def _resolve(self, exchange: Exchange, name: str, revision: str, file: str) -> None:
        if name in self._renamed:
            to = f"/{self._renamed[name]}/resolve/{quote(revision, safe='')}/{quote(file)}"
            exchange.settle(HTTPStatus.TEMPORARY_REDIRECT, {"Location": to})
            return
        commit, content = self._content(exchange, name, revision, file)
        if self._direct and not content.is_lfs:
            self._send(exchange, commit, content)
            return
        self._redirects += 1
        if content.is_lfs:
            path = f"{self.cdn_path(content.data)}?X-Amz-Expires=3600&X-Amz-Signature={self._redirects:064x}"
            if self._fresh_etags or self.cdn_behaviours:
                etag = f'"{self._redirects}"' if self._fresh_etags else DERIVED
                self.cdn.serve(path, content.data, self.cdn_behaviours, etag=etag, last_modified=None)
            status, location = HTTPStatus.FOUND, self.cdn.url(path)
        else:
            path = f"{_RESOLVE_CACHE}{name}/{commit}/{quote(file)}"
            status, location = HTTPStatus.TEMPORARY_REDIRECT, f"{path}?etag=%22{content.etag}%22"
        headers = {
            **_CACHE_HEADERS,
            "Location": location,
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content.data)),
            "X-Linked-Etag": f'"{content.etag}"',
            "Accept-Ranges": "bytes",
        }
        exchange.settle(status, headers, f"Found. Redirecting to {location}".encode())

    def _send(self, exchange: Exchange, commit: str, content: HubContent) -> None:
        exchange.resource = Resource.of(content.data, etag=f'"{content.etag}"', last_modified=None)
        answer_well(exchange)
        if self.small_file_behaviours:
            self.small_file_behaviours.pop(0).effect(exchange)
        exchange.headers["X-Repo-Commit"] = commit

    # -- the API ------------------------------------------------------------------------------------------------

    def _api(self, exchange: Exchange, steps: list[str], query: str) -> None:
        words = [index for index, step in enumerate(steps) if step in {"revision", "tree", "refs"} and index > 0]
        at = words[0] if words else len(steps)
        name, what = "/".join(steps[:at]), steps[at] if words else "revision"
        revision = unquote(steps[at + 1]) if len(steps) > at + 1 else "main"
        if name in self._renamed:
            path = exchange.request.path.replace(name, self._renamed[name], 1)
            exchange.settle(HTTPStatus.TEMPORARY_REDIRECT, {"Location": path})
            return
        if what == "refs":
            repo = self._repo(exchange, name)
            branches = [
                {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit}
                for branch, commit in repo.branches.items()
            ]
            _send_json(exchange, {"branches": branches, "tags": [], "converts": []})
            return
        repo, commit = self._commit(exchange, name, revision)
        tree = repo.commits[commit]
        if what == "tree":
            inside = unquote("/".join(steps[at + 2 :]))
            _send_json(exchange, _tree(tree, inside, is_recursive="recursive=true" in query.lower()))
            return
        info = {
            "_id": commit[:24],
            "id": name,
            "modelId": name,
            "author": name.rpartition("/")[0] or None,
            "sha": commit,
            "lastModified": "2024-01-01T00:00:00.000Z",
            "createdAt": "2024-01-01T00:00:00.000Z",
            "private": bool(repo.token) and not repo.is_gated,
            "gated": "auto" if repo.is_gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [_sibling(file, content, "blobs=true" in query.lower()) for file, content in tree.items()],
        }
        _send_json(exchange, info)


def _send_json(exchange: Exchange, value: Any) -> None:
    exchange.settle(HTTPStatus.OK, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(value).encode())


def _lfs(content: HubContent, name: str) -> dict[str, Any]:
    if not content.is_lfs:
        return {}
    return {"lfs": {name: content.sha256, "size": len(content.data), "pointerSize": len(content.pointer)}}


def _sibling(file: str, content: HubContent, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs:
        return {"rfilename": file}
    return {"rfilename": file, "size": len(content.data), "blobId": content.oid, **_lfs(content, "sha256")}


def _tree(tree: Mapping[str, HubContent], inside: str, *, is_recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{inside}/" if inside else ""
    entries: dict[str, dict[str, Any]] = {}
    for file, content in sorted(tree.items()):
        if not file.startswith(prefix):
            continue
        steps = file.removeprefix(prefix).split("/")
        for depth in range(1, len(steps) if is_recursive else min(2, len(steps))):
            folder = prefix + "/".join(steps[:depth])
            oid = hashlib.sha1(folder.encode()).hexdigest()
            entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
        if is_recursive or len(steps) == 1:
            entry = {"type": "file", "oid": content.oid, "size": len(content.data), "path": file}
            entries[file] = {**entry, **_lfs(content, "oid")}
    return list(entries.values())
