from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from weightstore.client import Client
from weightstore.config import Config

Save = Callable[..., Path]

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(Config(home=tmp_path / "store", state=tmp_path / "state", offline=True))


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save something by torch, in the zip format or, with ``legacy``, the one before."""

    def save(value: Any, name: str = "weights.pth", *, legacy: bool = False) -> Path:
        path = tmp_path / name
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)
        return path

    return save


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Tell whether two tensors are the same in every bit, NaN included, and in everything said about them."""
    if (left.dtype, left.shape, left.stride(), left.requires_grad, type(left)) != (
        right.dtype,
        right.shape,
        right.stride(),
        right.requires_grad,
        type(right),
    ):
        return False
    left, right = left.detach().contiguous().reshape(-1), right.detach().contiguous().reshape(-1)
    return left.numel() == 0 or torch.equal(left.view(torch.uint8), right.view(torch.uint8))
