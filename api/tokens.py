"""/v1/tokens and /v1/session: who may come over the network, and who one is. A token's text is shown once."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field, StrictFloat
from pydantic.dataclasses import dataclass

from api.caller import Asking, Who
from api.once import Attempted, Once
from api.parts import Parts
from api.problem import Problem, Reason, responses
from api.schema import SHOWN, TAKEN
from appliance.intent import StoreUnavailable
from appliance.tokens import NAME, Scope, Token, TokenExists, TooManyTokens, UnknownToken

_NAMED = r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,31}$"


@dataclass(frozen=True, slots=True, config=TAKEN)
class NewToken:
    """The body of POST /v1/tokens."""

    name: Annotated[str, Field(pattern=_NAMED, examples=["grafana"])]
    """Who will use it: letters, digits, `.`, `_` and `-`, at most 32. The history shows it."""
    scope: Scope = Scope.READ
    """`read` for what changes nothing, `write` for everything."""
    expires_days: Annotated[StrictFloat | None, Field(gt=0, le=3650, allow_inf_nan=False, examples=[90])] = None
    """After how many days it is good for nothing any more; null: never."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class TokenResource:
    """A token without its text."""

    name: str
    """Who uses it."""
    scope: str
    """`read` or `write`."""
    created: float
    """When it was made, in seconds since the epoch."""
    expires: float | None
    """From when on it is good for nothing any more; null: never."""
    last_used: float | None
    """When it was used last, to the minute; null: not yet."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class FreshToken:
    """A token with its text, which is never shown again."""

    name: str
    """Who uses it."""
    scope: str
    """`read` or `write`."""
    created: float
    """When it was made, in seconds since the epoch."""
    expires: float | None
    """From when on it is good for nothing any more; null: never."""
    last_used: float | None
    """Always null here."""
    token: str
    """What to send as `Authorization: Bearer nht_...`. Keep it; only its hash is kept here."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class TokenList:
    """The body of GET /v1/tokens."""

    tokens: tuple[TokenResource, ...]
    """All tokens, by name."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class SessionResource:
    """Who you are to this API."""

    scope: str
    """What you may do: `read` or `write`."""
    via: str
    """How you came: `unix` by the socket of this machine, `token` over the network."""
    name: str
    """The name under which the history tells what you do."""


def router(parts: Parts) -> APIRouter:
    """Return the endpoints."""
    routes = APIRouter(tags=["tokens"])
    tokens, once = parts.tokens, Once(parts.store)

    @routes.get("/v1/session")
    async def session(asking: Asking) -> SessionResource:
        """Say who you are: for trying a token."""
        return SessionResource(asking.scope.value, asking.via, asking.name)

    @routes.get("/v1/tokens", responses=responses(503))
    async def ls() -> TokenList:
        """List the tokens; none shows its text."""
        return TokenList(tuple(_resource(each) for each in tokens.all()))

    @routes.post("/v1/tokens", status_code=201, responses=responses(409, 503))
    async def add(new: NewToken, who: Who, attempt: Attempted) -> FreshToken:
        """Make a token. Its text is in this answer and nowhere else."""
        return await once.do(attempt, partial(_add, parts, new, who))

    @routes.delete("/v1/tokens/{name}", status_code=204, response_class=Response, responses=responses(404, 503))
    async def rm(
        name: Annotated[str, Path(description="The token's name.", examples=["grafana"])], who: Who
    ) -> Response:
        """Take a token back: it opens nothing from now on."""
        try:
            tokens.rm(name)
        except UnknownToken:
            step = "see what is there: nexthop token ls"
            raise _refused(404, "token-not-there", "there is no token of that name", step) from None
        parts.store.record(who, "token removed", detail=name)
        return Response(status_code=204)

    return routes


async def _add(parts: Parts, new: NewToken, who: str) -> FreshToken:
    if not NAME.fullmatch(new.name):
        step = "write letters, digits, `.`, `_` and `-`, at most 32"
        raise _refused(422, "bad-token-name", "this will not do as a token's name", step)
    try:
        made, text = parts.tokens.add(new.name, new.scope, new.expires_days)
    except TokenExists:
        step = "choose another name, or `nexthop token rm` it first"
        raise _refused(409, "token-exists", f"a token named {new.name!r} is there already", step) from None
    except TooManyTokens:
        raise _refused(409, "too-many-tokens", "there are too many tokens", "remove those of no use") from None
    with contextlib.suppress(StoreUnavailable):  # the token is made, and this is the one time to tell it
        parts.store.record(who, "token added", detail=f"{made.name}, {made.scope.value}")
    return FreshToken(made.name, made.scope.value, made.created_at, made.expires_at, None, text)


def _resource(token: Token) -> TokenResource:
    return TokenResource(token.name, token.scope.value, token.created_at, token.expires_at, token.last_used)


def _refused(status: int, code: str, text: str, step: str) -> Problem:
    return Problem(status, code, text[0].upper() + text[1:], reasons=[Reason(code, text, step)])
