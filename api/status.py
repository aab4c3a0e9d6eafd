"""/v1/status: the verdict and everything behind it; /livez and /readyz for supervisors."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from pydantic.dataclasses import dataclass

from api import cidrs, links
from api.cidrs import CidrResource
from api.links import LinkResource
from api.parts import Parts
from api.problem import Problem, Reason, responses
from appliance.intent import StoreUnavailable
from appliance.status import CidrStatus, CloudStatus, LinkStatus, summarise


@dataclass(frozen=True, slots=True)
class FirewallResource:
    """Which firewall holds our rules, and why it is not the preferred one; empty where it is."""

    name: str
    fallback_reason: str


@dataclass(frozen=True, slots=True)
class CloudResource:
    """The cloud as last seen. `strays`: CIDRs that it sends here by our mark, and that nobody asked for."""

    provider: str
    vpc_id: str
    instance_id: str
    tables: tuple[str, ...]
    error: Reason | None
    strays: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StatusResource:
    """All of it. `verdict`: ok, degraded or down; `summary`: one line that begins with it."""

    verdict: str
    summary: str
    problems: tuple[Reason, ...]
    links: tuple[LinkResource, ...]
    cidrs: tuple[CidrResource, ...]
    firewall: FirewallResource
    cloud: CloudResource
    drift_repairs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Health:
    """The body of /livez."""

    status: str = "ok"


@dataclass(frozen=True, slots=True)
class Readiness:
    """The body of /readyz. `cloud`: why routes cannot be changed now; empty where they can."""

    status: str = "ok"
    cloud: str = ""


def router(parts: Parts) -> APIRouter:
    """Return the endpoints."""
    routes = APIRouter(tags=["status"])

    @routes.get("/v1/status")
    async def status() -> StatusResource:
        """Say how the appliance does. Answers whatever is broken: that is what it is for."""
        found, store_problem = await _links(parts)
        store_problem = store_problem or parts.store.trouble
        wanted: tuple[CidrStatus, ...] = ()
        try:
            wanted = cidrs.statuses(parts)
        except (StoreUnavailable, OSError) as error:
            store_problem = str(error)
        whole = summarise(
            links=found,
            cidrs=wanted,
            firewall=parts.kernel.firewall(),
            cloud=parts.cloud.status(),
            kernel_problem=parts.kernel.problem(),
            store_problem=store_problem,
            drift_repairs={**parts.kernel.repairs(), **parts.cloud.repairs()},
        )
        return StatusResource(
            verdict=whole.verdict.value,
            summary=whole.summary,
            problems=tuple(Reason(each.code, each.text, each.next_step) for each in whole.problems),
            links=tuple(links.resource(each) for each in whole.links),
            cidrs=tuple(cidrs.resource(each) for each in whole.cidrs),
            firewall=FirewallResource(whole.firewall.name, whole.firewall.fallback_reason),
            cloud=_cloud(whole.cloud),
            drift_repairs=dict(whole.drift_repairs),
        )

    @routes.get("/livez")
    async def livez() -> Health:
        """Answer: the event loop turns."""
        return Health()

    @routes.get("/readyz", responses=responses(503))
    async def readyz() -> Readiness:
        """Answer 200 once the kernel was brought to what is asked for and the intents can be read."""
        parts.store.all()
        if not parts.kernel.ready():
            reason = Reason(
                "not-ready", "the kernel was not brought to what is asked for yet", "wait, or see `nexthop status`"
            )
            raise Problem(503, "not-ready", "Not ready yet", reasons=[reason])
        # Packets flow without the cloud, so this is no reason to be taken out of service.
        error = parts.cloud.status().error
        return Readiness(cloud="" if error is None else f"cannot change routes now: {error.text}")

    return routes


async def _links(parts: Parts) -> tuple[tuple[LinkStatus, ...], str | None]:
    """Return how the links do, or why their files cannot be read."""
    try:
        return await links.statuses(parts), None
    except OSError as error:
        return (), str(error)


def _cloud(cloud: CloudStatus) -> CloudResource:
    said = cloud.error
    error = None if said is None else Reason(said.code, said.text, said.next_step)
    return CloudResource(
        provider=cloud.provider,
        vpc_id=cloud.vpc_id,
        instance_id=cloud.instance_id,
        tables=cloud.tables,
        error=error,
        strays=tuple(str(each) for each in cloud.strays),
    )
