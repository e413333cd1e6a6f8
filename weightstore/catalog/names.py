"""From what people type to catalog entries.

====================================  ===================================================================
``ResNet50_Weights.IMAGENET1K_V2``    that entry
``ResNet50_Weights.DEFAULT``          the enum's best entry; so does ``ResNet50_Weights`` alone
``resnet50``                          the DEFAULT of the builder's enum
``resnet50:IMAGENET1K_V1``            that entry of it
``torchvision/resnet50``              the same, in this catalog only
``resnet*``                           the DEFAULT of every builder that matches
``ViT_*_Weights.*``                   every entry that matches
====================================  ===================================================================

Case is not significant where it is not needed to tell names apart.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING

from weightstore.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weightstore.catalog.entries import Catalog, Entry
    from weightstore.catalog.registry import Catalogs

_LONGEST = 300


Otherwise = Callable[[str, UnknownName], "list[Entry]"]
"""Tells what a name means that no catalog knows, with the error that this is; nothing where it means nothing."""


def resolve(
    names: Iterable[str],
    catalogs: Catalogs,
    *,
    task: str | None = None,
    everything: bool = False,
    otherwise: Otherwise | None = None,
) -> list[Entry]:
    """Return the entries that names and globs mean, without repetition, in the order asked for.

    ``task`` alone means the DEFAULT of every builder of that task; together with names it narrows them. ``everything``
    means all entries of all catalogs. A name that no catalog has, and that is no glob, means what ``otherwise`` says.

    Raises:
        UnknownName: a name that no catalog has, a glob that matches nothing, or a task that nobody knows.
    """
    names = list(names)
    found: dict[str, Entry] = {}
    if everything:
        found = {entry.qualified_name: entry for catalog in catalogs.all() for entry in catalog.entries()}
    elif task is not None and not names:
        found = {entry.qualified_name: entry for entry in _defaults(catalogs)}
    for name in names:
        for entry in _resolve_one(name, catalogs, otherwise or _nothing):
            found.setdefault(entry.qualified_name, entry)
    if task is None:
        return list(found.values())
    chosen = [entry for entry in found.values() if task_matches(entry.task, task)]
    if not chosen:
        tasks = sorted({entry.task for catalog in catalogs.all() for entry in catalog.entries() if entry.task})
        raise UnknownName(name=task, hint=f"no such weights. Tasks are: {', '.join(tasks)}")
    return chosen


def task_matches(task: str, asked: str) -> bool:
    """Tell whether a task is the one asked for, or a kind of it: ``segmentation`` covers ``semantic-segmentation``."""
    task, asked = task.lower(), asked.lower().replace("_", "-").replace(" ", "-")
    return task == asked or task.endswith("-" + asked)


def _defaults(catalogs: Catalogs) -> Iterator[Entry]:
    for catalog in catalogs.all():
        for enum in catalog.enums():
            member = catalog.member_name(enum, "DEFAULT")
            if member is not None:
                yield catalog.entry(enum, member)


def _nothing(name: str, error: UnknownName) -> list[Entry]:  # noqa: ARG001 - the type's signature
    return []


def _resolve_one(text: str, catalogs: Catalogs, otherwise: Otherwise) -> list[Entry]:
    if not text or len(text) > _LONGEST:
        raise InvalidInput("a weights name is not empty, and not longer than 300 characters")
    namespace, slash, name = text.rpartition("/")
    is_glob = any(character in text for character in "*?[")
    if not slash and not is_glob:
        for catalog in catalogs.near():
            if (entry := _exact(name, catalog)) is not None:
                return [entry]
    pool = [catalog for catalog in catalogs.all() if not slash or catalog.namespace.lower() == namespace.lower()]
    if slash and not pool and not is_glob:
        known = sorted(catalog.namespace for catalog in catalogs.all())
        error = UnknownName(name=text, hint=f"there is no catalog {namespace!r}. Known are: {', '.join(known)}")
        if found := otherwise(text, error):
            return found
        raise error
    if is_glob:
        pool = pool or [one for one in catalogs.all() if fnmatch.fnmatchcase(one.namespace.lower(), namespace.lower())]
        found = [entry for catalog in pool for entry in _matching(name, catalog)]
        if not found:
            raise UnknownName(name=text, hint="matches no weights. Quote globs, and see: weightstore search")
        return found
    entries = [entry for catalog in pool if (entry := _exact(name, catalog)) is not None]
    if not entries:
        error = UnknownName(name=text, suggestions=_nearest(name, pool))
        if found := otherwise(text, error):
            return found
        raise error
    if len(entries) > 1:
        choices = ", ".join(entry.qualified_name for entry in entries)
        raise UnknownName(name=text, hint=f"is in several catalogs. Say which: {choices}")
    return entries


def _exact(name: str, catalog: Catalog) -> Entry | None:
    enum_name, dot, member = name.partition(".")
    if not dot:
        builder, colon, member = name.partition(":")
        enum = _fold(builder, catalog.builders) if builder else None
        enum_name = catalog.builders[enum] if enum is not None else builder
        member = member if colon else "DEFAULT"
    enum = _fold(enum_name, catalog.enums())
    if enum is None:
        return None
    true_name = catalog.member_name(enum, member)
    if true_name is None:
        folded = _fold(member, [*catalog.members(enum), "DEFAULT"])
        true_name = catalog.member_name(enum, folded) if folded is not None else None
    return catalog.entry(enum, true_name) if true_name is not None else None


def _fold(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate of this name, or the only one that differs by case alone."""
    names = list(candidates)
    if name in names:
        return name
    same = [candidate for candidate in names if candidate.lower() == name.lower()]
    return same[0] if len(same) == 1 else None


