"""One set of trained weights, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightstore.digest import Digest, Pin
from weightstore.errors import InvalidInput
from weightstore.records import Wanted
from weightstore.source import Source, parse_source
from weightstore.weights.meta import Meta
from weightstore.weights.transforms import Transforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True, init=False, eq=False, slots=True)
class Weights:
    """Where trained weights come from, how to preprocess for them, and what is known of them.

    Attributes:
        url: where the bytes come from: a URL of any scheme that the store reads, or a path.
        transforms: makes the preprocessing object when called.
        meta: read-only; see :class:`Meta`.
        pin: what is known of the digest beside what the URL says (``#sha256=``, or a prefix in its file name).
        size: in bytes, where it is known exactly.
        licence: SPDX identifier where there is one.
        mirrors: further URLs of the same bytes, tried in order.
        shards: the further files of a checkpoint in several files; ``url`` is the first.
    """

    url: str
    transforms: Transforms
    meta: Meta
    pin: Pin
    size: int | None
    licence: str | None
    mirrors: tuple[str, ...]
    shards: tuple[str, ...]

    def __init__(
        self,
        url: str,
        transforms: Callable[..., Any],
        meta: Mapping[str, Any],
        *,
        digest: str | Digest | None = None,
        size: int | None = None,
        licence: str | None = None,
        mirrors: Iterable[str] = (),
        shards: Iterable[str] = (),
    ) -> None:
        """Make an entry. Nothing is fetched, and the URL is not looked at before it is needed.

        Args:
            url: where the bytes come from.
            transforms: a callable that returns the preprocessing object; a partial is taken apart, so that it prints.
            meta: what is known of the weights.
            digest: the SHA-256, 64 hexadecimal digits, with or without ``sha256:``; or its first 8 or more.
            size: in bytes, if it is known exactly.
            licence: SPDX identifier.
            mirrors: further URLs of the same bytes.
            shards: further files of the checkpoint.

        Raises:
            InvalidDigest: ``digest`` is none.
        """
        text = str(digest or "").lower().removeprefix("sha256:")
        values = {
            "url": url,
            "transforms": Transforms.of(transforms),
            "meta": Meta.of(meta),
            "pin": Pin(text),
            "size": size,
            "licence": licence or Meta.of(meta).licence,
            "mirrors": tuple(mirrors),
            "shards": tuple(shards),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Weights) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.url, self.pin, self.shards))

    def _key(self) -> tuple[Any, ...]:
        return self.url, self.meta, self.transforms, self.pin, self.size, self.licence, self.mirrors, self.shards

    def __copy__(self) -> Weights:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Weights:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._key()

    @property
    def source(self) -> Source:
        """Where the bytes come from. InvalidSource for a URL that cannot be read."""
        return parse_source(self.url)[0]

    @property
    def known_pin(self) -> Pin:
        """What is known of the digest, from the entry or from its URL.

        Raises:
            InvalidInput: they contradict each other.
        """
        return _agreed(self.pin, parse_source(self.url)[1], self.url)

    def wants(self, name: str) -> list[Wanted]:
        """Return what is to be fetched: one file, or one for each shard, called ``name`` with its number.

        Raises:
            InvalidSource, InvalidDigest: a URL cannot be read.
        """
        count = 1 + len(self.shards)
        pin = self.known_pin
        first = Wanted(
            name if count == 1 else f"{name}[1/{count}]",
            self.source,
            pin,
            self.size or self.meta.size if count == 1 else None,
            size_is_exact=self.size is not None and count == 1 and not pin.is_pinned,  # else the pin decides
            alternatives=tuple(parse_source(mirror)[0] for mirror in self.mirrors),
        )
        rest = [parse_source(shard) for shard in self.shards]
        others = [
            Wanted(f"{name}[{number}/{count}]", source, pin) for number, (source, pin) in enumerate(rest, start=2)
        ]
        return [first, *others]


def _agreed(pin: Pin, other: Pin, url: str) -> Pin:
    if not pin.agrees_with(other):
        raise InvalidInput(
            f"{Source.parse(url.partition('#')[0])}: the digest is given as {pin}, and its name says {other}"
        )
    return pin.narrower(other)


def _rebuild(url: str, meta: Meta, transforms: Transforms, pin: Pin, size: Any, licence: Any, *more: Any) -> Weights:
    mirrors, shards = more
    return Weights(url, transforms, meta, digest=pin.hex, size=size, licence=licence, mirrors=mirrors, shards=shards)
