"""The index of a mirror: what weights it has, as the ``index.json`` of an OCI image layout.

Every checkpoint is an OCI artifact by itself, of the media types of the ModelPack specification
(https://github.com/modelpack/model-spec): a manifest whose one layer is the checkpoint as it is, so that the layer's
digest is the blob's, and a config that tells name, licence and source. skopeo, oras and registries copy such a store
unchanged. What is asked most is repeated in the index's annotations, so that one file answers for all of a mirror.

Everything here is a value. Equal stores and catalogs give equal bytes, and what is read is untrusted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from weightstore.catalog.entries import best_known_first
from weightstore.cluster.words import all_count, why_no_word
from weightstore.digest import Digest
from weightstore.errors import BlobDamaged, InvalidSource
from weightstore.records import MAX_SIZE, Fields
from weightstore.source import Source
from weightstore.store.blobs import list_blobs, open_verified
from weightstore.store.durability import sync_directory
from weightstore.store.gc import refs_by_digest
from weightstore.store.image import DOCUMENT_LIMIT, INDEX_LIMIT, INDEX_NAME
from weightstore.store.layout import translated, write_record
from weightstore.store.parts import Part
from weightstore.store.publish import give_name, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from weightstore.catalog.entries import Catalog, Entry
    from weightstore.records import Ref
    from weightstore.store.layout import Layout
    from weightstore.store.receipts import Receipts

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"

TITLE = "org.opencontainers.image.title"
REF_NAME = "org.opencontainers.image.ref.name"
LICENCES = "org.opencontainers.image.licenses"
FILE_PATH = "org.cncf.model.filepath"
NAME = "dev.weightstore.name"
ALIASES = "dev.weightstore.aliases"
ALIAS_OF = "dev.weightstore.alias-of"
SOURCES = "dev.weightstore.sources"
DIGEST = "dev.weightstore.digest"
SIZE = "dev.weightstore.size"

# The tags of the index itself, and of what signs it, where the mirror is in a registry.
INDEX_TAG = "weightstore-index"
_RESERVED = frozenset({INDEX_TAG, "weightstore-signed"})
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NOT_IN_TITLES = re.compile(r"[^A-Za-z0-9._+@-]+")
_TAG_LENGTH = 100  # with a digest's beginning behind it, no more than the 128 that registries take
_SUFFIX = 12


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One checkpoint of a mirror.

    Attributes:
        digest: of the checkpoint, and ``size`` its bytes.
        title: a file name, safe to be one.
        ref_name: what tools call it, the tag in a registry; unique in an index.
        sources: where it was seen to come from, as they may be shown. Paths of one machine are not among them.
        name: the weights name with its namespace; empty where no catalog knows it. ``aliases`` are further ones.
        licence: as the catalog has it; empty where it is not known.
        manifest: digest of its manifest, and ``manifest_size`` that document's bytes.
    """

    digest: Digest
    size: int
    title: str
    ref_name: str
    sources: tuple[Source, ...]
    name: str
    licence: str
    manifest: Digest
    manifest_size: int
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelIndex:
    """What a mirror has, by digest.

    ``documents`` are the manifests and configs, as far as this process made them: one that was read has none.
    ``foreign`` are the manifests of others that an index names; they are kept as they are.
    """

    entries: tuple[IndexEntry, ...] = ()
    foreign: tuple[Mapping[str, Any], ...] = ()
    documents: Mapping[Digest, bytes] = field(default_factory=dict)

    @property
    def by_digest(self) -> dict[Digest, IndexEntry]:
        return {entry.digest: entry for entry in self.entries}

    @property
    def tags(self) -> dict[str, IndexEntry]:
        """The entries by tag: of each first its own, then those of further names that no other has taken."""
        found = {entry.ref_name: entry for entry in self.entries}
        for entry in self.entries:
            for alias in entry.aliases:
                tag = _tag_of(alias)
                if tag and tag not in _RESERVED:
                    found.setdefault(tag, entry)
        return found

    @property
    def by_source(self) -> dict[Source, IndexEntry]:
        """The entries by source; a source that several entries claim is left out, since nothing is guessed."""
        found: dict[Source, IndexEntry] = {}
        claims = Counter(source for entry in self.entries for source in entry.sources)
        for entry in self.entries:
            found |= {source: entry for source in entry.sources if claims[source] == 1}
        return found

    def encode(self) -> bytes:
        """Return the bytes of ``index.json``."""
        return _encoded(
            {
                "schemaVersion": 2,
                "mediaType": INDEX_TYPE,
                "manifests": [
                    *(_descriptor(entry) for entry in self.entries),
                    *(_alias(tag, entry) for tag, entry in self.tags.items() if tag != entry.ref_name),
                    *(dict(one) for one in self.foreign),
                ],
            }
        )


