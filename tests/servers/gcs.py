"""Google Cloud Storage: fake-gcs-server, with the writing half of the XML API, which it lacks, in front of it.

Reading and listing by the XML API, and all of the JSON API, are fake-gcs-server's. Writing is ours, after Google's
reference (https://cloud.google.com/storage/docs/xml-api/reference-methods): `PUT` of an object, and multipart uploads
(https://cloud.google.com/storage/docs/multipart-uploads). So is who may ask: a request brings a token that a service
account signed (https://google.aip.dev/auth/4111), and that is checked. That Google's own client library is content
with both, and reads what was written, is tested.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.servers.emulators import BIN
from tests.servers.relay import Asked, Given, Relay
from tests.servers.tls import Certificate

BUCKET = "weights"
_PARTS = "parts"
_ANSWERED_BEHIND = re.compile(r"/(?:storage|upload|download|batch|b)/")
_SMALLEST_PART = 5 << 20
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class ServiceAccount:
    """A service account and its key. ``write`` makes the file that GOOGLE_APPLICATION_CREDENTIALS names."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def write(self, path: Path) -> Path:
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        document = {
            "type": "service_account",
            "project_id": "site",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": "weights@site.iam.gserviceaccount.com",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))
        return path

    def has_signed(self, token: str) -> bool:
        """Tell whether a token is one of this account's, and has not expired."""
        signed, _, signature = token.rpartition(".")
        with contextlib.suppress(ValueError, InvalidSignature):
            self._key.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            return bool(json.loads(_decoded(signed.partition(".")[2]))["exp"] > time.time())
        return False


class GcsServer(Relay):
    """Serves at ``url``, to ``account``. There is one bucket, ``weights``."""

    def __init__(self, *, certificate: Certificate | None = None) -> None:
        self._cleanup = ExitStack()
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._writing = asyncio.Lock()
        self.account = ServiceAccount()
        super().__init__("", certificate=certificate)

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            home = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="gcs-"))
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            self.upstream = f"http://127.0.0.1:{port}"
            program = shutil.which("fake-gcs-server", path=str(BIN)) or "fake-gcs-server"
            options = {"scheme": "http", "backend": "memory", "host": "127.0.0.1", "port": port, "log-level": "error"}
            process = cleanup.enter_context(
                subprocess.Popen(
                    # It tells the two APIs from each other by the host.
                    [program, *(f"-{name}={value}" for name, value in options.items()), "-public-host=127.0.0.1"],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=home,
                )
            )
            cleanup.callback(process.terminate)
            _make_bucket(self.upstream, BUCKET)
            _make_bucket(self.upstream, _PARTS)
            super().__enter__()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._cleanup.close()

    @property
    def unfinished(self) -> int:
        """How many multipart uploads were begun and neither completed nor aborted."""
        return len(self._uploads)

    async def answer(self, asked: Asked) -> Given | None:
        scheme, _, token = asked.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self.account.has_signed(token):
            return _refused(401, "AuthenticationRequired", "Authentication required.")
        if _ANSWERED_BEHIND.match(asked.target):
            return None
        parts = urlsplit(asked.target)
        bucket, _, name = parts.path.lstrip("/").partition("/")
        if bucket != BUCKET:
            return _refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if asked.method == "POST" and "uploads" in query:
            return self._begin(name)
        if "uploadId" in query:
            return await self._go_on(asked, name, query)
        if asked.method == "PUT":
            # fake-gcs-server does not look at conditions: one after the other is seen whether they hold.
            async with self._writing:
                wanted = asked.headers.get("x-goog-if-generation-match")
                if wanted is not None and wanted != await self._generation(name):
                    return _refused(412, "PreconditionFailed", "At least one of the pre-conditions did not hold.")
                return await self._store(name, asked.body)
        # What the host says decides which API fake-gcs-server takes a request for.
        return await self.forward(asked.method, asked.target, {**asked.headers, "Host": "127.0.0.1"}, asked.body)

    def _begin(self, name: str) -> Given:
        upload = f"upload-{len(self._asked)}"
        self._uploads[upload] = {}
        return _document("InitiateMultipartUploadResult", {"Bucket": BUCKET, "Key": unquote(name), "UploadId": upload})

    async def _go_on(self, asked: Asked, name: str, query: Mapping[str, str]) -> Given:
        parts = self._uploads.get(query["uploadId"])
        if parts is None:
            return _refused(404, "NoSuchUpload", "The requested upload was not found.")
        if asked.method == "PUT":
            parts[int(query["partNumber"])] = asked.body
            # fake-gcs-server computes the CRC32C, which Google's client insists on.
            stored = await self._store(f"{query['uploadId']}/{query['partNumber']}", asked.body, bucket=_PARTS)
            return Given(200, {"ETag": _etag(asked.body), "x-goog-hash": stored.headers["x-goog-hash"]})
        if asked.method == "DELETE":
            del self._uploads[query["uploadId"]]
            return Given(204, {})
        wanted = [
            (int(part.findtext("{*}PartNumber", "0")), part.findtext("{*}ETag", ""))
            for part in ET.fromstring(asked.body).iterfind("{*}Part")
        ]
        if any(number not in parts or etag.strip('"') != _etag(parts[number]).strip('"') for number, etag in wanted):
            return _refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        if not wanted or wanted != sorted(wanted):
            return _refused(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        if any(len(parts[number]) < _SMALLEST_PART for number, _ in wanted[:-1]):
            return _refused(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size.")
        stored = await self._store(name, b"".join(parts[number] for number, _ in wanted))
        del self._uploads[query["uploadId"]]
        told = {"Bucket": BUCKET, "Key": unquote(name), "ETag": stored.headers["ETag"]}
        return _document("CompleteMultipartUploadResult", told)

    async def _generation(self, name: str) -> str:
        """Return the generation of an object: 0 where there is none."""
        given = await self.forward("GET", f"/storage/v1/b/{BUCKET}/o/{quote(unquote(name), safe='')}", {}, b"")
        return str(json.loads(given.body)["generation"]) if given.status == 200 else "0"

    async def _store(self, name: str, content: bytes, *, bucket: str = BUCKET) -> Given:
        target = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(unquote(name), safe='')}"
        given = await self.forward("POST", target, {"Content-Type": "application/octet-stream"}, content)
        told: dict[str, Any] = json.loads(given.body)
        headers = {"ETag": f'"{told["etag"]}"', "x-goog-generation": told["generation"]}
        return Given(given.status, {**headers, "x-goog-hash": f"crc32c={told['crc32c']}"})


def _make_bucket(behind: str, name: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        request = urllib.request.Request(
            f"{behind}/storage/v1/b", json.dumps({"name": name}).encode(), {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise RuntimeError("fake-gcs-server did not start") from None
            time.sleep(0.05)
        else:
            return


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _document(name: str, fields: Mapping[str, str]) -> Given:
    inner = "".join(f"<{field}>{escape(value)}</{field}>" for field, value in fields.items())
    text = f"<?xml version='1.0' encoding='UTF-8'?><{name} xmlns='{_NAMESPACE}'>{inner}</{name}>"
    return Given(200, {"Content-Type": "application/xml"}, text.encode())


def _refused(status: int, code: str, message: str) -> Given:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Given(status, {"Content-Type": "application/xml"}, text.encode())
