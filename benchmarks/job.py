"""What a tool is asked to fetch or to load, as it travels to a worker's standard input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """One file to fetch, with what is known of it beforehand."""

    url: str
    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Model:
    """A TorchVision model to get ready, by the names of its builder and of the member of its enum."""

    builder: str
    member: str


@dataclass(frozen=True, slots=True)
class Job:
    """Files to fetch into one directory; ``str()`` and ``parse()`` are inverses.

    ``repeats`` is how often the same call is made again after the first, in the same process. ``local`` is
    where the origin keeps its files, for the tool that downloads nothing. ``model`` is what the target, which is in
    ``into`` already, is to be loaded into. ``mirror`` is asked before the targets' URLs, by those who know mirrors.
    """

    targets: tuple[Target, ...]
    into: Path
    local: Path
    repeats: int = 0
    ca_file: Path | None = None
    model: Model | None = None
    mirror: str = ""

    def __str__(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def parse(cls, text: str) -> Job:
        fields = json.loads(text)
        fields["targets"] = tuple(Target(**target) for target in fields["targets"])
        fields["model"] = Model(**fields["model"]) if fields["model"] is not None else None
        for name in ("into", "local", "ca_file"):
            fields[name] = Path(fields[name]) if fields[name] is not None else None
        return cls(**fields)
