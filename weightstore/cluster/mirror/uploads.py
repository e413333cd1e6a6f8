"""Uploads to registries that were broken off, so that the next push goes on with them.

A registry keeps an upload for a while under a URL of its own, and tells there how much has arrived. That URL lies in a
small file in the store's ``tmp/``, named after the process that uploads, as parts are; nobody else may read it. When
that process is gone, the next that pushes the same blob to the same repository renames the file to a name of its own,
and goes on. That spares work and guards nothing: the registry compares the digest of the whole.

What is read is not believed: only this user's files are read, and a URL that does not lead to an upload of the very
repository is none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from weightstore.errors import InvalidRecord
from weightstore.records import Fields, Owner
from weightstore.store.layout import read_limited, write_record
from weightstore.store.owner import is_gone, place_of, this_process
from weightstore.store.parts import file_time

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.store.layout import Layout
    from weightstore.transfer.registry import Repository

_NAME = re.compile(r"upload-[0-9a-f]{64}\.[A-Za-z0-9_-]+\.[0-9]+\.[0-9a-f]{8}\.json")
_LONGEST = 8192
# A process that cannot be judged from here, as one on another node, and has not sent a piece for so long has gone.
_STALL_S = 900.0
# The files of uploads that this process is at.
_OPEN: set[str] = set()


def upload_in(repository: Repository, location: str) -> str:
    """Return the URL of an upload, or an empty string where a location is not that of an upload of this repository."""
    if len(location) > _LONGEST or not location.isascii() or not location.isprintable():
        return ""
    try:
        url = urljoin(f"{repository.base}{repository.name}/", location)
        parts, base = urlsplit(url), urlsplit(repository.base)
    except ValueError:
        return ""
    path = unquote(parts.path)
    is_upload = path.startswith(
        (f"{base.path}{repository.name}/blobs/uploads/", f"{base.path}{repository.name}/blobs/upload/")
    )
    is_plain = not parts.fragment and not {".", "..", ""} & set(path.split("/")[1:])
    return url if parts[:2] == base[:2] and is_upload and is_plain else ""


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload of ``digest``, of ``size`` bytes, to the repository at a URL, is under way at ``location``."""

    repository: str
    digest: Digest
    size: int
    location: str
    owner: Owner

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> UploadRecord:
        fields = Fields(data, what="upload record", place=place)
        fields.take_version(1)
        repository, digest, size = (
            fields.take("repository", str),
            fields.take_digest("digest"),
            fields.take_size("size"),
        )
        location = fields.take("location", str)
        owner = Owner(
            host=fields.take("host", str),
            pid=fields.take("pid", int),
            boot=fields.take("boot", str),
            pid_namespace=fields.take("pid_namespace", str),
            started=fields.take("started", int),
        )
        fields.done()
        if owner.pid <= 0 or owner.started < 0:
            raise fields.error("the owner is not a process")
        return cls(repository, digest, size, location, owner)

    def encode(self) -> bytes:
        values = {
            "version": 1,
            "repository": self.repository,
            "digest": str(self.digest),
            "size": self.size,
            "location": self.location,
            **asdict(self.owner),
        }
        return json.dumps(values, sort_keys=True).encode() + b"\n"


class KeptUpload:
    """The file of one upload of this process. ``location`` is where it, or one that was broken off, goes on."""

    def __init__(self, path: Path, repository: Repository, digest: Digest, size: int, location: str = "") -> None:
        _OPEN.add(path.name)
        self.location = location
        self._path = path
        self._repository = repository
        self._digest = digest
        self._size = size
        self._is_there = bool(location)

    def keep(self, location: str) -> None:
        """Note where the upload goes on. Where that cannot be written, the next push begins anew."""
        self.location = upload_in(self._repository, location)
        if not self.location:
            self.discard()
            return
        record = UploadRecord(_url(self._repository), self._digest, self._size, self.location, this_process())
        with contextlib.suppress(OSError):
            write_record(self._path, record.encode(), mode=0o600)
            self._is_there = True

    def discard(self) -> None:
        """Forget it: it is complete, or not to be gone on with."""
        self.location = ""
        if self._is_there:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._is_there = False

    def leave(self) -> None:
        """Leave it to whoever goes on."""
        _OPEN.discard(self._path.name)


class Uploads:
    """The uploads that a store knows of."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def take(self, repository: Repository, digest: Digest, size: int) -> KeptUpload:
        """Return the upload of a blob to a repository, with a location where one was broken off."""
        key = hashlib.sha256(f"{_url(repository)} {digest}".encode()).hexdigest()
        owner = this_process()
        own = self._layout.tmp / f"upload-{key}.{place_of(owner)}.{owner.pid}.{secrets.token_hex(4)}.json"
        location = ""
        for path in self._left(key):
            record = self._read(path)
            if record is None or not self._is_left(record, path):
                continue
            with contextlib.suppress(OSError):  # one process wins; the others get ENOENT
                os.rename(path, own)
                if (_url(repository), digest, size) == (record.repository, record.digest, record.size):
                    location = upload_in(repository, record.location)
                if location:
                    break
                os.unlink(own)
        return KeptUpload(own, repository, digest, size, location)

    def _left(self, key: str) -> list[Path]:
        """Return the files about an upload, the newest first."""
        try:
            names = os.listdir(self._layout.tmp)
        except OSError:
            return []
        found = []
        for name in names:
            if name.startswith(f"upload-{key}.") and _NAME.fullmatch(name) and name not in _OPEN:
                with contextlib.suppress(OSError):
                    seen = os.lstat(self._layout.tmp / name)
                    if seen.st_uid == os.geteuid():
                        found.append((seen.st_mtime, self._layout.tmp / name))
        return [path for _, path in sorted(found, reverse=True)]

    def _read(self, path: Path) -> UploadRecord | None:
        try:
            return UploadRecord.parse(read_limited(path), place=str(path))
        except (OSError, InvalidRecord):
            return None  # gc removes it, as whatever lies there

    def _is_left(self, record: UploadRecord, path: Path) -> bool:
        if is_gone(record.owner) or record.owner == this_process():
            return True
        try:
            return file_time(self._layout) - os.lstat(path).st_mtime > _STALL_S
        except OSError:
            return False


def _url(repository: Repository) -> str:
    return f"{repository.base}{repository.name}"
