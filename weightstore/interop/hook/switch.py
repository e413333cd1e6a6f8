"""Turning the hook on and off."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import InvalidInput
from weightstore.interop.hook.session import Session
from weightstore.interop.hook.targets import MODULES, Swaps
from weightstore.interop.recording import Recorder, merge_into, read_spool
from weightstore.interop.site.weightstore_start import Watch

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterable, Iterator

    from weightstore.config import Link


@dataclass(slots=True)
class _Recording:
    """A lockfile to be written when the hook is turned off, or the process ends, by the process that began it."""

    lockfile: Path
    spool: Path
    process: int

    def finish(self, note: Callable[[str], None]) -> None:
        if os.getpid() != self.process or not self.spool.exists():
            return
        entries, notes = read_spool(self.spool)
        for one in notes:
            note(one)
        if entries:
            merge_into(self.lockfile, entries)
        shutil.rmtree(self.spool, ignore_errors=True)


@dataclass(slots=True)
class _State:
    session: Session
    recording: _Recording | None


_state: _State | None = None
_swaps: Swaps | None = None
_watch: Watch | None = None
_lock = threading.RLock()


def enable(
    *,
    offline: bool | None = None,
    locked: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    record: str | os.PathLike[str] | None = None,
    link: Link | None = None,
    config: Config | None = None,
) -> None:
    """Have other libraries' downloads of weights answered from the store, in this process and those it forks.

    Reached are ``torch.hub.load_state_dict_from_url`` and ``download_url_to_file`` (and so ``torch.utils.model_zoo``,
    TorchVision, timm and whoever else calls them, however they bound the functions), ``hf_hub_download`` and
    ``snapshot_download`` of huggingface_hub, and requests for checkpoints by ``urllib.request``; of modules that are
    not imported yet too. A function whose signature is not known is left alone, and a note says so. Calling it again
    replaces the setting.

    Args:
        offline: open no connection; by default as configured.
        locked: lockfiles whose digests count for the sources that they name, over digits in a file's name.
        record: a lockfile to which everything that is asked for is added, when the hook is turned off or the process
            ends.
        link: how files appear in other libraries' caches: ``reflink``, ``symlink``, ``hardlink``, ``copy``, or
            ``auto``, a reflink where the file system can and a symbolic link elsewhere; by default as configured.
        config: the settings; by default those of the environment.

    Raises:
        InvalidInput, InvalidRecord: a setting or lockfile that cannot be used.
    """
    recorder = recording = None
    if record is not None:
        lockfile = Path(record).absolute()
        if not lockfile.parent.is_dir():
            raise InvalidInput(f"{lockfile}: there is no directory to write it to")
        spool = Path(tempfile.mkdtemp(prefix="weightstore-"))
        recorder, recording = Recorder(spool), _Recording(lockfile, spool, os.getpid())
    session = _session(offline=offline, locked=locked, link=link, config=config, recorder=recorder)
    _turn_on(_State(session, recording))


def _session(
    *,
    offline: bool | None = None,
    locked: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    link: Link | None = None,
    config: Config | None = None,
    recorder: Recorder | None,
) -> Session:
    from weightstore.catalog.lockfile import Lockfile  # start-up: not for a process that only imports torch

    config = config or Config.load()
    if offline is not None:
        config = config.but(offline=offline)
    paths = [locked] if isinstance(locked, str | os.PathLike) else [*locked]
    lockfiles = [Lockfile.read(Path(path)) for path in (*paths, *config.locked)]
    client = Client(config)
    return Session(client, lockfiles=lockfiles, link=link or config.link, recorder=recorder, note=client.note)


def enable_recorded(spool: Path | None) -> None:
    """Turn the hook on as a recorded run does in each of its processes; the run itself writes the lockfile."""
    recorder = Recorder(spool) if spool is not None else None
    _turn_on(_State(_session(recorder=recorder), None))


def _turn_on(state: _State) -> None:
    global _state, _swaps, _watch  # noqa: PLW0603 - what is swapped is the process's
    with _lock:
        before = _state
        _state = state
        if _swaps is None:
            _swaps = Swaps(_current)
            _watch = Watch(MODULES, _swaps.swap_in)
            _watch.start()
            atexit.register(disable)
        _swaps.swap_all()
        if before is not None and before.recording is not None:
            before.recording.finish(before.session.note)


def swap_in(module: types.ModuleType) -> None:
    """Reach a module that has just been imported, if the hook is on."""
    with _lock:
        if _swaps is not None:
            _swaps.swap_in(module)


def _current() -> Session | None:
    return None if _state is None else _state.session


def disable() -> None:
    """Turn the hook off: all functions are what they were. Nothing happens where it is not on.

    Raises:
        StoreError: the lockfile of a recorded run cannot be written.
    """
    global _state, _swaps, _watch  # noqa: PLW0603
    with _lock:
        state, _state = _state, None
        if _swaps is not None and _watch is not None:
            _watch.stop()
            _swaps.restore()
            _swaps = _watch = None
            atexit.unregister(disable)
        if state is not None and state.recording is not None:
            state.recording.finish(state.session.note)


@contextlib.contextmanager
def enabled(
    *,
    offline: bool | None = None,
    locked: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    record: str | os.PathLike[str] | None = None,
    link: Link | None = None,
    config: Config | None = None,
) -> Iterator[None]:
    """Turn the hook on inside of a ``with``; afterwards it is as it was before. Arguments as for :func:`enable`."""
    global _state
    with _lock:
        before, _state = _state, None
    try:
        enable(offline=offline, locked=locked, record=record, link=link, config=config)
        yield
    finally:
        if before is None:
            disable()
        else:
            _turn_on(before)


def is_enabled() -> bool:
    """Tell whether the hook is on."""
    return _state is not None