def model_index(
    entries: Iterable[IndexEntry],
    *,
    kept: Mapping[Digest, str] | None = None,
    foreign: tuple[Mapping[str, Any], ...] = (),
    **parts: Any,
) -> ModelIndex:
    """Return an index of entries, in order, each under a tag that no other has.

    Tags that were given before, ``kept``, stay what they are: people have written them down. Where several others would
    have one tag, as two files of one name, all of them get the beginning of their digest behind it: which of them is
    meant is not guessed. So does one that comes later than what has its tag, be it an entry or a ``foreign`` manifest.
    """
    by_digest = {entry.digest: entry for entry in entries}
    ordered = [by_digest[digest] for digest in sorted(by_digest)]
    tags = {digest: tag for digest, tag in (kept or {}).items() if digest in by_digest and tag not in _RESERVED}
    plain = {entry.digest: _plain_tag(entry) for entry in ordered if entry.digest not in tags}
    manifests = {str(entry.manifest) for entry in ordered}
    names = {_name_of(one) for one in foreign if one["digest"] not in manifests}  # a copy of ours may have our name
    asked = Counter([*tags.values(), *plain.values(), *names, *_RESERVED])
    tags |= {digest: tag for digest, tag in plain.items() if asked[tag] == 1}
    taken = set(tags.values())
    for digest, tag in plain.items():
        if digest not in tags:
            longer = f"{tag}-{digest.hex[:_SUFFIX]}"
            tags[digest] = longer if longer not in taken else digest.hex
            taken.add(tags[digest])
    return ModelIndex(tuple(replace(entry, ref_name=tags[entry.digest]) for entry in ordered), foreign, **parts)


def _name_of(descriptor: Mapping[str, Any]) -> str:
    """Return what tools call a foreign manifest; an empty text where it has no name."""
    annotations = descriptor.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else ""


def build_index(
    layout: Layout,
    catalogs: Iterable[Catalog],
    *,
    only: Iterable[Digest] | None = None,
    counts: Callable[[Ref], bool] = all_count,
) -> ModelIndex:
    """Return the index of a store: of every blob that a ref names, or of ``only`` some of them.

    A blob that nothing names is not in it: nobody could say what it is. Reads no blob.
    """
    blobs = list_blobs(layout)
    wanted = None if only is None else set(only)
    sizes = {digest: found.st_size for digest, found in blobs.items() if wanted is None or digest in wanted}
    return index_of(sizes, refs_by_digest(layout), catalogs, counts=counts)


def index_of(
    sizes: Mapping[Digest, int],
    refs: Mapping[Digest, Iterable[Ref]],
    catalogs: Iterable[Catalog],
    *,
    counts: Callable[[Ref], bool] = all_count,
    titles: Mapping[Digest, str] | None = None,
) -> ModelIndex:
    """Return the index of some blobs, by what is recorded of them and what catalogs know of their sources.

    A blob of which only what is no word of the source is recorded is in it without a source, to be found by its digest.
    So is one of which nothing is recorded and that has one of some ``titles``.
    """
    known = tuple(catalogs)
    entries: list[IndexEntry] = []
    documents: dict[Digest, bytes] = {}
    for digest in sorted(sizes):
        mine = list(refs.get(digest, ()))
        title = (titles or {}).get(digest, "")
        if not mine and not title:
            continue
        words = [ref for ref in mine if not why_no_word(ref, known, counts=counts)]
        found = _entries_of(words, known)
        entry = found[0] if found else None
        made, texts = make_entry(
            digest,
            sizes[digest],
            sources=[ref.source for ref in words],
            title=_title_of(entry, words, mine, digest, title),
            name=entry.qualified_name if entry is not None else "",
            aliases=[one.qualified_name for one in found[1:]],
            licence=(entry.licence or "") if entry is not None else "",
            task=entry.task if entry is not None else "",
            num_params=entry.num_params if entry is not None else None,
        )
        entries.append(made)
        documents |= texts
    return model_index(entries, documents=documents)


def _entries_of(refs: Iterable[Ref], catalogs: Iterable[Catalog]) -> list[Entry]:
    """Return what catalogs say of a blob: of each of its sources, if the pin agrees."""
    return best_known_first(
        entry
        for ref in refs
        for catalog in catalogs
        for entry in catalog.entries_of_source(ref.source)
        if entry.pin.matches(ref.digest)
    )


def _title_of(entry: Entry | None, words: Sequence[Ref], others: Sequence[Ref], digest: Digest, title: str) -> str:
    """Return the file name of a blob where it is not simply that of the first of its public sources."""
    if words:
        return _title([entry.source], digest) if entry is not None and entry.source.scheme != "file" else ""
    return _title(sorted((ref.source for ref in others), key=str), digest) if others else title


