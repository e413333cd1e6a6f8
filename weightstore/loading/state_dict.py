"""State dicts from verified checkpoints."""

from __future__ import annotations

import fnmatch
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from weightstore.errors import InvalidCheckpoint, InvalidInput, UnsafeCheckpoint
from weightstore.loading.opening import OpenWeights, open_weights
from weightstore.loading.progress import meter_for
from weightstore.loading.requirement import require_torch

if TYPE_CHECKING:
    import torch

    from weightstore.client import Client
    from weightstore.formats.checkpoint import Checkpoint


Location: TypeAlias = "str | torch.device | Callable[[Any, str], Any] | Mapping[str, str] | None"
Mapped: TypeAlias = Literal["auto"] | bool
Trust = Literal["tensors", "pickle"]
# Where a file converted from a pickle keeps the state dict's versions, which its modules upgrade old files by.
VERSIONS_KEY = "weightstore.versions"


def load_state_dict(
    weights: object,
    *,
    map_location: Location = None,
    device: str | torch.device | None = None,
    mmap: Mapped = "auto",
    keys: str | Iterable[str] | None = None,
    trust: Trust = "tensors",
    progress: bool = True,
    client: Client | None = None,
) -> OrderedDict[str, Any]:
    """Return the state dict of some weights, fetched first where no store has them, and verified.

    A plain state dict (``.pth`` in the zip or the legacy format, ``.safetensors``) is rebuilt from its description, and
    no unpickler takes part. Other checkpoints go through ``torch.load(weights_only=True)``.

    Args:
        weights: a weights name, a member of a weights enum (ours or TorchVision's), a URL or a path.
        map_location: as in :func:`torch.load`; but None loads to the CPU, wherever the tensors were saved from.
        device: where the tensors go; the same as ``map_location`` with a device.
        mmap: whether tensors are pages of the file, copied when first written to. ``"auto"``: on local file systems, as
            pages of a network file system come one by one; there the file is read once, from front to end.
        keys: only tensors whose names match one of these globs (``"backbone.*"``); only their bytes are read.
        trust: ``"pickle"`` unpickles what a plain state dict does not need, **and so runs any code that the file
            brings**, like ``torch.load(weights_only=False)``.
        progress: whether a download draws a bar, if standard error is a terminal.
        client: finds and fetches; by default one of the environment's configuration.

    Returns:
        Tensors by name, in the file's order, with the state dict's ``_metadata`` where there is one. Of several shards
        all together. A checkpoint of another shape comes as :func:`torch.load` gives it.

    Raises:
        MissingDependency: torch is absent, or older than 2.6.
        UnsafeCheckpoint: only unpickling could load it.
        InvalidCheckpoint: it is damaged, or TorchScript, or no checkpoint.
        InvalidInput: no tensor matches ``keys``.
        WeightStoreError: as for :meth:`Client.path`.
    """
    require_torch()
    if device is not None and map_location is not None:
        raise InvalidInput("device and map_location say the same: give one of them")
    if client is None:
        from weightstore.shortcuts import default_client

        client = default_client()
    how = Loading(device if device is not None else map_location, mmap, _globs(keys), trust)
    result: OrderedDict[str, Any] | None = None
    with meter_for(progress=progress) as meter:
        for opened in open_weights(weights, client=client, meter=meter):
            with opened:
                loaded = how.load(opened)
            result = loaded if result is None else _joined(result, loaded, opened.place)
    if how.globs and not result:
        raise InvalidInput(f"no tensor is named like {' or '.join(how.globs)}. List them: weightstore inspect")
    return OrderedDict() if result is None else result


