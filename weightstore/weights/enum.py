"""Weights of one model as an enum: ``ResNet50_Weights.IMAGENET1K_V2``."""

from __future__ import annotations

import _thread
import enum
import sys
from typing import TYPE_CHECKING, Any, Self, TypeVar

from weightstore.weights.entry import Weights

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Mapping
    from pathlib import Path

    from weightstore.batch import Report
    from weightstore.digest import Digest, Pin
    from weightstore.records import Wanted
    from weightstore.weights.meta import Meta
    from weightstore.weights.transforms import Transforms

_extending = _thread.allocate_lock()  # threading.Lock, without the 0.5 ms that importing threading takes
_E = TypeVar("_E", bound="type[WeightsEnum]")
# The attribute of an enum that a catalog describes, and no module has: the catalog's namespace.
CATALOG_OF = "__weightstore_catalog__"


class _Value:
    """What Python's enum compares members by: these are one only if they are the same object.

    Python makes a member whose value equals an earlier one an alias of it. For weights that differ in their name alone
    that would be a silent mistake; ``DEFAULT = IMAGENET1K_V2`` names the same object, and is an alias.
    """

    __slots__ = ("weights",)

    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Value) and self.weights is other.weights

    def __hash__(self) -> int:
        return id(self.weights)

    def __repr__(self) -> str:
        return repr(self.weights)


class WeightsEnum(enum.Enum):
    """The parent of all weights enums; a builder is called with a member of its own.

    Members are :class:`Weights`. The best one is also called ``DEFAULT``, by assignment. A member survives copying and
    pickling as itself: it is pickled by its name, whatever its metadata are when it is read back.
    """

    def __new__(cls, value: Any) -> Self:
        member = object.__new__(cls)
        member._value_ = _Value(value)
        return member

    @classmethod
    def _missing_(cls, value: object) -> Any:
        # Of entries that are equal, the one itself.
        same = [member for member in cls if member.value == value]
        return next((member for member in same if member.value is value), same[0] if same else None)

    @classmethod
    def verify(cls, obj: Any) -> Any:
        """Return the member that an object means: itself, by its name with or without the enum's, or None for None.

        A member of TorchVision's enum of the same name stands for the one here.

        Raises:
            KeyError: there is no member of this name.
            TypeError: it is something else, such as a member of another enum.
        """
        if obj is None or isinstance(obj, cls):
            return obj
        if type(obj) is str:
            return cls[obj.replace(cls.__name__ + ".", "")]
        if isinstance(obj, enum.Enum) and type(obj).__name__ == cls.__name__ and obj.name in cls.__members__:
            return cls[obj.name]
        raise TypeError(
            f"Invalid Weight class provided; expected {cls.__name__} but received {obj.__class__.__name__}."
        )

    @property
    def value(self) -> Weights:
        """The entry itself."""
        weights: Weights = self._value_.weights
        return weights

    @property
    def url(self) -> str:
        """Where the bytes come from."""
        return self.value.url

    @property
    def transforms(self) -> Transforms:
        """Makes the preprocessing object when called."""
        return self.value.transforms

    @property
    def meta(self) -> Meta:
        """What is known of the weights; read-only."""
        return self.value.meta

    @property
    def pin(self) -> Pin:
        """What is known of the digest: all of it, its beginning, or nothing."""
        return self.value.pin

    @property
    def digest(self) -> Digest | None:
        """The SHA-256 of the file, where all of it is known beforehand; else None."""
        return self.pin.digest

    @property
    def size(self) -> int | None:
        """The size of the file in bytes: exact where that is known, else as declared, else None."""
        return self.value.size if self.value.size is not None else self.meta.size

    @property
    def licence(self) -> str | None:
        """The licence of the weights, an SPDX identifier where there is one; None where nobody says."""
        return self.value.licence

    @property
    def mirrors(self) -> tuple[str, ...]:
        """Further URLs of the same bytes."""
        return self.value.mirrors

    def get_state_dict(
        self,
        model_dir: object = None,
        map_location: Any = None,
        progress: bool = True,  # noqa: FBT001, FBT002 - torch.hub's signature
        check_hash: bool = True,  # noqa: FBT001, FBT002 - nothing is loaded that was not verified
        file_name: str | None = None,
        weights_only: bool = True,  # noqa: FBT001, FBT002
        **loading: Any,
    ) -> OrderedDict[str, Any]:
        """Return the state dict, fetched first where no store has it, and verified.

        Takes what :func:`torch.hub.load_state_dict_from_url` takes. ``model_dir``, ``file_name`` and ``check_hash``
        have no effect: bytes lie in the store, under the name of their content, and none are loaded that were not
        verified. ``weights_only=False`` means ``trust="pickle"``.

        Args:
            model_dir: without effect.
            map_location: as in :func:`torch.load`; None loads to the CPU.
            progress: whether a download draws a bar, if standard error is a terminal.
            check_hash: without effect.
            file_name: without effect.
            weights_only: False runs whatever code the file brings.
            loading: more arguments of :func:`weightstore.load_state_dict`.

        Raises:
            WeightStoreError: as for :func:`weightstore.load_state_dict`.
        """
        replaced = _replaced_loader()
        if replaced is not None:
            given = {
                "model_dir": model_dir,
                "map_location": map_location,
                "progress": progress,
                "check_hash": check_hash,
                "file_name": file_name,
                "weights_only": weights_only,
            }
            return replaced(self.url, **given, **loading)  # type: ignore[no-any-return]
        from weightstore.loading.state_dict import load_state_dict  # torch: only when bytes are wanted

        if not weights_only:
            loading = {"trust": "pickle", **loading}
        return load_state_dict(self, map_location=map_location, progress=progress, **loading)

    def wanted(self) -> Wanted:
        """Return what is to be fetched. InvalidInput for a checkpoint in several files: see :meth:`wants`."""
        wants = self.wants()
        if len(wants) != 1:
            from weightstore.errors import InvalidInput  # start-up: naming weights needs none

            raise InvalidInput(f"{self} is a checkpoint in {len(wants)} files, and has no single path")
        return wants[0]

    def wants(self) -> list[Wanted]:
        """Return what is to be fetched: one file, or one for each shard."""
        return self.value.wants(str(self))

    def path(self, *, fetch: bool = True) -> Path:
        """Return the path of the verified file, fetched first where no store has it. See :meth:`Client.path`."""
        from weightstore.shortcuts import default_client

        return default_client().path(self, fetch=fetch)

    @property
    def is_cached(self) -> bool:
        """Whether some store has the file, or every shard, verified."""
        from weightstore.shortcuts import default_client

        client = default_client()
        return all(client.is_present(wanted) for wanted in self.wants())

    def prefetch(self) -> Report:
        """Fetch the file, or every shard, where no store has it; report on each. See :meth:`Client.prefetch`."""
        from weightstore.shortcuts import default_client

        client = default_client()
        return client.prefetch(plan=client.plan(self.wants()))

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}.{self._name_}"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        namespace = getattr(self.__class__, CATALOG_OF, None)
        if namespace is not None:
            return _of_catalog, (namespace, self.__class__.__name__, self._name_)
        return getattr, (self.__class__, self._name_)


