"""The join token: one string that carries all a new client needs, made by `gtund client add`, spent once.

It is a secret until it is spent. The first four bytes of a SHA-256 stand at its end, so that a token that lost a
character in a chat window is told from a wrong one before anything is sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Final

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,10}", re.ASCII)
"""A client's or link's name: the kernel takes 15 bytes of device name, and "tun-" is ours."""

_PREFIX: Final = "nexthop1_"
_CHECK: Final = 4
_FIELDS: Final = ("host", "port", "pin", "client", "secret")
_LONGEST: Final = 1024


class BadToken(ValueError):
    """The text is not a join token; the message never repeats it."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """Where gtund listens, who it is, and the right to enrol one client.

    `pin`: base64 of the SHA-256 of the server's SubjectPublicKeyInfo (as in RFC 7469, section 2.4).
    `secret`: base64, valid for one enrolment.
    """

    host: str
    port: int
    pin: str
    client: str
    secret: str = field(repr=False)

    @property
    def server(self) -> str:
        """Return ``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def encode(token: JoinToken) -> str:
    """Return the token as one word of URL-safe characters."""
    body = json.dumps({name: getattr(token, name) for name in _FIELDS}, separators=(",", ":")).encode()
    return _PREFIX + base64.urlsafe_b64encode(body + hashlib.sha256(body).digest()[:_CHECK]).decode().rstrip("=")


def decode(text: str) -> JoinToken:
    """Read a token; raise `BadToken` with what to do about it."""
    text = text.strip()
    if not text.startswith(_PREFIX) or len(text) > _LONGEST:
        raise BadToken(f"this is not a join token: one starts with {_PREFIX!r}; `gtund client add NAME` prints it")
    body = _unwrap(text[len(_PREFIX) :])
    try:
        return _checked(json.loads(body))
    except ValueError:
        raise BadToken("the join token was made by a gtund that we do not understand: upgrade the older end") from None


def _unwrap(text: str) -> bytes:
    padded = text + "=" * (-len(text) % 4)
    try:
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body, check = raw[:-_CHECK], raw[-_CHECK:]
    if not body or hashlib.sha256(body).digest()[:_CHECK] != check:
        raise BadToken("the join token is damaged: copy it again, whole and on one line")
    return body


def _checked(value: object) -> JoinToken:
    match value:
        case {"host": str(host), "port": int(port), "pin": str(pin), "client": str(client), "secret": str(secret)} if (
            host and 0 < port < 1 << 16 and NAME.fullmatch(client)
        ):
            return JoinToken(host, port, pin, client, secret)
    raise ValueError("a field is missing or of another kind")
