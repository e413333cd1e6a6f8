"""What is written to disk, as values: every record is untrusted when read, and parsed strictly.

Each record has ``parse(bytes)`` and ``encode()``, which are inverses. A record that does not parse raises
:class:`~weightstore.errors.InvalidRecord` and says which field was wrong. Unknown fields are refused: a new field means
a new version.
"""

from __future__ import annotations

import json
import re
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from weightstore.digest import Digest, Pin
from weightstore.errors import InvalidDigest, InvalidRecord, InvalidSource
from weightstore.hub import is_commit
from weightstore.source import Source

LAYOUT_VERSION = 1
RECORD_LIMIT = 64 * 1024
MAX_SIZE = 1 << 60  # bytes; a larger number in a record is damage, not a file

Sharing = Literal["private", "group", "world"]
SHARINGS: tuple[Sharing, ...] = ("private", "group", "world")
Via = Literal["origin", "mirror", "adopted", "signed"]
VIAS: tuple[Via, ...] = ("origin", "mirror", "adopted", "signed")
FORMATS = ("safetensors",)

_T = TypeVar("_T")
# The SHA-256 of a large file, the Git object id (SHA-1) of a small one. It becomes a file name in Hub caches.
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ED25519 = re.compile(r"[0-9a-f]{64}")
_HOST = re.compile(r"[\x21-\x7e]{0,255}")


