"""A photograph of a cat, and what models say it shows."""

from __future__ import annotations

import importlib
import importlib.machinery
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightstore.errors import MissingDependency

if TYPE_CHECKING:
    from weightstore.weights.enum import WeightsEnum

_NEEDED = ("torch", "torchvision", "efficientnet_lite_pytorch", "PIL")


def import_needed() -> None:
    """Import what building and asking models takes: a second or more.

    Raises:
        MissingDependency: something is not installed.
    """
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            raise MissingDependency(package=name, purpose="classifying a photograph", extra="demo-models") from None


def find_photograph() -> Path:
    """Return the photograph of Chelsea, a cat, that scikit-image ships: 451 x 300 pixels, in the public domain.

    Raises:
        MissingDependency: scikit-image is not installed, or ships it no more.
    """
    spec = importlib.machinery.PathFinder.find_spec("skimage")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place, "data", "chelsea.png")
        if path.is_file():
            return path
    raise MissingDependency(package="scikit-image", purpose="classifying a photograph", extra="demo-models")


def classify(model: Any, weights: WeightsEnum, photograph: Path, *, top: int = 5) -> list[tuple[str, float]]:
    """Return what a photograph shows: the names of the likeliest categories, each with its probability, 0 to 1.

    Args:
        model: takes a float tensor (1, 3, H, W) and returns logits (1, categories).
        weights: those of the model; says how to preprocess, and what the categories are called.
        photograph: an image file.
        top: how many.
    """
    import torch
    from PIL import Image

    with Image.open(photograph) as image:
        batch = weights.transforms()(image.convert("RGB")).unsqueeze(0)
    with torch.inference_mode():
        probabilities = model(batch).softmax(dim=1)[0]
    values, indices = probabilities.topk(top)
    names = weights.meta.categories
    return [(names[index], value) for index, value in zip(indices.tolist(), values.tolist(), strict=True)]
