"""What a running push shows: live bars on a terminal, plain lines in a log, errors alone with --quiet."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from weightstore.cli import units
from weightstore.cli.progress import hashing_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightstore.cli.live import LiveProgress
    from weightstore.cli.settings import Settings
    from weightstore.cluster.mirror.place import Outgoing
    from weightstore.cluster.mirror.plan import PushPlan
    from weightstore.cluster.mirror.push import Pushed, PushProgress
    from weightstore.transfer.progress import Meter


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