def _replaced_loader() -> Any:
    """Return what somebody put for the stand-in's ``load_state_dict_from_url``, as tests do; or None."""
    api = getattr(sys.modules.get("torchvision.models._api"), "__dict__", {})
    by_default = api.get("_loads_by_default")  # the stand-in's alone: TorchVision's own module changes nothing of ours
    current = api.get("load_state_dict_from_url")
    return current if by_default is not None and current is not by_default else None


def _of_catalog(namespace: str, enum_name: str, member: str) -> Any:
    from weightstore.weights.upstream import from_catalogs  # start-up: naming weights needs none

    found = from_catalogs(namespace, enum_name)
    if found is None:
        from weightstore.errors import UnknownName

        raise UnknownName(name=f"{namespace}/{enum_name}.{member}")
    return found[member]


def extend(weights_enum: _E, **entries: Weights) -> _E:
    """Add entries to an existing enum: ``extend(ResNet50_Weights, OURS=Weights(…))``.

    From then on they are members like all others, in this process: whoever unpickles one must have extended the enum
    as well.

    Raises:
        ValueError: the enum has an entry of this name, or this very entry.
        TypeError: it is no weights enum, or something is no :class:`Weights`.
    """
    given: object = weights_enum
    if not (isinstance(given, type) and issubclass(given, WeightsEnum)):
        raise TypeError(f"{weights_enum!r} is no weights enum of ours")
    with _extending:
        for name, weights in entries.items():
            _check(weights_enum, name, weights)
        for name, weights in entries.items():
            _add(weights_enum, name, weights)
    return weights_enum


def _check(weights_enum: type[WeightsEnum], name: str, weights: object) -> None:
    if not isinstance(weights, Weights):
        raise TypeError(f"{name} is no Weights but {type(weights).__name__}")
    if name in weights_enum.__members__ or hasattr(weights_enum, name):
        raise ValueError(f"{weights_enum.__name__} has a {name} already")
    if any(member.value is weights for member in weights_enum):
        raise ValueError(f"{weights_enum.__name__} has these weights already")


def _add(weights_enum: type[WeightsEnum], name: str, weights: Weights) -> None:
    # Not by __new__, which looks members up once the class is made.
    member = object.__new__(weights_enum)
    member._value_ = _Value(weights)
    member._name_ = name
    member.__objclass__ = weights_enum  # type: ignore[attr-defined]
    member._sort_order_ = len(weights_enum._member_names_)  # type: ignore[attr-defined]
    members: Mapping[str, Any] = {**weights_enum._member_map_, name: member}
    weights_enum._value2member_map_[member._value_] = member
    # Replaced and not changed: whoever iterates over the enum meanwhile goes on over what it was.
    type.__setattr__(weights_enum, "_member_map_", members)
    type.__setattr__(weights_enum, "_member_names_", [*weights_enum._member_names_, name])
    type.__setattr__(weights_enum, name, member)
