"""Files on the Hugging Face Hub as values: which repository, which revision, which file.

Written ``hf://org/name@revision/path/to/file``, as :class:`huggingface_hub.HfFileSystem` writes it. Without a revision
``main`` is meant; a slash in a revision (``refs/pr/1``) is written ``%2F``. The few repositories without an
organisation need their revision: ``hf://gpt2@main/model.safetensors``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from weightstore.errors import InvalidSource

if TYPE_CHECKING:
    from pathlib import Path

MAIN = "main"
ENDPOINT = "https://huggingface.co"
_PREFIX = "hf://"
_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9_](?:[A-Za-z0-9_./+-]{0,198}[A-Za-z0-9_+-])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_KEPT = "/+,:=~!$&'()*;"
# Repositories of other kinds have these in front, which no organisation is called.
_KINDS = frozenset(["models", "datasets", "spaces", "kernels", "buckets"])


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a model repository. ``repo`` is ``org/name`` or ``name``; ``file`` is a path inside, with slashes."""

    repo: str
    revision: str
    file: str

    def __post_init__(self) -> None:
        names = self.repo.split("/")
        if names[0] in _KINDS:
            raise InvalidSource(f"only model repositories are read: hf://org/name@revision/file, and not {names[0]}")
        if len(names) > 2 or not all(_NAME.fullmatch(name) for name in names):
            raise InvalidSource(f"not a repository's name: {self.repo[:100]!r}")
        if not _REVISION.fullmatch(self.revision):
            raise InvalidSource(f"not a branch, tag or commit: {self.revision[:100]!r}")
        steps = self.file.split("/")
        if any(step in {"", ".", ".."} for step in steps) or not self.file.isprintable() or "\\" in self.file:
            raise InvalidSource(f"not the path of a file in a repository: {self.file[:100]!r}")

    @classmethod
    def parse(cls, url: str) -> HubFile:
        """Read ``hf://org/name[@revision]/file``, as :func:`str` writes it.

        Raises:
            InvalidSource: it is something else.
        """
        if not url.startswith(_PREFIX) or "?" in url or "#" in url:
            raise InvalidSource("a source on the Hub looks like hf://org/name@revision/file")
        steps = url.removeprefix(_PREFIX).split("/")
        in_repo = 1 if "@" in steps[0] else 2
        repo, _, revision = "/".join(steps[:in_repo]).partition("@")
        try:
            file = "/".join(unquote(step, errors="strict") for step in steps[in_repo:])
        except UnicodeDecodeError:
            raise InvalidSource("the path of a file on the Hub is percent-encoded UTF-8") from None
        if not file:
            raise InvalidSource("a source on the Hub looks like hf://org/name@revision/file")
        return cls(repo, unquote(revision) or MAIN, file)

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which never means another file."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str) -> HubFile:
        """Return the same file of another revision."""
        return HubFile(self.repo, revision, self.file)

    def __str__(self) -> str:
        return f"{_PREFIX}{self.repo}@{quote(self.revision, safe='')}/{quote(self.file, safe=_KEPT)}"


def is_commit(text: str) -> bool:
    """Tell whether text is the full name of a commit: 40 lower-case hexadecimal digits."""
    return _COMMIT.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class HubToken:
    """How this user is known to the Hub: a token, or the file that may hold one. ``place`` is where it is from."""

    place: str
    text: str = field(default="", repr=False)
    file: Path | None = None
