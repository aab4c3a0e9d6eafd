"""/v1/cidrs: state which CIDRs the VPC shall reach through this machine.

A POST that asks for what is there already is no error and changes nothing, so it is safe to repeat. Fields that are
left out of it ask for nothing: they take their defaults for a new CIDR, and match whatever an existing one has. With
`dry_run` everything is judged and nothing is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response
from pydantic.dataclasses import dataclass

from api import wanted
from api.bodies import Change, NewCidr, WholeCidr
from api.caller import Who
from api.once import Attempted, Once
from api.parts import Parts
from api.problem import responses
from api.resources import (
    CidrPath,
    CidrResource,
    known,
    network_of,
    resource,
    status_of,
    status_with,
    statuses,
    unknown,
)
from api.schema import SHOWN
from appliance import guard
from appliance.intent import UnknownCidr
from appliance.model import Intent, Network, Phase
from appliance.status import LayerState

_POLL: Final = 0.1  # seconds
_PAGE: Final = 1000

DryRun = Annotated[bool, Query(description="Judge it, show the plan, and change nothing.", examples=[True])]
Wait = Annotated[
    float,
    Query(
        ge=0,
        le=30,
        allow_inf_nan=False,
        description="Seconds to wait until kernel and cloud have followed; the answer is how far they are then.",
        examples=[5],
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=200,
        description="Change it only if this is still its ETag, else 412.",
        examples=['"0123456789abcdef"'],
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", pattern=r"^\*$", description="`*`: only if it is not there.", examples=["*"]),
]


@dataclass(frozen=True, slots=True, config=SHOWN)
class CidrList:
    """The body of GET /v1/cidrs."""

    cidrs: tuple[CidrResource, ...]
    """The CIDRs, in numerical order."""
    next: str | None
    """What to send as `cursor` for the next page; null: this is the last."""


def router(parts: Parts) -> APIRouter:
    """Return the endpoints."""
    routes = APIRouter(tags=["cidrs"])
    _reading(routes, parts)
    _asking(routes, parts)
    _changing(routes, parts)
    return routes


def _reading(routes: APIRouter, parts: Parts) -> None:
    @routes.get("/v1/cidrs", responses=responses(503))
    async def ls(
        limit: Annotated[int, Query(ge=1, le=_PAGE, description="How many at most.", examples=[100])] = _PAGE,
        cursor: Annotated[
            str | None, Query(max_length=64, description="`next` of the page before.", examples=["10.244.0.0/16"])
        ] = None,
    ) -> CidrList:
        """List the CIDRs with the state of each layer."""
        after = None if cursor is None else _order(network_of(cursor))
        found = [each for each in statuses(parts) if after is None or _order(each.intent.network) > after]
        page = found[:limit]
        more = str(page[-1].intent.network) if len(found) > limit else None
        return CidrList(tuple(resource(each) for each in page), more)

    @routes.get("/v1/cidrs/{cidr:cidr}", responses=responses(404, 503))
    async def show(cidr: CidrPath, response: Response) -> CidrResource:
        """Show one CIDR."""
        intent = known(parts, network_of(cidr))
        return _tagged(response, resource(status_of(parts, intent)))


def _asking(routes: APIRouter, parts: Parts) -> None:
    once = Once(parts.store)

    @routes.post("/v1/cidrs", status_code=201, responses={200: {"model": CidrResource}, **responses(409, 503)})
    async def add(
        new: NewCidr,
        response: Response,
        who: Who,
        attempt: Attempted,
        dry_run: DryRun = False,  # noqa: FBT002
        wait: Wait = 0.0,
    ) -> CidrResource:
        """Ask for a CIDR; 201 where that is news, 200 where it was so already or for a dry run."""

        async def work() -> CidrResource:
            network = network_of(new.cidr)
            response.status_code = 200
            if (same := wanted.already(parts, network, new)) is not None:
                return _tagged(response, await _followed(parts, same, (), wait))
            intent, reasons = await wanted.fresh(parts, network, new)
            if (same := wanted.already(parts, network, new)) is not None:  # somebody was faster
                return _tagged(response, await _followed(parts, same, reasons, wait))
            if dry_run:
                return _preview(parts, intent, reasons)
            parts.store.put(intent, who=who)
            response.status_code = 201
            return _tagged(response, await _followed(parts, known(parts, network), reasons, wait))

        return await once.do(attempt, work)

    @routes.put("/v1/cidrs/{cidr:cidr}", responses={201: {"model": CidrResource}, **responses(412, 503)})
    async def replace_or_add(
        cidr: CidrPath,
        asked: WholeCidr,
        response: Response,
        who: Who,
        dry_run: DryRun = False,  # noqa: FBT002
        wait: Wait = 0.0,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
    ) -> CidrResource:
        """Ask for a CIDR exactly so, whatever it was before; 201 where it was not there."""
        network = network_of(cidr)
        wanted.must_match(parts.store.get(network), if_match, if_none_match)
        intent, reasons = await wanted.fresh(parts, network, asked)
        before = parts.store.get(network)
        wanted.must_match(before, if_match, if_none_match)  # once more: nothing waits from here to the put
        if dry_run:
            return _preview(parts, intent, reasons)
        parts.store.put(intent, who=who)
        response.status_code = 201 if before is None else 200
        return _tagged(response, await _followed(parts, known(parts, network), reasons, wait))


def _changing(routes: APIRouter, parts: Parts) -> None:
    @routes.patch("/v1/cidrs/{cidr:cidr}", responses=responses(404, 409, 412, 503))
    async def change(
        cidr: CidrPath,
        asked: Change,
        response: Response,
        who: Who,
        dry_run: DryRun = False,  # noqa: FBT002
        if_match: IfMatch = None,
    ) -> CidrResource:
        """Change how a CIDR is carried, without a gap; what is left out stays as it is."""
        network = network_of(cidr)
        wanted.must_match(known(parts, network), if_match)
        intent, reasons = await wanted.changed(parts, network, asked)
        wanted.must_match(known(parts, network), if_match)  # once more: nothing waits from here to the put
        if dry_run:
            return _preview(parts, intent, reasons)
        parts.store.put(intent, who=who)
        return _tagged(response, resource(status_with(parts, known(parts, network), reasons)))

    @routes.delete("/v1/cidrs/{cidr:cidr}", status_code=202, responses=responses(404, 412, 503))
    async def rm(
        cidr: CidrPath,
        who: Who,
        dry_run: DryRun = False,  # noqa: FBT002
        if_match: IfMatch = None,
    ) -> CidrResource:
        """Let go of a CIDR: it leaves the cloud, then the kernel, then this list."""
        network = network_of(cidr)
        intent = known(parts, network)
        wanted.must_match(intent, if_match)
        if dry_run:
            return _preview(parts, replace(intent, phase=Phase.LEAVING), ())
        try:
            intent = parts.store.leave(network, who=who)
        except UnknownCidr:
            raise unknown(network) from None
        return resource(status_with(parts, intent, ()))


async def _followed(parts: Parts, intent: Intent, reasons: tuple[guard.Reason, ...], wait: float) -> CidrResource:
    """Return the CIDR when kernel and cloud have followed, or will not, or `wait` seconds are over."""
    network = intent.network
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait):
            while _under_way(parts, network) and not parts.stop.is_set():  # noqa: ASYNC110  (layers call nobody)
                await asyncio.sleep(_POLL)
    current = parts.store.get(network) or intent
    found = status_of(parts, current)
    more = tuple(each for each in reasons if each not in found.warnings)
    return resource(replace(found, warnings=(*found.warnings, *more)))


def _under_way(parts: Parts, network: Network) -> bool:
    layers = parts.kernel.layer(network), parts.cloud.layer(network)
    failed = any(layer.state is LayerState.ERROR for layer in layers)
    return not failed and any(layer.state is LayerState.PENDING for layer in layers)


def _preview(parts: Parts, intent: Intent, reasons: tuple[guard.Reason, ...]) -> CidrResource:
    return resource(status_with(parts, intent, reasons), wanted.steps(parts, intent))


def _tagged(response: Response, found: CidrResource) -> CidrResource:
    response.headers["ETag"] = f'"{found.etag}"'
    return found


def _order(network: Network) -> tuple[int, int, int]:
    return (network.version, int(network.network_address), network.prefixlen)
