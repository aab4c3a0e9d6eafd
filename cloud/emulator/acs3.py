"""The newer signature, ACS3-HMAC-SHA256, which the Tea SDKs sign with. Pure.

Action, version, time and nonce are headers; the parameters are in the query and, for some calls, in a form. Signed is
METHOD, path, the query in canonical order, the named headers and the hash of the body. (Alibaba Cloud help, "V3 request
structure and signature".)
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote

from cloud.emulator.world import ApiError

ALGORITHM: Final = "ACS3-HMAC-SHA256"
# The least that has to be signed: a header that is not could be exchanged on the way.
_SIGNED: Final = frozenset({"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce"})


@dataclass(frozen=True, slots=True)
class Raw:
    """A request as it came; `headers` have lower-case names, `query` is undecoded."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the Authorization header says."""

    key_id: str
    signed: tuple[str, ...]
    signature: str


def is_meant(headers: Mapping[str, str]) -> bool:
    """Say whether a request is signed this way."""
    return headers.get("authorization", "").startswith(ALGORITHM)


def authorization(headers: Mapping[str, str]) -> Authorization:
    """Read the header, or raise `ApiError`."""
    rest = headers.get("authorization", "").removeprefix(ALGORITHM)
    parts = dict(each.strip().partition("=")[::2] for each in rest.split(","))
    try:
        said = Authorization(parts["Credential"], tuple(parts["SignedHeaders"].split(";")), parts["Signature"])
    except KeyError:
        raise _incomplete() from None
    if not set(said.signed) >= _SIGNED:
        raise _incomplete()
    return said


def canonical(raw: Raw, signed: tuple[str, ...]) -> str:
    """Return the text whose hash is signed."""
    pairs = sorted(parse_qsl(raw.query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    headers = "".join(f"{name}:{raw.headers.get(name, '').strip()}\n" for name in signed)
    digest = hashlib.sha256(raw.body).hexdigest()
    return "\n".join((raw.method, raw.path, query, headers, ";".join(signed), digest))


def sign(raw: Raw, signed: tuple[str, ...], secret: str) -> str:
    """Return the signature of a request, in hexadecimal."""
    hashed = hashlib.sha256(canonical(raw, signed).encode()).hexdigest()
    return hmac.new(secret.encode(), f"{ALGORITHM}\n{hashed}".encode(), hashlib.sha256).hexdigest()


def check_body(raw: Raw) -> None:
    """Raise `ApiError` if the body is not the one that the header speaks of."""
    said = raw.headers.get("x-acs-content-sha256", "")
    if not hmac.compare_digest(said.encode(), hashlib.sha256(raw.body).hexdigest().encode()):
        raise ApiError("SignatureDoesNotMatch", "Specified body does not match its hash. header:x-acs-content-sha256")


def _incomplete() -> ApiError:
    return ApiError("IncompleteSignature", "The request signature does not conform to Aliyun standards.")
