"""Running a program under the hook: what its environment says, and what is written when it has ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.catalog.lockfile import Lockfile
from weightstore.errors import InvalidInput
from weightstore.interop.recording import merge_into, read_spool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

# As env(1) says it: found but not executable, and not found.
CANNOT_RUN = 126
NOT_FOUND = 127
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a program is run. ``home`` is a store other than the environment's; ``record`` the lockfile to add to."""

    home: Path | None = None
    offline: bool = False
    locked: tuple[Path, ...] = ()
    record: Path | None = None


def site_directory() -> Path:
    """Return the directory whose ``sitecustomize`` turns the hook on."""
    return Path(__file__).parent / "site"


def environment(settings: RunSettings, environ: Mapping[str, str], *, spool: Path | None = None) -> dict[str, str]:
    """Return the environment of a program that runs under the hook."""
    found = dict(environ)
    before = [place for place in found.get("PYTHONPATH", "").split(os.pathsep) if place]
    site = str(site_directory())
    found["PYTHONPATH"] = os.pathsep.join([site, *(place for place in before if place != site)])
    found["WEIGHTSTORE_HOOK"] = "on"
    found.pop("WEIGHTSTORE_SPOOL", None)
    if spool is not None:
        found["WEIGHTSTORE_SPOOL"] = str(spool)
    if settings.home is not None:
        found["WEIGHTSTORE_HOME"] = str(settings.home)
    if settings.locked:
        found["WEIGHTSTORE_LOCKED"] = os.pathsep.join(str(path) for path in settings.locked)
    if settings.offline:
        found["WEIGHTSTORE_OFFLINE"] = "1"
        # What the Hub's libraries do besides downloading files: listing, looking for newer ones.
        found["HF_HUB_OFFLINE"] = "1"
    return found


def run(
    command: Sequence[str],
    settings: RunSettings,
    *,
    environ: Mapping[str, str],
    python: str,
    say: Callable[[str], None],
    complain: Callable[[str], None],
) -> int:
    """Run a program and return its exit code; without a record it replaces this process, and nothing returns.

    A ``.py`` file that is no executable is run by ``python``.

    Raises:
        InvalidInput, InvalidRecord: a lockfile cannot be used, or a record not written; nothing was run.
        StoreError: the record cannot be written in the end.
    """
    for path in settings.locked:
        Lockfile.read(path)
    if settings.record is not None:
        if not settings.record.parent.is_dir():
            raise InvalidInput(f"{settings.record}: there is no directory to write it to")
        if settings.record.exists():
            Lockfile.read(settings.record)
    argv = list(command)
    if argv[0].endswith(".py") and os.path.isfile(argv[0]) and not os.access(argv[0], os.X_OK):
        argv.insert(0, python)
    if settings.record is None:
        return _replace(argv, environment(settings, environ), complain)
    spool = Path(tempfile.mkdtemp(prefix="weightstore-"))
    try:
        code = _supervise(argv, environment(settings, environ, spool=spool), complain)
        if code not in {CANNOT_RUN, NOT_FOUND}:
            _write(settings.record, spool, say)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    return code


def _replace(argv: list[str], environ: dict[str, str], complain: Callable[[str], None]) -> int:
    try:
        os.execvpe(argv[0], argv, environ)  # noqa: S606 - no shell is wanted
    except OSError as error:
        return _not_run(argv[0], error, complain)


def _supervise(argv: list[str], environ: dict[str, str], complain: Callable[[str], None]) -> int:
    try:
        child = subprocess.Popen(argv, env=environ)
    except OSError as error:
        return _not_run(argv[0], error, complain)

    def forward(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    # Ctrl-C reaches the child from the terminal itself; we only outlive it.
    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _not_run(name: str, error: OSError, complain: Callable[[str], None]) -> int:
    if isinstance(error, FileNotFoundError):
        complain(f"{name}: no such command")
        return NOT_FOUND
    complain(f"{name}: cannot be run: {error.strerror}")
    return CANNOT_RUN


def _write(record: Path, spool: Path, say: Callable[[str], None]) -> None:
    entries, notes = read_spool(spool)
    for note in notes:
        say(f"note: {note}")
    if not entries:
        say(f"{record}: nothing was asked for, and nothing written")
        return
    lockfile = merge_into(record, entries)
    asked = ", ".join(sorted({entry.asked_by for entry in entries if entry.asked_by}))
    count = "1 checkpoint" if len(entries) == 1 else f"{len(entries)} checkpoints"
    say(f"{record}: {count} recorded ({asked}), {len(lockfile.entries)} in all")
