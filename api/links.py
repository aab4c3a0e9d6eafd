"""/v1/links: the tunnels. A join token goes in and never comes out, nor does any key."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field
from pydantic.dataclasses import dataclass

from api.caller import Who
from api.once import Attempted, Once
from api.parts import Parts
from api.problem import Problem, Reason, responses
from api.schema import SHOWN, TAKEN
from appliance.intent import StoreUnavailable
from appliance.links import BadLinkName, LinkExists, LinkRefused, UnknownLink
from appliance.status import LinkStatus
from appliance.tunnel.token import BadToken


@dataclass(frozen=True, slots=True, config=TAKEN)
class NewLink:
    """The body of POST /v1/links."""

    name: Annotated[str, Field(max_length=64, examples=["hk"])]
    """What to call the link: a to z, 0 to 9 and -, at most 11, a letter first."""
    token: Annotated[str, Field(max_length=4096, repr=False, examples=["nexthop1_..."])]
    """The join token that `gtund client add` printed at the far end; a secret until it is spent."""


@dataclass(frozen=True, slots=True, config=TAKEN)
class NewKey:
    """The body of PUT /v1/links/{name}/key."""

    token: Annotated[str, Field(max_length=4096, repr=False, examples=["nexthop1_..."])]
    """The token that `gtund client rotate` printed at the far end; a secret until it is spent."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class LinkResource:
    """A link as its gtun describes it."""

    name: str
    """What the link is called."""
    device: str
    """Its TUN device on this machine."""
    server: str
    """The far end, HOST:PORT; empty where the link's file cannot be read."""
    state: str
    """`up`, `connecting` or `down`."""
    code: str
    """Why it is not up, for machines; `unproven` where it is up and nothing has answered through it yet; else empty."""
    reason: str
    """The same for people."""
    address: str
    """Our address in the tunnel; empty before the first session."""
    peer: str
    """The far end's address in the tunnel; empty before the first session."""
    since: float | None
    """Since when it is in this state, in seconds since the epoch."""
    retry_at: float | None
    """When the next try is due, in seconds since the epoch; null where none is."""
    rtt_ms: float | None
    """The smoothed round trip, in milliseconds; null while it is not up."""
    channel: str
    """What is in use: `hybrid`, `stream` or `datagram`; empty while it is not up, and for a link of gtun 2.0.2."""
    loss: float | None
    """The share of what we sent by datagram that was lost over the last seconds, 0 to 1; null without that channel."""
    unit_bytes: int | None
    """How much is sealed at once for that channel at present, in bytes; it shrinks under loss."""
    counters: Mapping[str, int]
    """Packets, bytes and drops since its gtun started; a gtun reports once a second."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class LinkList:
    """The body of GET /v1/links."""

    links: tuple[LinkResource, ...]
    """The links, by name."""


async def statuses(parts: Parts) -> tuple[LinkStatus, ...]:
    """Ask every link's gtun; where none answers, the server is what the link's file says. Raises `OSError`."""
    servers = {link.name: link.server for link in parts.links.all()}
    found = await parts.links.statuses()
    if parts.paths is not None:
        found = tuple(parts.paths.judged(each) for each in found)
    return tuple(replace(each, server=each.server or servers.get(each.name, "")) for each in found)


def resource(link: LinkStatus) -> LinkResource:
    """Return the link as the API shows it."""
    return LinkResource(
        name=link.name,
        device=link.device,
        server=link.server,
        state=link.state,
        code=link.code,
        reason=link.reason,
        address=link.address,
        peer=link.peer,
        since=link.since,
        retry_at=link.retry_at,
        rtt_ms=link.rtt_ms,
        channel=link.channel,
        loss=link.loss,
        unit_bytes=link.unit_bytes,
        counters=dict(link.counters),
    )


def router(parts: Parts) -> APIRouter:
    """Return the endpoints."""
    routes = APIRouter(tags=["links"])
    once = Once(parts.store)

    @routes.get("/v1/links", responses=responses(503))
    async def ls() -> LinkList:
        """List the links and how they do."""
        return LinkList(tuple(resource(each) for each in await statuses(parts)))

    @routes.post("/v1/links", status_code=201, responses=responses(409, 422, 503))
    async def join(new: NewLink, who: Who, attempt: Attempted) -> LinkResource:
        """Make a link from a join token. Its key is made here and stays here."""
        return await once.do(attempt, partial(_join, parts, new, who))

    @routes.put("/v1/links/{name}/key", responses=responses(404, 409, 422, 503))
    async def rotate(
        name: Annotated[str, Path(description="The link's name.", examples=["hk"])], new: NewKey, who: Who
    ) -> LinkResource:
        """Give a link another key. The old one is good until the server has taken the new one; flows live on."""
        found = await _rotate(parts, name, new.token)
        with contextlib.suppress(StoreUnavailable):
            parts.store.record(who, "link given another key", detail=f"{name}, to {found.server}")
        return found

    @routes.delete("/v1/links/{name}", status_code=204, response_class=Response, responses=responses(404, 409, 503))
    async def rm(name: Annotated[str, Path(description="The link's name.", examples=["hk"])], who: Who) -> Response:
        """Remove a link and its key; refused while a CIDR goes via it."""
        users = [str(intent.network) for intent in parts.store.all() if intent.via == name]
        if users:
            step = "remove them first: `nexthop cidr rm CIDR`"
            raise _refused(409, "link-in-use", f"{', '.join(users)} via {name}: the link is in use", step)
        try:
            parts.links.rm(name)
        except (UnknownLink, BadLinkName):
            text = "there is no link of that name"
            raise _refused(404, "link-unknown", text, "see what is there: nexthop link ls") from None
        with contextlib.suppress(StoreUnavailable):
            parts.store.record(who, "link removed", detail=name)
        return Response(status_code=204)

    return routes


async def _join(parts: Parts, new: NewLink, who: str) -> LinkResource:
    try:
        await _outside(parts, new.token)
        link = parts.links.join(new.name, new.token)
    except BadLinkName:
        raise _refused(422, "bad-link-name", "this will not do as a link's name", _NAMES) from None
    except LinkExists:
        text = f"a link named {new.name!r} is there already"
        raise _refused(409, "link-exists", text, "choose another name, or `nexthop link rm` it first") from None
    except BadToken as error:
        raise _refused(422, "bad-token", str(error), "ask for a new one: `gtund client add NAME`") from None
    await parts.links.renew(link.name)
    with contextlib.suppress(StoreUnavailable):
        parts.store.record(who, "link joined", detail=f"{link.name}, to {link.server}")
    found = await parts.links.status(link.name)
    return resource(replace(found, server=found.server or link.server))


async def _rotate(parts: Parts, name: str, token: str) -> LinkResource:
    try:
        await _outside(parts, token)
        link = await parts.links.rotate(name, token)
    except (UnknownLink, BadLinkName):
        text = "there is no link of that name"
        raise _refused(404, "link-unknown", text, "see what is there: nexthop link ls") from None
    except BadToken as error:
        raise _refused(422, "bad-token", str(error), "ask for a new one: `gtund client rotate NAME`") from None
    except LinkRefused as error:
        raise _refused(409, "link-refused", str(error), "ask for a new one: `gtund client rotate NAME`") from None
    found = await parts.links.status(link.name)
    return resource(replace(found, server=found.server or link.server))


async def _outside(parts: Parts, token: str) -> None:
    """Refuse a server that a carried CIDR contains: the tunnel's own packets would go into a tunnel."""
    addresses = await parts.links.aims_at(token)
    with contextlib.suppress(StoreUnavailable):
        for intent in parts.store.all():
            if inside := [address for address in addresses if address in intent.network]:
                text = f"{intent.network} contains the server {inside[0]}: the tunnel's packets would go into a tunnel"
                step = f"remove {intent.network} first, or use an address of the server that lies outside of it"
                raise _refused(409, "tunnel-server", text, step)


_NAMES = "write a to z, 0 to 9 and -, at most 11 characters, a letter first"


def _refused(status: int, code: str, text: str, next_step: str) -> Problem:
    return Problem(status, code, text[0].upper() + text[1:], text, [Reason(code, text, next_step)])
