"""Two indexes made one: what others pushed to a mirror, and what somebody pushes now."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weightstore.cluster.index import make_entry, model_index
from weightstore.digest import Digest
from weightstore.errors import InvalidDigest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from weightstore.cluster.index import IndexEntry, ModelIndex
    from weightstore.source import Source

_LONGEST_TASK = 200
_MILLIONS = re.compile(r"([0-9]{1,9}\.[0-9])M")


def merged(old: ModelIndex, new: ModelIndex) -> ModelIndex:
    """Return an index that has what either has; of a checkpoint in both, what the new one says, and all sources.

    What the new one does not know, as of a catalog that is not there, stays as it was. The documents are those that
    are new to whoever has the old one.
    """
    before = old.by_digest
    documents = {**old.documents, **new.documents}
    entries = dict(before)
    for entry in new.entries:
        known = before.get(entry.digest)
        if known is None:
            entries[entry.digest] = entry
        elif not _says_no_more(entry, known):
            entries[entry.digest], made = _joined(known, entry, documents)
            documents |= made
    tags = {one.digest: one.ref_name for one in old.entries if entries[one.digest].name == one.name}
    whole = model_index(entries.values(), kept=tags, foreign=old.foreign)
    changed = [entry for entry in whole.entries if entry != before.get(entry.digest) or entry.manifest in old.documents]
    return replace(whole, documents=dict(_named(changed, documents)))


def _says_no_more(entry: IndexEntry, known: IndexEntry) -> bool:
    told = set(entry.sources) <= set(known.sources) and entry.licence in {"", known.licence}
    is_same = (entry.name, entry.aliases, entry.licence) == (known.name, known.aliases, known.licence)
    is_called = {entry.name, *entry.aliases} <= {"", known.name, *known.aliases}
    return told and is_called and not (is_same and entry.sources == known.sources)


def _names(known: IndexEntry, entry: IndexEntry) -> list[str]:
    """Return the name and the further names of a checkpoint.

    Who knows all of its sources knows what it is called. Who knows only some has one more name for it.
    """
    if not entry.name:
        return [known.name, *known.aliases]
    if set(known.sources) <= set(entry.sources):
        return [entry.name, *entry.aliases]
    return list(dict.fromkeys(filter(None, [known.name, *known.aliases, entry.name, *entry.aliases])))


def _joined(
    known: IndexEntry, entry: IndexEntry, documents: Mapping[Digest, bytes]
) -> tuple[IndexEntry, Mapping[Digest, bytes]]:
    """Return what is said of a checkpoint now, with all that was said before and is not now."""
    (name, *aliases), licence = _names(known, entry), entry.licence or known.licence
    sources = {*known.sources, *entry.sources}
    if sources == set(entry.sources) and (name, licence, tuple(aliases)) == (entry.name, entry.licence, entry.aliases):
        return entry, {}
    before, now = details_of(known, documents), details_of(entry, documents)
    return make_entry(
        entry.digest,
        entry.size,
        sources=sources,
        title=entry.title if name == entry.name and (name or not sources) else known.title if name else "",
        name=name,
        aliases=aliases,
        licence=licence,
        task=now.task or before.task,
        num_params=now.num_params or before.num_params,
    )


@dataclass(frozen=True, slots=True)
class Details:
    """What a config tells beyond the index: the task, and the number of parameters, rounded."""

    task: str = ""
    num_params: int | None = None


def details_of(entry: IndexEntry, documents: Mapping[Digest, bytes]) -> Details:
    """Return what an entry's config tells, if it is among some documents. Whoever wrote it is not believed to parse."""
    try:
        manifest = json.loads(documents[entry.manifest])
        config = json.loads(documents[Digest.parse(manifest["config"]["digest"])])
        task, params = config["descriptor"].get("description", ""), config["config"].get("paramSize", "")
        is_text = isinstance(task, str) and task.isprintable() and len(task) <= _LONGEST_TASK
        count = _MILLIONS.fullmatch(params)
        return Details(task if is_text else "", round(float(count[1]) * 1e6) if count else None)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, InvalidDigest):
        return Details()


def documents_of(
    entry: IndexEntry, manifest: bytes | None, read: Callable[[Digest], bytes | None]
) -> dict[Digest, bytes]:
    """Return an entry's manifest, and the config that ``read`` finds; nothing where there is not one of them."""
    if manifest is None:
        return {}
    try:
        config = Digest.parse(json.loads(manifest)["config"]["digest"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidDigest):
        return {}
    found = read(config)
    return {entry.manifest: manifest, config: found} if found is not None else {}


def written_anew(
    entry: IndexEntry, details: Details, *, sources: Iterable[Source] | None = None
) -> tuple[IndexEntry, dict[Digest, bytes]]:
    """Return an entry whose manifest or config is gone, with new ones, which are the same where nothing else is known.

    ``sources`` are what it has now, by default what it had.
    """
    made, texts = make_entry(
        entry.digest,
        entry.size,
        sources=entry.sources if sources is None else sources,
        title=entry.title,
        name=entry.name,
        aliases=entry.aliases,
        licence=entry.licence,
        task=details.task,
        num_params=details.num_params,
    )
    return replace(made, ref_name=entry.ref_name), texts


def _named(entries: Iterable[IndexEntry], documents: Mapping[Digest, bytes]) -> Iterator[tuple[Digest, bytes]]:
    """Yield the documents that entries name: their manifests, and the configs of these."""
    for entry in entries:
        if entry.manifest in documents:
            yield entry.manifest, documents[entry.manifest]
            config = Digest.parse(json.loads(documents[entry.manifest])["config"]["digest"])
            yield config, documents[config]
