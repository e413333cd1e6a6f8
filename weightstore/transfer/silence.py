"""Mirrors that did not answer a moment ago, remembered in the user's own state for the next process.

A file for each, named by what identifies the mirror and holds no credentials. What is damaged, of another mirror, or
from the future is nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord
from weightstore.records import Fields, timestamp
from weightstore.store.layout import read_limited, write_record

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from weightstore.source import Source

_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Silence:
    """When a mirror, told by its source's key, did not answer."""

    mirror_key: str
    at: datetime

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Silence:
        """Read a record, strictly; :meth:`encode` is the inverse.

        Raises:
            InvalidRecord: with the field that is wrong.
        """
        fields = Fields(data, what="record of a mirror that did not answer", place=place)
        fields.take_version(1)
        found = cls(fields.take("mirror", str), fields.take_time("silent_at"))
        fields.done()
        if not _KEY.fullmatch(found.mirror_key):
            raise fields.error("'mirror' is not the key of a source")
        return found

    def encode(self) -> bytes:
        values = {"version": 1, "mirror": self.mirror_key, "silent_at": timestamp(self.at)}
        return (json.dumps(values) + "\n").encode()


def remember_silence(state: Path, mirror: Source, at: datetime) -> None:
    """Keep that a mirror did not answer. Where the state cannot be written, this process alone knows."""
    path = _path(state, mirror)
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_record(path, Silence(mirror.key, at).encode(), mode=0o600)


def recall_silence(state: Path, mirror: Source) -> datetime | None:
    """Return when a mirror did not answer, as far as that is remembered."""
    path = _path(state, mirror)
    try:
        found = Silence.parse(read_limited(path), place=str(path))
    except (OSError, InvalidRecord):
        return None
    return found.at if found.mirror_key == mirror.key else None


def forget_silence(state: Path, mirror: Source) -> None:
    """Keep nothing of a mirror that gave what was wanted."""
    with contextlib.suppress(OSError):
        _path(state, mirror).unlink()


def _path(state: Path, mirror: Source) -> Path:
    return state / "silent" / f"{mirror.key}.json"
