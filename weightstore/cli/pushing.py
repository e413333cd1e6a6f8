"""What a running push shows: live bars on a terminal, plain lines in a log, errors alone with --quiet."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from weightstore.cli import units
from weightstore.cli.progress import hashing_progress
from weightstore.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from weightstore.cli.live import LiveProgress
    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.cluster.mirror.place import Outgoing, Place
    from weightstore.cluster.mirror.plan import PushPlan
    from weightstore.cluster.mirror.push import Pushed, PushProgress
    from weightstore.digest import Digest
    from weightstore.transfer.progress import Meter


def adopted(display: str, *, would_be: bool = False) -> str:
    """Return what is noted of an image layout that becomes a store."""
    how = "would become" if would_be else "is now"
    return f"{display} is an OCI image layout that another tool wrote; it {how} a store, and what is there is kept"


def damaged_at_mirror(
    place: Place, there: Mapping[Digest, int], settings: Settings, client: Client, *, check: bool
) -> set[Digest]:
    """Return which of the blobs at a mirror, given with their sizes, are not as they should be; each is noted.

    With ``check`` all of them are read. Without, what lies in a directory and this user has not hashed before, or has
    been changed since.
    """
    from weightstore.cli.interrupt import interruptible  # start-up: not for --help
    from weightstore.cluster.mirror.checked import damaged_at
    from weightstore.cluster.mirror.directory import Directory

    if not check:
        there = place.unproven(there) if isinstance(place, Directory) else {}
    if not there:
        return set()
    if check:
        told = f"{units.count(len(there), 'file')} to read back, {units.size(sum(there.values()))}"
        settings.say(f"{told} from {place.display}")
    doing = f"verifying what is in {place.display}"
    with interruptible() as stop, hashing_progress(settings, sum(there.values()), doing) as advance:

        def on_bytes(size: int) -> None:
            if stop.is_set():
                raise Cancelled
            advance(size)

        damaged = damaged_at(place, there, client=client, on_bytes=on_bytes)
    for digest in sorted(damaged):
        settings.note(f"{place.display} has {digest} damaged: it is pushed anew")
    return damaged


@contextmanager
def push_progress(settings: Settings, plan: PushPlan, display: str) -> Iterator[PushProgress]:
    """Yield the progress of a push that suits where standard error goes."""
    if settings.is_live and plan.missing:
        from weightstore.cli.live import LiveProgress  # start-up: rich, and only a terminal needs it

        with LiveProgress(settings) as live:
            live.expect(len(plan.missing), plan.bytes_to_push)
            yield _Bars(settings, live)
        return
    with hashing_progress(settings, plan.bytes_to_push, f"pushing to {display}") as advance:
        yield _Lines(settings, advance)


def _line(done: Pushed) -> str:
    return f"{'pushed':<9} {done.blob.name}  {units.size(done.blob.size)}"


class _Bars:
    def __init__(self, settings: Settings, live: LiveProgress) -> None:
        self._settings = settings
        self._live = live

    def meter(self, blob: Outgoing) -> Meter:
        return self._live.track(blob, blob.name, blob.size)

    def done(self, done: Pushed) -> None:
        is_pushed = done.status == "pushed"
        self._live.finish(done.blob, size=done.blob.size if is_pushed else None, planned=done.blob.size)
        if is_pushed:
            self._live.tell(_line(done), done.status)
        elif done.status == "failed":
            self._settings.complain(str(done.error))


class _Lines:
    def __init__(self, settings: Settings, advance: Callable[[int], None]) -> None:
        self._settings = settings
        self._advance = advance

    def meter(self, blob: Outgoing) -> Meter:
        return _LineMeter(blob, self._settings, self._advance)

    def done(self, done: Pushed) -> None:
        if done.status == "failed":
            self._settings.complain(str(done.error))
        elif done.status == "pushed":
            self._settings.say(_line(done))


class _LineMeter:
    """Adds one file's bytes to those of all. What is sent once more is not counted again."""

    def __init__(self, blob: Outgoing, settings: Settings, advance: Callable[[int], None]) -> None:
        self._blob = blob
        self._settings = settings
        self._advance = advance
        self._here = self._furthest = 0

    def start(self, source: str, *, offset: int, total: int | None) -> None:  # noqa: ARG002 - a meter's signature
        if offset:
            self._settings.say(
                f"{'resume':<9} {self._blob.name}  {units.size(offset)} of {units.size(total)} are there"
            )
        self._here = 0
        self.advance(offset)

    def advance(self, size: int) -> None:
        self._here += size
        if self._here > self._furthest:
            self._advance(self._here - self._furthest)
            self._furthest = self._here

    def note(self, message: str) -> None:
        self._settings.say(f"{'note':<9} {self._blob.name}: {message}")
