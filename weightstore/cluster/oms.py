"""Signatures over a whole mirror in the OpenSSF Model Signing format (OMS), made and judged by ``model-signing``.

They say of a directory what its files are, and nothing of sources: they are for those who check models that way
already. Signed are ``blobs``, ``index.json`` and ``oci-layout``; what changes by itself is left out. A signature that
leaves out any of the three is not believed, whoever made it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightstore.errors import BlobDamaged, InvalidInput, MissingDependency, NotAStore, StoreError, UntrustedIndex
from weightstore.signing.document import SIGNATURE, SIGNED_INDEX
from weightstore.store.image import INDEX_NAME, read_index_file
from weightstore.store.layout import open_layout, read_limited, translated, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OMS_SIGNATURE = "model.sig"  # what model-signing's own command line calls it
_SIGNED = frozenset({"blobs", INDEX_NAME, "oci-layout"})
# Left out whether they are there yet or not.
_UNSIGNED = frozenset(
    {
        "CACHEDIR.TAG",
        "derived",
        "index.html",
        "locks",
        "quarantine",
        "refs",
        "store.json",
        "tmp",
        OMS_SIGNATURE,
        SIGNATURE,
        SIGNED_INDEX,
    }
)
_PREDICATE = "https://model_signing/signature/v1.0"
OMS_LIMIT = 64 << 20
_KEY_LIMIT = 64 << 10
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})  # what model-signing takes
_CHANGED = re.compile(r"Hash mismatch for \\?'([^'\\]*)\\?'")


@dataclass(frozen=True, slots=True)
class OmsSignature:
    """A signature over a mirror's files: where it is, and how many files it is over."""

    path: Path
    files: int


def sign_oms(root: Path, *, key: Path) -> OmsSignature:
    """Sign a mirror in a directory with an elliptic-curve private key, a PEM file without a passphrase.

    Every byte is read. The signature replaces an earlier one in one step.

    Raises:
        InvalidInput: the mirror has no index, or holds what cannot be signed, or the key cannot be used.
        BlobDamaged: a blob is not what its name says; nothing is signed.
        NotAStore, InvalidRecord, StoreError: the directory cannot be used.
        MissingDependency: model-signing is not installed.
    """
    hashing, signing, _ = _library()
    _check_key(key, is_private=True)
    layout = open_layout(root)
    if layout is None:
        raise NotAStore(place=str(root), reason="there is no store, and so no mirror")
    if read_index_file(layout) is None:
        raise InvalidInput(f"{root} has no index yet. Write it: weightstore --home {root} mirror index")
    there = layout.root.resolve()
    with translated(there):
        ignored = (_UNSIGNED | set(os.listdir(there))) - _SIGNED
        config = signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(hashing.Config().set_ignored_paths(paths=sorted(ignored), ignore_git_paths=False))
        with tempfile.TemporaryDirectory(prefix="weightstore-") as scratch:
            made = Path(scratch, OMS_SIGNATURE)
            try:
                config.sign(there, made)
            except ValueError as error:  # symbolic links, and what is neither file nor directory
                raise InvalidInput(f"{root} cannot be signed: {error}") from None
            bundle = made.read_bytes()
        resources = _resources(bundle)
        for name, digest in resources.items():
            if (expected := _digest_in(name)) not in {None, digest}:
                raise BlobDamaged(place=str(there / name), expected=str(expected), actual=digest)
        path = layout.root / OMS_SIGNATURE
        write_record(path, bundle, mode=0o444, scratch=layout.tmp, durable=True)
    return OmsSignature(path, len(resources))


