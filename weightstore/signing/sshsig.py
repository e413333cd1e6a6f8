"""SSH signatures of files, as ``ssh-keygen -Y sign`` makes them, by Ed25519 keys.

The format is OpenSSH's PROTOCOL.sshsig. What is read is untrusted: everything has one form here, and every other is an
error. The namespace is part of what is signed, so that a signature for another purpose is none for ours.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import dataclass

from weightstore.errors import InvalidInput, MissingDependency

NAMESPACE = "weightstore-index"
KEY_TYPE = b"ssh-ed25519"
SIGNATURE_LIMIT = 16 * 1024
_MAGIC = b"SSHSIG"
_ALGORITHMS = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_ARMOUR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+?)\r?\n-----END SSH SIGNATURE-----\s*",
)


class BadSignature(ValueError):
    """A signature that is none, or not of this text."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: the key that it says it is by, for which purpose, and the bytes that prove it.

    ``key`` are the 32 bytes of the Ed25519 key; that it is a key of somebody trusted is for others to find out.
    """

    key: bytes
    namespace: str
    reserved: bytes
    algorithm: bytes
    proof: bytes

    @classmethod
    def parse(cls, text: bytes) -> Signature:
        """Read an armoured signature.

        Raises:
            BadSignature: it is none, or not by an Ed25519 key.
        """
        armour = _ARMOUR.fullmatch(text) if len(text) <= SIGNATURE_LIMIT else None
        if armour is None:
            raise BadSignature("not an SSH signature")
        try:
            data = base64.b64decode(armour[1].replace(b"\r", b"").replace(b"\n", b""), validate=True)
        except binascii.Error:
            raise BadSignature("not an SSH signature: its base64 is damaged") from None
        if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : len(_MAGIC) + 4] != struct.pack(">I", 1):
            raise BadSignature("not an SSH signature of version 1")
        key, namespace, reserved, algorithm, proof = _strings(data[len(_MAGIC) + 4 :], 5)
        if algorithm not in _ALGORITHMS:
            raise BadSignature("it is over a digest of another kind than SHA-256 or SHA-512")
        try:
            purpose = namespace.decode("ascii")
        except UnicodeDecodeError:
            raise BadSignature("its namespace is not text") from None
        return cls(parse_key(key), purpose, reserved, algorithm, _typed(proof, 64, "signature"))

    def verify(self, message: bytes) -> None:
        """Make sure that the key's owner signed this message for this purpose.

        Raises:
            BadSignature: it is of something else.
            MissingDependency: cryptography is not installed.
        """
        try:
            from cryptography.exceptions import InvalidSignature  # an extra, and slow to import
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            raise MissingDependency(package="cryptography", purpose="verifying signatures", extra="sign") from None
        signed = signed_bytes(message, self.namespace, reserved=self.reserved, algorithm=self.algorithm)
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(self.proof, signed)
        except (InvalidSignature, ValueError):
            raise BadSignature("the signature is not of this text") from None

    @property
    def fingerprint(self) -> str:
        """The key as ``ssh-keygen -l`` shows it."""
        return fingerprint(self.key)


def parse_key(blob: bytes) -> bytes:
    """Return the 32 bytes of a public key in SSH's wire format.

    Raises:
        BadSignature: it is not an Ed25519 key.
    """
    return _typed(blob, 32, "key")


def fingerprint(key: bytes) -> str:
    """Return an Ed25519 key as ``ssh-keygen -l`` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(wire(KEY_TYPE, key)).digest()).decode().rstrip("=")


def signed_bytes(message: bytes, namespace: str, *, reserved: bytes = b"", algorithm: bytes = b"sha512") -> bytes:
    """Return what is signed of a message: its digest, bound to a purpose."""
    return _MAGIC + wire(namespace.encode(), reserved, algorithm, _ALGORITHMS[algorithm](message).digest())


def armoured(key: bytes, namespace: str, proof: bytes) -> bytes:
    """Return a signature over :func:`signed_bytes` as ``ssh-keygen`` writes it."""
    parts = wire(wire(KEY_TYPE, key), namespace.encode(), b"", b"sha512", wire(KEY_TYPE, proof))
    text = base64.b64encode(_MAGIC + struct.pack(">I", 1) + parts)
    lines = b"\n".join(text[at : at + 70] for at in range(0, len(text), 70))
    return b"-----BEGIN SSH SIGNATURE-----\n" + lines + b"\n-----END SSH SIGNATURE-----\n"


def sign(message: bytes, private_key: bytes, *, place: str) -> bytes:
    """Return the armoured signature of a message by an Ed25519 key without a passphrase, in OpenSSH's format.

    Raises:
        InvalidInput: it is not such a key.
        MissingDependency: cryptography is not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # an extra, and slow to import
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    except ImportError:
        raise MissingDependency(package="cryptography", purpose="signing without ssh-keygen", extra="sign") from None
    try:
        key = load_ssh_private_key(private_key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(f"{place}: not a private key in OpenSSH's format, or one with a passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{place}: not an Ed25519 key. Make one: ssh-keygen -t ed25519")
    proof = key.sign(signed_bytes(message, NAMESPACE))
    return armoured(key.public_key().public_bytes_raw(), NAMESPACE, proof)


def wire(*strings: bytes) -> bytes:
    """Return strings as SSH writes them: each after its length."""
    return b"".join(struct.pack(">I", len(string)) + string for string in strings)


def _strings(data: bytes, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        length = int.from_bytes(data[:4], "big")
        if len(data) < 4 + length or len(data) < 4:
            raise BadSignature("it is cut short")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    if data:
        raise BadSignature("something follows it")
    return found


def _typed(blob: bytes, size: int, what: str) -> bytes:
    if len(blob) >= 4 and not blob.startswith(wire(KEY_TYPE)):
        raise BadSignature(f"its {what} is not an Ed25519 one")
    _, value = _strings(blob, 2)
    if len(value) != size:
        raise BadSignature(f"its {what} has {len(value)} bytes, and not {size}")
    return value
