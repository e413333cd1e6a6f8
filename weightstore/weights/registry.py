"""Builders of models by name, and the weights enums that belong to them."""

from __future__ import annotations

import typing
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from weightstore.weights.enum import WeightsEnum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

    Builder = Callable[..., Any]

_B = TypeVar("_B", bound="Callable[..., Any]")
BUILDERS_GROUP = "weightstore.builders"
ENUMS_GROUP = "weightstore.enums"


class Models:
    """Builders by name. Case is not significant in names; a builder of a namespace is called ``namespace/name``."""

    def __init__(self, elsewhere: Callable[[str], Builder | None] = lambda _: None) -> None:
        """``elsewhere`` is asked for names that nobody has registered."""
        self.builders: dict[str, Builder] = {}
        self._elsewhere = elsewhere

    def register_model(self, name: str | None = None, *, namespace: str = "") -> Callable[[_B], _B]:
        """Return a decorator that registers a builder.

        Args:
            name: what it is called; by default the function's own name.
            namespace: whose it is, so that two packages may have a builder of one name.

        Raises:
            ValueError: from the decorator, where the name is taken.
        """

        def register(builder: _B) -> _B:
            key = name if name is not None else builder.__name__
            full = (f"{namespace}/{key}" if namespace else key).lower()
            if full in self.builders or self.builders.setdefault(full, builder) is not builder:
                raise ValueError(f"An entry is already registered under the name '{full}'.")
            return builder

        return register

    def get_model_builder(self, name: str) -> Builder:
        """Return the builder of a name: ``resnet50``, ``torchgeo/resnet50``.

        A name without a namespace means the builder without one, else the only one of that name.

        Raises:
            ValueError: there is none, or several.
        """
        key = name.lower()
        found = self.builders.get(key)
        if found is None and "/" not in key:
            named = {full for full in self.builders if full.rpartition("/")[2] == key}
            found = self._elsewhere(key)
            if found is None and len(named) > 1:
                raise ValueError(f"Several models are called {name}. Say which: {', '.join(sorted(named))}")
            if found is None and named:
                found = self.builders[named.pop()]
        elif found is None:
            found = self._elsewhere(key)
        if found is None:
            raise ValueError(f"Unknown model {key}{self._hint(key)}")
        return found

    def _hint(self, key: str) -> str:
        import difflib  # start-up: only when a name is wrong

        near = difflib.get_close_matches(key, self.builders, n=3)
        return f". Did you mean {', '.join(near)}?" if near else ""

    def get_model(self, name: str, **config: Any) -> Any:
        """Return what the builder of a name makes of its keyword arguments.

        Raises:
            ValueError: there is no such builder, or it refuses its arguments.
        """
        return self.get_model_builder(name)(**config)

    def get_model_weights(self, name: str | Builder) -> type[Enum]:
        """Return the weights enum of a builder, or of a builder's name.

        Raises:
            ValueError: there is no such builder, it takes no weights, or its annotation does not say which.
        """
        return enum_of(self.get_model_builder(name) if isinstance(name, str) else name)

    def list_models(
        self,
        module: ModuleType | None = None,
        include: Iterable[str] | str | None = None,
        exclude: Iterable[str] | str | None = None,
    ) -> list[str]:
        """Return the names of registered models, sorted.

        Args:
            module: only those whose builder is defined in a module directly below this package.
            include: only those that match one of these globs.
            exclude: none that matches one of these globs.
        """
        names = {
            name
            for name, builder in self.builders.items()
            if module is None or builder.__module__.rsplit(".", 1)[0] == module.__name__
        }
        return select(names, include, exclude)


def select(names: Iterable[str], include: Iterable[str] | str | None, exclude: Iterable[str] | str | None) -> list[str]:
    """Return the names that match one of some globs and none of others, sorted."""
    import fnmatch  # start-up: naming weights needs none

    names = set(names)
    chosen = {one for glob in _globs(include) for one in fnmatch.filter(names, glob)} if include else names
    return sorted(chosen - {one for glob in _globs(exclude) for one in fnmatch.filter(names, glob)})


def _globs(globs: Iterable[str] | str | None) -> Iterable[str]:
    return () if globs is None else (globs,) if isinstance(globs, str) else globs


def enum_of(builder: Builder) -> type[Enum]:
    """Return the weights enum that a builder's ``weights`` parameter is annotated with; annotations may be strings.

    Raises:
        ValueError: it takes no weights, or the annotation names no weights enum.
    """
    annotations = annotations_of(builder)
    if "weights" not in annotations:
        raise ValueError("The method is missing the 'weights' argument.")
    for one in enums_in(annotations["weights"]):
        return one
    raise ValueError(
        "The WeightsEnum class for the specific method couldn't be retrieved. Make sure the typing info is correct."
    )


def is_weights_enum(thing: object) -> typing.TypeGuard[type[Enum]]:
    """Tell whether something is a weights enum: one of ours, TorchVision's, or whose members say where bytes are."""
    if not (isinstance(thing, type) and issubclass(thing, Enum)):
        return False
    if issubclass(thing, WeightsEnum) or any(base.__name__ == "WeightsEnum" for base in thing.__mro__):
        return True
    return any(isinstance(getattr(member.value, "url", None), str) for member in thing)


def enums_in(annotation: Any) -> Iterator[type[Enum]]:
    """Yield the weights enums of an annotation; quantized builders take one of two."""
    for one in (annotation, *typing.get_args(annotation)):
        if is_weights_enum(one):
            yield one


def annotations_of(builder: Builder) -> dict[str, Any]:
    """Return the annotations of a builder's parameters by name; those that are strings as what they mean.

    Each is evaluated by itself: what one of them names may be imported for the type checker only.
    """
    import inspect  # start-up: naming weights needs none

    names = getattr(inspect.unwrap(builder), "__globals__", {})
    found = {}
    for name, parameter in inspect.signature(builder).parameters.items():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, names)  # noqa: S307 - the builder's own code, as inspect would do it
            except Exception:  # noqa: BLE001 - a name that is not there at run time
                annotation = None
        found[name] = annotation
    return found
