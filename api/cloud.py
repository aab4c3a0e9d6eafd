"""What the operator asks of the cloud beside CIDRs: /v1/plan, /v1/doctor, /v1/ram-policy, adoption, strays.

Adoption and the removal of strays are the only ways to touch what nobody asked for, and both take a person's request
that names the CIDR.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic.dataclasses import dataclass

from api.caller import Who
from api.once import Attempted, Once
from api.parts import Parts
from api.problem import Problem, Reason, responses
from api.resources import (
    ChangeResource,
    CidrPath,
    CidrResource,
    network_of,
    resource,
    status_of,
    unknown,
)
from api.schema import SHOWN
from appliance.adopt import NotAdoptable
from appliance.entries import cloud_problem
from appliance.model import Network, Phase
from appliance.plan import plan
from cloud.provider import CloudError, Conflict, Denied, Duplicate, Provider, QuotaExceeded, Rejected, Throttled


@dataclass(frozen=True, slots=True, config=SHOWN)
class TableResource:
    """How full a route table is."""

    table: str
    """The route table."""
    ours: int
    """How many of its custom entries carry our mark."""
    others: int
    """How many of its custom entries are somebody else's."""
    limit: int
    """How many custom entries it takes."""
    reserve: int
    """How many of those we leave to others, where others use the table."""
    free: int
    """How many we may still add."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class AggregateResource:
    """Several CIDRs that are together exactly one."""

    cidr: str
    """The one CIDR."""
    parts: tuple[str, ...]
    """The CIDRs that it could stand for."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class PlanResource:
    """The body of GET /v1/plan."""

    changes: tuple[ChangeResource, ...]
    """What would be done; empty: nothing."""
    tables: tuple[TableResource, ...]
    """How full the route tables are."""
    aggregates: tuple[AggregateResource, ...]
    """How fewer entries could say the same."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class CheckResource:
    """One prerequisite in the cloud."""

    code: str
    """A stable name for machines."""
    state: str
    """`ok`, `warn`, `fail`, or `unknown` where it could not be found out."""
    text: str
    """How it is, for people."""
    fix: str
    """A command, or a place in the cloud's console; empty where nothing is to be done."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class DoctorResource:
    """The body of GET /v1/doctor."""

    verdict: str
    """The worst state: `fail`, then `unknown`, then `warn`, then `ok`."""
    findings: tuple[CheckResource, ...]
    """Every prerequisite."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class StrayResource:
    """A stray that is on its way out."""

    cidr: str
    """The CIDR of the entry."""


_WORST = ("fail", "unknown", "warn", "ok")


def router(parts: Parts) -> APIRouter:
    """Return the endpoints."""
    routes = APIRouter(tags=["cloud"])
    _looking(routes, parts)
    _acting(routes, parts)
    return routes


def _looking(routes: APIRouter, parts: Parts) -> None:
    """Add what changes nothing."""

    @routes.get("/v1/plan", responses=responses(502, 503))
    async def show_plan() -> PlanResource:
        """Say what would change in the cloud, from a fresh look at it; change nothing."""
        provider = _provider(parts)
        try:
            seen = await provider.observe()
        except CloudError as error:
            raise _failed(error) from None
        made = plan(parts.store.all(), parts.cloud.carrying(), parts.store.released(), seen)
        return PlanResource(
            changes=tuple(
                ChangeResource(each.action.value, str(each.cidr), each.table, each.now, each.text)
                for each in made.changes
            ),
            tables=tuple(
                TableResource(each.table, each.ours, each.others, each.limit, each.reserve, each.free)
                for each in made.tables
            ),
            aggregates=tuple(
                AggregateResource(str(each.network), tuple(map(str, each.parts))) for each in made.aggregates
            ),
        )

    @routes.get("/v1/doctor", responses=responses(502, 503))
    async def doctor() -> DoctorResource:
        """Look at every prerequisite in the cloud, permissions by dry run; change nothing."""
        wanted = [intent.network for intent in parts.store.all() if intent.phase is Phase.PRESENT]
        try:
            found = await _provider(parts).examine(wanted)
        except CloudError as error:
            raise _failed(error) from None
        findings = tuple(CheckResource(each.code, each.state.value, each.text, each.fix) for each in found)
        states = {each.state for each in findings}
        return DoctorResource(next((state for state in _WORST if state in states), "ok"), findings)

    @routes.get("/v1/ram-policy", responses=responses(503))
    async def ram_policy() -> Mapping[str, Any]:
        """Return the least that the instance's role has to be allowed, as a RAM policy document."""
        return dict(_provider(parts).policy())


def _acting(routes: APIRouter, parts: Parts) -> None:
    """Add what touches entries that nobody asked for."""
    once = Once(parts.store)

    @routes.post("/v1/cidrs/{cidr:cidr}/adopt", responses=responses(404, 409, 422, 502, 503))
    async def adopt(cidr: CidrPath, who: Who, attempt: Attempted) -> CidrResource:
        """Make the entry that somebody else has for this CIDR ours, in place."""
        network = network_of(cidr)
        return await once.do(attempt, partial(_adopt, parts, network, who))

    @routes.delete("/v1/strays/{cidr:cidr}", status_code=202, responses=responses(404, 409, 422, 503))
    async def remove_stray(cidr: CidrPath, who: Who) -> StrayResource:
        """Let go of an entry with our mark that nobody asked for."""
        network = network_of(cidr)
        if network not in parts.cloud.status().strays:
            reason = Reason("stray-unknown", f"{network} is not among the strays", "see them: nexthop status")
            raise Problem(404, "stray-unknown", "This is not a stray entry", reasons=[reason])
        parts.store.release(network, who=who)
        return StrayResource(str(network))


async def _adopt(parts: Parts, network: Network, who: str) -> CidrResource:
    _provider(parts)
    intent = parts.store.get(network)
    if intent is None or intent.phase is not Phase.PRESENT:
        raise unknown(network)
    try:
        await parts.cloud.adopt(network, who=who)
    except NotAdoptable as error:
        reason = Reason(error.code, str(error), "see `nexthop status`, then try again")
        raise Problem(409, "not-adoptable", "This entry cannot be adopted", reasons=[reason]) from None
    except CloudError as error:
        raise _failed(error) from None
    return resource(status_of(parts, intent))


def _provider(parts: Parts) -> Provider:
    provider = parts.cloud.provider()
    if provider is not None:
        return provider
    if not parts.clouded:
        reason = Reason("no-cloud", "no cloud is configured", 'set [cloud] provider = "aliyun" in nexthop.toml')
    else:
        said = parts.cloud.status().error
        text = "the cloud was not found yet" + (f": {said.text}" if said else "")
        reason = Reason("cloud-unavailable", text, "it is tried again; see `nexthop status`")
    raise Problem(503, reason.code, "The cloud cannot be asked", reasons=[reason])


_STATUS: tuple[tuple[type[CloudError], int], ...] = (
    (Duplicate, 409),
    (QuotaExceeded, 409),
    (Rejected, 422),
    (Denied, 502),
    (Throttled, 503),
    (Conflict, 503),
)


def _failed(error: CloudError) -> Problem:
    """Return the cloud's error as ours; it never holds a key or a signature (cloud/aliyun.py)."""
    said = cloud_problem(error)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 503)
    return Problem(status, said.code, "The cloud says no", reasons=[Reason(said.code, said.text, said.next_step)])
