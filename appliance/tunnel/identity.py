"""Who the server is: a self-signed key that clients pin, and the TLS settings of both ends.

A pin is the base64 of the SHA-256 of the key's SubjectPublicKeyInfo (the form of RFC 7469, section 2.4): it survives a
new certificate, needs no authority and no clock.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import os
import ssl
from ipaddress import IPv6Network
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

FILE: Final = "identity.pem"
"""In the state directory."""


class PinMismatch(Exception):
    """The server has another key than the one that was pinned: somebody is in between, or gtund was set up anew."""


def ensure(state: Path) -> Path:
    """Return the file with the server's key and certificate, made on first use; only its owner can read it."""
    path = state / FILE
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gtund")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # Nobody looks at these dates; the pin is what counts.
            .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
            .not_valid_after(dt.datetime(2120, 1, 1, tzinfo=dt.UTC))
            .sign(key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + certificate.public_bytes(serialization.Encoding.PEM)
        write_private(path, pem)
    return path


def pin_of_file(path: Path) -> str:
    """Return the pin of the certificate in a file that `ensure` made."""
    return _pin(x509.load_pem_x509_certificate(path.read_bytes()))


def block_of_file(path: Path) -> IPv6Network:
    """Return the /64 that follows from the certificate's key: unique, as RFC 4193 (section 3.2) asks, and lasting."""
    return IPv6Network((b"\xfd" + base64.b64decode(pin_of_file(path))[:7] + bytes(8), 64))


def check_pin(certificate: bytes | None, pin: str) -> None:
    """Raise `PinMismatch` unless the peer's certificate (DER) holds the pinned key."""
    if certificate is None or not hmac.compare_digest(_pin(x509.load_der_x509_certificate(certificate)), pin):
        raise PinMismatch("the server's key is not the one in the join token")


def server_context(identity: Path) -> ssl.SSLContext:
    """Return TLS settings for gtund."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity)
    context.num_tickets = 0
    return context


def client_context() -> ssl.SSLContext:
    """Return TLS settings for gtun: no authority is asked, the caller checks the pin before it says a word."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _pin(certificate: x509.Certificate) -> str:
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(public).digest()).decode()
