"""Where bytes can come from: URLs and paths as values, shown and recorded without credentials."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit, urlunsplit

from weightstore.digest import Pin, pin_in_file_name
from weightstore.errors import InvalidSource
from weightstore.hub import HubFile

SCHEMES = ("https", "http", "file", "hf", "oci", "s3", "gs", "az")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_MAX_LENGTH = 8192
_FRAGMENT = re.compile(r"sha256[=:]([0-9A-Fa-f]+)")
# What the distribution specification allows; the blobs of a repository lie below it.
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_KEY = re.compile(r"[A-Za-z0-9/._=-]*")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\<>\"{}|^`]")
# The signatures of the large object stores: without them a URL still names the same object, so they are neither shown
# nor part of a source's identity. The second kind counts only beside a signature.
_SIGNED = re.compile(r"x-(amz|goog|ms|oss)-.*|sig(nature)?", re.IGNORECASE)
_BESIDE_SIGNATURE = re.compile(r"\w*accesskeyid|googleaccessid|key-pair-id|policy|expires", re.IGNORECASE)
# Whatever else grants access. What the value is may decide which file is served, so that a trace of it stays in the
# source's identity: `token=~1a2b3c4d`, the beginning of its SHA-256.
_SECRET_PARAMETER = re.compile(
    r".*token|auth(orization)?|(api|auth|access|account|subscription)[_-]?key|jwt|hdnts|hdnea|rlkey|private_link|"
    r"pwd|pass|password|passwd|(.*[_-])?secret|credentials?|policy|key-pair-id|\w*accesskeyid|googleaccessid",
    re.IGNORECASE,
)
# A host with a port, or one that a name server may know, or an address; and then it ends, or a path follows.
# A scheme without its colon or a slash, or what a password may stand in.
_TYPO = re.compile(r"[a-z][a-z0-9+.-]*(//|:/)|[^/]*:[^/]*@")
_MISSPELT = re.compile(r"(https?|oci|s3|gs|az|hf|file)(?::/?|//)(?!/|[0-9]+(?:/|$))(?P<rest>.+)", re.IGNORECASE)
_HOST = re.compile(
    r"(?:[^/@]*@)?"
    r"(?:(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}(?:/|$)|(?:localhost|(?:[\w-]+\.)+[A-Za-z]{2,}|(?:[0-9]{1,3}\.){3}[0-9]{1,3})/)"
)
_TRACE = re.compile(r"~[0-9a-f]{8}")
# The other parameters of an Azure shared access signature: ordinary short words unless `sig` stands beside them.
_BESIDE_SIG = frozenset(
    ["sv", "sr", "se", "st", "sp", "spr", "sip", "sks", "skt", "ske", "skv", "skoid", "sktid", "srt", "ss", "sdd"]
)


@dataclass(frozen=True, slots=True, repr=False)
class Source:
    """A place that bytes can come from: a URL without a fragment, whose scheme is one of ``SCHEMES``.

    ``url`` is what is asked for and may carry credentials; everything shown or written to disk is ``display``.
    Two sources are one when their ``key`` is the same.
    """

    url: str

    def __post_init__(self) -> None:
        if len(self.url) > _MAX_LENGTH:
            raise InvalidSource(f"a source of more than {_MAX_LENGTH} characters")
        if _UNSAFE.search(self.url) or not self.url.isprintable():
            raise InvalidSource("a source contains spaces, control or quoting characters; percent-encode them")
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:  # its text quotes the part between // and /, where a password may stand
            raise InvalidSource("not a URL: its host or port cannot be read") from None
        if parts.scheme not in SCHEMES:
            known = ", ".join(SCHEMES)
            raise InvalidSource(f"no way to read {parts.scheme or 'schemeless'} sources; known schemes: {known}")
        if parts.fragment:
            raise InvalidSource("a source has no fragment; read it together with its pin")
        if parts.scheme == "hf":
            HubFile.parse(self.url)
        elif parts.scheme == "file":
            if parts.hostname not in (None, "localhost") or not parts.path.startswith("/"):
                raise InvalidSource("a file source is file:///absolute/path on this machine")
            if "\0" in unquote(parts.path):
                raise InvalidSource("a file source contains a NUL character")
        elif not parts.hostname or port == 0:
            raise InvalidSource(f"{parts.scheme} source without a host")
        if parts.scheme == "oci" and (parts.query or not _REPOSITORY.fullmatch(parts.path.strip("/"))):
            raise InvalidSource("a place in a registry looks like oci://host[:port]/group/name, in lower case")
        if parts.scheme in {"s3", "gs", "az"} and (
            parts.query or parts.username or port or not _KEY.fullmatch(parts.path)
        ):
            raise InvalidSource(f"a place in a bucket looks like {parts.scheme}://bucket/path, without credentials")

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read a URL or a path. Relative paths are taken from the current directory; a fragment is refused."""
        if ("#sha256=" if is_path(text) else "#") in text:
            raise InvalidSource("a fragment is not allowed here")
        source, _ = parse_source(text)
        return source

    @classmethod
    def of_path(cls, path: Path) -> Source:
        try:
            absolute = path.expanduser().absolute()
        except (RuntimeError, ValueError):  # nobody of this name; a NUL in the name
            raise InvalidSource(f"{str(path)!r}: there is no such home directory") from None
        return cls("file://" + quote(os.fsencode(absolute), safe="/+,:@=~!$&'()*;"))

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def path(self) -> Path:
        """The local path of a ``file`` source."""
        if self.scheme != "file":
            raise InvalidSource(f"{self.display} is not a local file")
        return Path(os.fsdecode(unquote_to_bytes(urlsplit(self.url).path)))

    @property
    def hub_file(self) -> HubFile | None:
        """The file on the Hub that an ``hf`` source names; None of other sources."""
        return HubFile.parse(self.url) if self.scheme == "hf" else None

    @property
    def file_name(self) -> str:
        """The last segment of the path, decoded. A label, never a path: it may contain anything."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def display(self) -> str:
        """The source as it may be shown and recorded: canonical, without user, password and access tokens."""
        return _display(self.url)

    @property
    def key(self) -> str:
        """The source's identity, 64 hexadecimal digits: the SHA-256 of what may be shown of it."""
        return hashlib.sha256(self.display.encode()).hexdigest()

    @property
    def pin(self) -> Pin:
        """The pin that the file name carries, if any."""
        return pin_in_file_name(self.file_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and self.display == other.display

    def __hash__(self) -> int:
        return hash(self.display)

    def __str__(self) -> str:
        return self.display

    def __repr__(self) -> str:
        return f"Source({self.display!r})"


@functools.lru_cache(maxsize=4096)
def _display(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return f"file://{parts.path}"
    if parts.scheme == "hf":
        return str(HubFile.parse(url))
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    if parts.port and parts.port != _DEFAULT_PORTS.get(parts.scheme):
        host = f"{host}:{parts.port}"
    return urlunsplit((parts.scheme, host, parts.path or "/", _without_secrets(parts.query), ""))


def _without_secrets(query: str) -> str:
    items = [(item, unquote(item.partition("=")[0]).lower()) for item in query.split("&")]
    names = {name for _, name in items}
    kept = []
    for item, name in items:
        if _SIGNED.fullmatch(name):
            continue
        if "sig" in names and name in _BESIDE_SIG:
            continue
        if names & {"sig", "signature"} and _BESIDE_SIGNATURE.fullmatch(name):
            continue
        kept.append(_traced(name, item) if _SECRET_PARAMETER.fullmatch(name) else item)
    return "&".join(kept)


def _traced(name: str, item: str) -> str:
    value = item.partition("=")[2]
    if not value or _TRACE.fullmatch(value):
        return item
    return f"{name}=~{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def is_path(text: str) -> bool:
    """Tell whether text is meant as a local path: it says so by ``/``, ``./``, ``../`` or ``~`` in front."""
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def lacks_scheme(text: str) -> bool:
    """Tell whether text looks like an address on a network without a scheme, as ``host:8000/site``, and not a path."""
    return (
        "://" not in text
        and not is_path(text)
        and (bool(_HOST.match(text) or _TYPO.match(text)) or mended_scheme(text) is not None)
    )


def mended_scheme(text: str) -> str | None:
    """Return the URL that text was meant as where its scheme lacks a slash or the colon, as ``s3:bucket/site``."""
    if "://" in text or (found := _MISSPELT.fullmatch(text)) is None:
        return None
    return f"{found[1].lower()}://{found['rest'].rpartition('@')[2]}"  # the rest may carry credentials


def is_source(text: str) -> bool:
    """Tell whether text is meant as a URL or a local path, and not as a weights name."""
    return "://" in text or is_path(text)


def parse_source(text: str) -> tuple[Source, Pin]:
    """Read a URL or path and the pin it comes with: its ``#sha256=<hex>`` fragment, else its file name's, else none.

    Raises:
        InvalidSource: not a URL or path that can be read, or a fragment that is not a pin.
        InvalidDigest: the fragment's digits are no pin.
    """
    if is_path(text):
        path, stated_pin, fragment = text.partition("#sha256=")
        source = Source.of_path(Path(path))
        if stated_pin and not fragment:
            raise InvalidSource(f"{source.display}: #sha256= without a digest")
        return source, Pin(fragment.lower()) if stated_pin else source.pin
    address, hash_sign, fragment = text.partition("#")
    scheme, separator, rest = address.partition("://")
    source = Source(scheme.lower() + separator + rest)
    if not hash_sign:
        return source, source.pin
    stated = _FRAGMENT.fullmatch(fragment)
    if stated is None:
        raise InvalidSource(f"{source.display}: the fragment is not #sha256=<hex>")
    return source, Pin(stated.group(1).lower())
