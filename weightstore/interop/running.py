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
from weightstore.errors import InvalidInput, StoreError, WeightStoreError
from weightstore.interop.recording import Recorder, merge_into, read_spool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

# As env(1) says it: found but not executable, and not found.
CANNOT_RUN = 126
NOT_FOUND = 127
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# What a terminal sends to all of its foreground, the program included.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


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
    before, site = found.get("PYTHONPATH", ""), str(site_directory())
    # As it stands: an empty entry is the current directory.
    if before != site and not before.startswith(site + os.pathsep):
        found["PYTHONPATH"] = f"{site}{os.pathsep}{before}" if before else site
    found["WEIGHTSTORE_HOOK"] = "on"
    if spool is not None:  # else that of a run around this one goes on
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
        StoreError: the record cannot be written in the end. What was recorded is kept, and the error says where.
    """
    for path in settings.locked:
        if os.pathsep in str(path):
            raise InvalidInput(f"{path}: a lockfile's path cannot contain {os.pathsep!r}, which parts paths")
        Lockfile.read(path)
    if settings.record is not None:
        if not settings.record.parent.is_dir():
            raise InvalidInput(f"{settings.record}: there is no directory to write it to")
        if not os.access(settings.record.parent, os.W_OK | os.X_OK):
            raise InvalidInput(f"{settings.record}: its directory cannot be written to")
        if settings.record.exists():
            Lockfile.read(settings.record)
    argv = list(command)
    if argv[0].endswith(".py") and os.path.isfile(argv[0]) and not os.access(argv[0], os.X_OK):
        argv.insert(0, python)
    if settings.record is None:
        return _replace(argv, environment(settings, environ), complain)
    spool = Path(tempfile.mkdtemp(prefix="weightstore-"))
    code = _supervise(argv, environment(settings, environ, spool=spool), complain)
    outer = environ.get("WEIGHTSTORE_SPOOL")
    try:
        _write(settings.record, spool, say, outer=Path(outer) if outer else None)
    except WeightStoreError as error:
        raise StoreError(place=str(settings.record), reason=f"{error}. What was asked for is kept in {spool}") from None
    shutil.rmtree(spool, ignore_errors=True)
    return code


def _replace(argv: list[str], environ: dict[str, str], complain: Callable[[str], None]) -> int:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and a program that it becomes would, too
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, environ)  # noqa: S606 - no shell is wanted
    except OSError as error:
        return _not_run(argv[0], error, complain)


def _supervise(argv: list[str], environ: dict[str, str], complain: Callable[[str], None]) -> int:
    try:
        child = subprocess.Popen(argv, env=environ, close_fds=False)
    except OSError as error:
        return _not_run(argv[0], error, complain)

    def forward(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    def outlive(number: int, frame: FrameType | None) -> None:
        if not _is_in_foreground():  # then somebody sent it to us alone
            forward(number, frame)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    before |= {number: signal.signal(number, outlive) for number in _FROM_TERMINAL}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _is_in_foreground() -> bool:
    """Tell whether this process is in the foreground of a terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _not_run(name: str, error: OSError, complain: Callable[[str], None]) -> int:
    if isinstance(error, FileNotFoundError):
        complain(f"{name}: no such command")
        return NOT_FOUND
    complain(f"{name}: cannot be run: {error.strerror}")
    return CANNOT_RUN


def _write(record: Path, spool: Path, say: Callable[[str], None], *, outer: Path | None) -> None:
    if not spool.is_dir():
        say(f"{record}: what was asked for is lost: {spool} was removed meanwhile")
        return
    entries, notes = read_spool(spool)
    for note in notes:
        say(f"note: {note}")
    if not entries:
        say(f"{record}: nothing was asked for, and nothing written")
        return
    if outer is not None and outer.is_dir():
        around = Recorder([outer])
        for entry in entries:
            around.add(entry)
    lockfile = merge_into(record, entries)
    asked = ", ".join(sorted({entry.asked_by for entry in entries if entry.asked_by}))
    count = "1 checkpoint" if len(entries) == 1 else f"{len(entries)} checkpoints"
    say(f"{record}: {count} recorded ({asked}), {len(lockfile.entries)} in all")