def verify_oms(root: Path, *, key: Path, signature: Path | None = None) -> OmsSignature:
    """Verify all files of a mirror in a directory against a signature, by an elliptic-curve public key in a PEM file.

    Every byte is read. Without ``signature`` it is the mirror's own.

    Raises:
        UntrustedIndex: it is not of these files, or not by this key, or does not cover what a mirror is made of.
        InvalidInput: there is no such directory, or the key cannot be used.
        StoreError: a file cannot be read.
        MissingDependency: model-signing is not installed.
    """
    hashing, _, verifying = _library()
    _check_key(key, is_private=False)
    if not root.is_dir():
        raise InvalidInput(f"{root}: there is no such directory")
    there = root.resolve()
    path = there / OMS_SIGNATURE if signature is None else signature.resolve()

    def refused(reason: str) -> UntrustedIndex:
        return UntrustedIndex(place=str(path), reason=reason)

    try:
        bundle = read_limited(path, OMS_LIMIT)
    except FileNotFoundError:
        raise refused("there is no such signature") from None
    except OSError as error:
        raise refused(f"it cannot be read: {error.strerror}") from None
    if len(bundle) > OMS_LIMIT:
        raise refused(f"it is larger than {OMS_LIMIT} bytes")
    own = [path.relative_to(there)] if path.is_relative_to(there) else []
    config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=own, ignore_git_paths=False))
    with tempfile.TemporaryDirectory(prefix="weightstore-") as scratch:
        read = Path(scratch, OMS_SIGNATURE)  # so that what is verified is what was read, whoever writes there
        read.write_bytes(bundle)
        try:
            # The library prints its warnings, where the command line prints results.
            with contextlib.redirect_stdout(sys.stderr):
                config.verify(there, read)
            resources = _resources(bundle)
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            raise StoreError(place=str(error.filename or there), reason=reason) from None
        except ValueError as error:
            raise refused(_in_words(error)) from None
        except Exception as error:  # the library raises whatever a damaged signature leads to
            raise refused(f"it is not by this key, or damaged ({type(error).__name__})") from error
        for name in _content(there):
            if name not in resources:
                raise refused(f"it says nothing of {name}")
            if _digest_in(name) not in {None, resources[name]}:
                raise refused(f"it is of other bytes than the name of {name} says")
    return OmsSignature(path, len(resources))


def _library() -> tuple[Any, Any, Any]:
    try:
        # An extra, and slow to import.
        from model_signing import hashing, signing, verifying
    except ImportError:
        raise MissingDependency(package="model-signing", purpose="signing in the OMS format", extra="oms") from None
    return hashing, signing, verifying


def _check_key(path: Path, *, is_private: bool) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm  # comes with model-signing, and slow to import
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    what = "private" if is_private else "public"
    # Into a new file, and never the one that was given: it may be somebody's key for something else.
    make = "openssl " + (
        "ecparam -name prime256v1 -genkey -noout -out oms.pem" if is_private else "ec -in oms.pem -pubout"
    )
    try:
        data = read_limited(path.resolve(), _KEY_LIMIT)
        public = load_pem_private_key(data, None).public_key() if is_private else load_pem_public_key(data)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}. Make a {what} key: {make}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(f"{path}: not a {what} key in PEM, or one with a passphrase. Make one: {make}") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in _CURVES:
        raise InvalidInput(f"{path}: not an elliptic-curve key on P-256, P-384 or P-521. Make one: {make}")


def _in_words(error: ValueError) -> str:
    """Return what the library found wrong, without the objects that it shows of changed files."""
    text = str(error).strip().partition("\n")[0]
    before, _, changed = text.partition("Hash mismatch for ")
    if not changed:
        return text
    names = ", ".join(_CHANGED.findall(text))
    return before.rstrip("[\"', ") + f" Hash mismatch for {names}"


def _resources(bundle: bytes) -> Mapping[str, str]:
    """Return the digest of each file that a verified signature is over.

    Raises:
        ValueError, KeyError, TypeError: it is not made as such signatures are.
    """
    # The library knows the envelope by another name too, and refuses a bundle with both: this is what it verified.
    statement = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    if statement["predicateType"] != _PREDICATE:
        raise ValueError("it is of another version of the format")
    return {one["name"]: f"{one['algorithm']}:{one['digest']}" for one in statement["predicate"]["resources"]}


def signed_resources(bundle: bytes) -> Mapping[str, str] | None:
    """Return the digest of each file that a signature says it is over, unverified; None where it is no signature."""
    try:
        return _resources(bundle)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest_in(name: str) -> str | None:
    """Return the digest that a file's name states, None where it states none."""
    directory, _, hexadecimal = name.rpartition("/")
    return f"sha256:{hexadecimal}" if directory == "blobs/sha256" else None


def _content(root: Path) -> Iterator[str]:
    for name in sorted(_SIGNED):
        path = root / name
        for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if one.is_file():
                yield one.relative_to(root).as_posix()
