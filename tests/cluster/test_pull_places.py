"""``mirror pull`` and ``status`` of registries and buckets: what is not there, and what other tools took from there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.images import image, skopeo
from tests.cluster.test_mirror import ALL, blobs_in


@pytest.mark.needs("docker-registry")
def test_a_repository_that_nobody_pushed_to_is_told_to_be_pushed_to(run: Run, repository: str) -> None:
    for verb in (("status", f"oci://{repository}"), ("pull", f"oci://{repository}", "--all")):
        told = run("mirror", *verb, code=6).stderr
        assert f"weightstore mirror push oci://{repository} NAMES" in told
        assert "mirror index" not in told


def test_a_bucket_that_nobody_pushed_to_is_told_to_be_pushed_to(run: Run, bucket: str) -> None:
    for address in (bucket, "s3://no-such-bucket/weights"):
        for verb in (("status", address), ("pull", address, "--all")):
            told = run("mirror", *verb, code=6).stderr
            assert f"weightstore mirror push {address} NAMES" in told
            assert "mirror index" not in told


@pytest.mark.needs("docker-registry", "skopeo")
def test_what_skopeo_takes_of_all_of_a_registry_is_a_mirror(
    site: Site,
    run: Run,
    repository: str,
    tmp_path: Path,
) -> None:
    run("prefetch", *ALL)
    run("mirror", "push", f"oci://{repository}", "--all")
    skopeo("--all", "--src-tls-verify=false", f"docker://{repository}:weightstore-index", f"oci:{tmp_path}/taken")
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", "taken", "--all", "--trust-mirror")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}
    assert json.loads(run("mirror", "status", "taken", "--json").stdout)["both"] == 3


@pytest.fixture
def taken(site: Site, run: Run, tmp_path: Path) -> Path:
    """An image layout that skopeo wrote, with one checkpoint of ours under our name, and an image of nothing."""
    root = tmp_path / "taken"
    image(tmp_path / "nothing")
    run("prefetch", *ALL)
    run("mirror", "push", "mirror", "--all")
    for origin, tag in (("mirror:toys-Small_Weights.A", "toys-Small_Weights.A"), ("nothing:x", "toys-Small_Weights.B")):
        skopeo(f"oci:{tmp_path}/{origin}", f"oci:{root}:{tag}")
    return root


@pytest.mark.needs("skopeo")
def test_a_push_makes_a_store_of_what_skopeo_wrote_and_keeps_it(
    site: Site, run: Run, taken: Path, tmp_path: Path
) -> None:
    before = foreign_in(taken)
    assert "would become a store" in run("mirror", "push", taken, "--all", "--dry-run").stderr
    assert not (taken / "store.json").exists()
    told = run("mirror", "push", taken, "--all").stderr
    assert "is an OCI image layout that another tool wrote; it is now a store, and what is there is kept" in told
    assert "2 pushed, 1 there already" in told
    assert foreign_in(taken) == before
    tags = {
        one["annotations"]["org.opencontainers.image.ref.name"]
        for one in json.loads((taken / "index.json").read_bytes())["manifests"]
    }
    longer = f"toys-Small_Weights.B-{site.digest('B')[:12]}"  # the image's name is not taken away
    assert tags == {"toys-Small_Weights.A", "toys-Small_Weights.B", longer, "toys-Other_Weights.C"}
    assert "another tool" not in run("mirror", "push", taken, "--all").stderr
    run("--home", taken, "gc", "--grace", "0s", "-q")
    for tag in tags:
        skopeo(f"oci:{taken}:{tag}", f"oci:{tmp_path}/out:{tag}")
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", taken, "--all", "--trust-mirror")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}


@pytest.mark.needs("skopeo")
def test_mirror_index_makes_a_store_of_what_skopeo_wrote_and_keeps_it(site: Site, run: Run, taken: Path) -> None:
    before = foreign_in(taken)
    taken.chmod(0o700)
    told = run("--home", taken, "prefetch", "Small_Weights.A", code=8).stderr
    assert f"weightstore --home {taken} mirror index" in told
    done = run("--home", taken, "mirror", "index").stderr
    assert "is now a store" in done
    assert "0 checkpoints, 0 B, and 2 manifests of other tools" in done
    assert json.loads((taken / "store.json").read_bytes())["sharing"] == "private"
    assert foreign_in(taken) == before
    run("--home", taken, "prefetch", "Small_Weights.A")
    run("--home", taken, "mirror", "index")
    assert foreign_in(taken) == before


@pytest.mark.needs("skopeo")
def test_what_is_damaged_in_what_skopeo_wrote_is_mended_by_the_push_that_is_told(
    site: Site, run: Run, taken: Path
) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.A")
    blob = taken / "blobs/sha256" / site.digest("A")
    blob.write_bytes(site.data("A")[::-1])
    told = run("--home", "other", "mirror", "pull", taken, "--locked", "weights.lock", code=6).stderr
    assert f"`weightstore mirror push {taken} --all --check`" in told
    run("mirror", "push", taken, "--all", "--check")
    assert blob.read_bytes() == site.data("A")


@pytest.mark.needs("skopeo")
def test_doctor_says_what_skopeo_wrote(run: Run, taken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", str(taken))
    monkeypatch.setenv("WEIGHTSTORE_LAYERS", str(taken))
    told = run("--home", taken, "doctor", "--json").stdout
    assert told.count("an OCI image layout that another tool wrote") == 3
    assert f"weightstore --home {taken} mirror index" in told
    assert "The first download creates it" not in told


def foreign_in(root: Path) -> list[dict[str, object]]:
    """The descriptors of an index that are not ours."""
    manifests = json.loads((root / "index.json").read_bytes())["manifests"]
    return [one for one in manifests if "dev.weightstore.digest" not in one.get("annotations", {})]


@pytest.mark.needs("docker-registry")
def test_a_dry_run_asks_a_registry_what_it_has(site: Site, run: Run, repository: str) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", f"oci://{repository}", "Small_Weights.A")
    shutil.rmtree(site.home)
    told = json.loads(
        run("mirror", "pull", f"oci://{repository}", "--locked", "weights.lock", "-n", "--json", code=6).stdout
    )
    assert told["lacking"] == ["toys/Other_Weights.C", "toys/Small_Weights.B"]


def test_a_dry_run_asks_a_bucket_what_it_has(site: Site, run: Run, bucket: str) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", bucket, "Small_Weights.A")
    shutil.rmtree(site.home)
    told = json.loads(run("mirror", "pull", bucket, "--locked", "weights.lock", "-n", "--json", code=6).stdout)
    assert told["lacking"] == ["toys/Other_Weights.C", "toys/Small_Weights.B"]


@pytest.mark.needs("docker-registry")
def test_who_allows_signers_pulls_from_a_registry_all_the_same(
    site: Site,
    run: Run,
    repository: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.A")
    run("mirror", "push", f"oci://{repository}", "--all")
    shutil.rmtree(site.home)
    (tmp_path / "signers").write_text("# nobody\n")
    monkeypatch.setenv("WEIGHTSTORE_ALLOWED_SIGNERS", str(tmp_path / "signers"))
    assert "its digest is not known here" in run("mirror", "pull", f"oci://{repository}", "--all", code=4).stderr
    run("mirror", "pull", f"oci://{repository}", "--locked", "weights.lock")
    assert blobs_in(site.home) == {site.digest("A")}
