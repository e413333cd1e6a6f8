"""The three clouds alike: a bucket ``weights``, what its users have in their environment, and a relay before it."""

import contextlib
import json
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
        put: writes an object as the vendor's own client does, in parts where it is large.
        get: reads one.
    """

    scheme: str
    host: str
    relay: Relay
    endpoint: Mapping[str, str]
    credentials: Mapping[str, str]
    strangers: Mapping[str, str] | None
    secrets: tuple[str, ...]
    put: Callable[[str, bytes], None]
    get: Callable[[str], bytes]

    @property
    def environment(self) -> dict[str, str]:
        return {**NOBODY, **self.endpoint, **self.credentials}


@contextlib.contextmanager
def cloud(scheme: str, home: Path, *, certificate: Certificate | None = None) -> Iterator[Cloud]:
    """Start a cloud. ``home`` is a directory for its users' files."""
    with {"s3": _s3, "gs": _gs, "az": _az}[scheme](home, certificate) as started:
        yield started


@contextlib.contextmanager
def _s3(home: Path, certificate: Certificate | None) -> Iterator[Cloud]:
    with S3Server() as server, Relay(server.environment["AWS_ENDPOINT_URL"], certificate=certificate) as relay:
        import boto3  # a part of moto, which is not everywhere where this module is imported

        client = boto3.client(
            "s3",
            endpoint_url=server.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="ada",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        yield Cloud(
            scheme="s3",
            host="s3.us-east-1.amazonaws.com",
            relay=relay,
            endpoint={"AWS_ENDPOINT_URL": relay.url},
            credentials={"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_REGION": "us-east-1"},
            strangers=None,
            secrets=("hunter2",),
            put=lambda key, content: client.put_object(Bucket="weights", Key=key, Body=content),
            get=lambda key: client.get_object(Bucket="weights", Key=key)["Body"].read(),
        )
        client.close()


_AS_GOOGLE = """
import sys
from google.cloud.storage import Client, transfer_manager
from google.oauth2.service_account import Credentials
endpoint, account, verb, key, path = sys.argv[1:]
credentials = Credentials.from_service_account_file(account, scopes=["https://www.googleapis.com/auth/devstorage.full_control"])
client = Client("site", credentials.with_always_use_jwt_access(True), client_options={"api_endpoint": endpoint})
blob = client.bucket("weights").blob(key)
if verb == "get":
    blob.download_to_filename(path)
else:
    transfer_manager.upload_chunks_concurrently(path, blob, chunk_size=8 << 20, worker_type="thread", max_workers=2)
"""


@contextlib.contextmanager
def _gs(home: Path, certificate: Certificate | None) -> Iterator[Cloud]:
    with GcsServer(certificate=certificate) as server:
        account = server.account.write(home / "account.json")
        stranger = ServiceAccount().write(home / "stranger.json")
        path = home / "object"

        def put(key: str, content: bytes) -> None:
            path.write_bytes(content)
            as_vendor(_AS_GOOGLE, server.url, str(account), "put", key, str(path))

        def get(key: str) -> bytes:
            as_vendor(_AS_GOOGLE, server.url, str(account), "get", key, str(path))
            return path.read_bytes()

        yield Cloud(
            scheme="gs",
            host="storage.googleapis.com",
            relay=server,
            endpoint={"GOOGLE_BASE_URL": server.url},
            credentials={"GOOGLE_APPLICATION_CREDENTIALS": str(account)},
            strangers={"GOOGLE_APPLICATION_CREDENTIALS": str(stranger)},
            secrets=tuple(json.loads(one.read_text())["private_key"][100:130] for one in (account, stranger)),
            put=put,
            get=get,
        )


_AS_MICROSOFT = """
import sys
from azure.storage.blob import BlobServiceClient
url, account, secret, verb, key, path = sys.argv[1:]
credential = {"account_name": account, "account_key": secret}
with BlobServiceClient(url, credential=credential, max_single_put_size=8 << 20, max_block_size=8 << 20) as service:
    blob = service.get_blob_client("weights", key)
    if verb == "get":
        with open(path, "wb") as file:
            blob.download_blob().readinto(file)
    else:
        with open(path, "rb") as file:
            blob.upload_blob(file, overwrite=True)
"""


@contextlib.contextmanager
def _az(home: Path, certificate: Certificate | None) -> Iterator[Cloud]:
    with Azurite() as server, Relay(server.url, certificate=certificate) as relay:
        path = home / "object"
        service = (f"{server.url}/{ACCOUNT}", ACCOUNT, KEY)

        def put(key: str, content: bytes) -> None:
            path.write_bytes(content)
            as_vendor(_AS_MICROSOFT, *service, "put", key, str(path))

        def get(key: str) -> bytes:
            as_vendor(_AS_MICROSOFT, *service, "get", key, str(path))
            return path.read_bytes()

        account = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT}
        yield Cloud(
            scheme="az",
            host=f"{ACCOUNT}.blob.core.windows.net",
            relay=relay,
            endpoint={"AZURE_STORAGE_ENDPOINT": f"{relay.url}/{ACCOUNT}"},
            credentials={**account, "AZURE_STORAGE_ACCOUNT_KEY": KEY},
            strangers={**account, "AZURE_STORAGE_ACCOUNT_KEY": "aHVudGVyMmh1bnRlcjI="},
            secrets=(KEY, "aHVudGVyMmh1bnRlcjI="),
            put=put,
            get=get,
        )
