"""Turning the hook on in a process that has just started, once it imports something that downloads weights.

A process that never does pays for reading this file, and nothing else: that is why it imports nothing, weightstore's
other modules least of all.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing costs more than all that happens here
if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Collection, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

_WEIGHTS = ("torch.hub", "huggingface_hub.file_download", "huggingface_hub._snapshot_download")
_WEB = "urllib.request"


class Watch:
    """A finder that finds nothing by itself: it has the others find, and calls back when the module has run."""

    def __init__(self, names: Collection[str], then: Callable[[types.ModuleType], None]) -> None:
        self._names = frozenset(names)
        self._then = then

    def start(self) -> None:
        sys.meta_path.insert(0, self)

    def stop(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    self._call_back(spec.loader, name)
                return spec
        return None

    def _call_back(self, loader: Any, name: str) -> None:
        run = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            run(module)
            if module.__name__ == name:
                self._then(module)

        # On the object, which is made for this module; of one that is shared (an archive's) the name decides.
        loader.exec_module = exec_module


def begin() -> None:
    """Wait for a module that downloads weights, unless the environment says not to."""
    import os  # the interpreter has it already

    if os.environ.get("WEIGHTSTORE_HOOK", "on").lower() in {"off", "0", "no", "false"}:
        return

    undo: list[Callable[[], None]] = []
    is_on = False

    def imported(module: types.ModuleType) -> None:
        if module.__name__ == _WEB and not is_on:
            undo.append(_wait_for_request(module, turn_on))
            return
        if not is_on:
            turn_on()
        # The import of this module is not over for the hook, which waits for the end of those that it finds under way.
        _swap_in(module)

    def turn_on() -> None:
        nonlocal is_on
        is_on = True
        watch.stop()
        while undo:
            undo.pop()()
        _turn_on(os.environ.get("WEIGHTSTORE_SPOOL") or None)

    watch = Watch((*_WEIGHTS, _WEB), imported)
    watch.start()


def _wait_for_request(module: Any, turn_on: Callable[[], None]) -> Callable[[], None]:
    """Turn the hook on at the first request: half of all programs import urllib.request, and few ask for anything.

    Returns what undoes the waiting.
    """
    director = module.OpenerDirector
    original = director.open

    def open(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: A001 - the method's name
        turn_on()
        return director.open(self, *args, **kwargs)

    def undo() -> None:
        if director.open is open:
            director.open = original

    director.open = open
    return undo


def _swap_in(module: types.ModuleType) -> None:
    switch = sys.modules.get("weightstore.interop.hook.switch")
    if switch is not None:
        switch.swap_in(module)


def _turn_on(spool: str | None) -> None:
    try:
        from weightstore.interop.hook.switch import enable_recorded
    except ModuleNotFoundError as error:
        what = "weightstore is not installed" if error.name == "weightstore" else f"{error.name} is missing"
        sys.stderr.write(f"weightstore: {what} for {sys.executable}; its downloads do not come from the store\n")
        return
    from pathlib import Path

    from weightstore.errors import WeightStoreError

    try:
        enable_recorded(Path(spool) if spool else None)
    except WeightStoreError as error:
        # Not raised: whoever imports torch has not asked for anything yet. Not passed over either.
        sys.stderr.write(f"weightstore: downloads do not come from the store: {error}\n")