class Fields:
    """Reads the fields of one JSON object, once each, and complains about what is missing, mistyped or left over."""

    def __init__(self, data: bytes, *, what: str, place: str, limit: int = RECORD_LIMIT) -> None:
        self.what = what
        self.place = place
        if len(data) > limit:
            raise self.error(f"larger than {limit} bytes")
        try:
            values = json.loads(data.decode("utf-8"), parse_constant=self._constant, object_pairs_hook=self._once)
        except (ValueError, RecursionError) as error:
            raise self.error(f"not JSON ({error})") from None
        if not isinstance(values, dict):
            raise self.error("not a JSON object")
        self.values: dict[str, Any] = values

    def _constant(self, text: str) -> float:
        raise ValueError(f"{text} is not a number")

    def _once(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a field is given twice")
        return values

    def error(self, reason: str) -> InvalidRecord:
        return InvalidRecord(place=self.place, reason=f"damaged {self.what}: {reason}")

    def take(self, name: str, kind: type[_T]) -> _T:
        if name not in self.values:
            raise self.error(f"{name!r} is missing")
        value = self.values.pop(name)
        if type(value) is not kind:  # bool is an int to isinstance, and not to us
            raise self.error(f"{name!r} is not {kind.__name__}")
        if isinstance(value, str) and not value.isprintable():
            raise self.error(f"{name!r} contains control characters")
        return value

    def take_each(self, name: str) -> list[Fields]:
        """Return the objects of a list, each to be read like this one."""
        found = []
        for value in self.take(name, list):
            if type(value) is not dict:
                raise self.error(f"{name!r} holds something other than objects")
            fields = copy(self)
            fields.values = value
            found.append(fields)
        return found

    def take_size(self, name: str) -> int:
        value = self.take(name, int)
        if not 0 <= value <= MAX_SIZE:
            raise self.error(f"{name!r} is not a number of bytes")
        return value

    def take_version(self, expected: int) -> None:
        version = self.take("version", int)
        if version != expected:
            raise self.error(f"version {version}; this weightstore reads version {expected}")

    def take_digest(self, name: str) -> Digest:
        try:
            return Digest.parse(self.take(name, str))
        except InvalidDigest as error:
            raise self.error(f"{name!r}: {error}") from None

    def take_pin(self, name: str) -> Pin:
        try:
            return Pin.parse(self.take(name, str))
        except InvalidDigest as error:
            raise self.error(f"{name!r}: {error}") from None

    def take_source(self, name: str) -> Source:
        try:
            return Source(self.take(name, str))
        except InvalidSource as error:
            raise self.error(f"{name!r}: {error}") from None

    def take_time(self, name: str) -> datetime:
        return self.time_of(name, self.take(name, str))

    def time_of(self, name: str, text: str) -> datetime:
        try:
            value = datetime.fromisoformat(text)
            if value.tzinfo is None:
                raise self.error(f"{name!r} has no time zone")
            return value.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise self.error(f"{name!r}: {error}") from None

    def done(self) -> None:
        if self.values:
            raise self.error(f"unknown field {next(iter(self.values))[:80]!r}")


def _encode(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def is_etag(text: str) -> bool:
    """Tell whether text is what the Hub calls content: a SHA-256 or a Git object id, in lower-case digits."""
    return _ETAG.fullmatch(text) is not None


def timestamp(moment: datetime) -> str:
    """Return a moment as it is recorded: UTC, seconds, ISO 8601."""
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """``store.json``: the layout's version and who may share the store."""

    sharing: Sharing
    layout: int = LAYOUT_VERSION

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> StoreInfo:
        fields = Fields(data, what="store.json", place=place)
        layout = fields.take("layout", int)
        if layout != LAYOUT_VERSION:
            raise fields.error(
                f"layout {layout}, and this weightstore knows layout {LAYOUT_VERSION}. "
                "It is never migrated in place: use a newer weightstore or another directory"
            )
        sharing = fields.take("sharing", str)
        if sharing not in SHARINGS:
            raise fields.error(f"sharing is not one of {', '.join(SHARINGS)}")
        fields.done()
        return cls(sharing=sharing, layout=layout)

    def encode(self) -> bytes:
        return _encode({"layout": self.layout, "sharing": self.sharing})


@dataclass(frozen=True, slots=True)
class Ref:
    """A recorded fact: this source was seen to have this digest and size (bytes), at that time, by that way.

    ``adopted`` is what was found in another library's cache, or told by a mirror, and taken by its owner's command.
    ``signed`` is what a mirror served and somebody had signed, by the Ed25519 key whose digits ``key`` has. Of a file
    on the Hub ``commit`` is what its revision meant, and ``etag`` what the Hub calls the content; both are empty
    elsewhere.
    """

    source: Source
    digest: Digest
    size: int
    seen_at: datetime
    via: Via = "origin"
    commit: str = ""
    etag: str = ""
    key: str = ""

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Ref:
        fields = Fields(data, what="ref", place=place)
        fields.take_version(1)
        ref = cls(
            source=fields.take_source("source"),
            digest=fields.take_digest("digest"),
            size=fields.take_size("size"),
            seen_at=fields.take_time("seen_at"),
            via=cls._via(fields),
            commit=fields.take("commit", str) if "commit" in fields.values else "",
            etag=fields.take("etag", str) if "etag" in fields.values else "",
            key=fields.take("key", str) if "key" in fields.values else "",
        )
        fields.done()
        if (ref.via == "signed") is not bool(_ED25519.fullmatch(ref.key)) or (ref.key and ref.via != "signed"):
            raise fields.error("'key' is not that of whoever signed it")
        if ref.commit and not is_commit(ref.commit):
            raise fields.error("'commit' is not a commit")
        if ref.etag and not is_etag(ref.etag):
            raise fields.error("'etag' is not what the Hub calls content")
        return ref

    @property
    def pinned_source(self) -> Source | None:
        """The same file at the commit that its branch meant; None of what is not on the Hub."""
        hub_file = self.source.hub_file
        return Source(str(hub_file.at(self.commit))) if hub_file is not None and self.commit else None

    @staticmethod
    def _via(fields: Fields) -> Via:
        via = fields.take("via", str)
        for known in VIAS:
            if via == known:
                return known
        raise fields.error(f"'via' is not one of {', '.join(VIAS)}")

    def encode(self) -> bytes:
        return _encode(
            {
                "version": 1,
                "source": self.source.display,
                "digest": str(self.digest),
                "size": self.size,
                "seen_at": timestamp(self.seen_at),
                "via": self.via,
                **({"commit": self.commit} if self.commit else {}),
                **({"etag": self.etag} if self.etag else {}),
                **({"key": self.key} if self.key else {}),
            }
        )


@dataclass(frozen=True, slots=True)
class Derived:
    """A recorded claim: the blob ``digest`` holds the same tensors as the blob ``source``, in another format.

    A claim and no more: whoever writes to a store can make it. It is believed by a user who made the blob, or has
    compared the two.
    """

    source: Digest
    digest: Digest
    size: int
    format: str
    made_at: datetime

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Derived:
        fields = Fields(data, what="record of a derived blob", place=place)
        fields.take_version(1)
        derived = cls(
            source=fields.take_digest("source"),
            digest=fields.take_digest("digest"),
            size=fields.take_size("size"),
            format=fields.take("format", str),
            made_at=fields.take_time("made_at"),
        )
        fields.done()
        if derived.format not in FORMATS:
            raise fields.error(f"'format' is not one of {', '.join(FORMATS)}")
        return derived

    def encode(self) -> bytes:
        return _encode(
            {
                "version": 1,
                "source": str(self.source),
                "digest": str(self.digest),
                "size": self.size,
                "format": self.format,
                "made_at": timestamp(self.made_at),
            }
        )


@dataclass(frozen=True, slots=True)
class Validator:
    """What a server says of a file's version: a strong ETag, else a Last-Modified date. Never content's identity."""

    etag: str = ""
    last_modified: str = ""

    def __bool__(self) -> bool:
        return bool(self.etag or self.last_modified)

    @property
    def if_range(self) -> str:
        """The value of an ``If-Range`` header; empty where there is none."""
        return self.etag or self.last_modified

    def contradicts(self, other: Validator) -> bool:
        """Tell whether both name a version, and not the same. A partial answer may omit fields (RFC 9110, 15.3.7)."""
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.last_modified and other.last_modified) and self.last_modified != other.last_modified


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that writes a part: enough to prove, on the same machine, that it is gone.

    ``boot`` is the kernel's boot id, ``pid_namespace`` the inode of the process's PID namespace and ``started`` the
    process's start in clock ticks since boot: a PID alone is reused, and means something else in a container.
    """

    host: str
    pid: int
    boot: str = ""
    pid_namespace: str = ""
    started: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host or 'an unnamed host'}"


@dataclass(frozen=True, slots=True)
class Journal:
    """What lies beside a part: its first ``offset`` bytes have ``digest``, and came from ``source`` at this version."""

    source: Source
    pin: Pin
    total: int | None
    validator: Validator
    offset: int
    digest: Digest
    owner: Owner

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Journal:
        fields = Fields(data, what="journal", place=place)
        fields.take_version(1)
        source, pin = fields.take_source("source"), fields.take_pin("pin")
        total = None if fields.values.get("total", "") is None else fields.take_size("total")
        fields.values.pop("total", None)
        offset, digest = fields.take_size("offset"), fields.take_digest("digest")
        validator = Validator(fields.take("etag", str), fields.take("last_modified", str))
        owner = Owner(
            host=fields.take("host", str),
            pid=fields.take("pid", int),
            boot=fields.take("boot", str),
            pid_namespace=fields.take("pid_namespace", str),
            started=fields.take("started", int),
        )
        fields.done()
        if total is not None and offset > total:
            raise fields.error("'offset' lies beyond 'total'")
        if owner.pid <= 0 or owner.started < 0 or not _HOST.fullmatch(owner.host):
            raise fields.error("the owner is not a process")
        if any(ord(char) < 32 or ord(char) > 126 for char in validator.etag + validator.last_modified):
            raise fields.error("the validator contains control characters")
        return cls(source, pin, total, validator, offset, digest, owner)

    def encode(self) -> bytes:
        return _encode(
            {
                "version": 1,
                "source": self.source.display,
                "pin": str(self.pin),
                "total": self.total,
                "offset": self.offset,
                "digest": str(self.digest),
                "etag": self.validator.etag,
                "last_modified": self.validator.last_modified,
                "host": self.owner.host,
                "pid": self.owner.pid,
                "boot": self.owner.boot,
                "pid_namespace": self.owner.pid_namespace,
                "started": self.owner.started,
            }
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """The stat identity of one file at one moment: while it is unchanged, so is the content."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """One blob that somebody wants: what to call it, where it comes from, what is known of it.

    ``size`` is in bytes; ``size_is_exact`` tells whether another size is an error or only a poor estimate.
    ``alternatives`` are further sources of the same content. ``qualified_name`` is the name with its catalog's
    namespace, where a catalog gave it. ``is_recorded`` tells whether it is written down that the source has it: not
    where the source is a mirror, which is asked by digest and is nobody's origin.
    """

    name: str
    source: Source
    pin: Pin
    size: int | None = None
    size_is_exact: bool = False
    alternatives: tuple[Source, ...] = ()
    qualified_name: str = ""
    is_recorded: bool = True

    @property
    def exact_size(self) -> int | None:
        return self.size if self.size_is_exact else None

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.source, *self.alternatives)
