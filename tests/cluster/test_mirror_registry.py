"""``mirror`` with a real registry, and skopeo as the judge of what lies in it."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.images import skopeo
from tests.cluster.test_mirror import ALL, blobs_in
from tests.servers.registry import DockerRegistry
from weightstore.cluster.index import REF_NAME
from weightstore.cluster.mirror.registry import PIECE

pytestmark = pytest.mark.needs("docker-registry", "skopeo")
# The password is "secret"; bcrypt is all that the registry reads.
USER = "ada:$2y$05$HaxjFnkXJFuOyMQPmVxvxuOuHQ9CqWQwDpwPjXRS6y81HlDh5FnO.\n"


def test_what_is_pushed_is_pulled_with_the_origin_off(site: Site, run: Run, repository: str) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    assert "3 pushed" in run("mirror", "push", f"oci://{repository}", "--all").stderr
    assert "0 pushed, 3 there already" in run("mirror", "push", f"oci://{repository}", "--all").stderr
    assert json.loads(run("mirror", "status", f"oci://{repository}", "--json").stdout)["both"] == 3
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", f"oci://{repository}", "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


@pytest.mark.parametrize("lost", ["blob", "manifest", "config", "tag", "index"])
def test_what_a_registry_has_lost_is_pushed_again_where_it_is_asked_for_each_thing(
    site: Site, run: Run, repository: str, registry: DockerRegistry, tmp_path: Path, lost: str
) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    place, name = f"oci://{repository}", repository.partition("/")[2]
    run("mirror", "push", place, "--all")
    index = manifest_at(registry, name, "weightstore-index")
    tag = "toys-Small_Weights.A"
    (digest,) = [one["digest"] for one in index["manifests"] if one["annotations"][REF_NAME] == tag]
    if lost == "tag":
        registry.lose_tag(name, tag)
    elif lost == "index":
        registry.lose_tag(name, "weightstore-index")
    else:
        config = manifest_at(registry, name, digest)["config"]["digest"]
        gone = {
            "blob": f"blobs/sha256:{site.digest('A')}",
            "manifest": f"manifests/{digest}",
            "config": f"blobs/{config}",
        }
        registry.lose(name, gone[lost])
    if lost != "index":
        assert "0 pushed, 3 there already" in run("mirror", "push", place, "--all").stderr
    told = run("mirror", "push", place, "--all", "--check").stderr
    assert ("1 pushed, 2 there already" if lost == "blob" else "0 pushed, 3 there already") in told
    assert manifest_at(registry, name, "weightstore-index") == index
    skopeo("--src-tls-verify=false", f"docker://{repository}:{tag}", f"oci:{tmp_path}/copy:a")
    before = len(registry.requests())
    run("mirror", "push", place, "--all", "--check")
    assert {method for method, _ in registry.requests()[before:]} == {"GET", "HEAD"}
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", place, "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


def manifest_at(registry: DockerRegistry, name: str, reference: str) -> dict[str, Any]:
    kinds = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json")
    url = f"http://{registry.address}/v2/{name}/manifests/{reference}"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": ", ".join(kinds)}), timeout=10) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def test_an_index_that_names_a_lost_manifest_of_others_is_mended_by_whoever_pushes(
    site: Site, run: Run, repository: str, registry: DockerRegistry
) -> None:
    """A registry takes no index with such a name in it, so that nobody could push any more."""

    def manifests() -> list[dict[str, Any]]:
        return list(manifest_at(registry, name, "weightstore-index")["manifests"])

    run("prefetch", "Small_Weights.A")
    place, name = f"oci://{repository}", repository.partition("/")[2]
    run("mirror", "push", place, "--all")
    (lost,) = manifests()
    registry.lose(name, f"manifests/{lost['digest']}")
    shutil.rmtree(site.home)
    run("prefetch", "Small_Weights.B")
    assert "Push again with --check" in run("mirror", "push", place, "--all", code=6).stderr
    run("mirror", "push", place, "--all", "--check")
    # What only a config told, as its task, is not known to the one who writes it anew.
    (mended,) = [one for one in manifests() if one["annotations"] == lost["annotations"]]
    registry.lose(name, f"manifests/{mended['digest']}")
    registry.lose(name, f"blobs/sha256:{site.digest('A')}")
    run("prefetch", "Other_Weights.C")
    told = run("mirror", "push", place, "--all", "--check", code=6).stderr
    assert "lost toys/Small_Weights.A" in told
    assert "removes the tag weightstore-index" in told
    registry.lose_tag(name, "weightstore-index")
    run("mirror", "push", place, "--all")
    assert {one["annotations"][REF_NAME] for one in manifests()} == {"toys-Small_Weights.B", "toys-Other_Weights.C"}


def test_a_damaged_blob_that_a_registry_keeps_is_an_error_that_says_so(
    site: Site, run: Run, repository: str, registry: DockerRegistry
) -> None:
    run("prefetch", *ALL)
    run("mirror", "push", f"oci://{repository}", "--all")
    file = registry.file_of(site.digest("A"))
    file.write_bytes(site.data("A")[::-1])
    told = run("mirror", "push", f"oci://{repository}", "--all", "--check", code=6).stderr
    assert f"has sha256:{site.digest('A')} damaged still" in told
    assert "0 pushed, 2 there already, 1 failed" in told
    file.unlink()  # as whoever keeps it does
    assert "1 pushed, 2 there already" in run("mirror", "push", f"oci://{repository}", "--all", "--check").stderr
    assert file.read_bytes() == site.data("A")


def test_a_registry_is_a_mirror_like_any_other(
    site: Site, run: Run, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", f"oci://{repository}", "--all")
    shutil.rmtree(site.home)
    site.server.stop()
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", f"oci://{repository}")
    run("prefetch", "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


def test_doctor_asks_a_registry_whether_it_answers(run: Run, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", f"oci://{repository}")
    findings = json.loads(run("doctor", "--json").stdout)["findings"]
    (mirror,) = [one for one in findings if one["area"] == "mirrors"]
    assert mirror["level"] == "ok"
    assert "answers in" in mirror["found"]


def test_skopeo_takes_what_was_pushed(site: Site, run: Run, repository: str, tmp_path: Path) -> None:
    run("prefetch", "Small_Weights.A")
    run("mirror", "push", f"oci://{repository}", "--all")
    skopeo("--src-tls-verify=false", f"docker://{repository}:toys-Small_Weights.A", f"oci:{tmp_path}/copy:a")
    assert (tmp_path / "copy/blobs/sha256" / site.digest("A")).read_bytes() == site.data("A")


def test_what_skopeo_brings_to_a_registry_is_pulled(site: Site, run: Run, repository: str, tmp_path: Path) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.A")
    run("mirror", "push", "mirror", "--all")
    skopeo("--dest-tls-verify=false", f"oci:{tmp_path}/mirror:toys-Small_Weights.A", f"docker://{repository}:a")
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", f"oci://{repository}", "--locked", "weights.lock")
    assert site.blob("A").read_bytes() == site.data("A")
    shutil.rmtree(site.home)
    status = json.loads(run("mirror", "status", f"oci://{repository}", "--json").stdout)
    assert [(one["name"], one["digest"]) for one in status["mirror_only"]] == [
        ("toys/Small_Weights.A", f"sha256:{site.digest('A')}")
    ]
    run("mirror", "pull", f"oci://{repository}", "--all", "--trust-mirror")
    assert site.blob("A").read_bytes() == site.data("A")
    run("mirror", "push", f"oci://{repository}", "--all")
    assert "1 on both sides" in run("mirror", "status", f"oci://{repository}").stderr


def test_a_blob_larger_than_a_piece_arrives_in_pieces(
    site: Site, run: Run, repository: str, registry: DockerRegistry
) -> None:
    data = random.Random(5).randbytes(PIECE + 12345)
    url = site.server.serve("/large.pth", data)
    run("prefetch", url)
    before = len(registry.requests())
    run("mirror", "push", f"oci://{repository}", url)
    assert [method for method, _ in registry.requests()[before:]].count("PATCH") == 2
    digest = hashlib.sha256(data).hexdigest()
    shutil.rmtree(site.home)
    run("mirror", "pull", f"oci://{repository}", f"{url}#sha256={digest}")
    assert (site.home / "blobs/sha256" / digest).read_bytes() == data


def test_a_blob_of_another_repository_is_mounted(
    site: Site, run: Run, repository: str, registry: DockerRegistry
) -> None:
    run("prefetch", "Small_Weights.A")
    run("mirror", "push", f"oci://{repository}", "--all")
    before = len(registry.requests())
    other = repository.partition("/")[2]
    run("mirror", "push", f"oci://{repository}-two", "--all", "--mount-from", other)
    asked = registry.requests()[before:]
    assert any("mount=sha256" in path and site.digest("A") in path for _, path in asked)
    assert not any(method == "PUT" and site.digest("A") in path for method, path in asked)


def test_one_new_blob_for_a_mirror_of_many_is_as_many_requests_as_for_one_of_few(
    site: Site, run: Run, repository: str, registry: DockerRegistry
) -> None:
    def requests_of_one_more(name: str) -> int:
        url = site.server.serve(f"/{name}.pth", name.encode() * 100)
        run("prefetch", url)
        before = len(registry.requests())
        run("mirror", "push", f"oci://{repository}", "--all")
        return len(registry.requests()) - before

    run("prefetch", "Small_Weights.A")
    run("mirror", "push", f"oci://{repository}", "--all")
    few = requests_of_one_more("few")
    run("prefetch", *(site.server.serve(f"/many-{number}.pth", b"%d" % number * 50) for number in range(500)))
    run("mirror", "push", f"oci://{repository}", "--all", "-j2")
    assert requests_of_one_more("many") == few


def test_credentials_are_those_of_docker_login(
    site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prefetch", "Small_Weights.A")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with DockerRegistry(htpasswd=USER) as registry:
        place = f"oci://{registry.address}/weights"
        assert "docker login" in run("mirror", "push", place, "--all", code=6).stderr
        auth = base64.b64encode(b"ada:secret").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": auth}}}))
        run("mirror", "push", place, "--all")
        assert json.loads(run("mirror", "status", place, "--json").stdout)["both"] == 1
