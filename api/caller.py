"""Who asks: known from the connection and, where that comes over the network, from a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from appliance.tokens import Scope, Token

PEER: Final = "peer"  # in the connection's state: where it comes from
CALLER: Final = "caller"  # in the request's state: who that is


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection. `local`: it opened our Unix socket, which the file's mode let it do."""

    local: bool
    uid: int | None = None
    address: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. `name`: as the history shows it; `via`: "unix" or "token", which is `token` then."""

    name: str
    scope: Scope
    via: str
    token: Token | None = None


async def caller_of(request: Request) -> Caller:
    """Return who asks; `api.access` let nobody in whom it does not know."""
    found = request.scope["state"][CALLER]
    assert isinstance(found, Caller)  # noqa: S101
    return found


async def name_of(request: Request) -> str:
    """Return the name for the history."""
    return (await caller_of(request)).name


Asking = Annotated[Caller, Depends(caller_of)]
Who = Annotated[str, Depends(name_of)]
