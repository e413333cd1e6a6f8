"""The functions that are answered from the store, and what must be so for us to know them."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightstore.interop.hook.swap import Handler, Swap

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightstore.interop.hook.session import Session


@dataclass(frozen=True, slots=True)
class Target:
    """A function of another library. ``handler`` is ``module:function`` of ours, imported when it is needed.

    ``needed`` are the parameters that we use, ``known`` all others that we know to leave alone: a version with any
    further one may mean something that we do not know.
    """

    module: str
    path: str
    handler: str
    needed: tuple[str, ...]
    known: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.module}.{self.path}"

    def misfit(self, function: object) -> str:
        """Return why a function is none that we know, or an empty string."""
        if not isinstance(function, types.FunctionType):
            return f"it is a {type(function).__name__}, and no function"
        names = list(inspect.signature(function).parameters)
        if missing := [name for name in self.needed if name not in names]:
            return f"it has no parameter {missing[0]!r}"
        if unknown := [name for name in names if name not in self.needed + self.known]:
            return f"it has a parameter {unknown[0]!r}, which this weightstore does not know"
        return ""


_HUB = "weightstore.interop.hook.torch_hub"
_CACHE = "weightstore.interop.hook.hub_cache"
# Of all versions of huggingface_hub from 0.20 to 2.
_HF_KNOWN = (
    "repo_type",
    "library_name",
    "library_version",
    "local_dir",
    "local_dir_use_symlinks",
    "user_agent",
    "force_download",
    "proxies",
    "etag_timeout",
    "token",
    "headers",
    "endpoint",
    "resume_download",
    "force_filename",
    "legacy_cache_layout",
    "tqdm_class",
    "dry_run",
    "max_workers",
)
TARGETS = (
    Target(
        "torch.hub",
        "load_state_dict_from_url",
        f"{_HUB}:load_state_dict_from_url",
        ("url", "model_dir", "map_location", "progress", "check_hash", "file_name", "weights_only"),
    ),
    Target(
        "torch.hub",
        "download_url_to_file",
        f"{_HUB}:download_url_to_file",
        ("url", "dst", "hash_prefix", "progress"),
    ),
    Target(
        "huggingface_hub.file_download",
        "hf_hub_download",
        f"{_CACHE}:hf_hub_download",
        ("repo_id", "filename", "subfolder", "revision", "cache_dir", "local_files_only"),
        _HF_KNOWN,
    ),
    Target(
        "huggingface_hub._snapshot_download",
        "snapshot_download",
        f"{_CACHE}:snapshot_download",
        ("repo_id", "revision", "cache_dir", "local_files_only", "allow_patterns", "ignore_patterns"),
        _HF_KNOWN,
    ),
    Target(
        "urllib.request",
        "OpenerDirector.open",
        "weightstore.interop.hook.web:open_url",
        ("self", "fullurl", "data", "timeout"),
    ),
)
MODULES = frozenset(target.module for target in TARGETS)


class Swaps:
    """The functions that are swapped now, and what was said of those that are not."""

    def __init__(self, session: Callable[[], Session | None]) -> None:
        self._session = session
        self._made: dict[str, Swap] = {}

    def swap_in(self, module: types.ModuleType) -> None:
        """Swap the functions of a module that has just been imported, or was before."""
        for target in TARGETS:
            if target.module != module.__name__ or target.name in self._made:
                continue
            function: Any = module
            for step in target.path.split("."):
                function = getattr(function, step, None)
            misfit = target.misfit(function)
            if misfit:
                if (session := self._session()) is not None:
                    session.note(f"{target.name} is left alone: {misfit}")
                continue
            self._made[target.name] = Swap(target.name, function, self._handler(target))

    def swap_all(self) -> None:
        """Swap the functions of all modules that are imported already."""
        for name in MODULES:
            module = sys.modules.get(name)
            # Of one whose import is under way we are told at its end.
            if module is not None and not getattr(module.__spec__, "_initializing", False):
                self.swap_in(module)

    def restore(self) -> None:
        """Give all functions their own code back."""
        for swap in self._made.values():
            swap.restore()
        self._made.clear()

    def names(self) -> frozenset[str]:
        return frozenset(self._made)

    def _handler(self, target: Target) -> Handler:
        place, _, name = target.handler.partition(":")
        function = getattr(importlib.import_module(place), name)

        @functools.wraps(function)
        def handle(original: Callable[..., Any], given: inspect.BoundArguments) -> Any:
            session = self._session()
            if session is None:  # turned off by another thread, after this call began
                return original(*given.args, **given.kwargs)
            return function(original, given, session=session)

        return handle