def make_entry(
    digest: Digest,
    size: int,
    *,
    sources: Iterable[Source],
    title: str = "",
    name: str = "",
    aliases: Iterable[str] = (),
    licence: str = "",
    task: str = "",
    num_params: int | None = None,
) -> tuple[IndexEntry, dict[Digest, bytes]]:
    """Return an entry, and its manifest and config by their digests. Without a ``title`` the sources give one."""
    given = sorted(set(sources), key=str)
    public = tuple(source for source in given if source.scheme != "file")
    title = title or _title([*public, *given], digest)
    config = _encoded(_config(digest, title, public, name=name, licence=licence, task=task, num_params=num_params))
    others = tuple(dict.fromkeys(alias for alias in aliases if alias != name))
    annotations = {
        TITLE: title,
        SOURCES: _listed(map(str, public)),
        NAME: name,
        ALIASES: _listed(others) if others else "",
        LICENCES: licence,
    }
    told = {key: value for key, value in annotations.items() if value}
    manifest = _encoded(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": str(_digest_of(config)), "size": len(config)},
            "layers": [
                {
                    "mediaType": WEIGHT_TYPE,
                    "digest": str(digest),
                    "size": size,
                    "annotations": {TITLE: title, FILE_PATH: title},
                }
            ],
            "annotations": told,
        }
    )
    entry = IndexEntry(digest, size, title, "", public, name, licence, _digest_of(manifest), len(manifest), others)
    return replace(entry, ref_name=_plain_tag(entry)), {entry.manifest: manifest, _digest_of(config): config}


def _config(
    digest: Digest,
    title: str,
    sources: tuple[Source, ...],
    *,
    name: str,
    licence: str,
    task: str,
    num_params: int | None,
) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"name": name or title, "title": title}
    if sources:
        # Of several that whose name the file has.
        descriptor["sourceURL"] = str(next((one for one in sources if _title([one], digest) == title), sources[0]))
    if licence:
        descriptor["licenses"] = [licence]
    if task:
        descriptor["description"] = task
    technical: dict[str, Any] = {"format": "safetensors" if title.endswith(".safetensors") else "pytorch"}
    if num_params:
        technical["paramSize"] = f"{num_params / 1e6:.1f}M"
    layers = {"type": "layers", "diffIds": [str(digest)]}
    return {"descriptor": descriptor, "config": technical, "modelfs": layers}


def _title(sources: Iterable[Source], digest: Digest) -> str:
    for source in sources:
        hub_file = source.hub_file
        name = _NOT_IN_TITLES.sub("_", hub_file.file.rpartition("/")[2] if hub_file else source.file_name).strip("._-")
        if name:
            return name[-_TAG_LENGTH:]
    return digest.hex


def _plain_tag(entry: IndexEntry) -> str:
    return _tag_of(entry.name or entry.title) or entry.digest.hex


def tags_of(entry: IndexEntry) -> frozenset[str]:
    """Return the tags that a push may have given an entry: by its names or its file, alone or among namesakes."""
    plain = {tag for name in (entry.name, entry.title, *entry.aliases) if (tag := _tag_of(name))}
    return frozenset({entry.digest.hex, *plain, *(f"{tag}-{entry.digest.hex[:_SUFFIX]}" for tag in plain)})


def _tag_of(name: str) -> str:
    kept = "-".join(re.findall(r"[A-Za-z0-9._]+", name.removeprefix("torchvision/"))).strip("._-")
    return kept[:_TAG_LENGTH]


