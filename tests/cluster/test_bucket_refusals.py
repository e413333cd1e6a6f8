"""What is said when a bucket refuses: what happened, what to do, and never a secret."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Site
from tests.cluster.conftest import AZURE, GCS, S3
from tests.servers.azure import ACCOUNT, KEY
from tests.servers.clouds import NOBODY, Cloud
from tests.servers.emulators import as_vendor
from tests.servers.gcs import ServiceAccount
from tests.servers.relay import Given

VARIABLES = {"s3": "AWS_ACCESS_KEY_ID", "gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_KEY"}


def told_by(run: Run, place: str, *, secrets: tuple[str, ...] = ()) -> str:
    """What pushing to a place that refuses says, and asking it what it has."""
    told = ""
    for verb in (("push", place, "--all"), ("status", place)):
        result = run("mirror", *verb, code=6)
        told += result.stderr
        for secret in secrets:
            assert secret not in result.stderr + result.stdout
    return told


def test_a_bucket_that_does_not_exist(site: Site, run: Run, place: str, there: Cloud) -> None:
    run("prefetch", "Small_Weights.A")
    nowhere = place.replace("weights", "nowhere")
    told = told_by(run, nowhere, secrets=there.secrets)
    assert nowhere in told
    assert f"there is no such {'container' if there.scheme == 'az' else 'bucket'}" in told
    assert "no such object" in run("mirror", "pull", nowhere, f"https://a.invalid/b#sha256={'0' * 64}", code=6).stderr


def test_somebody_elses_credentials(
    site: Site, run: Run, place: str, there: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there.strangers is None:
        there.relay.fault = lambda _: Given(403, {}, b"<Error><Code>InvalidAccessKeyId</Code></Error>")
    for name, value in (there.strangers or {}).items():
        monkeypatch.setenv(name, value)
    run("prefetch", "Small_Weights.A")
    told = told_by(run, place, secrets=there.secrets)
    assert place in told
    assert "no permission (HTTP 40" in told
    assert VARIABLES[there.scheme] in told


@pytest.mark.parametrize("endpoint", ["localhost:9000", "ada:s3cret@host:9000/x", "https://", "http://[x", "minio"])
def test_an_endpoint_that_is_no_url(
    site: Site, run: Run, place: str, there: Cloud, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    variable = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}[there.scheme]
    monkeypatch.setenv(variable, endpoint)
    run("prefetch", "Small_Weights.A")
    assert f"{variable} is no URL" in told_by(run, place, secrets=("s3cret",))


def test_no_credentials_at_all(site: Site, run: Run, place: str, there: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in there.credentials:
        if name != "AZURE_STORAGE_ACCOUNT_NAME":
            monkeypatch.delenv(name)
    run("prefetch", "Small_Weights.A")
    before = len(there.relay.requests())
    told = told_by(run, place)
    assert "no credentials were found" in told
    assert VARIABLES[there.scheme] in told
    assert len(there.relay.requests()) == before


def test_a_refusing_bucket_is_passed_over_and_the_origin_asked(
    site: Site, run: Run, place: str, there: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.*")
    run("rm", "Small_Weights.A", "Small_Weights.B", "--yes")
    there.relay.fault = lambda _: Given(403, {})
    monkeypatch.setenv("WEIGHTSTORE_MIRRORS", place)
    told = run("prefetch", "--locked", "weights.lock").stderr
    assert "no permission (HTTP 403)" in told
    assert site.blob("A").read_bytes() == site.data("A")


def test_a_server_that_fails(site: Site, run: Run, place: str, there: Cloud) -> None:
    run("prefetch", "Small_Weights.A")
    there.relay.fault = lambda _: Given(501, {}, b"no")
    assert "HTTP 501" in told_by(run, place, secrets=there.secrets)


def test_a_server_that_is_not_there(
    site: Site, run: Run, place: str, there: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prefetch", "Small_Weights.A")
    for name, value in there.endpoint.items():
        monkeypatch.setenv(name, value.replace(str(there.relay.port), "9"))
    assert "cannot be reached: connection refused" in told_by(run, place, secrets=there.secrets)


def test_without_tls_only_this_machine_is_asked(
    site: Site, run: Run, place: str, there: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prefetch", "Small_Weights.A")
    for name, value in there.endpoint.items():
        monkeypatch.setenv(name, value.replace("127.0.0.1", "weights.invalid"))
    assert "only a server on this machine is spoken to without TLS" in told_by(run, place, secrets=there.secrets)


_MAKE_SAS = """
import sys
from datetime import datetime, timedelta, UTC
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
account, key, hours = sys.argv[1:]
now, may = datetime.now(UTC), ContainerSasPermissions(read=True, list=True)
begins, ends = now - timedelta(hours=9), now + timedelta(hours=int(hours))
print(generate_container_sas(account, "weights", account_key=key, permission=may, start=begins, expiry=ends))
"""


@pytest.mark.parametrize("clouds", [AZURE], indirect=True)
@pytest.mark.parametrize("hours", [1, -1], ids=["valid", "expired"])
def test_a_shared_access_signature_may_what_it_says_until_it_expires(
    site: Site, run: Run, place: str, there: Cloud, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    run("lock", "-o", "weights.lock", "Small_Weights.A")
    run("mirror", "push", place, "--all")
    run("prefetch", "Small_Weights.B")
    token = as_vendor(_MAKE_SAS, ACCOUNT, KEY, str(hours)).strip()
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    told = run("mirror", "push", place, "--all", code=6).stderr
    if hours > 0:
        assert '"both": 1' in run("mirror", "status", place, "--json").stdout
        shutil.rmtree(site.home)
        run("mirror", "pull", place, "--locked", "weights.lock")
        assert site.blob("A").read_bytes() == site.data("A")
    else:
        told += run("mirror", "status", place, code=6).stderr
    assert "no permission (HTTP 403)" in told
    assert "AZURE_STORAGE_SAS_TOKEN" in told
    assert "sig=" not in told
    assert token[-20:] not in told


@pytest.mark.parametrize("clouds", [S3], indirect=True)
def test_a_bucket_in_another_region(site: Site, run: Run, place: str, there: Cloud) -> None:
    there.relay.fault = lambda _: Given(301, {"x-amz-bucket-region": "eu-central-1"}, b"")
    assert "Set AWS_REGION" in run("mirror", "status", place, code=6).stderr


def account_file(tmp_path: Path, **changes: str) -> dict[str, str]:
    path = ServiceAccount().write(tmp_path / "account.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}


SITE = {"AZURE_STORAGE_ACCOUNT_NAME": "site"}


@pytest.mark.parametrize(
    ("address", "environment", "reason"),
    [
        ("az://weights", {}, "no account is named. Set AZURE_STORAGE_ACCOUNT_NAME"),
        ("az://weights", {**SITE, "AZURE_STORAGE_ACCOUNT_KEY": "hunter2 !"}, "the account key is not base64"),
        ("az://weights", {**SITE, "AZURE_STORAGE_SAS_TOKEN": "hunter2"}, "the SAS token cannot be read"),
        ("gs://weights", {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/hunter2.json"}, "cannot be opened"),
        ("gs://weights", {"GOOGLE_SERVICE_ACCOUNT": "/nowhere/hunter2.json"}, "cannot be opened"),
        (
            "gs://weights",
            {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key": "hunter2"'},
            "neither a service account's",
        ),
        ("gs://weights", {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"type": "external_account"}'}, "neither a service account's"),
        ("az://weights", {**SITE, "AZURE_USE_AZURE_CLI": "true", "PATH": "/nowhere"}, "Run `az login`"),
        ("gs://weights", {"damaged": "hunter2"}, "the key in the file with the credentials is damaged"),
    ],
)
def test_settings_that_cannot_be_used(
    site: Site,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    environment: dict[str, str],
    reason: str,
) -> None:
    pytest.importorskip("obstore")
    if "damaged" in environment:
        environment = account_file(tmp_path, private_key=environment["damaged"])
    for name, value in {**NOBODY, **environment}.items():
        monkeypatch.setenv(name, value)
    told = run("mirror", "status", f"{address}/site", code=6).stderr
    assert f"{address}/site" in told
    assert reason in told
    assert "hunter2" not in told


@pytest.mark.parametrize("clouds", [GCS], indirect=True)
@pytest.mark.parametrize("variable", ["", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY"])
def test_google_credentials_are_found_where_gcloud_puts_them_and_where_variables_say(
    site: Site, run: Run, place: str, there: Cloud, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    account = Path(there.credentials["GOOGLE_APPLICATION_CREDENTIALS"])
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    if variable:
        monkeypatch.setenv(variable, account.read_text() if variable.endswith("_KEY") else str(account))
    else:
        known = Path.home() / ".config/gcloud/application_default_credentials.json"
        known.parent.mkdir(parents=True)
        shutil.copy(account, known)
    run("prefetch", "Small_Weights.A")
    assert "1 pushed" in run("mirror", "push", place, "--all").stderr
