"""SSH signatures and allowed_signers: ssh-keygen is the judge both ways, and nothing malformed is read as anything."""

from __future__ import annotations

import base64
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from weightstore.cluster.sign import signing_with
from weightstore.errors import InvalidConfig, InvalidInput
from weightstore.signing.signers import parse_signers
from weightstore.signing.sshsig import (
    NAMESPACE,
    BadSignature,
    Signature,
    armoured,
    fingerprint,
    sign,
    signed_bytes,
    wire,
)

MESSAGE = b'{"weights": "and more"}\n'
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
KEY_TEXT = base64.b64encode(wire(b"ssh-ed25519", PUBLIC)).decode()


def private_file(tmp_path, key=KEY):
    path = tmp_path / "key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return path


def ours(message=MESSAGE, namespace=NAMESPACE):
    return armoured(PUBLIC, namespace, KEY.sign(signed_bytes(message, namespace)))


def made_of(
    *, version=1, magic=b"SSHSIG", key=None, namespace=b"weightstore-index", hashed=b"sha512", proof=None, more=b""
):
    parts = wire(
        wire(b"ssh-ed25519", PUBLIC) if key is None else key,
        namespace,
        b"",
        hashed,
        wire(b"ssh-ed25519", bytes(64)) if proof is None else proof,
    )
    data = base64.b64encode(magic + version.to_bytes(4, "big") + parts + more)
    return b"-----BEGIN SSH SIGNATURE-----\n" + data + b"\n-----END SSH SIGNATURE-----\n"


# -- ssh-keygen -----------------------------------------------------------------------------------------------------


def verified_by_ssh_keygen(tmp_path, signature, message=MESSAGE, namespace=NAMESPACE):
    (tmp_path / "sig").write_bytes(signature)
    (tmp_path / "signers").write_text(f"ada@example.org ssh-ed25519 {KEY_TEXT}\n")
    command = ["ssh-keygen", "-Y", "verify", "-f", "signers", "-I", "ada@example.org", "-n", namespace, "-s", "sig"]
    return subprocess.run(command, input=message, cwd=tmp_path, capture_output=True, check=False).returncode == 0


@pytest.mark.needs("ssh-keygen")
def test_ssh_keygen_verifies_what_we_sign(tmp_path):
    signature = sign(MESSAGE, private_file(tmp_path).read_bytes(), place="key")
    assert verified_by_ssh_keygen(tmp_path, signature)
    assert not verified_by_ssh_keygen(tmp_path, signature, message=MESSAGE + b" ")
    assert not verified_by_ssh_keygen(tmp_path, signature, namespace="file")


@pytest.mark.needs("ssh-keygen")
@pytest.mark.parametrize("hashed", ["sha256", "sha512"])
def test_we_verify_what_ssh_keygen_signs(hashed, tmp_path):
    command = ["ssh-keygen", "-Y", "sign", "-O", f"hashalg={hashed}", "-n", NAMESPACE, "-f", private_file(tmp_path)]
    text = subprocess.run(command, input=MESSAGE, capture_output=True, check=True).stdout
    signature = Signature.parse(text)
    assert (signature.key, signature.namespace) == (PUBLIC, NAMESPACE)
    signature.verify(MESSAGE)
    with pytest.raises(BadSignature, match="not of this text"):
        signature.verify(MESSAGE + b" ")


@pytest.mark.needs("ssh-keygen")
def test_ours_is_byte_for_byte_what_ssh_keygen_writes(tmp_path):
    key = private_file(tmp_path)
    assert signing_with(key)(MESSAGE) == sign(MESSAGE, key.read_bytes(), place="key")  # Ed25519 has no randomness


@pytest.mark.needs("ssh-keygen")
def test_the_fingerprint_is_that_of_ssh_keygen(tmp_path):
    (tmp_path / "key.pub").write_text(f"ssh-ed25519 {KEY_TEXT} ada\n")
    done = subprocess.run(["ssh-keygen", "-l", "-f", "key.pub"], cwd=tmp_path, capture_output=True, check=True)
    assert fingerprint(PUBLIC) in done.stdout.decode()


@pytest.mark.needs("ssh-keygen")
@pytest.mark.parametrize("kind", [["-t", "rsa", "-b", "2048"], ["-t", "ecdsa"]], ids=["rsa", "ecdsa"])
def test_other_kinds_of_keys_are_refused(kind, tmp_path):
    subprocess.run(["ssh-keygen", "-q", *kind, "-N", "", "-f", "other"], cwd=tmp_path, check=True)
    with pytest.raises(BadSignature, match="not an Ed25519 one"):
        Signature.parse(signing_with(tmp_path / "other")(MESSAGE))
    with pytest.raises(InvalidInput, match="not an Ed25519 key"):
        sign(MESSAGE, (tmp_path / "other").read_bytes(), place="other")


@pytest.mark.needs("ssh-keygen")
def test_a_key_with_a_passphrase_is_not_read_by_ourselves(tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", "locked"], cwd=tmp_path, check=True)
    with pytest.raises(InvalidInput, match="passphrase"):
        sign(MESSAGE, (tmp_path / "locked").read_bytes(), place="locked")


def test_without_ssh_keygen_the_key_file_signs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    Signature.parse(signing_with(private_file(tmp_path))(MESSAGE)).verify(MESSAGE)


def test_a_key_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InvalidInput, match="ssh-keygen -t ed25519"):
        signing_with(tmp_path / "absent")


