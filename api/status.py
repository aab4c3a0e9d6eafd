"""/v1/status: the verdict and everything behind it; /livez and /readyz for supervisors."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from pydantic.dataclasses import dataclass

from api import links, resources
from api.links import LinkResource
from api.parts import Parts
from api.problem import Problem, Reason, responses
from api.resources import CidrResource
from api.schema import SHOWN
from api.snapshot import gather
from appliance import verdict
from appliance.status import CloudStatus


@dataclass(frozen=True, slots=True, config=SHOWN)
class VerdictResource:
    """One line for all of it: the worst finding, or that all is well."""

    level: str
    """How it does: `ok`, `degraded` (part of it works, or somebody should look), or `broken` (no CIDR works)."""
    text: str
    """One line for people."""
    next_step: str
    """What to do about it; empty where there is nothing to do."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class FindingResource:
    """One thing that a person should know."""

    level: str
    """`broken`: no CIDR works, and this is among the reasons. `degraded`: not as it should be. `ok`: advice."""
    code: str
    """A stable name for machines, such as `link-denied`."""
    text: str
    """What is the matter, for people."""
    next_step: str
    """What to do about it."""
    about: str
    """The link or the CIDR that it is about; empty where it is about the whole machine."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class FirewallResource:
    """Which firewall holds our rules."""

    name: str
    """`iptables` or `nftables`."""
    fallback_reason: str
    """Why it is not the preferred one; empty where it is."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class CloudResource:
    """The cloud as last seen."""

    provider: str
    """`aliyun`, or `none` where no cloud is configured."""
    vpc_id: str
    """The VPC around this machine; empty as long as the cloud has not answered."""
    instance_id: str
    """This machine's id in the cloud, the next hop of our entries."""
    tables: tuple[str, ...]
    """The route tables that we write."""
    error: Reason | None
    """Why the cloud cannot be used at the moment; null where it can."""
    strays: tuple[str, ...]
    """CIDRs that the cloud sends here by an entry with our mark, and that nobody asked for."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class ApiResource:
    """How the API itself is reached."""

    listen: str
    """ADDRESS:PORT of the TLS listener; empty where there is none."""
    fingerprint: str
    """SHA-256 of its certificate, in hex with colons; empty without TLS."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class StatusResource:
    """Everything that is known of the appliance at this moment."""

    version: str
    """The version of Nexthop."""
    verdict: VerdictResource
    """One line for all of it."""
    findings: tuple[FindingResource, ...]
    """Everything that is worth telling, worst first; the verdict is the first of them."""
    links: tuple[LinkResource, ...]
    """The tunnels, by name."""
    cidrs: tuple[CidrResource, ...]
    """The CIDRs, in numerical order."""
    firewall: FirewallResource
    """Which firewall holds our rules."""
    cloud: CloudResource
    """The cloud as last seen."""
    api: ApiResource
    """How the API itself is reached."""
    drift_repairs: Mapping[str, int]
    """How often what somebody else had changed was put right since the daemon started, by kind."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class Health:
    """The daemon lives."""

    status: str = "ok"
    """Always `ok`."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class Readiness:
    """The daemon does its work."""

    status: str = "ok"
    """Always `ok`; where it is not ready, the answer is a problem."""
    cloud: str = ""
    """Why routes cannot be changed at the moment; empty where they can. Packets flow without the cloud."""


def router(parts: Parts) -> APIRouter:
    """Return the endpoints."""
    routes = APIRouter(tags=["status"])

    @routes.get("/v1/status")
    async def status() -> StatusResource:
        """Say how the appliance does. Answers whatever is broken: that is what it is for."""
        whole = await gather(parts)
        found = verdict.findings(whole)
        said = verdict.judge(whole, found)
        return StatusResource(
            version=parts.about.version,
            verdict=VerdictResource(said.level.value, said.text, said.next_step),
            findings=tuple(FindingResource(f.level.value, f.code, f.text, f.next_step, f.about) for f in found),
            links=tuple(links.resource(each) for each in whole.links),
            cidrs=tuple(resources.resource(each) for each in whole.cidrs),
            firewall=FirewallResource(whole.firewall.name, whole.firewall.fallback_reason),
            cloud=_cloud(whole.cloud),
            api=ApiResource(parts.about.listen, parts.about.fingerprint),
            drift_repairs=dict(whole.drift_repairs),
        )

    return routes


def health(parts: Parts) -> APIRouter:
    """Return the endpoints for supervisors, which need no token."""
    routes = APIRouter(tags=["status"])

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
