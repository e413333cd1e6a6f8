"""Checkpoints of random weights, of the right names and shapes, as the real ones are published.

The real ones are not to be had here, and need not be: what is shown is that a library loads what the store holds for
the source that it asks for. ``python -m tests.libraries.making PROGRAM DIRECTORY`` makes those of one program.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.libraries.inside import close_network, tensor_digests

LISTING = "made.json"
# Nobody's commit: what a branch means is looked up in the store and not on the Hub.
COMMIT = "5eed" * 10


@dataclass(frozen=True, slots=True)
class Made:
    """One file, and the digests of its tensors by their names. ``commit`` is what the revision of a Hub file means."""

    source: str
    file: str
    commit: str
    tensors: Mapping[str, str]


class Maker:
    """Saves checkpoints into a directory, under the sources that libraries ask for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made: list[Made] = []

    def url(
        self, url: str, state: Mapping[str, Any], *, under: str = "", becomes: Mapping[str, Any] | None = None
    ) -> None:
        """Save what ``torch.load`` reads, for a URL.

        Args:
            url: where it would come from.
            state: a state dict.
            under: the entry of a checkpoint that the state dict is, where it is not all.
            becomes: what a library makes of it when it loads it, where that is another state dict.
        """
        import torch

        file = self._next()
        torch.save({under: state} if under else state, file)
        self._add(url, file, state if becomes is None else becomes)

    def hub(self, repo: str, name: str, content: Mapping[str, Any] | bytes, *, revision: str = "main") -> None:
        """Save a file of a repository: safetensors of a state dict, or bytes as they are."""
        from safetensors.torch import save_file

        file = self._next()
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            save_file({name: tensor.contiguous() for name, tensor in content.items()}, file)
        commit = COMMIT if revision == "main" else revision
        self._add(f"hf://{repo}@{revision}/{name}", file, {} if isinstance(content, bytes) else content, commit=commit)

    def _next(self) -> Path:
        return self.directory / f"{len(self.made)}.bin"

    def _add(self, source: str, file: Path, state: Mapping[str, Any], *, commit: str = "") -> None:
        self.made.append(Made(source, file.name, commit, tensor_digests(state)))

    def write_listing(self) -> None:
        (self.directory / LISTING).write_text(json.dumps([asdict(one) for one in self.made]))


def read_listing(directory: Path) -> list[Made]:
    return [Made(**one) for one in json.loads((directory / LISTING).read_text())]


def randomised(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give every floating-point tensor of a state dict random numbers, in place, and return it.

    What is quantized is random already, by its layer's initialisation; indices are no weights, and stay.
    """
    import torch

    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        if name.endswith(("min_val", "max_val")):
            continue  # seen by an observer, the one no larger than the other
        if tensor.is_floating_point() and not tensor.is_quantized:
            tensor.detach().normal_()
        elif name.endswith("num_batches_tracked"):
            tensor.random_(1, 1 << 40)
    return state


def main(name: str, directory: Path) -> None:
    close_network()
    import torch

    from tests.libraries.programs import program_of

    torch.manual_seed(zlib.crc32(name.encode()))
    maker = Maker(directory)
    with torch.no_grad():
        program_of(name).make(maker)
    maker.write_listing()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
