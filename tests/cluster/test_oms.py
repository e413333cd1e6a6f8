"""Signatures in the OMS format: model-signing's own command line judges ours, and we judge its."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from weightstore.client import Client
from weightstore.cluster.index import build_index, write_index
from weightstore.cluster.oms import sign_oms, verify_oms
from weightstore.errors import BlobDamaged, InvalidInput, UntrustedIndex
from weightstore.store.layout import open_layout

pytestmark = pytest.mark.skipif(importlib.util.find_spec("model_signing") is None, reason="needs model-signing")


def write_key(path, key, encryption=None):
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    path.with_suffix(".pem").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)


@pytest.fixture
def mirror(site, run):
    run("prefetch", "small", "other")
    client = Client()
    layout = open_layout(site.home)
    write_index(layout, build_index(layout, client.catalogs.all()), receipts=client.receipts)
    return site.home


@pytest.fixture
def keys(tmp_path):
    write_key(tmp_path / "key", ec.generate_private_key(ec.SECP256R1()))
    write_key(tmp_path / "other", ec.generate_private_key(ec.SECP384R1()))
    return tmp_path


def library(*arguments):
    """Run model-signing's own command line."""
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def library_signs(mirror, keys, *arguments):
    signature = mirror / "model.sig"
    done = library("sign", "key", mirror, "--private_key", keys / "key.pem", "--signature", signature, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def blobs(mirror):
    return sorted((mirror / "blobs/sha256").iterdir())


def signed_statement(mirror):
    return json.loads(base64.b64decode(json.loads((mirror / "model.sig").read_bytes())["dsseEnvelope"]["payload"]))


def test_the_librarys_command_line_accepts_what_we_sign_and_refuses_it_when_a_blob_is_changed(mirror, keys):
    sign_oms(mirror, key=keys / "key.pem")
    arguments = ["verify", "key", mirror, "--public_key", keys / "key.pub", "--signature", mirror / "model.sig"]
    done = library(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    blobs(mirror)[0].chmod(0o644)
    blobs(mirror)[0].write_bytes(b"other")
    assert library(*arguments).returncode == 1


def test_what_the_librarys_command_line_signs_is_accepted(mirror, keys):
    library_signs(mirror, keys)
    assert verify_oms(mirror, key=keys / "key.pub").files > len(blobs(mirror)) + 2  # refs and all


def test_blobs_and_index_are_signed_and_nothing_that_changes_by_itself(mirror, keys):
    signed = sign_oms(mirror, key=keys / "key.pem")
    names = {one["name"] for one in signed_statement(mirror)["predicate"]["resources"]}
    assert names == {f"blobs/sha256/{blob.name}" for blob in blobs(mirror)} | {"index.json", "oci-layout"}
    assert signed.files == len(names)
    (mirror / "tmp/part").write_bytes(b"arriving")
    (mirror / "signed-index.json").write_bytes(b"{}")
    shutil.rmtree(mirror / "refs")
    assert verify_oms(mirror, key=keys / "key.pub").files == len(names)


def test_a_mirror_that_was_moved_is_what_was_signed_and_may_be_signed_again(mirror, keys, tmp_path):
    sign_oms(mirror, key=keys / "key.pem")
    moved = mirror.rename(tmp_path / "moved")
    verify_oms(moved, key=keys / "key.pub")
    sign_oms(moved, key=keys / "other.pem")
    verify_oms(moved, key=keys / "other.pub")
    assert os.listdir(moved / "tmp") == []


@pytest.mark.parametrize("change", ["changed", "added", "removed", "index", "link"])
def test_a_mirror_that_is_not_as_it_was_signed_is_refused(mirror, keys, change):
    sign_oms(mirror, key=keys / "key.pem")
    first = blobs(mirror)[0]
    if change == "added":
        (first.parent / ("0" * 64)).write_bytes(b"new")
    elif change == "removed":
        first.unlink()
    elif change == "link":
        first.rename(mirror / "tmp/there")
        first.symlink_to(mirror / "tmp/there")
    else:
        path = first if change == "changed" else mirror / "index.json"
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    said = {
        "changed": "Hash mismatch",
        "added": "Extra files",
        "removed": "Missing files",
        "index": "index.json",
        "link": "symlink",
    }
    with pytest.raises(UntrustedIndex, match=said[change]) as caught:
        verify_oms(mirror, key=keys / "key.pub")
    assert "digest_value" not in str(caught.value)
    if change == "changed":
        assert f"Hash mismatch for blobs/sha256/{first.name}" in str(caught.value)


def test_a_signature_by_another_key_is_refused(mirror, keys):
    sign_oms(mirror, key=keys / "other.pem")
    with pytest.raises(UntrustedIndex, match="Key mismatch"):
        verify_oms(mirror, key=keys / "key.pub")


def test_a_signature_that_leaves_blobs_out_is_refused_although_the_library_accepts_it(mirror, keys):
    library_signs(mirror, keys, "--ignore-paths", mirror / "blobs")
    (mirror / "blobs/sha256" / ("0" * 64)).write_bytes(b"new")
    done = library("verify", "key", mirror, "--public_key", keys / "key.pub", "--signature", mirror / "model.sig")
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(UntrustedIndex, match="says nothing of blobs/sha256/"):
        verify_oms(mirror, key=keys / "key.pub")


def test_a_damaged_blob_is_not_signed_for_and_not_believed_when_the_library_signed_it(mirror, keys):
    blobs(mirror)[0].chmod(0o644)
    blobs(mirror)[0].write_bytes(b"damaged")
    with pytest.raises(BlobDamaged):
        sign_oms(mirror, key=keys / "key.pem")
    assert not (mirror / "model.sig").exists()
    library_signs(mirror, keys)
    with pytest.raises(UntrustedIndex, match="other bytes than the name"):
        verify_oms(mirror, key=keys / "key.pub")


def forged(bundle, *, what):
    envelope = bundle["dsseEnvelope"]
    if what == "payload":
        envelope["payload"] = base64.b64encode(base64.b64decode(envelope["payload"]).replace(b"sha256", b"SHA256"))
        envelope["payload"] = envelope["payload"].decode()
    elif what == "signatures":
        envelope["signatures"] = []
    elif what == "second envelope":
        bundle["dsse_envelope"] = envelope
    elif what == "material":
        del bundle["verificationMaterial"]
    return json.dumps(bundle).encode()


@pytest.mark.parametrize("what", ["payload", "signatures", "second envelope", "material", "not JSON", "none", "list"])
def test_a_signature_that_was_tampered_with_is_refused(mirror, keys, what):
    path = sign_oms(mirror, key=keys / "key.pem").path
    bundle = path.read_bytes()
    path.unlink()
    if what != "none":
        whole = {"not JSON": bundle[:-9], "list": b"[1]"}
        path.write_bytes(whole[what] if what in whole else forged(json.loads(bundle), what=what))
    with pytest.raises(UntrustedIndex):
        verify_oms(mirror, key=keys / "key.pub")


def test_a_signature_may_lie_elsewhere(mirror, keys, tmp_path):
    sign_oms(mirror, key=keys / "key.pem").path.rename(tmp_path / "theirs.sig")
    assert verify_oms(mirror, key=keys / "key.pub", signature=tmp_path / "theirs.sig").path == tmp_path / "theirs.sig"


def test_keys_that_cannot_sign_are_told(mirror, keys):
    write_key(keys / "edwards", ed25519.Ed25519PrivateKey.generate())
    write_key(keys / "koblitz", ec.generate_private_key(ec.SECP256K1()))
    write_key(keys / "locked", ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"secret"))
    for name in ("edwards", "koblitz", "locked", "absent"):
        with pytest.raises(InvalidInput, match="openssl") as caught:
            sign_oms(mirror, key=keys / f"{name}.pem")
        assert f"-out {keys / name}" not in str(caught.value)  # what is advised must not overwrite the key
    with pytest.raises(InvalidInput, match="not a public key"):
        verify_oms(mirror, key=keys / "key.pem")
    assert not (mirror / "model.sig").exists()


def test_a_mirror_without_an_index_is_not_signed(mirror, keys):
    (mirror / "index.json").unlink()
    with pytest.raises(InvalidInput, match="mirror index"):
        sign_oms(mirror, key=keys / "key.pem")


def test_the_command_signs_and_verifies_and_exits_with_5_when_something_was_added(mirror, run, keys):
    signed = json.loads(run("mirror", "sign", mirror, "--oms", "--key", keys / "key.pem", "--json").stdout)
    verified = json.loads(run("mirror", "verify", mirror, "--oms", "--key", keys / "key.pub", "--json").stdout)
    assert verified == {"mirror": str(mirror), **signed}
    (mirror / "blobs/sha256" / ("0" * 64)).write_bytes(b"new")
    done = run("mirror", "verify", mirror, "--oms", "--key", keys / "key.pub", code=5)
    assert "Extra files found" in done.stderr


def test_an_expiry_is_refused_rather_than_forgotten(mirror, run, keys):
    done = run("mirror", "sign", mirror, "--oms", "--key", keys / "key.pem", "--expires", "2d", code=2)
    assert "does not expire" in done.stderr
    assert not (mirror / "model.sig").exists()


def test_without_the_library_the_extra_is_named(mirror, keys):
    code = "import sys; sys.modules['model_signing'] = None\nfrom weightstore.cli import main\nmain()"
    command = [sys.executable, "-c", code, "mirror", "verify", mirror, "--oms", "--key", keys / "key.pub"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 10
    assert 'pip install "weightstore[oms]"' in done.stderr


def test_what_the_library_prints_does_not_get_into_the_json(mirror, run, keys):
    path = sign_oms(mirror, key=keys / "key.pem").path
    bundle = json.loads(path.read_bytes())
    del bundle["verificationMaterial"]["publicKey"]["hint"]  # as older releases wrote it; the library warns of them
    path.unlink()
    path.write_text(json.dumps(bundle))
    done = run("mirror", "verify", mirror, "--oms", "--key", keys / "key.pub", "--json")
    assert json.loads(done.stdout)["mirror"] == str(mirror)
    assert "WARNING" in done.stderr
