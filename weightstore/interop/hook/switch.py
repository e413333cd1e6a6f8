"""Turning the hook on and off."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import InvalidInput, WeightStoreError
from weightstore.interop.hook.session import Session
from weightstore.interop.hook.targets import MODULES, Swaps
from weightstore.interop.recording import Recorder, merge_into, read_spool
from weightstore.interop.site.weightstore_start import Watch

if TYPE_CHECKING:
    import types
    from collections.abc import Iterable, Iterator

    from weightstore.config import Link

    Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class _State:
    """One setting of the hook, and the lockfile that is to be written when it ends, by the process that began it.

    ``session`` is an error where the setting cannot be used and the hook is on all the same: whoever asks for weights
    gets it. That is what a program that runs under the hook is owed, which may rely on being offline or locked.
    """

    def __init__(
        self, session: Session | WeightStoreError, lockfile: Path | None = None, spool: Path | None = None
    ) -> None:
        self.session = session
        self._lockfile = lockfile
        self._spool = spool
        self._process = os.getpid()

    def finish(self) -> None:
        """Write what was recorded.

        Raises:
            WeightStoreError: it cannot be written. What was recorded is kept, and the error says where.
        """
        if self._spool is None or self._lockfile is None or os.getpid() != self._process:
            return
        if not self._spool.exists():
            return
        try:
            entries, notes = read_spool(self._spool)
            if entries:
                merge_into(self._lockfile, entries)
        except WeightStoreError as error:
            error.add_note(f"What was asked for is kept in {self._spool}")
            raise
        shutil.rmtree(self._spool, ignore_errors=True)
        if isinstance(self.session, Session):
            for note in notes:
                self.session.note(note)


# The last one counts. Several threads may have settings of their own inside of `with`.
_stack: list[_State] = []
_swaps: Swaps | None = None
_watch: Watch | None = None
_lock = threading.RLock()


def _new_lock() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_new_lock)  # another thread of the parent may have held it


def enable(
    *,
    offline: bool | None = None,
    locked: Paths = (),
    record: str | os.PathLike[str] | None = None,
    link: Link | None = None,
    config: Config | None = None,
) -> None:
    """Have other libraries' downloads of weights answered from the store, in this process and those it forks.

    Reached are ``torch.hub.load_state_dict_from_url`` and ``download_url_to_file`` (and so ``torch.utils.model_zoo``,
    TorchVision, timm and whoever else calls them, however they bound the functions), ``hf_hub_download`` and
    ``snapshot_download`` of huggingface_hub, and requests for checkpoints by ``urllib.request``; of modules that are
    not imported yet too. A function whose signature is not known is left alone, and a note says so. Calling it again
    replaces the setting; that of a recorded run goes on recording.

    Args:
        offline: open no connection; by default as configured.
        locked: lockfiles whose digests count for the sources that they name, over digits in a file's name.
        record: a lockfile to which everything that is asked for is added, when the hook is turned off or the process
            ends.
        link: how files appear in other libraries' caches: ``reflink``, ``symlink``, ``hardlink``, ``copy``, or
            ``auto``, a reflink where the file system can and a symbolic link elsewhere; by default as configured.
        config: the settings; by default those of the environment.

    Raises:
        InvalidInput, InvalidRecord: a setting or lockfile that cannot be used; the hook is as it was.
    """
    state = _state(offline=offline, locked=locked, record=record, link=link, config=config)
    _settle()
    with _lock:
        ended = list(_stack)
        _stack[:] = [state]
        _swap_all()
    _finish(ended)


def disable() -> None:
    """Turn the hook off: all functions are what they were. Nothing happens where it is not on.

    Raises:
        StoreError: the lockfile of a recorded run cannot be written.
    """
    _settle()
    with _lock:
        ended = list(_stack)
        _stack.clear()
        _swap_none()
    _finish(ended)


@contextlib.contextmanager
def enabled(
    *,
    offline: bool | None = None,
    locked: Paths = (),
    record: str | os.PathLike[str] | None = None,
    link: Link | None = None,
    config: Config | None = None,
) -> Iterator[None]:
    """Turn the hook on inside of a ``with``; afterwards it is as it was before. Arguments as for :func:`enable`.

    The setting is the process's, not the thread's: of several that overlap in time the one that began last counts.
    """
    state = _state(offline=offline, locked=locked, record=record, link=link, config=config)
    _settle()
    with _lock:
        _stack.append(state)
        _swap_all()
    try:
        yield
    finally:
        with _lock:
            is_ours = state in _stack
            if is_ours:
                _stack.remove(state)
            if not _stack:
                _swap_none()
        if is_ours:
            _finish([state])


def enable_recorded(spool: Path | None) -> None:
    """Turn the hook on as a run does in each of its processes; the run itself writes the lockfile."""
    try:
        session: Session | WeightStoreError = _session(recorders=[spool] if spool is not None else [])
    except WeightStoreError as error:
        sys.stderr.write(f"weightstore: weights cannot be served: {error}\n")
        session = error
    with _lock:
        _stack.append(_State(session))
        _swap_all()


def _state(
    *,
    offline: bool | None,
    locked: Paths,
    record: str | os.PathLike[str] | None,
    link: Link | None,
    config: Config | None,
) -> _State:
    lockfile = spool = None
    if record is not None:
        lockfile = Path(record).absolute()
        if not lockfile.parent.is_dir():
            raise InvalidInput(f"{lockfile}: there is no directory to write it to")
    inherited = os.environ.get("WEIGHTSTORE_SPOOL")
    spools = [Path(inherited)] if inherited else []
    # Before the spool, which would be left behind.
    session = _session(offline=offline, locked=locked, link=link, config=config, recorders=spools)
    if lockfile is not None:
        spool = Path(tempfile.mkdtemp(prefix="weightstore-"))
        session.recorder = Recorder([*spools, spool])
    return _State(session, lockfile, spool)


def _session(
    *,
    offline: bool | None = None,
    locked: Paths = (),
    link: Link | None = None,
    config: Config | None = None,
    recorders: list[Path],
) -> Session:
    from weightstore.catalog.lockfile import Lockfile  # start-up: not for a process that only imports torch

    config = config or Config.load()
    if offline is not None:
        config = config.but(offline=offline)
    paths = [locked] if isinstance(locked, str | os.PathLike) else [*locked]
    lockfiles = [Lockfile.read(Path(path)) for path in (*paths, *config.locked)]
    client = Client(config)
    recorder = Recorder(recorders) if recorders else None
    return Session(client, lockfiles=lockfiles, link=link or config.link, recorder=recorder, note=client.note)


def _settle() -> None:
    """Let what waits in this process since its start turn the hook on first: its setting is the outermost."""
    start = sys.modules.get("weightstore_start")
    if start is not None:
        start.settle()


def _swap_all() -> None:
    global _swaps, _watch  # noqa: PLW0603 - what is swapped is the process's
    if _swaps is None:
        _swaps = Swaps(_current)
        _watch = Watch(MODULES, swap_in)
        _watch.start()
        atexit.register(disable)
    _swaps.swap_all()


def _swap_none() -> None:
    global _swaps, _watch  # noqa: PLW0603
    if _swaps is not None and _watch is not None:
        _watch.stop()
        _swaps.restore()
        _swaps = _watch = None
        atexit.unregister(disable)


def _finish(states: list[_State]) -> None:
    for state in states:
        state.finish()


def swap_in(module: types.ModuleType) -> None:
    """Reach a module that has just been imported, if the hook is on."""
    with _lock:
        if _swaps is not None:
            _swaps.swap_in(module)


def _current() -> Session | WeightStoreError | None:
    try:
        return _stack[-1].session
    except IndexError:
        return None
