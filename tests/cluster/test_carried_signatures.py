"""Signed indexes that travel with push and pull, or are signed where they lie; ``ssh-keygen -Y verify`` judges them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.cli.conftest import Run, Site
from tests.cluster.test_mirror import ALL, blobs_in
from tests.servers.nginx import Nginx
from tests.servers.registry import DockerRegistry
from tests.servers.s3 import S3Server
from weightstore.client import Client
from weightstore.cluster.mirror.places import open_place
from weightstore.signing.sshsig import armoured, signed_bytes
from weightstore.source import Source

pytestmark = pytest.mark.needs("ssh-keygen")
FILES = ("signed-index.json", "signed-index.json.sig")


@pytest.fixture(
    params=[
        "directory",
        "bucket",
        pytest.param("registry", marks=pytest.mark.needs("docker-registry")),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of each kind that can be pushed to, where nothing is yet."""
    fresh = uuid.uuid4().hex[:12]
    if request.param == "directory":
        return str(tmp_path / "mirror")
    if request.param == "bucket":
        for name, value in request.getfixturevalue("s3").environment.items():
            monkeypatch.setenv(name, value)
        return f"s3://weights/{fresh}"
    return f"oci://{request.getfixturevalue('registry').address}/site/{fresh}"


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ada's key, whom this user allows to sign."""
    key = make_key(tmp_path / "ada")
    monkeypatch.setenv("WEIGHTSTORE_ALLOWED_SIGNERS", str(tmp_path / "signers"))
    return key


