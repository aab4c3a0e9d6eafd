"""How the command line gets to a daemon: over its Unix socket, or over TLS to one on another machine.

A remote daemon's certificate is trusted where the machine's own authorities vouch for it, or where its SHA-256 is the
one that the operator was told (`nexthop status` on the appliance prints it). There is no way to trust just anybody, and
none without TLS: a token that is read on the way is spent.
"""

from __future__ import annotations

import hmac
import http.client
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

DEFAULT_PORT = 8443


class BadAddress(ValueError):
    """Not an address of a daemon; the message says how to write it."""


class NotTrusted(OSError):
    """The other end's certificate is not the one that we were told, or nobody vouches for it."""


@dataclass(frozen=True, slots=True)
class Local:
    """The daemon of this machine, behind its socket at `path`."""

    path: str

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection that is not open yet; `timeout` in seconds, for each step."""
        return _UnixConnection(self.path, timeout)

    def headers(self) -> dict[str, str]:
        """Return what every request carries: the socket's permission is all that counts here."""
        return {}

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Remote:
    """A daemon behind TLS. `fingerprint`: SHA-256 of its certificate in lower-case hex, or empty."""

    host: str
    port: int
    token: str = field(repr=False)
    fingerprint: str = ""

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection that is not open yet; `timeout` in seconds, for each step."""
        import ssl  # noqa: PLC0415  (a local command need not pay for it)

        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.fingerprint:  # one certificate instead of all that any authority signs
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return _PinnedConnection(self, timeout, context)

    def headers(self) -> dict[str, str]:
        """Return the token, where there is one."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


Place = Local | Remote


def remote(url: str, token: str = "", fingerprint: str = "") -> Remote:
    """Read an address such as ``https://172.18.2.10:8443``; raise `BadAddress`."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise BadAddress(f"{url!r} is no address: write https://HOST:PORT") from None
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise BadAddress(f"{url!r} will not do: write https://HOST:PORT, and nothing behind it")
    pin = fingerprint.replace(":", "").lower().removeprefix("sha256").strip()
    if pin and not re.fullmatch(r"[0-9a-f]{64}", pin):
        raise BadAddress(
            "this is no fingerprint: it has 64 hex digits, and `nexthop status` on the appliance prints it"
        )
    if not re.fullmatch(r"[\x21-\x7e]*", token):
        raise BadAddress("NEXTHOP_TOKEN holds something that is in no token: `nexthop token add NAME` prints one")
    return Remote(parts.hostname, port, token, pin)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket; the Host header is "localhost"."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _PinnedConnection(http.client.HTTPSConnection):
    """HTTP over TLS to the one machine that is meant; nothing is sent before that is certain."""

    def __init__(self, place: Remote, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(place.host, place.port, timeout=timeout, context=context)
        self._pin = place.fingerprint

    def connect(self) -> None:
        import hashlib  # noqa: PLC0415
        import ssl  # noqa: PLC0415

        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(error.verify_message) from None
        if not self._pin:
            return
        shown = self.sock.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(hashlib.sha256(shown).hexdigest(), self._pin):
            self.close()
            raise NotTrusted("its certificate has another fingerprint")
