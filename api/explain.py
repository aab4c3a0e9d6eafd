"""/v1/explain: which way a packet to one address takes, and where it stops."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic.dataclasses import dataclass

from api.parts import Parts
from api.problem import Problem, Reason, responses
from api.schema import SHOWN
from api.snapshot import gather
from appliance.explain import explain


@dataclass(frozen=True, slots=True, config=SHOWN)
class StepResource:
    """What one layer does with the packet."""

    layer: str
    """`intent`, `cloud`, `kernel`, `link` or `path`, in the order in which the packet meets them."""
    ok: bool
    """Whether it goes on from here."""
    text: str
    """What happens, for people."""
    next_step: str
    """What to do about it where it does not; may be empty."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class ExplainResource:
    """The body of GET /v1/explain/ADDRESS."""

    ip: str
    """The address."""
    answer: str
    """One sentence."""
    steps: tuple[StepResource, ...]
    """Layer by layer."""
    cidr: str | None
    """The CIDR of ours that it falls under; null: none."""
    next_hop: str | None
    """Where the VPC's first route table sends it; empty: the VPC itself; null: nowhere, or it is not known."""


def router(parts: Parts) -> APIRouter:
    """Return the endpoint."""
    routes = APIRouter(tags=["status"])

    @routes.get("/v1/explain/{ip}", responses=responses(503))
    async def show(
        ip: Annotated[str, Path(description="An IPv4 or IPv6 address.", examples=["10.244.1.20"])],
    ) -> ExplainResource:
        """Say which way a packet from a host of the VPC to this address takes."""
        try:
            address = ip_address(ip if "%" not in ip else "")
        except ValueError:
            reason = Reason("bad-address", "this is not an IP address", "write one, such as 10.244.1.20")
            raise Problem(422, "bad-address", "This is not an address", reasons=[reason]) from None
        found = explain(address, await gather(parts), parts.cloud.observation)
        steps = tuple(StepResource(each.layer, each.ok, each.text, each.next_step) for each in found.steps)
        return ExplainResource(str(address), found.answer, steps, found.cidr, found.next_hop)

    return routes