def make_key(path: Path) -> Path:
    """Make a key, and add its owner to the allowed signers beside it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    kind, key, *_ = path.with_suffix(".pub").read_text().split()
    with (path.parent / "signers").open("a") as signers:
        signers.write(f'{path.name}@example.org namespaces="weightstore-index" {kind} {key}\n')
    return path


@pytest.fixture
def sign_home(site: Site, run: Run, key: Path) -> Callable[..., None]:
    def sign(*options: str) -> None:
        run("mirror", "index")
        run("mirror", "sign", site.home, "--key", key, *options)

    return sign


@pytest.fixture
def signed(run: Run, sign_home: Callable[..., None]) -> None:
    """A store of all weights, whose index Ada signed."""
    run("prefetch", *ALL)
    sign_home()


def lying_at(place: str) -> dict[str, bytes]:
    """The bytes of the signed index and the signature at a place, by the transport that clients read them with."""
    client = Client()
    found = {}
    base = Source.parse(place) if "://" in place else Source.of_path(Path(place))
    for name in FILES:
        source = Source(f"{base.url}/{name}")
        body = client.obtainer.transports().transport_for(source).open(source)
        try:
            pieces = []
            while data := body.read(1 << 20):
                pieces.append(data)
        finally:
            body.close()
        found[name] = b"".join(pieces)
    return found


def put(place: str, files: dict[str, bytes]) -> None:
    """Put files beside the index of a place, as whoever may write there can."""
    open_place(place, client=Client(), writable=True).write_beside(files)


def judge(files: dict[str, bytes], signers: Path, who: str = "ada@example.org") -> None:
    """Have ssh-keygen verify what lies at a place."""
    signature = signers.parent / "judged.sig"
    signature.write_bytes(files[FILES[1]])
    command = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", who, "-n", "weightstore-index", "-s", signature]
    subprocess.run(command, input=files[FILES[0]], check=True, capture_output=True)


def become_somebody_else(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str = "users") -> Path:
    """Go to another machine, on which nothing is known, and whose origin is off."""
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / name))
    monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / f"{name}-state"))
    site.server.stop()
    return tmp_path / name


@pytest.mark.usefixtures("signed")
def test_a_push_carries_the_signed_index_byte_for_byte_and_ssh_keygen_verifies_it(
    site: Site, run: Run, place: str, tmp_path: Path
) -> None:
    report = json.loads(run("mirror", "push", place, "--all", "--json").stdout)
    assert report["signature"]["status"] == "carried"
    assert report["signature"]["matches"] is True
    files = lying_at(place)
    assert files == {name: (site.home / name).read_bytes() for name in FILES}
    judge(files, tmp_path / "signers")
    assert json.loads(run("mirror", "verify", place, "--json").stdout)["signer"] == "ada@example.org"
    again = json.loads(run("mirror", "push", place, "--all", "--json").stdout)
    assert again["signature"]["status"] == "present"


@pytest.mark.usefixtures("signed")
def test_who_trusts_the_signer_prefetches_by_name_from_there_with_the_origin_off(
    site: Site, run: Run, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("mirror", "push", place, "--all")
    home = become_somebody_else(site, monkeypatch, tmp_path)
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    run("prefetch", "small")  # of which the catalog knows eight digits
    assert blobs_in(home) == {site.digest("B")}


@pytest.mark.usefixtures("signed")
def test_what_is_pulled_serves_as_a_signed_mirror_itself(
    site: Site, run: Run, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("mirror", "push", place, "--all")
    before = lying_at(place)
    pulled = become_somebody_else(site, monkeypatch, tmp_path, "pulled")
    report = json.loads(run("mirror", "pull", place, "--all", "--json").stdout)
    assert (report["fetched"], report["signature"]["status"]) == (3, "carried")
    assert lying_at(str(pulled)) == before
    run("mirror", "index")
    third = become_somebody_else(site, monkeypatch, tmp_path, "third")
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", str(pulled))
    run("prefetch", "small")
    assert blobs_in(third) == {site.digest("B")}
    status = json.loads(run("mirror", "status", pulled, "--json").stdout)["signature"]
    assert (status["signer"], status["matches"]) == ("ada@example.org", True)


@pytest.mark.usefixtures("signed")
def test_a_mirror_is_signed_where_it_lies(run: Run, place: str, key: Path, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / "store" / name).unlink()
    run("mirror", "push", place, "--all")
    assert json.loads(run("mirror", "status", place, "--json").stdout)["signature"] is None
    signed = json.loads(run("mirror", "sign", place, "--key", key, "--json").stdout)
    assert (signed["entries"], signed["left_out"]) == (3, [])
    judge(lying_at(place), tmp_path / "signers")
    assert json.loads(run("mirror", "verify", place, "--json").stdout)["version"] == signed["version"]
    status = json.loads(run("mirror", "status", place, "--json").stdout)["signature"]
    assert (status["signer"], status["matches"], status["unsigned"]) == ("ada@example.org", True, [])
    again = json.loads(run("mirror", "sign", place, "--key", key, "--json").stdout)
    assert again["version"] > signed["version"]


@pytest.mark.usefixtures("signed")
def test_what_was_pushed_after_signing_is_told_as_not_signed(
    site: Site, run: Run, place: str, key: Path, tmp_path: Path
) -> None:
    run("mirror", "push", place, "--all")
    url = site.server.serve("/late.pth", b"late" * 5000)
    run("prefetch", url)
    told = run("mirror", "push", place, "--all").stderr
    assert "its signed index says nothing of 1 source. Sign what is there: weightstore mirror sign" in told
    status = json.loads(run("mirror", "status", place, "--json").stdout)["signature"]
    assert (status["matches"], status["unsigned"]) == (False, [url])
    assert "says nothing of 1 source" in run("mirror", "status", place).stderr
    judge(lying_at(place), tmp_path / "signers")  # what was signed is as true as before
    run("mirror", "sign", place, "--key", key)
    assert json.loads(run("mirror", "status", place, "--json").stdout)["signature"]["matches"] is True


@pytest.mark.usefixtures("signed")
def test_the_same_keys_newer_word_replaces_its_older_one_and_never_the_other_way(
    site: Site, run: Run, place: str, sign_home: Callable[..., None], tmp_path: Path
) -> None:
    old = {name: (site.home / name).read_bytes() for name in FILES}
    run("mirror", "push", place, "--all")
    run("prefetch", site.server.serve("/late.pth", b"late" * 5000))
    sign_home()
    report = json.loads(run("mirror", "push", place, "--all", "--json").stdout)
    assert (report["signature"]["status"], report["signature"]["matches"]) == ("carried", True)
    new = lying_at(place)
    assert new != old
    for name, data in old.items():
        (site.home / name).unlink()
        (site.home / name).write_bytes(data)
    told = run("mirror", "push", place, "--all").stderr
    assert "is not carried" in told
    assert "the one there is newer" in told
    assert lying_at(place) == new
    judge(new, tmp_path / "signers")


def test_another_keys_word_replaces_none_that_vouches_for_more(
    site: Site, run: Run, place: str, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prefetch", "Small_Weights.A")
    run("mirror", "index")
    run("mirror", "sign", site.home, "--key", key)
    run("mirror", "push", place, "--all")
    by_ada = lying_at(place)
    bob = make_key(tmp_path / "bob")
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "bobs"))
    run("prefetch", "Small_Weights.B")
    run("mirror", "index")
    run("mirror", "sign", tmp_path / "bobs", "--key", bob)
    told = run("mirror", "push", place, "--all").stderr
    if json.loads(by_ada[FILES[0]])["version"] == json.loads((tmp_path / "bobs" / FILES[0]).read_bytes())["version"]:
        assert "the one there is newer" in told  # signed within the same second
    else:
        assert "by another key, SHA256:" in told
    assert lying_at(place) == by_ada
    assert "says nothing of 1 source" in told
    run("prefetch", "Small_Weights.A")
    run("mirror", "index")
    run("mirror", "sign", tmp_path / "bobs", "--key", bob)
    run("mirror", "sign", tmp_path / "bobs", "--key", bob)  # whose version is the next one at least
    run("mirror", "push", place, "--all")
    judge(lying_at(place), tmp_path / "signers", "bob@example.org")


@pytest.mark.usefixtures("signed")
def test_what_nobody_would_believe_is_not_carried(
    site: Site, run: Run, place: str, sign_home: Callable[..., None]
) -> None:
    whole = {name: (site.home / name).read_bytes() for name in FILES}
    (site.home / FILES[0]).unlink()
    (site.home / FILES[0]).write_bytes(whole[FILES[0]].replace(b'"size_bytes": 5', b'"size_bytes": 6'))
    assert "is not carried" in run("mirror", "push", place, "--all").stderr
    assert json.loads(run("mirror", "status", place, "--json").stdout)["signature"] is None
    sign_home("--expires", "1s")
    time.sleep(1.1)
    told = run("mirror", "push", place, "--all").stderr
    assert "it expired at" in told
    assert json.loads(run("mirror", "status", place, "--json").stdout)["signature"] is None


@pytest.mark.usefixtures("signed")
def test_a_dry_run_of_push_tells_of_the_signature_and_brings_none(run: Run, place: str) -> None:
    report = json.loads(run("mirror", "push", place, "--all", "--dry-run", "--json").stdout)
    assert (report["signature"]["status"], report["signature"]["matches"]) == ("carried", True)
    assert "would carry the signed index: 3 sources" in run("mirror", "push", place, "--all", "--dry-run").stderr
    run("mirror", "push", place, "Small_Weights.A", "--json")
    assert json.loads(run("mirror", "status", place, "--json").stdout)["signature"]["absent"] == 2


@pytest.mark.usefixtures("signed")
def test_a_pull_keeps_nothing_signed_by_somebody_who_may_not(
    site: Site, run: Run, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("mirror", "push", place, "--all")
    run("lock", "-o", "weights.lock", *ALL)
    home = become_somebody_else(site, monkeypatch, tmp_path)
    (tmp_path / "signers").write_text("# nobody\n")
    told = run("mirror", "pull", place, "--locked", "weights.lock").stderr
    assert "nobody in allowed_signers has the key" in told
    assert len(blobs_in(home)) == 3
    assert not (home / FILES[0]).exists()
    monkeypatch.delenv("WEIGHTSTORE_ALLOWED_SIGNERS")
    run("mirror", "pull", place, "--locked", "weights.lock")
    assert (home / FILES[0]).exists()  # whoever asks this store finds out by themselves whether to believe it


@pytest.mark.usefixtures("signed")
def test_what_this_machine_does_not_know_is_signed_for_only_on_request(
    site: Site, run: Run, place: str, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "://" not in place:
        assert "--trust-mirror" in run("mirror", "sign", place, "--key", key, "--trust-mirror", code=2).stderr
        return
    run("mirror", "push", place, "--all")
    monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "others"))
    assert "--trust-mirror" in run("mirror", "sign", place, "--key", key, code=2).stderr
    run("prefetch", "Small_Weights.A")
    report = json.loads(run("mirror", "sign", place, "--key", key, "--json").stdout)
    assert report["entries"] == 1
    assert {one["source"] for one in report["left_out"]} == {site.url("B"), site.url("C")}
    report = json.loads(run("mirror", "sign", place, "--key", key, "--trust-mirror", "--json").stdout)
    assert report["entries"] == 3


@pytest.mark.usefixtures("signed")
def test_what_was_changed_at_a_place_is_found_out_told_and_replaced_by_the_next_push(
    site: Site, run: Run, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("mirror", "push", place, "--all")
    good = lying_at(place)
    forged = good[FILES[0]].replace(site.digest("B").encode(), site.digest("A").encode())
    put(place, {**good, FILES[0]: forged})
    assert "the signature is not of this text" in run("mirror", "verify", place, code=5).stderr
    status = json.loads(run("mirror", "status", place, "--json").stdout)["signature"]
    assert (status["reason"], status["key"]) == ("the signature is not of this text", None)
    assert "not to be believed" in run("mirror", "status", place).stderr
    with monkeypatch.context() as patched:
        home = tmp_path / "users"
        patched.setenv("WEIGHTSTORE_HOME", str(home))
        patched.setenv("WEIGHTSTORE_STATE", str(tmp_path / "users-state"))
        patched.setenv("WEIGHTSTORE_MIRRORS", place)
        patched.setenv("WEIGHTSTORE_ORDER", "layers,mirrors")
        assert "is passed over" in run("prefetch", "small", code=4).stderr
        assert not (home / "blobs/sha256" / site.digest("A")).exists()
    run("mirror", "push", place, "--all")
    assert lying_at(place) == good


@pytest.mark.usefixtures("signed")
def test_an_older_one_that_somebody_put_back_is_found_out(run: Run, place: str, sign_home: Callable[..., None]) -> None:
    run("mirror", "push", place, "--all")
    old = lying_at(place)
    sign_home()
    run("mirror", "push", place, "--all")
    run("mirror", "verify", place)
    put(place, old)
    assert "was seen before: somebody serves an old one" in run("mirror", "verify", place, code=5).stderr
    reason = json.loads(run("mirror", "status", place, "--json").stdout)["signature"]["reason"]
    assert "was seen before" in reason


@pytest.mark.usefixtures("signed")
def test_a_strangers_word_is_in_nobodys_way(run: Run, place: str, tmp_path: Path) -> None:
    run("mirror", "push", place, "--all")
    good = lying_at(place)
    stranger = Ed25519PrivateKey.generate()
    document = json.dumps(json.loads(good[FILES[0]]) | {"version": 1 << 53}).encode()
    proof = stranger.sign(signed_bytes(document, "weightstore-index"))
    signature = armoured(stranger.public_key().public_bytes_raw(), "weightstore-index", proof)
    put(place, {FILES[0]: document, FILES[1]: signature})
    assert "nobody in allowed_signers" in run("mirror", "verify", place, code=5).stderr
    assert "Remove signed-index.json first" in run("mirror", "sign", place, "--key", tmp_path / "ada", code=2).stderr
    run("mirror", "push", place, "--all")
    assert lying_at(place) == good


def test_what_a_web_server_has_cannot_be_signed_there(run: Run, key: Path) -> None:
    told = run("mirror", "sign", "https://weights.example.org", "--key", key, code=2).stderr
    assert "Push to the directory that it serves" in told


@pytest.mark.usefixtures("signed")
@pytest.mark.needs("docker-registry", "skopeo")
def test_skopeo_brings_the_very_files_out_of_a_registry(
    site: Site, run: Run, registry: DockerRegistry, tmp_path: Path
) -> None:
    run("mirror", "push", f"oci://{registry.address}/judged", "--all")
    source = f"docker://{registry.address}/judged:weightstore-signed"
    command = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", source, f"dir:{tmp_path / 'copy'}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    manifest = json.loads((tmp_path / "copy/manifest.json").read_bytes())
    files = {
        layer["annotations"]["org.opencontainers.image.title"]: tmp_path / "copy" / layer["digest"].partition(":")[2]
        for layer in manifest["layers"]
    }
    assert list(files) == list(FILES)
    judge({name: path.read_bytes() for name, path in files.items()}, tmp_path / "signers")


@pytest.mark.usefixtures("signed")
def test_amazons_own_client_brings_the_very_files_out_of_a_bucket(
    run: Run, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    run("mirror", "push", "s3://weights/judged", "--all")
    program = """
