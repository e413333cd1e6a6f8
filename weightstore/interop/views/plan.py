"""Planning a view: which names it has and what each leads to. Pure functions; nothing here touches disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from weightstore.errors import InvalidInput
from weightstore.interop.views.layouts import Entry, Kind, Link, PassedOver, Text, pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from weightstore.interop.views.layouts import Held

_Piece = TypeVar("_Piece", Entry, Link, Text)


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """All names of a view, in order of their paths, of which none is another's directory and none is there twice."""

    kind: Kind
    entries: tuple[Entry, ...]
    links: tuple[Link, ...]
    texts: tuple[Text, ...]
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(piece.path for piece in self.pieces())

    def pieces(self) -> Iterator[Entry | Link | Text]:
        yield from self.entries
        yield from self.links
        yield from self.texts


def plan_view(kind: Kind, held: Iterable[Held]) -> ViewPlan:
    """Return the view of some sources, or refuse it.

    Raises:
        InvalidInput: two sources want one name for different content; all such pairs are named.
    """
    entries: dict[str, Entry] = {}
    links: dict[str, Link] = {}
    texts: dict[str, Text] = {}
    passed_over = []
    collisions = []
    for piece in pieces(kind, held):
        if isinstance(piece, PassedOver):
            passed_over.append(piece)
        elif isinstance(piece, Text):
            texts[piece.path] = piece
        elif isinstance(piece, Link):
            known = links.setdefault(piece.path, piece)
            if known != piece and known.digest != piece.digest:
                collisions.append(_both(piece.path, known, piece))
        else:
            other = entries.setdefault(piece.path, piece)
            if other.digest != piece.digest:
                collisions.append(_both(piece.path, other, piece))
    collisions += _inside_of_files({**entries, **links, **texts})
    if collisions:
        raise InvalidInput(
            f"a {kind} view would have one name for different content:\n"
            + "\n".join(f"  {line}" for line in dict.fromkeys(collisions))
            + "\nName the weights that it is to have, or give a lockfile with --locked."
        )
    return ViewPlan(kind, _sorted(entries), _sorted(links), _sorted(texts), tuple(passed_over))


def _sorted(found: Mapping[str, _Piece]) -> tuple[_Piece, ...]:
    return tuple(found[path] for path in sorted(found))


def _both(path: str, one: Entry | Link, other: Entry | Link) -> str:
    return f"{path}: {one.source} ({str(one.digest)[:19]}…) and {other.source} ({str(other.digest)[:19]}…)"


def _inside_of_files(found: Mapping[str, Entry | Link | Text]) -> list[str]:
    """Return what would need a directory where another name is a file."""
    collisions = []
    for path, piece in found.items():
        steps = path.split("/")
        for count in range(1, len(steps)):
            above = found.get("/".join(steps[:count]))
            if above is not None:
                collisions.append(f"{above.path}: {_whose(above)}, and as a directory {_whose(piece)}")
    return collisions


def _whose(piece: Entry | Link | Text) -> str:
    return piece.path if isinstance(piece, Text) or piece.source is None else str(piece.source)
