"""Certificates for the test servers, made by a CA of the test's own that no machine trusts."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "127.0.0.2")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate (with its chain) and private key, both PEM files."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a TLS test needs, all signed by `ca` (a PEM file for the client to trust) but for `untrusted`."""

    ca: Path
    valid: Certificate
    """For localhost, 127.0.0.1, 127.0.0.2 and the further names asked for."""
    expired: Certificate
    """The same names, valid until 2001."""
    wrong_host: Certificate
    """Valid for elsewhere.example only."""
    untrusted: Certificate
    """The same names, signed by another CA."""


def make_certificates(directory: Path, *, more_names: tuple[str, ...] = ()) -> Certificates:
    """Make a CA and its certificates as files in `directory`, which must exist; takes some ms."""
    # Imported here because the benchmark and `python -m tests.servers.hostile` need the types alone.
    import trustme

    names = (*LOOPBACK_NAMES, *more_names)
    authority, stranger = trustme.CA(), trustme.CA()
    ca = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))

    def write(name: str, issued: trustme.LeafCert) -> Certificate:
        certificate = Certificate(chain=directory / f"{name}.pem", key=directory / f"{name}.key")
        certificate.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        certificate.key.touch(mode=0o600)
        certificate.key.write_bytes(issued.private_key_pem.bytes())
        return certificate

    return Certificates(
        ca=ca,
        valid=write("valid", authority.issue_cert(*names)),
        expired=write("expired", authority.issue_cert(*names, not_after=datetime(2001, 1, 1, tzinfo=UTC))),
        wrong_host=write("wrong-host", authority.issue_cert("elsewhere.example")),
        untrusted=write("untrusted", stranger.issue_cert(*names)),
    )


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """The TLS settings of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    return context