def _matching(pattern: str, catalog: Catalog) -> Iterator[Entry]:
    pattern = pattern.lower()
    by_entry = "." in pattern
    by_member = ":" in pattern
    by_enum = "weights" in pattern  # else `resnet*` would also match ResNet50_QuantizedWeights
    builders = {enum: builder for builder, enum in catalog.builders.items()}
    for enum in catalog.enums():
        builder = builders.get(enum, "")
        if by_entry or by_member:
            for member in catalog.members(enum):
                text = f"{builder}:{member}" if by_member else f"{enum}.{member}"
                is_default = catalog.member_name(enum, "DEFAULT") == member
                alias = f"{builder}:default" if by_member else f"{enum}.default".lower()
                if fnmatch.fnmatchcase(text.lower(), pattern) or (
                    is_default and pattern.endswith("default") and fnmatch.fnmatchcase(alias, pattern)
                ):
                    yield catalog.entry(enum, member)
        elif fnmatch.fnmatchcase((enum if by_enum else builder).lower(), pattern):
            default = catalog.member_name(enum, "DEFAULT")
            if default is not None:
                yield catalog.entry(enum, default)


def _nearest(name: str, catalogs: Iterable[Catalog]) -> list[str]:
    """Return up to three names that look like the one that was typed."""
    import difflib  # start-up: only when a name is wrong

    enum_part, dot, member = name.partition(".")
    names: dict[str, str] = {}
    for catalog in catalogs:
        if dot and (enum := _fold(enum_part, catalog.enums())) is not None:
            default = ["DEFAULT"] if catalog.member_name(enum, "DEFAULT") is not None else []
            members = {one.lower(): f"{enum}.{one}" for one in [*catalog.members(enum), *default]}
            close = difflib.get_close_matches(member.lower(), members, n=3, cutoff=0.4)
            return [members[one] for one in close] or list(members.values())[:3]
        builder, colon, member = name.partition(":")
        if colon and (builder := _fold(builder, catalog.builders) or ""):
            members = {one.lower(): f"{builder}:{one}" for one in catalog.members(catalog.builders[builder])}
            close = difflib.get_close_matches(member.lower(), members, n=3, cutoff=0.4)
            return [members[one] for one in close] or list(members.values())[:3]
        names |= {one.lower(): one for one in catalog.builders}
        if dot or "weights" in name.lower():
            names |= {
                f"{enum}.{one}".lower(): f"{enum}.{one}" for enum in catalog.enums() for one in catalog.members(enum)
            }
            names |= {enum.lower(): enum for enum in catalog.enums()}
    return [names[one] for one in difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)]
