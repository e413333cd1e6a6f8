"""What TorchVision's builders find in ``torchvision.models._utils`` beside the weights API."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch  # TorchScript reads the annotations of forward()
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping


class IntermediateLayerGetter(nn.ModuleDict):  # type: ignore[misc]
    """A model's layers up to the last that is wanted, and the outputs of those that are.

    Layers are called one after the other in the order of their registration, each once, as the model's own ``forward``
    is supposed to do. Only direct children can be named.
    """

    _version = 2
    # For TorchScript, which reads the type of an attribute here.
    __annotations__ = {"return_layers": dict[str, str]}

    def __init__(self, model: nn.Module, return_layers: Mapping[str, str]) -> None:
        """Take the layers of a model.

        Args:
            model: whose children are taken, not copied.
            return_layers: the names of children, each with the name that its output gets.

        Raises:
            ValueError: the model has no child of such a name.
        """
        children = OrderedDict(model.named_children())
        wanted = {str(name): str(new) for name, new in return_layers.items()}
        if not wanted.keys() <= children.keys():
            raise ValueError("return_layers are not present in model")
        names = list(children)
        last = max((names.index(name) for name in wanted), default=0)
        super().__init__(OrderedDict((name, children[name]) for name in names[: last + 1]))
        self.return_layers = return_layers

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the wanted outputs by their new names, in the order of the layers."""
        out = OrderedDict()
        for name, module in self.items():
            x = module(x)
            if name in self.return_layers:
                out[self.return_layers[name]] = x
        return out


def make_divisible(v: float, divisor: int, min_value: int | None = None) -> int:
    """Return the multiple of ``divisor`` next to ``v``, not below 0.9 ``v`` and not below ``min_value``.

    For numbers of channels (MobileNetV2 and later, in the authors' TensorFlow code).
    """
    nearest = max(divisor if min_value is None else min_value, int(v + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * v else nearest
