"""One catalog and its entries, as values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from weightstore.digest import Pin
from weightstore.errors import InvalidDigest, InvalidRecord, InvalidSource
from weightstore.records import MAX_SIZE, Wanted
from weightstore.source import Source, parse_source

SCHEMA = 1
Metrics = Mapping[str, Mapping[str, float | None]]
_EMPTY: Mapping[str, Any] = {}
# Words in the names of metrics that measure an error: the end-point errors and the outliers of optical flow, losses, …
_ERRORS = frozenset({"epe", "fl", "err", "error", "loss", "mae", "mse", "rmse"})


@dataclass(frozen=True, slots=True)
class Entry:
    """All that a catalog knows of one set of weights.

    Attributes:
        namespace: of the catalog, for example ``torchvision``.
        enum: name of the weights enum; ``member`` the name in it.
        builder: name of the function that builds the model; empty where there is none.
        task: for example ``classification``.
        source: where the bytes come from; ``alternatives`` are further places of the same bytes.
        shards: the further files of a checkpoint in several files, each with the digest in its fragment or name.
        pin: what is known of the digest.
        size: bytes; ``size_is_exact`` tells whether it was counted or is a rounded declaration.
        metrics: by data set, then by metric, as published: accuracies and mean average precisions in percent, the
            end-point errors of optical flow in pixels.
        num_params: number of parameters.
        gops: 10⁹ operations of one forward pass, as TorchVision counts them.
        min_size: smallest input, (height, width) in pixels.
        categories: what the outputs mean, in order.
        transforms: dotted name of the preprocessing's class, and its keyword arguments.
        is_default: whether it is its enum's DEFAULT.
    """

    namespace: str
    enum: str
    member: str
    source: Source
    pin: Pin = field(default_factory=Pin)
    builder: str = ""
    task: str = ""
    size: int | None = None
    size_is_exact: bool = False
    alternatives: tuple[Source, ...] = ()
    shards: tuple[str, ...] = ()
    licence: str | None = None
    licence_url: str | None = None
    recipe: str | None = None
    metrics: Metrics = field(default_factory=dict)
    num_params: int | None = None
    gops: float | None = None
    min_size: tuple[int, int] | None = None
    categories: tuple[str, ...] = ()
    transforms: tuple[str, Mapping[str, Any]] | None = None
    doc: str = ""
    is_default: bool = False
    legacy: Mapping[str, Any] = field(default_factory=dict)
    related: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The weights name, ``ResNet50_Weights.IMAGENET1K_V2``."""
        return f"{self.enum}.{self.member}"

    @property
    def qualified_name(self) -> str:
        """The weights name with its namespace, ``torchvision/ResNet50_Weights.IMAGENET1K_V2``."""
        return f"{self.namespace}/{self.name}"

    def metric(self, name: str) -> float | None:
        """Return the best published value of a metric over the data sets, or None. Of an error, the least is best."""
        values = [
            value
            for metrics in self.metrics.values()
            for key, value in metrics.items()
            if key.lower() == name and value is not None
        ]
        return min(values, default=None) if is_error(name) else max(values, default=None)

    def wanted(self) -> Wanted:
        """Return what is to be fetched. A catalog's size is for planning: the pin decides what is right."""
        return Wanted(
            self.name,
            self.source,
            self.pin,
            self.size,
            alternatives=self.alternatives,
            qualified_name=self.qualified_name,
        )

    def wants(self) -> list[Wanted]:
        """Return what is to be fetched: one file, or every shard, each called by the entry's name and its number."""
        first = self.wanted()
        if not self.shards:
            return [first]
        count = 1 + len(self.shards)
        shards = [parse_source(shard) for shard in self.shards]
        return [
            replace(
                first, name=f"{first.name}[1/{count}]", qualified_name=f"{first.qualified_name}[1/{count}]", size=None
            ),
            *(
                Wanted(
                    f"{self.name}[{number}/{count}]",
                    source,
                    pin,
                    qualified_name=f"{self.qualified_name}[{number}/{count}]",
                )
                for number, (source, pin) in enumerate(shards, start=2)
            ),
        ]


