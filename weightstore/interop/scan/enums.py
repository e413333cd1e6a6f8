"""Members of weights enums, and the calls of builders that take them: TorchVision's, and those of any catalog.

What a builder makes of ``weights``, ``pretrained`` and the arguments for a backbone is what TorchVision makes of them
(:mod:`weightstore.weights.legacy`), told here from the catalog and without torch.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weightstore.interop.scan.evaluation import ANY
from weightstore.interop.scan.urls import target_of
from weightstore.interop.scan.values import Const, Found, Named
from weightstore.source import is_path, is_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weightstore.catalog.entries import Catalog
    from weightstore.catalog.registry import Catalogs
    from weightstore.interop.scan.evaluation import Argument, Arguments
    from weightstore.interop.scan.values import Value

    # A target, or an empty text, and a note.
    Result = tuple[str, str]

TORCHVISION = "torchvision"
_TORCHVISION_MODULES = ("torchvision.models.", "weightstore.torchvision.")
_MODELS_ENUM = re.compile(r"get_model_weights\((.*)\)")
# The order of parameters, which TorchVision still takes by position, with a warning.
_POSITIONS = {
    "detection": ("weights", "progress", "num_classes", "weights_backbone"),
    "segmentation": ("weights", "progress", "num_classes", "aux_loss", "weights_backbone"),
    "quantization": ("weights", "progress", "quantize"),
}
_OTHER_POSITIONS = {
    "keypointrcnn_resnet50_fpn": ("weights", "progress", "num_classes", "num_keypoints", "weights_backbone"),
    "lraspp_mobilenet_v3_large": ("weights", "progress", "num_classes", "weights_backbone"),
}
# All other builders of TorchVision's that take weights for a backbone get some for it unless they are told otherwise.
WITHOUT_BACKBONE_BY_DEFAULT = frozenset(
    {"fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2"}
)


class Enums:
    """The enums and builders of all catalogs."""

    def __init__(self, catalogs: Catalogs) -> None:
        self._all = catalogs.all()
        self._by_namespace = {catalog.namespace.replace("-", "_"): catalog for catalog in self._all}

    def member(self, path: str) -> Result | None:
        """Return which weights an imported name is, as a result; None where it is no member of a weights enum.

        What comes from a package is sought in its catalog, or else in those that are not TorchVision's: other packages
        have enums of the same names.
        """
        owner, _, member = path.rpartition(".")
        module, _, enum = owner.rpartition(".")
        if not module or not member.isidentifier() or member.startswith("_"):
            return None
        for catalog in self._catalogs_of(path):
            name = self._enum_name(enum, catalog)
            if name is None:
                continue
            true_name = catalog.member_name(name, member)
            if true_name is not None:
                return f"{catalog.namespace}/{name}.{true_name}", ""
            if member.isupper():
                return "", f"{name} in the catalog {catalog.namespace} has no member {member}"
            return None
        if enum.endswith(("_Weights", "_QuantizedWeights")) and member.isupper():
            return "", f"no catalog knows {enum}.{member} of {module}"
        return None

    def builder(self, path: str) -> tuple[str, Catalog] | None:
        """Return the builder that an imported name is, as its catalog calls it; None where it is none."""
        module, _, name = path.rpartition(".")
        if ".quantization" in module:
            name = f"quantized_{name}"
        for catalog in self._catalogs_of(path):
            if name in catalog.builders and (catalog.namespace != TORCHVISION or path.startswith(_TORCHVISION_MODULES)):
                return name, catalog
        return None

    def named_builder(self, name: str) -> tuple[str, Catalog] | None:
        """Return the builder of a name as ``get_model`` takes it."""
        namespace, _, plain = name.rpartition("/")
        for catalog in self._all:
            if namespace.lower() not in {"", catalog.namespace.lower()}:
                continue
            found = next((builder for builder in catalog.builders if builder.lower() == plain.lower()), None)
            if found is not None:
                return found, catalog
        return None

    def _catalogs_of(self, path: str) -> list[Catalog]:
        root = path.partition(".")[0]
        if path.startswith(_TORCHVISION_MODULES) or root == TORCHVISION:
            root = TORCHVISION
        if root in self._by_namespace:
            return [self._by_namespace[root]]
        return [catalog for catalog in self._all if catalog.namespace != TORCHVISION]

    def _enum_name(self, text: str, catalog: Catalog) -> str | None:
        if (models := _MODELS_ENUM.fullmatch(text)) is not None:
            return catalog.builders.get(models[1])
        return text if text in catalog.enums() else None

    def of_call(self, builder: str, catalog: Catalog, arguments: Arguments, *, module: str = "") -> Iterator[Result]:
        """Yield all that a call of a builder asks for and does not say by a member of an enum."""
        yield from _Call(builder, catalog, arguments, module).results()


class _Call:
    def __init__(self, builder: str, catalog: Catalog, arguments: Arguments, module: str) -> None:
        self.builder = builder
        self.catalog = catalog
        self.arguments = arguments
        self.enum = catalog.builders[builder]
        member = next(catalog.members(self.enum))
        self.legacy: Mapping[str, Any] = catalog.entry(self.enum, member).legacy
        kind = next((kind for kind in _POSITIONS if f".{kind}" in module), "")
        self.positions = _OTHER_POSITIONS.get(builder) or _POSITIONS.get(kind, ("weights",))

    def results(self) -> Iterator[Result]:
        own = self._argument("weights", "pretrained")
        yield from self._chosen(own, "weights", self.enum)
        if "weights_backbone" not in self.legacy or (own is not None and own.is_given and not self._may_be_none(own)):
            return
        backbone = self._argument("weights_backbone", "pretrained_backbone")
        default = self.legacy["weights_backbone"].get("default")
        if backbone is not None:
            enum = default.partition(".")[0] if default else ""
            for target, note in self._chosen(backbone, "weights_backbone", enum):
                yield target, note or "the backbone"
        elif default and self.builder not in WITHOUT_BACKBONE_BY_DEFAULT and not self.arguments.may_hold_more:
            yield f"{self.catalog.namespace}/{default}", f"the backbone that {self.builder} has unless told otherwise"

    def _may_be_none(self, argument: Argument) -> bool:
        return any(isinstance(value, Const) and value.value in {None, False} for value in argument.values)

    def _argument(self, name: str, deprecated: str) -> Argument | None:
        return self.arguments.get(deprecated) or self.arguments.get(name, _index(self.positions, name))

    def _chosen(self, argument: Argument | None, parameter: str, enum: str) -> Iterator[Result]:
        """Yield what a parameter for weights asks for; members of enums are found where they are written."""
        if argument is None:
            if parameter == "weights" and self.arguments.may_hold_more:
                yield "", "weights may be among the arguments that are passed on"
            return
        constants = [value for value in argument.values if isinstance(value, Const)]
        resolved = [result for value in constants for result in self._meant(value, parameter, enum)]
        elsewhere = [value for value in argument.values if _is_found_elsewhere(value)]
        others = replace(argument, values=tuple(value for value in argument.values if value not in elsewhere))
        why = others.unknown_here if resolved or elsewhere else others.unknown
        if why is not None:
            yield "", why
        yield from ((target, note or others.others) for target, note in resolved)

    def _meant(self, value: Const, parameter: str, enum: str) -> Iterator[Result]:
        """Yield what a constant means: a member's name, a full weights name, a boolean of old."""
        given = value.value
        if not given:
            return
        if isinstance(given, str) and is_source(given):  # weightstore's get_model takes these as well
            if not is_path(given):
                yield target_of(given)
            return
        about = self.legacy.get(parameter, {})
        quantize = self.arguments.get("quantize", _index(self.positions, "quantize"))
        is_quantized = quantize is not None and quantize.is_given
        if isinstance(given, str) and given != "legacy":
            if not is_quantized:
                enum = enum.replace("_QuantizedWeights", "_Weights")
            name = given.removeprefix(f"{enum}.")
            member = self.catalog.member_name(enum, name) if enum in self.catalog.enums() else None
            yield (f"{self.catalog.namespace}/{enum}.{member}", "") if member else ("", f"{enum} has no member {name}")
            return
        key = "default"
        if given == "legacy" and "default_legacy" in about:
            key = "default_legacy"
        elif is_quantized and "default_quantized" in about:
            key = "default_quantized"
        meant = about.get(key)
        if meant is None:
            yield "", f"{self.builder} has no weights for {about.get('parameter', 'pretrained')}=True"
        else:
            yield f"{self.catalog.namespace}/{meant}", ""


def _index(names: tuple[str, ...], name: str) -> int | None:
    return names.index(name) if name in names else None


def _is_found_elsewhere(value: Value) -> bool:
    """Tell whether a value is a member of an enum, which is found where it is written."""
    return isinstance(value, Found) or (
        isinstance(value, Named)
        and not value.path.endswith(ANY)
        and value.path.rpartition(".")[0].endswith(("Weights", ")"))
    )
