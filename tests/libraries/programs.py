"""The programs: each library used as its own README shows it, and the checkpoints that it will ask for.

The lines of a program know nothing of weightstore. ``look`` is an expression, evaluated after them, of the state that
was loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tests.libraries.making import Maker, randomised

View: TypeAlias = Literal["torch-hub", "huggingface", "fvcore"]


@dataclass(frozen=True, slots=True)
class Program:
    """A library's use.

    Attributes:
        name: what the test is called.
        package: the distribution that asks for the weights, as it is installed.
        use: the program's lines.
        look: an expression of what was loaded, a state dict.
        make: saves the checkpoints that the program asks for.
        view: the kind of view that it finds them in.
        renames: whether the library gives the tensors of the checkpoint other names.
        unused: beginnings of names of tensors that the library leaves out.
        only_by: the one way for which it is; empty for all.
    """

    name: str
    package: str
    use: str
    look: str
    make: Callable[[Maker], None]
    view: View = "torch-hub"
    renames: bool = False
    unused: tuple[str, ...] = ()
    only_by: str = ""


# -- TorchVision ------------------------------------------------------------------------------------------------------


def torchvision_model(name: str) -> Program:
    """Return the program that builds a model with its DEFAULT weights."""
    quantize = ", quantize=True" if name.startswith("quantized_") else ""
    return Program(
        name,
        "torchvision",
        use=f'from torchvision.models import get_model\nmodel = get_model("{name}", weights="DEFAULT"{quantize})',
        look="model.state_dict()",
        make=lambda maker: _make_torchvision(maker, name),
        unused=("aux1.", "aux2."),  # trained with, and dropped by the builder
    )


def _make_torchvision(maker: Maker, name: str) -> None:
    from torchvision.models import _api, get_model

    config = {"quantize": True} if name.startswith("quantized_") else {}

    def build() -> Any:
        return get_model(name, weights="DEFAULT", **config)

    url, state = _capture(_api, build)
    becomes = None
    if name == "quantized_mobilenet_v3_large":  # it loads what was observed in training, and converts that
        _api.load_state_dict_from_url = lambda *args, **kwargs: state
        becomes = build().state_dict()
    maker.url(url, state, becomes=becomes)


def _make_implicit_backbone(maker: Maker) -> None:
    from torchvision.models import _api
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    maker.url(*_capture(_api, lambda: fasterrcnn_mobilenet_v3_large_320_fpn(num_classes=2)))


class _Reached(Exception):
    pass


def _capture(module: Any, build: Callable[[], Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the URL that a builder asks its module's loading function for, and random weights as it would load them.

    Nothing else tells what a checkpoint holds: some builders load one and then cut the model.
    """
    from torch import nn

    asked: list[str] = []
    found: list[Mapping[str, Any]] = []
    marker: dict[str, Any] = {}
    load = nn.Module.load_state_dict

    def capture(self: nn.Module, state: Any, *args: Any, **kwargs: Any) -> Any:
        if state is not marker:
            return load(self, state, *args, **kwargs)
        found.append(self.state_dict())
        raise _Reached

    def answer(url: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(url)
        return marker

    nn.Module.load_state_dict = capture  # type: ignore[method-assign]
    module.load_state_dict_from_url = answer
    try:
        build()
    except _Reached:
        return asked[0], randomised(found[0])
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]
    raise AssertionError("the builder loaded nothing")


# -- timm -------------------------------------------------------------------------------------------------------------


def _make_timm_by_url(maker: Maker) -> None:
    import timm

    model = timm.create_model("legacy_seresnet18.in1k")
    maker.url(model.pretrained_cfg["url"], randomised(model.state_dict()))


def _make_timm_by_hub(maker: Maker) -> None:
    import timm

    model = timm.create_model("resnet10t.c3_in1k")
    maker.hub(model.pretrained_cfg["hf_hub_id"], "model.safetensors", randomised(model.state_dict()))


# -- others -----------------------------------------------------------------------------------------------------------


