"""What this user found in other libraries' caches, where nothing else was known of it: the first sighting counts.

Kept in the user's own state, and not as refs of the store: what lies in somebody's cache is nothing that others should
believe.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.errors import InvalidRecord
from weightstore.records import Ref
from weightstore.store.layout import read_limited, write_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weightstore.digest import Digest
    from weightstore.source import Source


class Found:
    """Sightings, one file a source. A state directory that cannot be used costs a note."""

    def __init__(self, state: Path, *, note: Callable[[str], None]) -> None:
        self._directory = state / "found"
        self._note = note

    def digest_of(self, source: Source) -> Digest | None:
        """Return what a source was found to have, or None."""
        ref = self._read(self._directory / f"{source.key}.json")
        return None if ref is None else ref.digest

    def is_of_another(self, digest: Digest, source: Source) -> bool:
        """Tell whether this was found as the content of another source."""
        refs = map(self._read, self._directory.glob("*.json"))
        return any(ref is not None and ref.digest == digest and ref.source != source for ref in refs)

    def remember(self, source: Source, digest: Digest, size: int) -> None:
        """Note what was found for a source; ``size`` is in bytes."""
        ref = Ref(source, digest, size, datetime.now(UTC), via="adopted")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_record(self._directory / f"{source.key}.json", ref.encode(), mode=0o600)
        except OSError as error:
            self._note(f"the digest of {source} could not be recorded: {error.strerror}")

    def _read(self, path: Path) -> Ref | None:
        try:
            return Ref.parse(read_limited(path), place=str(path))
        except OSError:
            return None
        except InvalidRecord as damage:
            self._note(str(damage))
            return None
