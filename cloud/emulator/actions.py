"""The API's actions: parameters in, a body in the API's own shape out. Pure; `World` decides, this spells.

The route calls are here, what only lists the VPC is in `listing`, and the ECS product's part in `ecs`. Both versions
know the route calls: those of 2014-05-26 are the ancestors of those of 2016-04-28, and old clients still send them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from cloud.emulator import ecs, listing
from cloud.emulator.params import Body, Params, flag, must, number, records, slice_of, values
from cloud.emulator.world import ApiError, Change, Entry, NextHop, Wanted, World

VPC_VERSION: Final = "2016-04-28"
ECS_VERSION: Final = "2014-05-26"
VERSIONS: Final = (VPC_VERSION, ECS_VERSION)
ROUTE_WRITES: Final = frozenset(
    {"CreateRouteEntry", "ModifyRouteEntry", "DeleteRouteEntry", "CreateRouteEntries", "DeleteRouteEntries"}
)
WRITES: Final = ROUTE_WRITES | {"ModifyNetworkInterfaceAttribute"}
MOST_AT_ONCE: Final = 50
_MOST_ENTRIES: Final = 100


def perform(world: World, params: Params, now: float) -> Body:
    """Do what `params` say at `now` (seconds since the epoch); raise `ApiError`."""
    version = params.get("Version")
    if version not in VERSIONS:
        raise ApiError("InvalidVersion", "Specified parameter Version is not valid.")
    name = params.get("Action", "")
    action = _ACTIONS.get(name) or (ecs.ACTIONS.get(name) if version == ECS_VERSION else None)
    if action is None:
        message = "Specified api is not found, please check your url and method."
        raise ApiError("InvalidAction.NotFound", message, status=404)
    if not params.get("RegionId"):
        raise ApiError("MissingRegionId", "RegionId is mandatory for this action.")
    return action(world, params, now)


def product(action: str) -> str:
    """Return the product that RAM names a permission for this action by."""
    return "ecs" if action in ecs.ACTIONS else "vpc"


def _create(world: World, params: Params, now: float) -> Body:
    wanted = Wanted(
        table=must(params, "RouteTableId"),
        destination=must(params, "DestinationCidrBlock"),
        hop=NextHop(params.get("NextHopType") or "Instance", params.get("NextHopId", "")),
        name=params.get("RouteEntryName", ""),
        description=params.get("Description", ""),
    )
    if not wanted.hop.id:
        message = "The specified next hop and next hop list must not be both empty."
        raise ApiError("InvalidNexthopTypeAndList.BothNull", message)
    token = params.get("ClientToken", "")
    return {"RouteEntryId": world.create(wanted, now, token=token, dry_run=flag(params, "DryRun"))}


def _create_many(world: World, params: Params, now: float) -> Body:
    wishes = [
        Wanted(
            table=_part(item, "RouteTableId"),
            destination=_part(item, "DstCidrBlock"),
            hop=NextHop(item.get("NextHopType") or "Instance", _part(item, "NextHop")),
            name=item.get("Name", ""),
            description=item.get("Description", ""),
        )
        for item in _batch(params)
    ]
    made, failed = world.create_many(wishes, now, dry_run=flag(params, "DryRun"))
    return {
        "RouteEntryIds": made,
        **_counts(len(made), len(failed)),
        "FailedRouteEntries": [
            {
                "DstCidrBlock": wanted.destination,
                "NextHop": wanted.hop.id,
                "FailedCode": error.code,
                "FailedMessage": f"{error.message}, entry.cidrBlock={wanted.destination}",
            }
            for wanted, error in failed
        ],
    }


def _modify(world: World, params: Params, now: float) -> Body:
    hop = None
    if params.get("NewNextHopId"):
        hop = NextHop(params.get("NewNextHopType") or "Instance", params["NewNextHopId"])
    change = Change(hop=hop, name=params.get("RouteEntryName"), description=params.get("Description"))
    world.modify(_which(world, params, now), change, now, dry_run=flag(params, "DryRun"))
    return {}


def _delete(world: World, params: Params, now: float) -> Body:
    world.delete(_which(world, params, now), now, dry_run=flag(params, "DryRun"))
    return {}


def _delete_many(world: World, params: Params, now: float) -> Body:
    items = _batch(params)
    names = [item.get("RouteEntryId") or (_part(item, "RouteTableId"), _part(item, "DstCidrBlock")) for item in items]
    failed = world.delete_many(names, now, dry_run=flag(params, "DryRun"))
    return {
        **_counts(len(items) - len(failed), len(failed)),
        "FailedRouteEntries": [
            {
                "RouteEntryId": items[index].get("RouteEntryId", ""),
                "DstCidrBlock": items[index].get("DstCidrBlock", ""),
                "NextHop": items[index].get("NextHop", ""),
                "FailedCode": error.code,
                "FailedMessage": error.message,
            }
            for index, error in failed.items()
        ],
    }


def _batch(params: Params) -> list[dict[str, str]]:
    items = records(params, "RouteEntries")
    if not items:
        raise ApiError("MissingParameter", "Miss mandatory parameter. RouteEntries")
    if len(items) > MOST_AT_ONCE:
        raise ApiError("InvalidParameter", f"RouteEntries takes at most {MOST_AT_ONCE} entries.")
    return items


def _part(item: Mapping[str, str], name: str) -> str:
    if not item.get(name):
        raise ApiError(f"MissingParam.{name}", f"The parameter {name} is missing.")
    return item[name]


def _counts(done: int, failed: int) -> Body:
    return {"SuccessCount": done, "FailedCount": failed}


def _which(world: World, params: Params, now: float) -> str:
    """Return the id of the entry that is meant: by its own id, or by table and destination, never both."""
    entry_id, table = params.get("RouteEntryId"), params.get("RouteTableId")
    if bool(entry_id) == bool(table):
        code = "ParamExclusive.RouteEntryIdAndRouteTableIdOrDestCidrBlock"
        raise ApiError(code, "Either RouteEntryId, or RouteTableId and DestinationCidrBlock, must be given.")
    if entry_id:
        return entry_id
    return world.find(table or "", must(params, "DestinationCidrBlock"), now)


def _list_entries(world: World, params: Params, now: float) -> Body:
    cidrs = values(params, "DestCidrBlockList")
    found = [
        entry
        for entry in world.entries(must(params, "RouteTableId"), now)
        if _matches(entry, params) and (not cidrs or str(entry.destination) in cidrs)
    ]
    size = number(params, "MaxResult", 10)
    if not 1 <= size <= _MOST_ENTRIES:
        raise ApiError("IllegalParam.MaxResult", f"MaxResult must be between 1 and {_MOST_ENTRIES}.")
    part, numbers = slice_of(found, params, size)
    return numbers | {"RouteEntrys": {"RouteEntry": [_entry(entry) for entry in part]}}


def _matches(entry: Entry, params: Params) -> bool:
    shown = {
        "RouteEntryId": entry.id,
        "RouteEntryName": entry.name,
        "DestinationCidrBlock": str(entry.destination),
        "RouteEntryType": "Custom" if entry.custom else "System",
        "NextHopId": entry.shown_hop.id,
        "NextHopType": entry.shown_hop.type,
        "IpVersion": "ipv4",
    }
    return all(not params.get(name) or params[name].lower() == value.lower() for name, value in shown.items())


def _entry(entry: Entry) -> Body:
    hop = {
        "NextHopId": entry.shown_hop.id,
        "NextHopType": entry.shown_hop.type,
        "Enabled": 1,
        "Weight": 0,
        "NextHopRegionId": "",
        "NextHopRelatedInfo": {},
    }
    return {
        "RouteEntryId": entry.id,
        "RouteTableId": entry.table,
        "DestinationCidrBlock": str(entry.destination),
        "Type": "Custom" if entry.custom else "System",
        "Origin": "CustomCreate" if entry.custom else "SystemCreate",
        "Status": entry.status,
        "IpVersion": "IPv4",
        "RouteEntryName": entry.name,
        "Description": entry.description,
        "GmtModified": datetime.fromtimestamp(entry.changed_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ServiceType": "",
        "NextHops": {"NextHop": [hop]},
    }


def _tables(world: World, params: Params, now: float) -> Body:
    """DescribeRouteTables: the older list, in which the entries come with their tables."""
    if not any(params.get(name) for name in ("VRouterId", "RouterId", "RouteTableId", "RouteTableName")):
        raise ApiError("MissingParameter", "Miss mandatory parameter. VRouterId or RouteTableId")
    listed, numbers = listing.chosen_tables(world, params)
    return numbers | {
        "RouteTables": {
            "RouteTable": [
                listing.old_table(world, table)
                | {"RouteEntrys": {"RouteEntry": [_old_entry(entry) for entry in world.entries(table.id, now)]}}
                for table in listed
            ]
        }
    }


def _old_entry(entry: Entry) -> Body:
    # Flat, beside the list of next hops: terraform and footmark read these two.
    return _entry(entry) | {"InstanceId": entry.shown_hop.id, "NextHopType": entry.shown_hop.type}


_ACTIONS: Final[Mapping[str, Callable[[World, Params, float], Body]]] = {
    "CreateRouteEntry": _create,
    "CreateRouteEntries": _create_many,
    "ModifyRouteEntry": _modify,
    "DeleteRouteEntry": _delete,
    "DeleteRouteEntries": _delete_many,
    "DescribeRouteEntryList": _list_entries,
    "DescribeRouteTables": _tables,
    **listing.ACTIONS,
}