import boto3, sys
for name in sys.argv[1:]:
    boto3.client("s3", region_name="us-east-1").download_file("weights", f"judged/{name}", name)
"""
    subprocess.run([sys.executable, "-c", program, *FILES], cwd=tmp_path, check=True, timeout=60)
    judge({name: (tmp_path / name).read_bytes() for name in FILES}, tmp_path / "signers")


@pytest.mark.needs("docker-registry")
def test_a_registry_that_was_never_signed_is_passed_over_in_silence(
    site: Site, run: Run, key: Path, registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prefetch", "Small_Weights.A")
    run("mirror", "push", f"oci://{registry.address}/unsigned", "--all")
    shutil.rmtree(site.home)
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", f"oci://{registry.address}/unsigned")
    told = run("prefetch", "Small_Weights.A").stderr  # which nobody vouches for, so the origin is asked
    assert "passed over" not in told
    assert site.blob("A").exists()


@pytest.mark.usefixtures("signed")
def test_a_signature_that_cannot_be_kept_does_not_spoil_a_pull(
    site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("mirror", "push", "mirror", "--all")
    home = become_somebody_else(site, monkeypatch, tmp_path)
    (home / FILES[0]).mkdir(parents=True)
    run("init")
    told = run("mirror", "pull", "mirror", "--all").stderr
    assert "the signed index is not carried" in told
    assert "3 fetched, 0 present" in told


@pytest.mark.usefixtures("signed")
@pytest.mark.needs("nginx")
def test_a_directory_that_was_pushed_to_is_a_signed_mirror_behind_nginx(
    site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("mirror", "push", "mirror", "--all")
    with Nginx(root=tmp_path / "mirror") as nginx:
        home = become_somebody_else(site, monkeypatch, tmp_path)
        monkeypatch.setenv("WEIGHTSTORE_MIRRORS", nginx.url(""))
        run("prefetch", "small")
        assert blobs_in(home) == {site.digest("B")}
        assert json.loads(run("mirror", "status", nginx.url(""), "--json").stdout)["signature"]["matches"] is True
        shutil.rmtree(home)
        report = json.loads(run("mirror", "pull", nginx.url(""), "--all", "--json").stdout)
        assert (report["fetched"], report["signature"]["status"]) == (3, "carried")
