"""The names of content: digests, and pins, which are what is known of a digest beforehand."""

from __future__ import annotations

import re
from dataclasses import dataclass

from weightstore.errors import InvalidDigest

_FULL = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{8,64}")
# `name-<hex>.ext`: torch.hub's convention (its HASH_REGEX), narrowed. The extensions start with a letter, so that
# `model-2.0.pth` and `model-12345678.0.pth` are versions and not pins.
_IN_FILE_NAME = re.compile(r"-([0-9a-f]{8,64})(?:\.[A-Za-z][A-Za-z0-9]*)+\Z")
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
# 32 and 40 hexadecimal digits are far more often an MD5, a SHA-1 or a commit than part of a SHA-256.
_OTHER_ALGORITHMS = frozenset({32, 40})
# TorchVision's checkpoints whose names join the digest by an underscore; nobody else's convention is guessed.
_UNDERSCORED = {
    "mobilenet_v2_qnnpack_37f702c5.pth": "37f702c5",
    "resnet18_fbgemm_16fa66dd.pth": "16fa66dd",
    "resnet50_fbgemm_bf931d71.pth": "bf931d71",
    "resnext101_32x8_fbgemm_09835ccf.pth": "09835ccf",
}


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The name of content: the SHA-256 of its bytes, 64 lower-case hexadecimal digits."""

    hex: str

    def __post_init__(self) -> None:
        if not _FULL.fullmatch(self.hex):
            raise InvalidDigest(f"not a SHA-256 in lower-case hexadecimal: {self.hex[:80]!r}")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<64 hex>``, as :func:`str` writes it."""
        algorithm, separator, value = text.partition(":")
        if not separator or algorithm != "sha256":
            raise InvalidDigest(f"a digest looks like sha256:<64 hex>, not {text[:80]!r}")
        return cls(value)

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@dataclass(frozen=True, slots=True)
class Pin:
    """What is known of a digest beforehand: all of it, its first 8 or more digits, or nothing.

    ``hex`` is 64, 8 to 63, or 0 hexadecimal digits long.
    """

    hex: str = ""

    def __post_init__(self) -> None:
        if self.hex and not _PREFIX.fullmatch(self.hex):
            raise InvalidDigest(f"a pin is 8 to 64 lower-case hexadecimal digits, not {self.hex[:80]!r}")

    @classmethod
    def parse(cls, text: str) -> Pin:
        """Read ``sha256:<8 to 64 hex>`` or ``none``, as :func:`str` writes it."""
        if text == "none":
            return cls()
        algorithm, separator, value = text.partition(":")
        if not separator or algorithm != "sha256" or not value:
            raise InvalidDigest(f"a pin looks like sha256:<8 to 64 hex> or none, not {text[:80]!r}")
        return cls(value)

    @classmethod
    def of(cls, digest: Digest) -> Pin:
        """Return the full pin of a digest."""
        return cls(digest.hex)

    @property
    def digest(self) -> Digest | None:
        """The digest, where all of it is known."""
        return Digest(self.hex) if self.is_full else None

    @property
    def is_full(self) -> bool:
        return len(self.hex) == 64

    @property
    def is_pinned(self) -> bool:
        return bool(self.hex)

    def matches(self, digest: Digest) -> bool:
        """Tell whether content of this digest is content that the pin allows. No pin allows any."""
        return digest.hex.startswith(self.hex)

    def agrees_with(self, other: Pin) -> bool:
        """Tell whether one digest could match both."""
        shorter, longer = sorted((self.hex, other.hex), key=len)
        return longer.startswith(shorter)

    def narrower(self, other: Pin) -> Pin:
        """Return the one of two agreeing pins that says more."""
        return self if len(self.hex) >= len(other.hex) else other

    def __str__(self) -> str:
        return f"sha256:{self.hex}" if self.hex else "none"


def pin_in_file_name(name: str) -> Pin:
    """Return the pin that a file name carries by the convention ``name-<8 or more hex>.ext``, or no pin.

    Digits that are plainly something else are not a pin: versions (``model-2.0.pth``), dates
    (``model-20240131.pth``), and strings as long as an MD5 or a SHA-1.
    """
    if name in _UNDERSCORED:
        return Pin(_UNDERSCORED[name])
    found = _IN_FILE_NAME.search(name)
    if found is None:
        return Pin()
    value = found.group(1)
    if len(value) in _OTHER_ALGORITHMS or _DATE.fullmatch(value):
        return Pin()
    return Pin(value)
