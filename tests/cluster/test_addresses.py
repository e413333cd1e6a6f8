"""Where a mirror is: what is refused before anything is made, and what it says instead."""

from __future__ import annotations

import pytest

from weightstore.client import Client
from weightstore.cluster.mirror.directory import Directory
from weightstore.cluster.mirror.places import open_place
from weightstore.config import Config
from weightstore.errors import InvalidInput


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Client(Config(home=tmp_path / "home", state=tmp_path / "state"))


@pytest.mark.parametrize("address", ["registry.example.org/site/w", "localhost:5000/weights", "10.0.0.1/w"])
def test_an_address_without_a_scheme_is_no_directory(client, address, tmp_path):
    with pytest.raises(InvalidInput, match=rf"Write \./{address}, or with a scheme: oci://{address} .* https://"):
        open_place(address, client=client, writable=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("s3:weights/x", "s3://weights/x"),
        ("S3:/weights/x", "s3://weights/x"),
        ("gs//weights", "gs://weights"),
        ("http:/ada:s3cret@host:7212/site", "http://host:7212/site"),
        ("oci:host/w", "oci://host/w"),
    ],
)
def test_a_scheme_that_is_not_written_out_is_told_as_it_should_be(client, address, meant, tmp_path):
    with pytest.raises(InvalidInput, match=f"as in {meant}") as caught:
        open_place(address, client=client, writable=True)
    assert "s3cret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_password_in_it_is_not_shown(client):
    with pytest.raises(InvalidInput) as caught:
        open_place("ada:s3cret@registry.example.org/w", client=client)
    assert "s3cret" not in str(caught.value)


def test_a_directory_that_is_called_like_a_host_is_one(client, tmp_path):
    (tmp_path / "weights.example.org").mkdir()
    assert isinstance(open_place("weights.example.org/site", client=client, writable=True), Directory)
    assert isinstance(open_place("./registry.example.org/site", client=client, writable=True), Directory)


@pytest.mark.parametrize("address", ["mirror", "https://example.org/w", "file:///mirror"])
def test_blobs_are_mounted_in_registries_alone(client, address):
    with pytest.raises(InvalidInput, match="--mount-from is for mirrors in a registry"):
        open_place(address, client=client, writable=True, mount_from="group/other")
