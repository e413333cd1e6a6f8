"""A token service for a real registry: a password, or an identity token, gets a signed token for what is asked."""

import base64
import http.server
import json
import secrets
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID


class SignedTokens:
    """Knows ada, with the password ``secret`` or the identity token ``refresh``, and nobody else.

    Attributes:
        auth: what stands in the registry's configuration so that it sends its clients here.
        asked: how each client asked: method, and the scopes.
        lasts_s: how long a token is good for, whatever its answer says; registries allow a minute more.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens of the tests")])
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._folder = tempfile.TemporaryDirectory(prefix="tokens-")
        self.asked: list[tuple[str, list[str]]] = []
        self.lasts_s = 300
        self.auth = ""

    def __enter__(self) -> Self:
        bundle = Path(self._folder.name) / "bundle.pem"
        bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        realm = f"http://127.0.0.1:{self._server.server_port}/token"
        self.auth = (
            f'auth: {{token: {{realm: "{realm}", service: the-registry, issuer: the-tests, rootcertbundle: {bundle}}}}}'
        )
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def token(self, scopes: list[str]) -> str:
        """Return a token as the registry wants them (https://distribution.github.io/distribution/spec/auth/jwt/)."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        chain = [base64.b64encode(self._certificate.public_bytes(serialization.Encoding.DER)).decode()]
        claims = {
            "iss": "the-tests",
            "sub": "ada",
            "aud": "the-registry",
            "exp": now + self.lasts_s,
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        signed = ".".join(_encoded(part) for part in ({"typ": "JWT", "alg": "ES256", "x5c": chain}, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(part: dict[str, object]) -> str:
    return _text(json.dumps(part).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _handler_of(service: SignedTokens) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_ada = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"ada:secret").decode()
            self.answer(parse_qs(urlsplit(self.path).query).get("scope", []), is_ada=is_ada)

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            is_ada = (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["refresh"])
            self.answer(form.get("scope", [""])[0].split(), is_ada=is_ada)

        def answer(self, scopes: list[str], *, is_ada: bool) -> None:
            service.asked.append((self.command, scopes))
            token = service.token(scopes)
            body = json.dumps({"token": token, "access_token": token, "expires_in": 300}).encode()
            self.send_response(200 if is_ada else 401)
            self.send_header("Content-Length", str(len(body) if is_ada else 0))
            self.end_headers()
            if is_ada:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
