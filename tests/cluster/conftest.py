"""The command line's site, whose store a mirror is pushed from or pulled to; and clouds with buckets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.cli.conftest import run, server, site, spawn  # noqa: F401
from tests.servers.clouds import Cloud, cloud

S3 = "s3"
GCS = pytest.param("gs", marks=pytest.mark.needs("fake-gcs-server", "cloud-python"))
AZURE = pytest.param("az", marks=pytest.mark.needs("azurite-blob", "cloud-python"))


@pytest.fixture(scope="module", params=[S3, GCS, AZURE])
def clouds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with cloud(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


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
