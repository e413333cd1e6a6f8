"""One set of trained weights, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from weightstore.weights.meta import Meta
from weightstore.weights.transforms import Transforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from weightstore.digest import Digest, Pin
    from weightstore.records import Wanted


class Weights:
    """Where trained weights come from, how to preprocess for them, and what is known of them. Cannot be changed.

    Attributes:
        url: where the bytes come from: a URL of any scheme that the store reads, or a path.
        transforms: makes the preprocessing object when called.
        meta: read-only; see :class:`Meta`.
        size: in bytes, where it is known exactly.
        licence: SPDX identifier where there is one.
        mirrors: further URLs of the same bytes, tried in order.
        shards: the further files of a checkpoint in several files; ``url`` is the first.
    """

    __slots__ = ("_hex", "licence", "meta", "mirrors", "shards", "size", "transforms", "url")

    url: str
    transforms: Transforms
    meta: Meta
    size: int | None
    licence: str | None
    mirrors: tuple[str, ...]
    shards: tuple[str, ...]
    _hex: str

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
        if text and not (8 <= len(text) <= 64 and not text.strip("0123456789abcdef")):
            from weightstore.digest import Pin  # start-up: naming weights needs none

            Pin(text)  # says what is wrong
        described = Meta.of(meta)
        set_to = super().__setattr__
        set_to("url", url)
        set_to("transforms", Transforms.of(transforms))
        set_to("meta", described)
        set_to("size", size)
        set_to("licence", licence or described.licence)
        set_to("mirrors", tuple(mirrors))
        set_to("shards", tuple(shards))
        set_to("_hex", text)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"weights cannot be changed: {name!r} stays what it is")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"weights cannot be changed: {name!r} stays")

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Weights) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.url, self._hex, self.shards))

    def _key(self) -> tuple[Any, ...]:
        return self.url, self.transforms, self.meta, self._hex, self.size, self.licence, self.mirrors, self.shards

    def __repr__(self) -> str:
        more = {"digest": self._hex, "size": self.size, "mirrors": self.mirrors, "shards": self.shards}
        said = "".join(f", {name}={value!r}" for name, value in more.items() if value)
        return f"Weights(url={self.url!r}, transforms={self.transforms!r}, meta={self.meta!r}{said})"

    def __copy__(self) -> Weights:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Weights:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._key()

    @property
    def pin(self) -> Pin:
        """What is known of the digest: from the entry, or from its URL (``#sha256=``, a prefix in the file name).

        Raises:
            InvalidInput: the two contradict each other, or the URL cannot be read.
        """
        from weightstore.digest import Pin  # start-up: naming weights needs none
        from weightstore.errors import InvalidInput
        from weightstore.source import parse_source

        stated = Pin(self._hex)
        source, named = parse_source(self.url)
        if not stated.agrees_with(named):
            raise InvalidInput(f"{source}: the digest is given as {stated}, and its name says {named}")
        return stated.narrower(named)

    def wants(self, name: str) -> list[Wanted]:
        """Return what is to be fetched: one file, or one for each shard, called ``name`` and numbered.

        Raises:
            InvalidInput: a URL cannot be read.
        """
        from weightstore.records import Wanted  # start-up: naming weights needs none
        from weightstore.source import parse_source

        count = 1 + len(self.shards)
        pin = self.pin
        first = Wanted(
            name if count == 1 else f"{name}[1/{count}]",
            parse_source(self.url)[0],
            pin,
            self.size or self.meta.size if count == 1 else None,
            size_is_exact=self.size is not None and count == 1 and not pin.is_pinned,  # else the pin decides
            alternatives=tuple(parse_source(mirror)[0] for mirror in self.mirrors),
        )
        rest = enumerate(map(parse_source, self.shards), start=2)
        return [first, *(Wanted(f"{name}[{number}/{count}]", source, its_pin) for number, (source, its_pin) in rest)]


def _rebuild(url: str, transforms: Any, meta: Any, digest: str, *more: Any) -> Weights:
    size, licence, mirrors, shards = more
    return Weights(url, transforms, meta, digest=digest, size=size, licence=licence, mirrors=mirrors, shards=shards)
