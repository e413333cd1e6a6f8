"""``mirror pull`` and ``status`` of registries and buckets: what is not there, and what other tools took from there."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.test_mirror import ALL, blobs_in
from tests.servers.registry import DockerRegistry
from tests.servers.s3 import S3Server

needs_s3 = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("obstore", "moto", "flask_cors")),
    reason="obstore and moto are not installed",
)


@pytest.fixture(scope="module")
def registry() -> Iterator[DockerRegistry]:
    with DockerRegistry() as registry:
        yield registry


@pytest.fixture
def repository(registry: DockerRegistry, request: pytest.FixtureRequest) -> str:
    """The address of a repository that nothing is in."""
    return f"{registry.address}/site/p{abs(hash(request.node.name)) % 10**9}"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as s3:
        yield s3


@pytest.fixture
def bucket(s3: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a prefix that nothing is under."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://weights/p{abs(hash(request.node.name)) % 10**9}"


@pytest.mark.needs("docker-registry")
def test_a_repository_that_nobody_pushed_to_is_told_to_be_pushed_to(run: Run, repository: str) -> None:
    for verb in (("status", f"oci://{repository}"), ("pull", f"oci://{repository}", "--all")):
        told = run("mirror", *verb, code=6).stderr
        assert f"weightstore mirror push oci://{repository} NAMES" in told
        assert "mirror index" not in told


@needs_s3
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
    command = ["skopeo", "copy", "--insecure-policy", "--all", "--src-tls-verify=false"]
    command += [f"docker://{repository}:weightstore-index", f"oci:{tmp_path}/taken"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    shutil.rmtree(site.home)
    site.server.stop()
    run("mirror", "pull", "taken", "--all", "--trust-mirror")
    assert blobs_in(site.home) == {site.digest(member) for member in "ABC"}
    assert json.loads(run("mirror", "status", "taken", "--json").stdout)["both"] == 3


@pytest.mark.needs("docker-registry")
def test_a_dry_run_asks_a_registry_what_it_has(site: Site, run: Run, repository: str) -> None:
    run("lock", "-o", "weights.lock", *ALL)
    run("mirror", "push", f"oci://{repository}", "Small_Weights.A")
    shutil.rmtree(site.home)
    told = json.loads(
        run("mirror", "pull", f"oci://{repository}", "--locked", "weights.lock", "-n", "--json", code=6).stdout
    )
    assert told["lacking"] == ["toys/Other_Weights.C", "toys/Small_Weights.B"]


@needs_s3
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
