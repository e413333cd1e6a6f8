"""Checkpoints of TorchVision's shapes: ``python -m benchmarks.checkpoints MODEL PTH SAFETENSORS``.

TorchVision's builder fills them with random numbers, as it does before any training. What it fills with zeros (the last
layer of a ViT) becomes random as well, so that the output says whether the weights were loaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torchvision


def make(builder: str, pth: Path, safetensors: Path) -> None:
    """Write a model's state dict as TorchVision publishes it, and, where safetensors is installed, as timm does."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(builder)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    state = model.state_dict()
    torch.save(state, pth)
    try:
        from safetensors.torch import save_file
    except ModuleNotFoundError:
        return
    save_file(state, safetensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("builder")
    parser.add_argument("pth", type=Path)
    parser.add_argument("safetensors", type=Path)
    arguments = parser.parse_args()
    make(arguments.builder, arguments.pth, arguments.safetensors)
