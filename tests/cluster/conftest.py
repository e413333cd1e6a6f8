"""The command line's site, whose store a mirror is pushed from or pulled to; clouds with buckets, and a registry."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator

import pytest

from tests.cli.conftest import run, server, site, spawn  # noqa: F401
from tests.servers.clouds import Cloud, cloud
from tests.servers.registry import DockerRegistry
from tests.servers.s3 import S3Server

S3 = "s3"
GCS = pytest.param("gs", marks=pytest.mark.needs("fake-gcs-server", "cloud-python"))
AZURE = pytest.param("az", marks=pytest.mark.needs("azurite-blob", "cloud-python"))


@pytest.fixture(scope="module")
def start_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Cloud]]:
    """Start a cloud by its scheme, once."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    started: dict[str, Cloud] = {}
    with contextlib.ExitStack() as cleanup:

        def start(scheme: str) -> Cloud:
            if scheme not in started:
                started[scheme] = cleanup.enter_context(cloud(scheme, tmp_path_factory.mktemp(scheme)))
            return started[scheme]

        yield start


@pytest.fixture(scope="module", params=[S3, GCS, AZURE])
def clouds(request: pytest.FixtureRequest, start_cloud: Callable[[str], Cloud]) -> Cloud:
    return start_cloud(request.param)


@pytest.fixture
def there(clouds: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A cloud that behaves itself, with this user's credentials in the environment."""
    for name, value in clouds.environment.items():
        monkeypatch.setenv(name, value)
    yield clouds
    clouds.relay.fault = None


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """One that nothing is under."""
    return f"n{hashlib.sha256(request.node.name.encode()).hexdigest()[:9]}"


@pytest.fixture
def place(there: Cloud, prefix: str) -> str:
    """The address of an empty mirror."""
    return f"{there.scheme}://weights/{prefix}"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with S3Server() as started:
        yield started


@pytest.fixture
def bucket(s3: S3Server, prefix: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty mirror in S3, for what is alike in all clouds."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://weights/{prefix}"


@pytest.fixture(scope="module")
def registry() -> Iterator[DockerRegistry]:
    with DockerRegistry() as started:
        yield started


@pytest.fixture
def repository(registry: DockerRegistry, prefix: str) -> str:
    """The address, without its scheme, of a repository that nothing is in."""
    return f"{registry.address}/site/{prefix}"
