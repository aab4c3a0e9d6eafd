"""/v1/routes: the cloud's route tables as last seen, and whose each entry is."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic.dataclasses import dataclass

from api.parts import Parts
from api.problem import responses
from api.schema import SHOWN
from appliance.model import Phase
from cloud.provider import Observation, Owner, RouteEntry
from cloud.quota import fill


@dataclass(frozen=True, slots=True, config=SHOWN)
class EntryResource:
    """One line of a route table."""

    cidr: str
    """Where to."""
    next_hop: str
    """The id of the next hop; empty for the VPC's own."""
    next_hop_type: str
    """What kind of next hop it is, in the cloud's words; empty for the VPC's own."""
    owner: str
    """`ours`, `foreign`, `conflict` (in the way of a CIDR of ours), `stray` (ours, for nobody), or `system`."""
    status: str
    """The cloud's own word, such as `Available`."""
    note: str
    """What there is to say about it, for people; may be empty."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class RouteTableResource:
    """One route table that we write."""

    id: str
    """The cloud's id."""
    kind: str
    """`system` or `custom`; empty where it is not known."""
    name: str
    """Its name in the cloud; empty where it is not known."""
    vswitches: tuple[str, ...]
    """The vSwitches whose hosts use it."""
    entries: tuple[EntryResource, ...]
    """Its entries, in numerical order."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class FillResource:
    """How full a route table is."""

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
class RoutesResource:
    """The body of GET /v1/routes."""

    observed_at: float | None
    """When the tables were read, in seconds since the epoch; null as long as the cloud has not answered."""
    tables: tuple[RouteTableResource, ...]
    """The tables; none as long as the cloud has not answered."""
    quota: dict[str, FillResource]
    """How full each table is, by its id."""


def router(parts: Parts) -> APIRouter:
    """Return the endpoint."""
    routes = APIRouter(tags=["cloud"])

    @routes.get("/v1/routes", responses=responses(503))
    async def show() -> RoutesResource:
        """Show the route tables as last seen; nothing is asked of the cloud."""
        seen = parts.cloud.observation
        if seen is None:
            return RoutesResource(None, (), {})
        wanted = frozenset(each.network for each in parts.store.all() if each.phase is Phase.PRESENT)
        asked = frozenset(each.network for each in parts.store.all())
        fills = {table: fill(table, seen.entries, seen.quota) for table in seen.vpc.tables}
        return RoutesResource(
            seen.at or None,
            tuple(_table(table, seen, wanted, asked) for table in seen.vpc.tables),
            {name: FillResource(f.ours, f.others, f.limit, f.reserve, f.free) for name, f in fills.items()},
        )

    return routes


def _table(table: str, seen: Observation, wanted: frozenset[object], asked: frozenset[object]) -> RouteTableResource:
    entries = sorted(
        (entry for entry in seen.entries if entry.table == table),
        key=lambda entry: (
            entry.destination.version,
            int(entry.destination.network_address),
            entry.destination.prefixlen,
        ),
    )
    return RouteTableResource(
        id=table,
        kind=next((kind for name, kind in seen.vpc.kinds if name == table), ""),
        name="",
        vswitches=tuple(vswitch for vswitch, used in seen.vpc.uses if used == table),
        entries=tuple(_entry(entry, seen.vpc.instance_id, wanted, asked) for entry in entries),
    )


def _entry(entry: RouteEntry, instance: str, wanted: frozenset[object], asked: frozenset[object]) -> EntryResource:
    owner, note = entry.owner.value, entry.name
    if entry.owner is Owner.OURS:
        if entry.destination not in asked:
            owner, note = "stray", "carries our mark, and nobody asked for it"
        elif entry.next_hop != instance:
            note = f"ours, and points to {entry.next_hop or 'nothing'}, not here"
        else:
            note = ""
    elif entry.owner not in {Owner.SYSTEM, Owner.EARLIER} and entry.destination in wanted:
        owner, note = "conflict", f"in the way of a CIDR of ours{f' ({entry.name})' if entry.name else ''}"
    elif entry.owner is Owner.EARLIER:
        owner, note = "foreign", "of the machine that this one took over from; it is pointed here if its CIDR is added"
    elif entry.owner is Owner.CHANGED:
        owner, note = "foreign", "carried our mark once, and was pointed elsewhere by hand"
    return EntryResource(
        cidr=str(entry.destination),
        next_hop=entry.next_hop,
        next_hop_type=entry.next_hop_type,
        owner=owner,
        status=entry.status.value,
        note=note,
    )
