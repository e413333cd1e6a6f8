"""What is known of trained weights: a read-only mapping with upstream's keys, and attributes with names and units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weightstore.weights.frozen import FrozenDict, freeze

_MIB = 2**20


class Meta(Mapping[str, Any]):
    """The metadata of one entry: ``meta["num_params"]`` as in TorchVision, and ``meta.num_params`` as documented here.

    It equals a dict with the same items, and cannot be changed. A key without an attribute of its own can be read as
    one all the same. Keys that begin with ``_`` are upstream's, kept as they are.
    """

    task = ""

    def __init__(self, items: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        self._items: FrozenDict = freeze({**(items or {}), **more})

    @classmethod
    def of(cls, items: Mapping[str, Any], *, task: str = "") -> Meta:
        """Return metadata of the kind that belongs to a task; by default as the items themselves tell.

        What is metadata already stays as it is.
        """
        if isinstance(items, Meta):
            return items
        return _KINDS.get(task or _task_of(items), Meta)(items)

    def __getitem__(self, key: str) -> Any:
        value = self._items[key]
        return value.resolve() if isinstance(value, Later) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            items = self.__dict__.get("_items", {})
            if name in items:
                return self[name]
        raise AttributeError(f"the metadata has no {name!r}. It has: {', '.join(sorted(self))}")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return dict(self.items()) == dict(other.items())
        return NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._items))

    def __or__(self, other: object) -> dict[str, Any]:
        return {**self, **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: object) -> dict[str, Any]:
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented

    def copy(self) -> dict[str, Any]:
        """Return a dict of the same items, which is the caller's own."""
        return dict(self)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({{{', '.join(f'{key!r}: {_short(value)}' for key, value in self._items.items())}}})"
        )

    def __copy__(self) -> Meta:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Meta:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self._items),)

    @property
    def categories(self) -> tuple[str, ...]:
        """What the outputs mean, in order; empty where there are none."""
        return self.get("categories") or ()

    @property
    def num_params(self) -> int | None:
        """The number of parameters of the model."""
        return self.get("num_params")

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """Published results by data set, then by metric: accuracies and average precisions in percent."""
        return self.get("_metrics") or FrozenDict()

    @property
    def gops(self) -> float | None:
        """10⁹ operations of one forward pass, as TorchVision counts them."""
        return self.get("_ops")

    @property
    def size(self) -> int | None:
        """The size of the file in bytes, as far as it is declared: upstream rounds it to some 500 bytes."""
        declared = self.get("_file_size")
        return None if declared is None else round(declared * _MIB)

    @property
    def licence(self) -> str | None:
        """The licence of the weights: an SPDX identifier, or the URL of its text; None where nobody says."""
        return self.get("licence") or self.get("license")

    @property
    def recipe(self) -> str | None:
        """The URL of how the weights were trained."""
        return self.get("recipe")

    @property
    def min_size(self) -> tuple[int, int] | None:
        """The smallest input, (height, width) in pixels."""
        return self.get("min_size")

    @property
    def docs(self) -> str:
        """What upstream says of the weights."""
        return " ".join(str(self.get("_docs") or "").split())

    def metric(self, name: str) -> float | None:
        """Return a published result by its name, such as ``acc@1``, of the first data set that has it."""
        return next((values[name] for values in self.metrics.values() if name in values), None)


class ClassificationMeta(Meta):
    """Of models that name what an image, or a video, shows."""

    task = "classification"

    @property
    def acc1(self) -> float | None:
        """How often the first answer is right, in percent."""
        return self.metric("acc@1")

    @property
    def acc5(self) -> float | None:
        """How often one of the first five answers is right, in percent."""
        return self.metric("acc@5")


class DetectionMeta(Meta):
    """Of models that find objects: their boxes, and with some their masks or keypoints."""

    task = "detection"

    @property
    def box_map(self) -> float | None:
        """Mean average precision of the boxes, in percent."""
        return self.metric("box_map")

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """What the keypoints are, in order; empty where there are none."""
        return self.get("keypoint_names") or ()


class SegmentationMeta(Meta):
    """Of models that say for each pixel what it belongs to."""

    task = "semantic-segmentation"

    @property
    def miou(self) -> float | None:
        """Mean intersection over union, in percent."""
        return self.metric("miou")

    @property
    def pixel_acc(self) -> float | None:
        """How many pixels are named right, in percent."""
        return self.metric("pixel_acc")


class OpticalFlowMeta(Meta):
    """Of models that say how each pixel moves from one image to the next."""

    task = "optical-flow"

    @property
    def epe(self) -> float | None:
        """The end-point error, in pixels: the mean distance from where a pixel goes to where it should."""
        return self.metric("epe")


class Later:
    """A value of the metadata that is looked up when it is read: weights that others were made from."""

    def resolve(self) -> Any:
        """Return the value."""
        raise NotImplementedError


_KINDS: Mapping[str, type[Meta]] = {
    "classification": ClassificationMeta,
    "video-classification": ClassificationMeta,
    "detection": DetectionMeta,
    "instance-segmentation": DetectionMeta,
    "keypoint-detection": DetectionMeta,
    "semantic-segmentation": SegmentationMeta,
    "optical-flow": OpticalFlowMeta,
}
_TASK_OF_METRIC = {
    "acc@1": "classification",
    "box_map": "detection",
    "miou": "semantic-segmentation",
    "epe": "optical-flow",
}


def _task_of(items: Mapping[str, Any]) -> str:
    if task := items.get("task"):
        return str(task)
    metrics = items.get("_metrics")
    for values in metrics.values() if isinstance(metrics, Mapping) else ():
        for name in values if isinstance(values, Mapping) else ():
            if name in _TASK_OF_METRIC:
                return _TASK_OF_METRIC[name]
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    if len(text) <= 60 or not isinstance(value, tuple):
        return text if len(text) <= 200 else f"{text[:200]}…"
    return f"[{', '.join(map(repr, value[:2]))}, … {len(value)} in all]"
