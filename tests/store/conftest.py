"""Ways to put things into a store, with and without going through it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from weightstore.digest import Digest, Pin
from weightstore.records import Journal, Owner, Validator
from weightstore.source import Source
from weightstore.store.layout import Layout
from weightstore.store.owner import place_of, this_process
from weightstore.store.parts import Part
from weightstore.store.publish import publish
from weightstore.store.receipts import Receipts

SOURCE = Source("https://weights.example/model.pth")


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


Put = Callable[[bytes], Path]


@pytest.fixture
def put(layout: Layout, receipts: Receipts) -> Put:
    """Publish bytes the way a download does; return the blob's path."""

    def put_bytes(data: bytes) -> Path:
        part = Part.create(layout, f"sha256-{digest_of(data).hex}")
        os.write(part.fd, data)
        return publish(part, digest_of(data), size=len(data), receipts=receipts)

    return put_bytes


def damage(path: Path, data: bytes = b"something else") -> None:
    """Change a blob's bytes behind the store's back."""
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def journal_of(
    data: bytes, *, offset: int | None = None, owner: Owner | None = None, pin: Pin | None = None
) -> Journal:
    count = len(data) if offset is None else offset
    return Journal(
        SOURCE,
        pin or Pin(),
        None,
        Validator('"v1"'),
        count,
        digest_of(data[:count]),
        owner or this_process(),
    )


def gone(pid: int = 2**22 - 3) -> Owner:
    """Return the identity of a process of this machine that does not run."""
    here = this_process()
    return Owner(here.host, pid, here.boot, here.pid_namespace, started=1)


def leave_part(layout: Layout, data: bytes, *, journal: Journal | None, key: str = "sha256-" + "ab" * 32) -> Path:
    """Leave a part as a process does that ended without cleaning up."""
    part = Part.create(layout, key)
    os.write(part.fd, data)
    if journal is not None:
        part.checkpoint(journal)
    part.abandon()
    if journal is None:
        return part.path
    name = f"{key}.{place_of(journal.owner)}.{journal.owner.pid}.{part.path.name[-13:]}"
    left = part.path.rename(part.path.with_name(name))
    part.journal_path.rename(left.with_suffix(".journal"))
    return left
