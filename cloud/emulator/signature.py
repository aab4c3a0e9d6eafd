"""Who signed a call: Aliyun's RPC signature, version 1, and the gate for both that and `acs3`. Pure.

Every parameter but `Signature`, of the query and of the form alike, is percent-encoded (RFC 3986: only letters, digits
and ``-_.~`` stay), joined in byte order of the names, encoded again behind ``METHOD&%2F&``, and authenticated with
HMAC-SHA1 under the secret followed by ``&``. What was signed is rebuilt from the *decoded* parameters, since clients
differ in how they spell a space in a URL but agree on this. (Alibaba Cloud help, "Sign an RPC API call".)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from calendar import timegm
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import strptime
from typing import Final
from urllib.parse import quote

from cloud.emulator import acs3
from cloud.emulator.world import ApiError

WINDOW_SECONDS: Final = 15 * 60
_DIGESTS: Final = {"HMAC-SHA1": hashlib.sha1, "HMAC-SHA256": hashlib.sha256}


@dataclass(frozen=True, slots=True)
class Secret:
    """What belongs to an access key id. `token` is empty for a long-lived key; `expires` is seconds since the epoch."""

    secret: str
    token: str = ""
    expires: float = float("inf")

    def __repr__(self) -> str:
        return "Secret(...)"


def encoded(text: str) -> str:
    """Percent-encode as the signature wants it."""
    return quote(text, safe="-_.~")


def string_to_sign(method: str, params: Mapping[str, str]) -> str:
    """Return the text that a signature authenticates."""
    names = sorted((name for name in params if name != "Signature"), key=str.encode)
    query = "&".join(f"{encoded(name)}={encoded(params[name])}" for name in names)
    return f"{method}&%2F&{encoded(query)}"


def sign(method: str, params: Mapping[str, str], secret: str) -> str:
    """Return the signature of a call, in base64."""
    digest = _DIGESTS[params.get("SignatureMethod", "HMAC-SHA1")]
    mac = hmac.new(f"{secret}&".encode(), string_to_sign(method, params).encode(), digest)
    return base64.b64encode(mac.digest()).decode()


class Gate:
    """Lets signed calls through, each once. Remembers the nonces of the last half hour."""

    def __init__(self, secret_of: Callable[[str], Secret | None]) -> None:
        self._secret_of = secret_of
        self._nonces: dict[str, float] = {}

    def admit(self, method: str, params: Mapping[str, str], now: float) -> None:
        """Return if the call is genuine and fresh at `now` (seconds since the epoch), else raise `ApiError`."""
        for name in ("AccessKeyId", "Signature", "SignatureNonce", "Timestamp", "SignatureMethod", "SignatureVersion"):
            if not params.get(name):
                raise ApiError(f"Missing{name}", f"{name} is mandatory for this action.")
        if params["SignatureMethod"] not in _DIGESTS or params["SignatureVersion"] != "1.0":
            raise ApiError("InvalidSignatureMethod", "Specified signature method is not valid.")
        self._check_time(params["Timestamp"], now)
        known = self._known(params["AccessKeyId"])
        if not hmac.compare_digest(sign(method, params, known.secret).encode(), params["Signature"].encode()):
            raise _mismatch(string_to_sign(method, params))
        self._check_token(known, params.get("SecurityToken", ""), now)
        self._spend(params["SignatureNonce"], now)

    def admit_acs3(self, raw: acs3.Raw, now: float) -> str:
        """Return the access key id if the request is genuine and fresh at `now`, else raise `ApiError`."""
        said = acs3.authorization(raw.headers)
        for name in ("x-acs-date", "x-acs-signature-nonce", "x-acs-action", "x-acs-version"):
            if not raw.headers.get(name):
                raise ApiError(f"Missing{name}", f"{name} is mandatory for this action.")
        self._check_time(raw.headers["x-acs-date"], now)
        known = self._known(said.key_id)
        acs3.check_body(raw)
        if not hmac.compare_digest(acs3.sign(raw, said.signed, known.secret).encode(), said.signature.encode()):
            raise _mismatch(acs3.canonical(raw, said.signed))
        self._check_token(known, raw.headers.get("x-acs-security-token", ""), now)
        self._spend(raw.headers["x-acs-signature-nonce"], now)
        return said.key_id

    def _known(self, key_id: str) -> Secret:
        known = self._secret_of(key_id)
        if known is None:
            raise ApiError("InvalidAccessKeyId.NotFound", "Specified access key is not found.", status=404)
        return known

    def _check_time(self, stamp: str, now: float) -> None:
        try:
            at = timegm(strptime(stamp, "%Y-%m-%dT%H:%M:%SZ"))
        except ValueError:
            message = "Specified time stamp or date value is not well formatted."
            raise ApiError("InvalidTimeStamp.Format", message) from None
        if abs(at - now) > WINDOW_SECONDS:
            raise ApiError("InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")

    def _check_token(self, known: Secret, token: str, now: float) -> None:
        if known.token and not token:
            raise ApiError("MissingSecurityToken", "SecurityToken is mandatory for this action.")
        if not hmac.compare_digest(known.token.encode(), token.encode()):
            message = "Specified SecurityToken mismatch with the AccessKey."
            raise ApiError("InvalidSecurityToken.MismatchWithAccessKey", message)
        if now >= known.expires:
            raise ApiError("InvalidSecurityToken.Expired", "Specified SecurityToken is expired.", status=403)

    def _spend(self, nonce: str, now: float) -> None:
        # A nonce can be forgotten once every timestamp that could go with it has left the window on both sides.
        self._nonces = {each: at for each, at in self._nonces.items() if now - at <= 2 * WINDOW_SECONDS}
        if nonce in self._nonces:
            raise ApiError("SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces[nonce] = now


def _mismatch(signed: str) -> ApiError:
    # The colon is not ornament: the Python SDK splits at it and crashes on a message without one.
    message = "Specified signature is not matched with our calculation. server string to sign is:"
    return ApiError("SignatureDoesNotMatch", message + signed)
