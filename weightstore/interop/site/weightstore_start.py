"""Turning the hook on in a process that has just started, once it imports something that downloads weights.

A process that never does pays for reading this file, and nothing else: that is why it imports nothing, weightstore's
other modules least of all.
"""

from __future__ import annotations

import _thread
import sys

TYPE_CHECKING = False  # importing typing costs more than all that happens here
if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Collection, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

_WEIGHTS = ("torch.hub", "huggingface_hub.file_download", "huggingface_hub._snapshot_download")
_WEB = "urllib.request"
_SWITCH = "weightstore.interop.hook.switch"


class Watch:
    """A finder that finds nothing by itself: it has the others find, and calls back when the module has run."""

    def __init__(self, names: Collection[str], then: Callable[[types.ModuleType], None]) -> None:
        self._names = frozenset(names)
        self._then = then
        # Who asks, and for what. Another watch among the finders asks us in turn.
        self._asking: set[tuple[int, str]] = set()

    def start(self) -> None:
        sys.meta_path.insert(0, self)

    def stop(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        question = (_thread.get_ident(), name)
        if name not in self._names or question in self._asking:
            return None
        self._asking.add(question)
        try:
            for finder in list(sys.meta_path):
                spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
                if spec is not None:
                    if hasattr(spec.loader, "exec_module"):
                        self._call_back(spec.loader, name)
                    return spec
        finally:
            self._asking.discard(question)
        return None

    def _call_back(self, loader: Any, name: str) -> None:
        run = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            run(module)
            if module.__name__ == name:
                self._then(module)

        # On the object, which is made for this module; of one that is shared (an archive's) the name decides.
        loader.exec_module = exec_module


class _Waiting:
    """Waits for a module that downloads weights, and for the first request by urllib."""

    def __init__(self, spool: str | None) -> None:
        self._spool = spool
        self._watch = Watch((*_WEIGHTS, _WEB), self._imported)
        self._lock = _thread.allocate_lock()
        self._is_over = False
        self._open: Any = None
        self._code: Any = None

    def start(self) -> None:
        self._watch.start()

    def _imported(self, module: types.ModuleType) -> None:
        if module.__name__ == _WEB and not self._is_over:
            # Half of all programs import urllib.request, and few ask for anything. It is the function's code that is
            # changed: who wraps the function later calls the function, and so do those who hold it.
            self._open = module.OpenerDirector.open
            self._code = self._open.__code__
            self._open.__code__ = _first.__code__
            return
        self.over()
        # The import of this module is not over for the hook, which waits for the end of those that it finds under way.
        switch = sys.modules.get(_SWITCH)
        if switch is not None:
            switch.swap_in(module)

    def first_request(self, args: Any, kwargs: Any) -> Any:
        self.over()
        return self._open(*args, **kwargs)

    def over(self) -> None:
        """Turn the hook on, if nobody has; who comes meanwhile waits."""
        with self._lock:
            if self._is_over:
                return
            self._watch.stop()
            _turn_on(self._spool)
            if self._open is not None and self._open.__code__ is _first.__code__:
                self._open.__code__ = self._code  # the hook could not be turned on
            self._is_over = True

    @property
    def functions(self) -> dict[str, Any]:
        """What functions are, whatever somebody has put in their places since, and their own code."""
        return {} if self._open is None else {f"{_WEB}.OpenerDirector.open": (self._open, self._code)}


_waiting: _Waiting | None = None


def _first(*args: Any, **kwargs: Any) -> Any:
    import weightstore_start  # type: ignore[import-not-found]  # by the name that it has in a process that waits

    return weightstore_start.first_request(args, kwargs)


def first_request(args: Any, kwargs: Any) -> Any:
    """Do what the first request by urllib asked for, with the hook on."""
    assert _waiting is not None  # noqa: S101 - for mypy: its code is swapped only by what waits
    return _waiting.first_request(args, kwargs)


def functions() -> dict[str, Any]:
    """Return the functions that were seen before anybody could replace them, by name, with their own code."""
    return {} if _waiting is None else _waiting.functions


def settle() -> None:
    """Stop waiting, and turn the hook on as the run said, if this process waits."""
    if _waiting is not None:
        _waiting.over()


def begin() -> None:
    """Wait for a module that downloads weights, unless the environment says not to, or this process waits already."""
    global _waiting  # noqa: PLW0603 - one a process, whoever asks: a run, an environment's autoload, or both
    import os  # the interpreter has it already

    if _waiting is not None or os.environ.get("WEIGHTSTORE_HOOK", "on").lower() in {"off", "0", "no", "false"}:
        return
    _waiting = _Waiting(os.environ.get("WEIGHTSTORE_SPOOL") or None)
    _waiting.start()


def _turn_on(spool: str | None) -> None:
    try:
        from weightstore.interop.hook.switch import enable_recorded
    except ModuleNotFoundError as error:
        what = "weightstore is not installed" if error.name == "weightstore" else f"{error.name} is missing"
        sys.stderr.write(f"weightstore: {what} for {sys.executable}; its downloads do not come from the store\n")
        return
    from pathlib import Path

    enable_recorded(Path(spool) if spool else None)