def _listed(texts: Iterable[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=True, separators=(",", ":"))


def _descriptor(entry: IndexEntry) -> dict[str, Any]:
    annotations = {
        REF_NAME: entry.ref_name,
        TITLE: entry.title,
        DIGEST: str(entry.digest),
        SIZE: str(entry.size),
        SOURCES: _listed(map(str, entry.sources)),
        NAME: entry.name,
        ALIASES: _listed(entry.aliases) if entry.aliases else "",
        LICENCES: entry.licence,
    }
    return {
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "digest": str(entry.manifest),
        "size": entry.manifest_size,
        "annotations": {key: value for key, value in annotations.items() if value},
    }


def _alias(tag: str, entry: IndexEntry) -> dict[str, Any]:
    """Return what lets tools find an entry under a further name."""
    return {
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "digest": str(entry.manifest),
        "size": entry.manifest_size,
        "annotations": {REF_NAME: tag, ALIAS_OF: str(entry.digest)},
    }


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def parse_index(data: bytes, *, place: str) -> ModelIndex:
    """Return what an ``index.json`` says. Manifests that others made are kept apart, as ``foreign``.

    Raises:
        InvalidRecord: it is none, or an entry of ours in it is damaged.
    """
    fields = Fields(data, what=INDEX_NAME, place=place, limit=INDEX_LIMIT)
    if fields.take("schemaVersion", int) != 2:
        raise fields.error("'schemaVersion' is not 2")
    if fields.values.get("mediaType", INDEX_TYPE) != INDEX_TYPE:
        raise fields.error("'mediaType' is not that of an index")
    entries, foreign = [], []
    for one in fields.take_each("manifests"):
        whole = dict(one.values)
        annotations = one.values.get("annotations") or {}
        if isinstance(annotations, dict) and DIGEST in annotations:
            entries.append(_parsed(one))
        elif isinstance(annotations, dict) and ALIAS_OF in annotations:
            continue  # the entry itself tells
        else:
            one.take("mediaType", str)
            one.take_digest("digest")
            one.take_size("size")
            foreign.append(whole)
    digests, tags = Counter(entry.digest for entry in entries), Counter(entry.ref_name for entry in entries)
    if any(count > 1 for count in (*digests.values(), *tags.values())):
        raise fields.error("a digest or a name is in it twice")
    return ModelIndex(tuple(entries), tuple(foreign))


def _parsed(one: Fields) -> IndexEntry:
    if one.take("mediaType", str) != MANIFEST_TYPE:
        raise one.error("'mediaType' is not that of a manifest")
    manifest, manifest_size = one.take_digest("digest"), one.take_size("size")
    if manifest_size > DOCUMENT_LIMIT:
        raise one.error(f"a manifest of more than {DOCUMENT_LIMIT} bytes")
    inner = copy(one)
    inner.values = dict(one.take("annotations", dict))
    digest, size = inner.take_digest(DIGEST), inner.take(SIZE, str)
    if not size.isascii() or not size.isdigit() or len(size) > len(str(MAX_SIZE)) or int(size) > MAX_SIZE:
        raise inner.error(f"{SIZE!r} is not a number of bytes")
    title, ref_name = inner.take(TITLE, str), inner.take(REF_NAME, str)
    if _NOT_IN_TITLES.search(title) or title.strip("._-") != title or not title:
        raise inner.error(f"{TITLE!r} is not a file name")
    if not TAG.fullmatch(ref_name):
        raise inner.error(f"{REF_NAME!r} is not a tag")
    texts = {key: inner.take(key, str) if key in inner.values else "" for key in (NAME, LICENCES)}
    return IndexEntry(
        digest,
        int(size),
        title,
        ref_name,
        _parsed_sources(inner),
        texts[NAME],
        texts[LICENCES],
        manifest,
        manifest_size,
        _parsed_list(inner, ALIASES),
    )


def _parsed_list(fields: Fields, key: str) -> tuple[str, ...]:
    if key not in fields.values:
        return ()
    try:
        texts = json.loads(fields.take(key, str))
    except (ValueError, RecursionError):
        raise fields.error(f"{key!r} is not JSON") from None
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise fields.error(f"{key!r} is not a list of strings")
    return tuple(texts)


def _parsed_sources(fields: Fields) -> tuple[Source, ...]:
    try:
        sources = tuple(Source(text) for text in _parsed_list(fields, SOURCES))
    except InvalidSource as error:
        raise fields.error(f"{SOURCES!r}: {error}") from None
    if any(source.scheme == "file" for source in sources):
        raise fields.error(f"{SOURCES!r} names a path of somebody's machine")
    return sources


def write_index(layout: Layout, index: ModelIndex, *, receipts: Receipts) -> None:
    """Write the manifests and configs as blobs, then ``index.json`` in one step.

    Raises:
        StoreError, NoSpace: the store cannot be written.
        CannotReplace: a damaged blob of another user holds a manifest's name.
    """
    for digest, data in sorted(index.documents.items()):
        _publish_document(layout, digest, data, receipts)
    with translated(layout.blobs):
        sync_directory(layout.blobs)
    path = layout.root / INDEX_NAME
    with translated(path):
        write_record(path, index.encode(), mode=layout.modes.blob, scratch=layout.tmp, durable=True)


def _publish_document(layout: Layout, digest: Digest, data: bytes, receipts: Receipts) -> None:
    if _has(layout, digest, receipts):
        return
    part = Part.create(layout, f"sha256-{digest.hex}")
    try:
        with translated(part.path), open(part.fd, "wb", closefd=False) as file:
            file.write(data)
        settle(part, size=len(data))
        give_name(part, digest, receipts)
    except BaseException:
        part.discard()
        raise


def _has(layout: Layout, digest: Digest, receipts: Receipts) -> bool:
    try:
        blob = open_verified(layout.blob(digest), digest, receipts)
    except (OSError, BlobDamaged):
        return False  # publishing it finds out what is in the way
    if blob is not None:
        blob.close()
    return blob is not None
