"""The three clouds alike: a bucket ``weights``, what its users have in their environment, and a relay before it."""

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.servers.azure import ACCOUNT, KEY, Azurite
from tests.servers.emulators import as_vendor
from tests.servers.gcs import GcsServer, ServiceAccount
from tests.servers.relay import Relay
from tests.servers.s3 import S3Server
from tests.servers.tls import Certificate

# Where clients without credentials ask for some: nobody is there, and nothing of it leaves the machine.
NOBODY = {
    "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9",
    "AZURE_MSI_ENDPOINT": "http://127.0.0.1:9",
    "GCE_METADATA_HOST": "127.0.0.1:9",
    "GCE_METADATA_IP": "127.0.0.1:9",
}


@dataclass(frozen=True, slots=True)
class Cloud:
    """A cloud.

    Attributes:
        scheme: ``s3``, ``gs`` or ``az``.
        host: its name, at the vendor's.
        relay: what stands before it.
        endpoint: what says that it is not at the vendor's.
        credentials: those of a user.
        strangers: those of somebody else. None where the server does not look.
        secrets: what must not be shown of the two.
        put: writes objects, by key, as the vendor's own client does, in parts where they are large.
        get: lists and reads what is below a prefix; the keys are without it.
    """

    scheme: str
    host: str
    relay: Relay
    endpoint: Mapping[str, str]
    credentials: Mapping[str, str]
    strangers: Mapping[str, str] | None
    secrets: tuple[str, ...]
    put: Callable[[Mapping[str, bytes]], None]
    get: Callable[[str], dict[str, bytes]]

    @property
    def environment(self) -> dict[str, str]:
        return {**NOBODY, **self.endpoint, **self.credentials}


@contextlib.contextmanager
def cloud(scheme: str, home: Path, *, certificate: Certificate | None = None) -> Iterator[Cloud]:
    """Start a cloud. ``home`` is a directory for its users' files."""
    with {"s3": _s3, "gs": _gs, "az": _az}[scheme](home, certificate) as started:
        yield started


@contextlib.contextmanager
def _s3(_: Path, certificate: Certificate | None) -> Iterator[Cloud]:
    with S3Server() as server, Relay(server.environment["AWS_ENDPOINT_URL"], certificate=certificate) as relay:
        import boto3  # a part of moto, which is not everywhere where this module is imported

        client = boto3.client(
            "s3",
            endpoint_url=server.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="ada",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )

        def put(objects: Mapping[str, bytes]) -> None:
            for key, content in objects.items():
                client.upload_fileobj(io.BytesIO(content), "weights", key)

        def get(prefix: str) -> dict[str, bytes]:
            found = client.list_objects_v2(Bucket="weights", Prefix=f"{prefix}/").get("Contents", [])
            return {
                one["Key"].removeprefix(f"{prefix}/"): client.get_object(Bucket="weights", Key=one["Key"])[
                    "Body"
                ].read()
                for one in found
            }

        yield Cloud(
            scheme="s3",
            host="s3.us-east-1.amazonaws.com",
            relay=relay,
            endpoint={"AWS_ENDPOINT_URL": relay.url},
            credentials={"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_REGION": "us-east-1"},
            strangers=None,
            secrets=("hunter2",),
            put=put,
            get=get,
        )
        client.close()


# Both vendors' programs copy between a directory and what is below a prefix.
_AS_GOOGLE = """
import os, sys
from google.cloud.storage import Client, transfer_manager
from google.oauth2.service_account import Credentials
endpoint, account, verb, prefix, home = sys.argv[1:]
scopes = ["https://www.googleapis.com/auth/devstorage.full_control"]
credentials = Credentials.from_service_account_file(account, scopes=scopes).with_always_use_jwt_access(True)
bucket = Client("site", credentials, client_options={"api_endpoint": endpoint}).bucket("weights")
if verb == "get":
    for blob in bucket.list_blobs(prefix=prefix):
        path = os.path.join(home, blob.name.removeprefix(prefix))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        blob.download_to_filename(path)
else:
    for folder, _, names in os.walk(home):
        for path in (os.path.join(folder, name) for name in names):
            blob = bucket.blob(prefix + os.path.relpath(path, home))
            transfer_manager.upload_chunks_concurrently(path, blob, chunk_size=8 << 20, worker_type="thread")
"""

_AS_MICROSOFT = """
import os, sys
from azure.storage.blob import BlobServiceClient
url, account, secret, verb, prefix, home = sys.argv[1:]
credential = {"account_name": account, "account_key": secret}
with BlobServiceClient(url, credential=credential, max_single_put_size=8 << 20, max_block_size=8 << 20) as service:
    container = service.get_container_client("weights")
    if verb == "get":
        for name in container.list_blob_names(name_starts_with=prefix):
            path = os.path.join(home, name.removeprefix(prefix))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                container.download_blob(name).readinto(file)
    else:
        for folder, _, names in os.walk(home):
            for path in (os.path.join(folder, name) for name in names):
                with open(path, "rb") as file:
                    container.upload_blob(prefix + os.path.relpath(path, home), file, overwrite=True)
"""


@dataclass(frozen=True, slots=True)
class _Vendor:
    """A vendor's own client: its program, and what the program is told of the server."""

    program: str
    server: tuple[str, ...]

    def put(self, objects: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as home:
            for key, content in objects.items():
                path = Path(home, key)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            as_vendor(self.program, *self.server, "put", "", home)

    def get(self, prefix: str) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as home:
            as_vendor(self.program, *self.server, "get", f"{prefix}/", home)
            files = (path for path in Path(home).rglob("*") if path.is_file())
            return {str(path.relative_to(home)): path.read_bytes() for path in files}


@contextlib.contextmanager
def _gs(home: Path, certificate: Certificate | None) -> Iterator[Cloud]:
    with GcsServer(certificate=certificate) as server:
        account = server.account.write(home / "account.json")
        stranger = ServiceAccount().write(home / "stranger.json")
        vendor = _Vendor(_AS_GOOGLE, (server.url, str(account)))
        yield Cloud(
            scheme="gs",
            host="storage.googleapis.com",
            relay=server,
            endpoint={"GOOGLE_BASE_URL": server.url},
            credentials={"GOOGLE_APPLICATION_CREDENTIALS": str(account)},
            strangers={"GOOGLE_APPLICATION_CREDENTIALS": str(stranger)},
            secrets=tuple(json.loads(one.read_text())["private_key"][100:130] for one in (account, stranger)),
            put=vendor.put,
            get=vendor.get,
        )


@contextlib.contextmanager
def _az(_: Path, certificate: Certificate | None) -> Iterator[Cloud]:
    with Azurite() as server, Relay(server.url, certificate=certificate) as relay:
        vendor = _Vendor(_AS_MICROSOFT, (f"{server.url}/{ACCOUNT}", ACCOUNT, KEY))
        account = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT}
        yield Cloud(
            scheme="az",
            host=f"{ACCOUNT}.blob.core.windows.net",
            relay=relay,
            endpoint={"AZURE_STORAGE_ENDPOINT": f"{relay.url}/{ACCOUNT}"},
            credentials={**account, "AZURE_STORAGE_ACCOUNT_KEY": KEY},
            strangers={**account, "AZURE_STORAGE_ACCOUNT_KEY": "aHVudGVyMmh1bnRlcjI="},
            secrets=(KEY, "aHVudGVyMmh1bnRlcjI="),
            put=vendor.put,
            get=vendor.get,
        )
