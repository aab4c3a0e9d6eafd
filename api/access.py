"""Who gets in. The first thing that any request meets, so that no router can forget it.

A request names us in `Host` (another name is a page of somebody else's that the browser was led to us with) and comes
from no foreign page (`Origin`): on the Unix socket, too, since an operator may have forwarded it to a port that their
browser reaches. There, everybody who could open it may do everything: the file's mode is the authority. Over the
network a request carries a token, except for the health checks and the console's own files. What changes nothing needs
the scope `read`, everything else and the tokens themselves `write`. Nobody may ask too often.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from api.caller import CALLER, PEER, Caller, Peer
from api.limits import Buckets
from api.problem import Problem, Reason, answer
from appliance.tokens import Scope, Tokens

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Send
    from starlette.types import Scope as Connection

log = logging.getLogger(__name__)

OPEN: Final = ("/livez", "/readyz", "/")
OPEN_BELOW: Final = "/console/"
_READS: Final = ("GET", "HEAD")
_REQUESTS: Final = (100.0, 200)  # a second, and at once
_FAILURES: Final = (5.0, 10)
_HEADERS: Final = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            b"font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Access:
    """ASGI middleware. `hosts`: names that `Host` may carry, beside localhost and any address."""

    def __init__(
        self, app: ASGIApp, tokens: Tokens, hosts: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._hosts = frozenset({"localhost", *(name.lower().rstrip(".") for name in hosts)})
        self._clock = clock
        self._asked = Buckets(*_REQUESTS)
        self._failed = Buckets(*_FAILURES)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Let the request through, with its caller in its state, or answer it (ASGI)."""
        if scope["type"] != "http":
            return  # we speak nothing else

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [] if scope["path"].startswith(OPEN_BELOW) else [(b"cache-control", b"no-store")]
                given = {name for name, _ in message.get("headers", ())}
                more = [each for each in (*_HEADERS, *own) if each[0] not in given]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            scope["state"] = {**scope.get("state", {}), CALLER: self._admit(scope)}
        except Problem as refusal:
            await answer(refusal)(scope, receive, dressed)
            return
        await self._app(scope, receive, dressed)

    def _admit(self, scope: Connection) -> Caller:
        peer = scope.get("state", {}).get(PEER) or Peer(local=False)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if peer.local:
            name = "operator" if peer.uid is None else f"uid {peer.uid}"
            self._not_too_often(name)
            self._named(host or "localhost")
            _own_page(headers.get(b"origin"), host, "http")
            return Caller(name, Scope.WRITE, "unix")
        source = _source(peer.address)
        self._not_too_often(source)
        self._named(host)
        _own_page(headers.get(b"origin"), host, "https")
        path = scope["path"]
        if path in OPEN or path.startswith(OPEN_BELOW):
            return Caller("anybody", Scope.READ, "none")
        caller = self._token(headers, source)
        self._not_too_often(caller.name)
        needed = Scope.READ if scope["method"] in _READS and not path.startswith("/v1/tokens") else Scope.WRITE
        if not caller.scope.covers(needed):
            text = f"this takes a token of scope {needed.value}; yours is for {caller.scope.value}"
            raise _refusal(403, "scope-insufficient", text, "use another token: nexthop token add NAME --scope write")
        return caller

    def _token(self, headers: Mapping[bytes, str], source: str) -> Caller:
        given = headers.get(b"authorization", "")
        kind, _, text = given.partition(" ")
        if not given or kind.lower() != "bearer":
            raise self._stranger(source, "token-missing", "this needs a token", "send `Authorization: Bearer nht_...`")
        token = self._tokens.find(text.strip())
        if token is None:
            step = "make a new one on the appliance: nexthop token add NAME"
            raise self._stranger(source, "token-unknown", "this token is not known, or not any more", step)
        if token.expired(time.time()):
            step = "make a new one on the appliance: nexthop token add NAME"
            raise self._stranger(source, "token-expired", "this token's time is over", step)
        return Caller(f"token {token.name}", token.scope, "token", token)

    def _stranger(self, source: str, code: str, text: str, step: str) -> Problem:
        if wait := self._failed.take(source, self._clock()):
            return _too_often(wait)
        log.warning("a request from %s was refused: %s", source, code)
        return _refusal(401, code, text, step, {"WWW-Authenticate": 'Bearer realm="nexthop"'})

    def _not_too_often(self, key: str) -> None:
        if wait := self._asked.take(key, self._clock()):
            raise _too_often(wait)

    def _named(self, host: str) -> None:
        """Refuse a `Host` that is not ours. An address is: it takes a name to lead a browser astray."""
        name = host.rpartition(":")[0] if _has_port(host) else host
        name = name.lower().rstrip(".")
        if name in self._hosts or _is_address(name.strip("[]")):
            return
        step = "use this machine's address, or add the name to [api] hosts in nexthop.toml"
        raise _refusal(421, "wrong-host", "this name is not one of this appliance's", step)


def _refusal(status: int, code: str, text: str, step: str, headers: Mapping[str, str] | None = None) -> Problem:
    return Problem(status, code, text[0].upper() + text[1:], reasons=[Reason(code, text, step)], headers=headers)


def _too_often(wait: float) -> Problem:
    seconds = max(1, math.ceil(wait))
    step = f"wait {seconds} s, and ask less often: at most 100 requests a second"
    return _refusal(429, "too-many-requests", "too many requests", step, {"Retry-After": str(seconds)})


def _own_page(origin: str | None, host: str, scheme: str) -> None:
    if origin is not None and origin.lower() != f"{scheme}://{host.lower()}":
        step = "open the console at this appliance's own address"
        raise _refusal(403, "foreign-origin", "a page of another site asked for this", step)


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdecimal() and (host.startswith("[") or host.count(":") == 1)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _source(address: str) -> str:
    """Return what a client's requests are counted under: its address, or the /64 that an IPv6 one is taken from."""
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    return str(ip_network(f"{found}/64", strict=False)) if found.version == 6 else str(found)