def best_known_first(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries of one blob, each once, in the order in which their names are to be told.

    Copies are published elsewhere under other names. What leads is the entry that says most of what it is: the licence,
    then the digest, then how well it does; of equal ones the first by its source.
    """
    found = {entry.qualified_name: entry for entry in entries}
    return sorted(
        found.values(),
        key=lambda one: (not one.licence, not one.pin.is_pinned, not one.metrics, str(one.source)),
    )


def is_error(metric: str) -> bool:
    """Tell whether less of a metric is better, by its name: ``per_image_epe`` is an error, ``acc@1`` is not."""
    return not _ERRORS.isdisjoint(re.split(r"[^a-z]+", metric.lower()))


class Catalog:
    """One catalog document: enums of weights, under a namespace. Entries are made when asked for."""

    def __init__(self, document: Mapping[str, Any], *, place: str) -> None:
        self.place = place
        self.document = document
        if document.get("schema") != SCHEMA:
            raise self._error(f"schema {document.get('schema')!r}; this weightstore reads schema {SCHEMA}")
        namespace = document.get("namespace")
        if not isinstance(namespace, str) or not namespace.replace("-", "_").isidentifier():
            raise self._error("'namespace' is not a name")
        self.namespace = namespace
        self._categories = self._mapping(document.get("categories", {}), "categories")
        self._enums = self._mapping(document.get("enums"), "enums")
        for name, categories in self._categories.items():
            if not isinstance(categories, list) or not all(isinstance(one, str) for one in categories):
                raise self._error(f"categories.{name} is not a list of strings")
        for name, about in self._enums.items():
            self._check_enum(name, self._mapping(about, name))
        self.generated_from = str(document.get("generated_from", ""))
        self._builders: dict[str, str] | None = None
        self._by_url: dict[str, list[tuple[str, str]]] | None = None

    def _error(self, reason: str) -> InvalidRecord:
        return InvalidRecord(place=self.place, reason=f"not a catalog: {reason}")

    def _mapping(self, value: object, name: str) -> Mapping[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self._error(f"{name!r} is not an object")
        return value

    def _check_enum(self, name: str, about: Mapping[str, Any]) -> None:
        entries = self._mapping(about.get("entries"), f"{name}.entries")
        for member, values in entries.items():
            if not isinstance(values, dict):
                raise self._error(f"{name}.{member} is not an object")
        for field_name in ("builder", "task", "default"):
            if not isinstance(about.get(field_name, ""), str | None):
                raise self._error(f"{name}.{field_name} is not a string")
        targets = {"default": about.get("default"), **self._mapping(about.get("aliases", {}), f"{name}.aliases")}
        for alias, target in targets.items():
            if target is not None and not (isinstance(target, str) and target in entries):
                raise self._error(f"{name}: {alias!r} means {target!r}, which is not an entry")

    @property
    def builders(self) -> Mapping[str, str]:
        """The enum's name by builder name."""
        if self._builders is None:
            self._builders = {enum["builder"]: name for name, enum in self._enums.items() if enum.get("builder")}
        return self._builders

    def enums(self) -> Iterator[str]:
        return iter(self._enums)

    def members(self, enum: str) -> Iterator[str]:
        """Yield the names of an enum's members, in the order of definition."""
        return iter(self._enums[enum]["entries"])

    def aliases(self, enum: str) -> Mapping[str, str]:
        """Return the second names of an enum's members, each with the true one; DEFAULT is not among them."""
        return self._enums[enum].get("aliases", _EMPTY)  # type: ignore[no-any-return]

    def member_name(self, enum: str, member: str) -> str | None:
        """Return the true name of a member: DEFAULT and aliases resolved; None where there is no such member."""
        about = self._enums[enum]
        if member == "DEFAULT":
            default: str | None = about.get("default")
            return default
        member = about.get("aliases", _EMPTY).get(member, member)
        return member if member in about["entries"] else None

    def entry(self, enum: str, member: str) -> Entry:
        """Return one entry.

        Raises:
            KeyError: there is no such enum or member.
            InvalidRecord: the document is damaged there.
        """
        about = self._enums[enum]
        values = about["entries"][member]
        try:
            return self._entry(enum, about, member, values)
        except (InvalidSource, InvalidDigest, TypeError, ValueError, OverflowError, KeyError) as error:
            raise self._error(f"{enum}.{member}: {error!s}") from None

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, enum by enum."""
        for enum in self._enums:
            for member in self.members(enum):
                yield self.entry(enum, member)

    def entry_of_source(self, source: Source) -> Entry | None:
        """Return the entry that comes from a source, of several the last, or None."""
        found = self._of_source(source)
        return self.entry(*found[-1]) if found else None

    def entries_of_source(self, source: Source) -> list[Entry]:
        """Return every entry that comes from a source, in the order of definition."""
        return [self.entry(*one) for one in self._of_source(source)]

    def _of_source(self, source: Source) -> list[tuple[str, str]]:
        """Return enums and members by a source. The catalog writes it as :func:`str` does."""
        if self._by_url is None:
            by_url: dict[str, list[tuple[str, str]]] = {}
            for enum, about in self._enums.items():
                for member, values in about["entries"].items():
                    by_url.setdefault(_url(str(values.get("source"))), []).append((enum, member))
            self._by_url = by_url
        return self._by_url.get(source.display, [])

    def _entry(self, enum: str, about: Mapping[str, Any], member: str, values: Mapping[str, Any]) -> Entry:
        source, pin = parse_source(_field(values, "source", str) or "")
        if "pin" in values:
            pin = Pin(_field(values, "pin", str) or "")
        min_size = _field(values, "min_size", list)
        if min_size and [type(one) for one in min_size] != [int, int]:
            raise ValueError("'min_size' is not a height and a width")
        transforms = _field(values, "transforms", dict)
        categories = _field(values, "categories", str)
        related = {
            key: values[key]
            for key in ("unquantized", "quantized", "backend", "keypoint_names", "extra")
            if values.get(key)
        }
        return Entry(
            namespace=self.namespace,
            enum=enum,
            member=member,
            source=source,
            pin=pin,
            builder=about.get("builder") or "",
            task=about.get("task") or "",
            size=_count(values, "size"),
            size_is_exact=values.get("size_exact", False) is True,
            alternatives=tuple(Source.parse(_text(one)) for one in _field(values, "alternatives", list) or ()),
            shards=tuple(_text(one) for one in _checked(_field(values, "shards", list) or [])),
            licence=_field(values, "licence", str),
            licence_url=_field(values, "licence_url", str),
            recipe=_field(values, "recipe", str),
            metrics=_metrics(values),
            num_params=_count(values, "num_params"),
            gops=_number("gops", values.get("gops")),
            min_size=(min_size[0], min_size[1]) if min_size else None,
            categories=tuple(self._categories[categories]) if categories else (),
            transforms=(_text(transforms["class"]), _field(transforms, "kwargs", dict) or {}) if transforms else None,
            doc=_field(values, "doc", str) or "",
            is_default=about.get("default") == member,
            legacy=_field(about, "legacy", dict) or {},
            related=related,
        )


def _url(text: str) -> str:
    """Return the source that an entry names. On the Hub it may leave out its branch."""
    url = text.partition("#")[0]
    if not url.startswith("hf://"):
        return url  # parsing a thousand of them to find one would take longer than to load it
    try:
        return Source(url).display
    except InvalidSource:
        return url  # who asks for the entry is told


def _field(values: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a field of this very type (a bool is no int), or None where it is absent or null."""
    value = values.get(name)
    if value is not None and type(value) is not kind:
        raise TypeError(f"{name!r} is not {kind.__name__}")
    return value


def _checked(sources: list[Any]) -> list[Any]:
    for source in sources:
        parse_source(_text(source))
    return sources


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _count(values: Mapping[str, Any], name: str) -> int | None:
    value: int | None = _field(values, name, int)
    if value is not None and not 0 <= value <= MAX_SIZE:
        raise ValueError(f"{name!r} is out of range")
    return value


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(f"{name!r} is not a number")
    return value


def _metrics(values: Mapping[str, Any]) -> Metrics:
    metrics: Metrics = _field(values, "metrics", dict) or {}
    for data_set, values_by_name in metrics.items():
        if not isinstance(values_by_name, dict):
            raise TypeError(f"the metrics on {data_set!r} are not an object")
        for name, value in values_by_name.items():
            _number(name, value)
    return metrics
