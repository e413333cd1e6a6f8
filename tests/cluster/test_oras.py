"""ORAS, by its Python client: it pulls what we push and serve, and what it pushes we pull."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.serving.conftest import running
from weightstore.config import Config

pytestmark = pytest.mark.needs("docker-registry")
client = pytest.importorskip("oras.client")


def titles_at(reference: str) -> dict[str, str]:
    """The digests of an artifact's layers by their titles, as ORAS reads its manifest."""
    address, _, _ = reference.partition("/")
    manifest = client.OrasClient(hostname=address, insecure=True).get_manifest(reference)
    return {
        layer["annotations"]["org.opencontainers.image.title"]: layer["digest"].removeprefix("sha256:")
        for layer in manifest["layers"]
    }


def test_oras_pulls_what_was_pushed(site: Site, run: Run, repository: str, tmp_path: Path) -> None:
    run("prefetch", "Small_Weights.*")
    run("mirror", "push", f"oci://{repository}", "--all")
    address = repository.partition("/")[0]
    tags = client.OrasClient(hostname=address, insecure=True).get_tags(repository)
    assert {"toys-Small_Weights.A", "toys-Small_Weights.B"} <= set(tags)
    (path,) = client.OrasClient(hostname=address, insecure=True).pull(
        f"{repository}:toys-Small_Weights.A", outdir=str(tmp_path / "pulled")
    )
    assert Path(path).name == site.url("A").rpartition("/")[2]
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == site.digest("A")


def test_oras_pulls_from_serve(site: Site, run: Run, tmp_path: Path) -> None:
    run("prefetch", "Small_Weights.A")
    with running(Config(home=site.home, state=site.state)) as served:
        address = served.url.removeprefix("http://")
        reference = f"{address}/weights"
        (tag,) = client.OrasClient(hostname=address, insecure=True).get_tags(reference)
        (path,) = client.OrasClient(hostname=address, insecure=True).pull(
            f"{reference}:{tag}", outdir=str(tmp_path / "pulled")
        )
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == site.digest("A")


def test_what_oras_pushes_is_pulled(
    site: Site, run: Run, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.pth").write_bytes(site.data("B"))
    monkeypatch.chdir(tmp_path)
    address = repository.partition("/")[0]
    client.OrasClient(hostname=address, insecure=True).push(f"{repository}:theirs", files=["theirs.pth"])
    assert titles_at(f"{repository}:theirs") == {"theirs.pth": site.digest("B")}
    run("mirror", "pull", f"oci://{repository}", f"sha256:{site.digest('B')}")
    assert (site.home / "blobs/sha256" / site.digest("B")).read_bytes() == site.data("B")