def _make_smp(maker: Maker) -> None:
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.encoders import encoders

    where = encoders["resnet18"]["pretrained_settings"]["imagenet"]
    encoder = smp.Unet("resnet18", encoder_weights=None).encoder
    maker.hub(where["repo_id"], "config.json", b'{"mean": [0, 0, 0], "std": [1, 1, 1]}', revision=where["revision"])
    maker.hub(where["repo_id"], "model.safetensors", randomised(encoder.state_dict()), revision=where["revision"])


def _make_torchgeo(maker: Maker) -> None:
    import timm
    from torchgeo.models import ResNet18_Weights

    weights = ResNet18_Weights.SENTINEL2_RGB_MOCO
    model = timm.create_model("resnet18", in_chans=weights.meta["in_chans"], num_classes=0)
    maker.url(weights.url, randomised(model.state_dict()))


def _make_lpips(maker: Maker) -> None:
    from torchvision.models import AlexNet_Weights, alexnet

    maker.url(AlexNet_Weights.IMAGENET1K_V1.url, randomised(alexnet().state_dict()))


def _make_pytorch_fid(maker: Maker) -> None:
    from pytorch_fid import inception

    maker.url(*_capture(inception, inception.fid_inception_v3))


def _make_facenet(maker: Maker) -> None:
    from facenet_pytorch import InceptionResnetV1

    model = InceptionResnetV1(classify=True, num_classes=8631)
    url = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt"
    maker.url(url, randomised(model.state_dict()))


def _make_open_clip_openai(maker: Maker) -> None:
    import open_clip

    model = open_clip.create_model("RN50-quickgelu")
    maker.hub("timm/resnet50_clip.openai", "open_clip_model.safetensors", randomised(model.state_dict()))


def _make_open_clip_hub(maker: Maker) -> None:
    import json

    import open_clip

    model = open_clip.create_model("ViT-S-32-alt")
    config = {"model_cfg": open_clip.get_model_config("ViT-S-32-alt"), "preprocess_cfg": {}}
    maker.hub("example/CLIP-ViT-S-32", "open_clip_config.json", json.dumps(config).encode())
    maker.hub("example/CLIP-ViT-S-32", "open_clip_model.safetensors", randomised(model.state_dict()))


CLIP_URL = "https://weights.example.org/clip/of-our-own.pt"


def _make_open_clip_url(maker: Maker) -> None:
    import open_clip

    maker.url(CLIP_URL, randomised(open_clip.create_model("ViT-S-32-alt").state_dict()))


IOPATH_URL = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar"


def _make_iopath(maker: Maker) -> None:
    from torchvision.models import squeezenet1_1

    maker.url(IOPATH_URL, randomised(squeezenet1_1().state_dict()))


def _make_fvcore(maker: Maker) -> None:
    from torchvision.models import squeezenet1_1

    maker.url(IOPATH_URL, randomised(squeezenet1_1().state_dict()), under="model")


CORE = [
    torchvision_model("squeezenet1_1"),
    torchvision_model("mobilenet_v3_small"),
    Program(
        "implicit backbone",
        "torchvision",
        use="""
import torchvision
model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(num_classes=2)
""",
        look="model.backbone.body.state_dict()",
        make=_make_implicit_backbone,
        renames=True,
        unused=("classifier.",),
    ),
    Program(
        "timm by URL",
        "timm",
        use="""
import timm
model = timm.create_model("legacy_seresnet18.in1k", pretrained=True)
""",
        look="model.state_dict()",
        make=_make_timm_by_url,
    ),
    Program(
        "timm by hf",
        "timm",
        use="""
import timm
model = timm.create_model("resnet10t.c3_in1k", pretrained=True)
""",
        look="model.state_dict()",
        make=_make_timm_by_hub,
        view="huggingface",
    ),
    Program(
        "iopath",
        "iopath",
        use=f"""
import torch
from iopath.common.file_io import HTTPURLHandler, PathManager
path_manager = PathManager()
path_manager.register_handler(HTTPURLHandler())
with path_manager.open("{IOPATH_URL}", "rb") as f:
    state = torch.load(f)
""",
        look="state",
        make=_make_iopath,
        view="fvcore",
    ),
]

