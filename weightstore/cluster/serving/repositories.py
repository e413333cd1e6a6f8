"""Repositories of the Hub as they are served: by what refs tell of them, and by what the Hub itself lists.

What the Hub calls the content of a file (its ETag) and the commit that a revision meant are what was recorded when the
file was fetched. Files of one revision that were seen at several commits make a snapshot of their own, as in views: its
name has a commit's form and is none, so that no commit is said to have what it was not seen to have.
"""

from __future__ import annotations

import hashlib
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weightstore.hub import is_commit
from weightstore.records import Fields, is_etag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightstore.digest import Digest
    from weightstore.records import Ref

LISTING_LIMIT = 64 << 20  # the largest repositories list some 100,000 files


@dataclass(frozen=True, slots=True)
class HeldFile:
    """One file of a repository: its content, and the commit at which it was seen.

    ``digest`` is None of what is only listed and no git LFS file: the Hub tells no SHA-256 of it. Who lists files
    without more than their names leaves ``etag`` empty and ``size`` None.
    """

    digest: Digest | None
    size: int | None
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
    """What is held of one repository: files by revision and path, where a commit is a revision as well.

    ``snapshots`` are the commits that revisions mean, or the names ``made_up`` for them.
    """

    revisions: dict[str, dict[str, HeldFile]] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)
    made_up: set[str] = field(default_factory=set)

    def commit_of(self, revision: str) -> str:
        """Return the commit that a revision was seen to mean; empty where none is known, or several are."""
        snapshot = self.snapshots.get(revision, "")
        return "" if snapshot in self.made_up else snapshot


@dataclass(frozen=True, slots=True)
class Listing:
    """What the Hub says that a revision is: its commit, and all files of that."""

    commit: str
    files: Mapping[str, HeldFile]


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
            snapshot, is_true = _snapshot(name, revision, files)
            if is_true:  # what the commit has, the branch that meant it has as well
                files = {**repo.revisions.get(snapshot, {}), **files}
                repo.revisions[revision] = files
            else:
                repo.made_up.add(snapshot)
            repo.snapshots[revision] = snapshot
            repo.revisions.setdefault(snapshot, files)
            repo.snapshots[snapshot] = snapshot
    return repos


def _snapshot(repo: str, revision: str, files: Mapping[str, HeldFile]) -> tuple[str, bool]:
    """Return the commit of a revision, and that it is one; or the name that is made up for it, and that it is none."""
    if is_commit(revision):
        return revision, True
    commits = {file.commit for file in files.values()}
    if len(commits) == 1 and (commit := commits.pop()):
        return commit, True
    facts = sorted((path, str(file.digest), file.commit) for path, file in files.items())
    return hashlib.sha1(repr((repo, revision, facts)).encode(), usedforsecurity=False).hexdigest(), False


def parse_listing(data: bytes, *, place: str) -> Listing:
    """Return what the Hub's information about a model lists.

    Raises:
        InvalidRecord: it is not that.
    """
    fields = Fields(data, what="list of files", place=place, limit=LISTING_LIMIT)
    commit = fields.take("sha", str)
    if not is_commit(commit):
        raise fields.error("'sha' is no commit")
    files = {}
    for one in fields.take_each("siblings"):
        path = one.take("rfilename", str)
        if one.values.get("size") is None or one.values.get("blobId") is None:
            files[path] = HeldFile(None, None, "", commit)
            continue
        size, etag, digest = one.take_size("size"), one.take("blobId", str), None
        if one.values.get("lfs") is not None:
            lfs = copy(one)
            lfs.values = one.take("lfs", dict)
            lfs.values["digest"] = f"sha256:{lfs.values.get('sha256')}"
            digest = lfs.take_digest("digest")
            etag = digest.hex
        if not is_etag(etag):
            raise fields.error(f"{path!r} has no name of a Git object")
        files[path] = HeldFile(digest, size, etag, commit)
    return Listing(commit, files)
