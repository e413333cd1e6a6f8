"""``allowed_signers``: whose signatures count, in OpenSSH's format (ssh-keygen(1), ALLOWED SIGNERS).

Lines of keys that are no Ed25519 keys are passed by: the same file may serve for git. An option that is not understood
is an error, since it may be there to forbid something.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.errors import InvalidConfig
from weightstore.signing.sshsig import KEY_TYPE, NAMESPACE, BadSignature, parse_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from weightstore.records import Ref

_LIMIT = 1 << 20
_KEY_TYPES = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa|rsa)-[a-z0-9@.-]+")
_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?(?:,|$)', re.IGNORECASE)
_TIME = re.compile(r"(\d{8})(\d{4}(?:\d\d)?)?(Z?)")


@dataclass(frozen=True, slots=True)
class Signer:
    """A key, whose it is, and what it may sign when. Moments are None where there is no bound."""

    name: str
    key: bytes
    namespaces: tuple[str, ...] = ()
    valid_after: datetime | None = None
    valid_before: datetime | None = None

    def may_sign(self, namespace: str) -> bool:
        """Tell whether this key signs for a purpose; one without namespaces signs for any."""
        if not self.namespaces:
            return True
        allowed = [pattern for pattern in self.namespaces if not pattern.startswith("!")]
        denied = [pattern[1:] for pattern in self.namespaces if pattern.startswith("!")]
        return any(_matches(one, namespace) for one in allowed) and not any(_matches(one, namespace) for one in denied)

    def is_valid(self, now: datetime) -> bool:
        return (self.valid_after is None or self.valid_after <= now) and (
            self.valid_before is None or now < self.valid_before
        )


def allowed(signers: Iterable[Signer], key: bytes, at: datetime, *, namespace: str) -> Signer | None:
    """Return the signer whose key it is, if it may sign for a purpose and was valid at a moment; else None."""
    mine = (one for one in signers if one.key == key)
    return next((one for one in mine if one.may_sign(namespace) and one.is_valid(at)), None)


def may_have_signed(path: Path, ref: Ref) -> bool:
    """Tell whether the key by whose word something was recorded is one that a file allows, and was so then.

    Raises:
        InvalidConfig: the file cannot be used.
    """
    return allowed(read_signers(path), bytes.fromhex(ref.key), ref.seen_at, namespace=NAMESPACE) is not None


def read_signers(path: Path) -> tuple[Signer, ...]:
    """Return the signers of a file.

    Raises:
        InvalidConfig: it cannot be read, or a line of it cannot be understood.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise InvalidConfig(f"allowed_signers: {path}: {error.strerror}") from None
    return parse_signers(data, place=str(path))


def parse_signers(data: bytes, *, place: str) -> tuple[Signer, ...]:
    """Read an ``allowed_signers`` file. Errors as for :func:`read_signers`."""
    if len(data) > _LIMIT:
        raise InvalidConfig(f"{place}: larger than {_LIMIT} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidConfig(f"{place}: not UTF-8") from None
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            try:
                signer = _parse_line(stripped)
            except ValueError as error:
                raise InvalidConfig(f"{place}, line {number}: {error}") from None
            if signer is not None:
                found.append(signer)
    return tuple(found)


def _parse_line(line: str) -> Signer | None:
    fields = _fields(line)
    principals = fields[0].strip('"')
    options: dict[str, str] = {}
    if len(fields) > 1 and not _KEY_TYPES.fullmatch(fields[1]):
        options = _options(fields.pop(1))
    if len(fields) < 3:
        raise ValueError("a line has principals, perhaps options, a key type and a key")
    if fields[1] != KEY_TYPE.decode():
        return None
    try:
        key = parse_key(base64.b64decode(fields[2], validate=True))
    except (BadSignature, binascii.Error, ValueError):
        raise ValueError("the key is damaged") from None
    if "cert-authority" in options:
        return None  # it signs certificates, and no indexes
    namespaces = tuple(item for item in options.get("namespaces", "").split(",") if item)
    if "namespaces" in options and not namespaces:
        raise ValueError("namespaces is empty")
    return Signer(principals, key, namespaces, _time(options, "valid-after"), _time(options, "valid-before"))


def _fields(line: str) -> list[str]:
    """Split at blanks that stand outside of double quotes."""
    fields = re.findall(r'(?:"[^"]*"|[^\s"])+', line)
    if '"' in re.sub(r'"[^"]*"', "", line):
        raise ValueError("a quote is not closed")
    return fields


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _OPTION.match(text, at)
        name = match[1].lower() if match else ""
        if match is None or name in options:
            raise ValueError("the options cannot be read")
        has_value = match[2] is not None
        if has_value is (name == "cert-authority") or name not in {
            "cert-authority",
            "namespaces",
            "valid-after",
            "valid-before",
        }:
            raise ValueError(f"no option is called {name!r}")
        options[name] = match[2] or ""
        at = match.end()
    return options


def _time(options: dict[str, str], name: str) -> datetime | None:
    if name not in options:
        return None
    match = _TIME.fullmatch(options[name])
    if match is None:
        raise ValueError(f"{name} is not YYYYMMDD[HHMM[SS]][Z]")
    try:
        moment = datetime.strptime(match[1] + (match[2] or "").ljust(6, "0"), "%Y%m%d%H%M%S")  # noqa: DTZ007 - below
    except ValueError:
        raise ValueError(f"{name} is no moment") from None
    return moment.replace(tzinfo=UTC) if match[3] else moment.astimezone(UTC)  # without Z it is local time


def _matches(pattern: str, text: str) -> bool:
    """Match OpenSSH's patterns: ``*`` and ``?``, and nothing else that is special."""
    expression = "".join(".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.fullmatch(expression, text) is not None
