"""The origin every tool downloads from: the tests' nginx on loopback, with files of random bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.hub import REPOSITORY, redirecting_hub
from tests.servers.nginx import Nginx
from tests.servers.tls import Certificates, make_certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file on the origin: what a client may know of it beforehand."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the origin sent while a herd ran."""

    full_gets: int
    body_bytes: int


class Origin:
    """A running nginx, the files below it and a hub that points to them. Made by ``serve``.

    ``ca_file`` is None where TLS is not to be had.
    """

    def __init__(self, files: Path, *, nginx: Nginx, hub_url: str, ca_file: Path | None) -> None:
        self.files = files
        self.ca_file = ca_file
        self._nginx = nginx
        self._hub_url = hub_url

    def add(self, stem: str, size_bytes: int, *, sparse: bool = False) -> ServedFile:
        """Makes a file of random bytes whose name ends in eight digits of its digest, as TorchVision's do.

        With ``sparse`` only the first chunk is random and the rest is a hole: it costs no disk.
        """
        part = self.files / f"{stem}.part"
        digest = hashlib.sha256()
        with part.open("wb") as file:
            for offset in range(0, size_bytes, CHUNK_BYTES):
                is_hole = sparse and offset > 0
                length = min(CHUNK_BYTES, size_bytes - offset)
                chunk = bytes(length) if is_hole else os.urandom(length)
                digest.update(chunk)
                if not is_hole:
                    file.write(chunk)
            file.truncate(size_bytes)
        sha256 = digest.hexdigest()
        name = f"{stem}-{sha256[:8]}.pth"
        part.rename(part.with_name(name))
        return ServedFile(name, size_bytes, sha256)

    def adopt(self, part: Path, stem: str) -> ServedFile:
        """Serves a file that lies among the origin's already, renamed as above."""
        with part.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"{stem}-{sha256[:8]}.pth"
        part.rename(self.files / name)
        return ServedFile(name, (self.files / name).stat().st_size, sha256)

    def remove(self, file: ServedFile) -> None:
        (self.files / file.name).unlink()

    def url(self, file: ServedFile, *, capped: bool = False, tls: bool = False) -> str:
        return self._nginx.url(f"/{file.name}", scheme="https" if tls else "http", capped=capped)

    def hub_url(self, file: ServedFile) -> str:
        """Where huggingface_hub finds ``file``: metadata from the hub, the bytes from nginx as for all."""
        return f"{self._hub_url}/{REPOSITORY}/resolve/main/{file.name}"

    def request_count(self) -> int:
        return len(self._nginx.log())

    def traffic(self, *, since: int, size_bytes: int) -> Traffic:
        """The GETs after the first ``since`` requests."""
        gets = [row for row in self._nginx.log()[since:] if row.method == "GET"]
        full = sum(1 for row in gets if row.status == 200 and row.body_bytes_sent >= size_bytes)
        return Traffic(full_gets=full, body_bytes=sum(row.body_bytes_sent for row in gets))


@contextlib.contextmanager
def serve(root: Path) -> Iterator[Origin]:
    """Runs nginx and the hub on ``root`` until the block ends, with TLS where trustme is installed."""
    files = root / "files"
    files.mkdir(parents=True)
    certificates = _certificates(root)
    # One worker: its log is complete once the clients have their bytes, and a client keeps a core to itself.
    with Nginx(files, tls=certificates, workers=1) as nginx, redirecting_hub(nginx.url("")) as hub_url:
        yield Origin(files, nginx=nginx, hub_url=hub_url, ca_file=certificates.ca if certificates else None)


def _certificates(root: Path) -> Certificates | None:
    try:
        return make_certificates(root)
    except ModuleNotFoundError:  # trustme: without it the rows over TLS say "not installed"
        return None