class Loading:
    """How files are to be loaded. The fields are the arguments of :func:`load_state_dict`."""

    def __init__(
        self,
        location: Location = None,
        mmap: Mapped = "auto",
        globs: tuple[str, ...] = (),
        trust: Trust = "tensors",
    ) -> None:
        self.location: Any = location
        self.mmap = mmap
        self.globs = globs
        self.trust = trust

    def load(self, opened: OpenWeights) -> Any:
        """Return what an open file holds. Errors as for :func:`load_state_dict`."""
        import torch

        from weightstore.loading.tensors import is_plain, read_tensors

        checkpoint = opened.checkpoint()
        if checkpoint.format == "torchscript":
            raise InvalidCheckpoint(
                place=opened.place,
                reason="it is a TorchScript archive, which holds a program and not only weights. "
                "If you trust it, torch.jit.load runs it",
            )
        mapped = opened.is_near() if self.mmap == "auto" else bool(self.mmap)
        chosen = [tensor for tensor in checkpoint.tensors if self._matches(tensor.name)]
        is_device = self.location is None or isinstance(self.location, str | torch.device)
        if not (is_device and is_plain(checkpoint, chosen)):
            return self._unpickle(opened, checkpoint, mapped=mapped)
        state = read_tensors(opened.fd, chosen, mapped=mapped, place=opened.place)
        if self.location is not None:
            for name, tensor in state.items():
                state[name] = tensor.to(self.location)
        _restore_versions(state, checkpoint)
        return state

    def _matches(self, name: str) -> bool:
        return not self.globs or any(fnmatch.fnmatchcase(name, glob) for glob in self.globs)

    def _unpickle(self, opened: OpenWeights, checkpoint: Checkpoint, *, mapped: bool) -> Any:
        import torch

        if checkpoint.format == "safetensors":
            raise InvalidCheckpoint(place=opened.place, reason="it has element types that this torch does not know")
        location: Any = "cpu" if self.location is None else self.location
        is_safe = self.trust != "pickle"
        try:
            if mapped and checkpoint.format == "zip" and os.path.exists(f"/proc/self/fd/{opened.fd}"):
                # By the descriptor's own name, as torch maps nothing but names: it is the file that was verified.
                place = f"/proc/self/fd/{opened.fd}"
                loaded = torch.load(place, map_location=location, weights_only=is_safe, mmap=True)
            else:
                with open(opened.fd, "rb", closefd=False) as file:
                    file.seek(0)
                    loaded = torch.load(file, map_location=location, weights_only=is_safe)
        except pickle.UnpicklingError as error:
            raise UnsafeCheckpoint(
                place=opened.place, calls=checkpoint.foreign, reason=f"is refused by torch ({_first_line(error)})"
            ) from None
        except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, ModuleNotFoundError) as error:
            if not is_safe:
                raise
            raise InvalidCheckpoint(
                place=opened.place, reason=f"torch cannot load it ({_first_line(error)})"
            ) from error
        if not self.globs:
            return loaded
        if not isinstance(loaded, Mapping):
            raise InvalidInput(f"{opened.place} has no names to choose from: it is no state dict")
        return OrderedDict((name, value) for name, value in loaded.items() if self._matches(str(name)))


def _globs(keys: str | Iterable[str] | None) -> tuple[str, ...]:
    return () if keys is None else (keys,) if isinstance(keys, str) else tuple(keys)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _restore_versions(state: OrderedDict[str, Any], checkpoint: Checkpoint) -> None:
    """Give a state dict its ``_metadata``: the versions by which modules read what older ones wrote."""
    versions: object = checkpoint.metadata
    if checkpoint.format == "safetensors":
        import json

        text = checkpoint.metadata.get(VERSIONS_KEY)
        try:
            versions = json.loads(text) if isinstance(text, str) else None
        except ValueError:
            versions = None
    if isinstance(versions, Mapping) and versions:
        # Each module's own dict: load_state_dict(assign=True) writes into them.
        kept = {key: dict(value) for key, value in versions.items() if isinstance(value, Mapping)}
        state._metadata = OrderedDict(kept)  # type: ignore[attr-defined]  # noqa: SLF001 - torch's name for it


def _joined(state: OrderedDict[str, Any], shard: Mapping[str, Any], place: str) -> OrderedDict[str, Any]:
    twice = state.keys() & shard.keys()
    if twice:
        raise InvalidCheckpoint(place=place, reason=f"it repeats {min(twice)!r} of an earlier shard")
    state.update(shard)
    return state
