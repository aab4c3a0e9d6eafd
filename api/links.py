"""/v1/links: the tunnels. A join token goes in and never comes out, nor does any key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from api.parts import Parts
from api.problem import Problem, Reason, responses
from appliance.links import BadLinkName, LinkExists, LinkRefused, UnknownLink
from appliance.status import LinkStatus
from appliance.tunnel.token import BadToken


@dataclass(frozen=True, slots=True)
class NewLink:
    """The body of POST /v1/links. `token`: what `gtund client add` printed; a secret until it is spent."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=64, examples=["hk"])]
    token: Annotated[str, Field(max_length=4096, repr=False)]


@dataclass(frozen=True, slots=True)
class NewKey:
    """The body of PUT /v1/links/{name}/key. `token`: what `gtund client rotate` printed; a secret until it is spent."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    token: Annotated[str, Field(max_length=4096, repr=False)]


@dataclass(frozen=True, slots=True)
class LinkResource:
    """A link as its gtun describes it. `state`: up, connecting or down; `code` and `reason` say why it is not up.

    `since`, `retry_at`: seconds since the epoch; `rtt_ms`: milliseconds; `channel`: what is in use, hybrid, stream or
    datagram; `loss`: the share of datagrams' units lost over the last seconds, 0 to 1; `unit_bytes`: what a unit holds.
    """

    name: str
    device: str
    server: str
    state: str
    code: str
    reason: str
    address: str
    peer: str
    since: float | None
    retry_at: float | None
    rtt_ms: float | None
    channel: str
    loss: float | None
    unit_bytes: int | None
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LinkList:
    """The body of GET /v1/links, by name."""

    links: tuple[LinkResource, ...]


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

    @routes.get("/v1/links", responses=responses(503))
    async def ls() -> LinkList:
        """List the links and how they do."""
        return LinkList(tuple(resource(each) for each in await statuses(parts)))

    @routes.post("/v1/links", status_code=201, responses=responses(409, 422, 503))
    async def join(new: NewLink) -> LinkResource:
        """Make a link from a join token. Its key is made here and stays here."""
        try:
            link = parts.links.join(new.name, new.token)
        except BadLinkName:
            raise _refused(422, "bad-link-name", "this will not do as a link's name", _NAMES) from None
        except LinkExists:
            text = f"a link named {new.name!r} is there already"
            raise _refused(409, "link-exists", text, "choose another name, or `nexthop link rm` it first") from None
        except BadToken as error:
            raise _refused(422, "bad-token", str(error), "ask for a new one: `gtund client add NAME`") from None
        found = await parts.links.status(link.name)
        return resource(replace(found, server=found.server or link.server))

    @routes.put("/v1/links/{name}/key", responses=responses(404, 409, 422, 503))
    async def rotate(name: str, new: NewKey) -> LinkResource:
        """Give a link another key. The old one is good until the server has taken the new one; flows live on."""
        return await _rotate(parts, name, new.token)

    @routes.delete("/v1/links/{name}", status_code=204, response_class=Response, responses=responses(404, 409, 503))
    async def rm(name: str) -> Response:
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
        return Response(status_code=204)

    return routes


async def _rotate(parts: Parts, name: str, token: str) -> LinkResource:
    try:
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


_NAMES = "write a to z, 0 to 9 and -, at most 11 characters, a letter first"


def _refused(status: int, code: str, text: str, next_step: str) -> Problem:
    return Problem(status, code, text[0].upper() + text[1:], text, [Reason(code, text, next_step)])