OTHERS = [
    Program(
        "segmentation-models-pytorch",
        "segmentation-models-pytorch",
        use="""
import segmentation_models_pytorch as smp
model = smp.Unet(encoder_name="resnet18", encoder_weights="imagenet", in_channels=3, classes=3)
""",
        look="model.encoder.state_dict()",
        make=_make_smp,
        view="huggingface",
    ),
    Program(
        "segmentation-models-pytorch over timm",
        "segmentation-models-pytorch",
        use="""
import segmentation_models_pytorch as smp
model = smp.Unet("tu-resnet10t", encoder_weights="imagenet")
""",
        look="model.encoder.model.state_dict()",
        make=_make_timm_by_hub,
        view="huggingface",
        unused=("fc.",),
    ),
    Program(
        "torchgeo",
        "torchgeo",
        use="""
from torchgeo.models import get_weight
state = get_weight("ResNet18_Weights.SENTINEL2_RGB_MOCO").get_state_dict(progress=True)
""",
        look="state",
        make=_make_torchgeo,
    ),
    Program(
        "torchgeo model",
        "torchgeo",
        use="""
from torchgeo.models import ResNet18_Weights, resnet18
model = resnet18(weights=ResNet18_Weights.SENTINEL2_RGB_MOCO, num_classes=0)
""",
        look="model.state_dict()",
        make=_make_torchgeo,
    ),
    Program(
        "lpips",
        "lpips",
        use="""
import lpips
loss_fn_alex = lpips.LPIPS(net='alex')
""",
        look="loss_fn_alex.net.state_dict()",
        make=_make_lpips,
        renames=True,
        unused=("classifier.",),
    ),
    Program(
        "pytorch-fid",
        "pytorch-fid",
        use="""
from pytorch_fid.inception import InceptionV3
model = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
""",
        look="model.state_dict()",
        make=_make_pytorch_fid,
        renames=True,
        unused=("fc.",),
    ),
    Program(
        "facenet-pytorch",
        "facenet-pytorch",
        use="""
from facenet_pytorch import InceptionResnetV1
resnet = InceptionResnetV1(pretrained='vggface2').eval()
""",
        look="resnet.state_dict()",
        make=_make_facenet,
    ),
    Program(
        "open_clip, a tag",
        "open_clip_torch",
        use="""
import open_clip
model, _, preprocess = open_clip.create_model_and_transforms('RN50-quickgelu', pretrained='openai')
""",
        look="model.state_dict()",
        make=_make_open_clip_openai,
        view="huggingface",
    ),
    Program(
        "open_clip by hf",
        "open_clip_torch",
        use="""
import open_clip
model, preprocess = open_clip.create_model_from_pretrained('hf-hub:example/CLIP-ViT-S-32')
""",
        look="model.state_dict()",
        make=_make_open_clip_hub,
        view="huggingface",
    ),
    Program(
        "open_clip by URL",
        "open_clip_torch",
        use=f"""
import open_clip
path = open_clip.download_pretrained_from_url("{CLIP_URL}")
model = open_clip.create_model("ViT-S-32-alt", pretrained=path)
""",
        look="model.state_dict()",
        make=_make_open_clip_url,
        only_by="hook",  # its directory is ~/.cache/clip, for which there is no view
    ),
    Program(
        "fvcore",
        "fvcore",
        use=f"""
from fvcore.common.checkpoint import Checkpointer
from torchvision.models import squeezenet1_1
model = squeezenet1_1()
Checkpointer(model).load("{IOPATH_URL}")
""",
        look="model.state_dict()",
        make=_make_fvcore,
        view="fvcore",
    ),
]


def program_of(name: str) -> Program:
    """Return the program of that name: one of the tables, or TorchVision's model."""
    known = {program.name: program for program in [*CORE, *OTHERS]}
    return known[name] if name in known else torchvision_model(name)