# -- hostile signatures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "not an SSH signature"),
        (b"hello", "not an SSH signature"),
        (b"x" * 100_000, "not an SSH signature"),
        (ours() + ours(), "not an SSH signature"),
        (ours().replace(b"SSH SIGNATURE", b"PGP SIGNATURE"), "not an SSH signature"),
        (b"-----BEGIN SSH SIGNATURE-----\nQUJ\n-----END SSH SIGNATURE-----\n", "base64"),
        (made_of(magic=b"SSHSIH"), "version 1"),
        (made_of(version=2), "version 1"),
        (made_of(more=b"x"), "follows"),
        (made_of(hashed=b"md5"), "another kind"),
        (made_of(namespace="ä".encode()), "not text"),
        (made_of(key=wire(b"ssh-rsa", bytes(32))), "not an Ed25519"),
        (made_of(key=wire(b"ssh-ed25519", bytes(31))), "31 bytes"),
        (made_of(key=wire(b"ssh-ed25519") + b"\xff\xff\xff\xff"), "cut short"),
        (made_of(proof=wire(b"ssh-ed25519", bytes(63))), "63 bytes"),
        (made_of(proof=wire(b"ssh-rsa", bytes(64))), "not an Ed25519"),
    ],
)
def test_what_is_no_signature_is_refused(text, why):
    with pytest.raises(BadSignature, match=why):
        Signature.parse(text)


def test_a_signature_of_nothing_proves_nothing():
    with pytest.raises(BadSignature, match="not of this text"):
        Signature.parse(made_of()).verify(MESSAGE)


@settings(max_examples=100, deadline=None, database=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_is_verified(at, change):
    data = bytearray(base64.b64decode(b"".join(ours().splitlines()[1:-1])))
    data[at % len(data)] ^= change
    text = b"-----BEGIN SSH SIGNATURE-----\n" + base64.b64encode(data) + b"\n-----END SSH SIGNATURE-----\n"
    with pytest.raises(BadSignature):
        Signature.parse(text).verify(MESSAGE)


# -- allowed_signers ------------------------------------------------------------------------------------------------


def signers(text):
    return parse_signers(text.encode(), place="signers")


def test_signers_are_read_as_openssh_writes_them():
    found = signers(
        "# who keeps our mirror\n\n"
        f"ada@example.org ssh-ed25519 {KEY_TEXT} a comment\n"
        f'bob@example.org,*@lab.example.org namespaces="weightstore-*,!weightstore-x",valid-before="20300101Z" '
        f"ssh-ed25519 {KEY_TEXT}\n"
        f"ca@example.org cert-authority ssh-ed25519 {KEY_TEXT}\n"
        "eve@example.org ssh-rsa AAAA\n"
        f"tab@example.org\tssh-ed25519\t{KEY_TEXT}\n"
    )
    assert [signer.name for signer in found] == [
        "ada@example.org",
        "bob@example.org,*@lab.example.org",
        "tab@example.org",
    ]
    assert all(signer.key == PUBLIC for signer in found)
    assert found[0].may_sign("anything")
    assert found[1].may_sign(NAMESPACE)
    assert not found[1].may_sign("weightstore-x")
    assert not found[1].may_sign("file")
    assert found[1].valid_before == datetime(2030, 1, 1, tzinfo=UTC)


def test_moments_bound_a_key():
    (signer,) = signers(f'a valid-after="20260101Z",valid-before="202601021530Z" ssh-ed25519 {KEY_TEXT}')
    begin, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, 15, 30, tzinfo=UTC)
    assert signer.is_valid(begin)
    assert not signer.is_valid(begin - timedelta(seconds=1))
    assert signer.is_valid(end - timedelta(seconds=1))
    assert not signer.is_valid(end)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ada", "a line has"),
        (f"ssh-ed25519 {KEY_TEXT}", "a line has|options"),
        ("ada ssh-ed25519 AAAA", "damaged"),
        ("ada ssh-ed25519 ???", "damaged"),
        (f"ada verify-required ssh-ed25519 {KEY_TEXT}", "no option is called 'verify-required'"),
        (f'ada namespaces="" ssh-ed25519 {KEY_TEXT}', "namespaces is empty"),
        (f"ada namespaces ssh-ed25519 {KEY_TEXT}", "no option"),
        (f'ada namespaces="a",namespaces="b" ssh-ed25519 {KEY_TEXT}', "options cannot be read"),
        (f'ada namespaces="a ssh-ed25519 {KEY_TEXT}', "quote"),
        (f'ada valid-before="tomorrow" ssh-ed25519 {KEY_TEXT}', "YYYYMMDD"),
        (f'ada valid-before="20261301Z" ssh-ed25519 {KEY_TEXT}', "no moment"),
    ],
)
def test_a_line_that_is_not_understood_is_an_error_with_its_number(line, why):
    with pytest.raises(InvalidConfig, match="signers, line 2: ") as caught:
        signers(f"# first\n{line}\n")
    assert caught.match(why)
