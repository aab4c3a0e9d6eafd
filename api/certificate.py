"""The TLS listener's certificate: the operator's, or one of our own that is made once.

Ours is self-signed: clients pin its SHA-256 fingerprint, which the log and `nexthop status` show. Key and certificate
are one file, 0600 from its first byte, so that there is never one without the other.
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_YEARS: Final = 10
_FILE: Final = "tls.pem"


class BadCertificate(Exception):
    """The files cannot be used; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What TLS needs. `fingerprint`: SHA-256 of the certificate, in hex with colons."""

    context: ssl.SSLContext
    fingerprint: str


def identity(certificate: Path, key: Path) -> Identity:
    """Load a certificate chain and its key, which may be one file; raise `BadCertificate`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
        first = certificate.read_text(encoding="ascii").partition("-----BEGIN CERTIFICATE-----")
        pem = first[1] + first[2].partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
        der = ssl.PEM_cert_to_DER_cert(pem)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        step = "set [api] certificate and key to a PEM chain and its unencrypted key"
        raise BadCertificate(f"{certificate} and {key} cannot be used: {error}: {step}") from None
    return Identity(context, _colons(der))


def own(directory: Path, names: Iterable[str]) -> Path:
    """Return the file with our own certificate for `names` and its key, made now if there is none. Raises `OSError`."""
    path = directory / _FILE
    if path.exists():
        return path
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = directory / f".{_FILE}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_made(list(dict.fromkeys(names))))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    log.info("made a certificate of our own for the API: %s", path)
    return path


def _colons(der: bytes) -> str:
    return hashlib.sha256(der).digest().hex(":").upper()


def _made(names: list[str]) -> bytes:
    """Return a fresh ECDSA P-256 key and its certificate, as PEM."""
    from cryptography import x509  # noqa: PLC0415  (50 ms that only a first start pays)
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

    def general(name: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Nexthop API")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
