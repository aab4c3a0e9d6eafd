"""The API's actions: parameters in, a body in the API's own shape out. Pure; `World` decides, this spells.

Unknown parameters are ignored and booleans are read whatever their case, as the cloud does.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cloud.emulator.world import ApiError, Change, Entry, NextHop, Wanted, World
from cloud.emulator.worldfile import RouteTable, VSwitch

T = TypeVar("T")
Params = Mapping[str, str]
Body = dict[str, Any]

VERSIONS: Final = ("2016-04-28", "2014-05-26")  # the second is the ECS product's, of whose route calls these are heirs
WRITES: Final = frozenset({"CreateRouteEntry", "ModifyRouteEntry", "DeleteRouteEntry"})
_MOST_ENTRIES: Final = 100
_MOST_ITEMS: Final = 50


def perform(world: World, params: Params, now: float) -> Body:
    """Do what `params` say at `now` (seconds since the epoch); raise `ApiError`."""
    if params.get("Version") not in VERSIONS:
        raise ApiError("InvalidVersion", "Specified parameter Version is not valid.")
    action = _ACTIONS.get(params.get("Action", ""))
    if action is None:
        message = "Specified api is not found, please check your url and method."
        raise ApiError("InvalidAction.NotFound", message, status=404)
    if not params.get("RegionId"):
        raise ApiError("MissingRegionId", "RegionId is mandatory for this action.")
    return action(world, params, now)


def _create(world: World, params: Params, now: float) -> Body:
    wanted = Wanted(
        table=_must(params, "RouteTableId"),
        destination=_must(params, "DestinationCidrBlock"),
        hop=NextHop(params.get("NextHopType") or "Instance", params.get("NextHopId", "")),
        name=params.get("RouteEntryName", ""),
        description=params.get("Description", ""),
    )
    if not wanted.hop.id:
        message = "The specified next hop and next hop list must not be both empty."
        raise ApiError("InvalidNexthopTypeAndList.BothNull", message)
    token = params.get("ClientToken", "")
    return {"RouteEntryId": world.create(wanted, now, token=token, dry_run=_flag(params, "DryRun"))}


def _modify(world: World, params: Params, now: float) -> Body:
    hop = None
    if params.get("NewNextHopId"):
        hop = NextHop(params.get("NewNextHopType") or "Instance", params["NewNextHopId"])
    change = Change(hop=hop, name=params.get("RouteEntryName"), description=params.get("Description"))
    world.modify(_which(world, params, now), change, now, dry_run=_flag(params, "DryRun"))
    return {}


def _delete(world: World, params: Params, now: float) -> Body:
    world.delete(_which(world, params, now), now, dry_run=_flag(params, "DryRun"))
    return {}


def _which(world: World, params: Params, now: float) -> str:
    """Return the id of the entry that is meant: by its own id, or by table and destination, never both."""
    entry_id, table = params.get("RouteEntryId"), params.get("RouteTableId")
    if bool(entry_id) == bool(table):
        code = "ParamExclusive.RouteEntryIdAndRouteTableIdOrDestCidrBlock"
        raise ApiError(code, "Either RouteEntryId, or RouteTableId and DestinationCidrBlock, must be given.")
    if entry_id:
        return entry_id
    return world.find(table or "", _must(params, "DestinationCidrBlock"), now)


def _list_entries(world: World, params: Params, now: float) -> Body:
    found = [entry for entry in world.entries(_must(params, "RouteTableId"), now) if _matches(entry, params)]
    size = _number(params, "MaxResult", 10)
    if not 1 <= size <= _MOST_ENTRIES:
        raise ApiError("IllegalParam.MaxResult", f"MaxResult must be between 1 and {_MOST_ENTRIES}.")
    start = _offset(params.get("NextToken", ""))
    page = found[start : start + size]
    more = start + size < len(found)
    return {
        "TotalCount": len(found),
        "NextToken": base64.urlsafe_b64encode(str(start + size).encode()).decode() if more else "",
        "RouteEntrys": {"RouteEntry": [_entry(entry) for entry in page]},
    }


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


def _list_tables(world: World, params: Params, _now: float) -> Body:
    wanted = {"RouteTableId": "id", "RouteTableType": "type"}
    found = [
        table
        for table in _in_vpc(world, params, tuple(world.tables.values()))
        if all(not params.get(name) or params[name] == getattr(table, field) for name, field in wanted.items())
    ]
    page, numbers = _page(found, params)
    return numbers | {"RouterTableList": {"RouterTableListType": [_table(world, table) for table in page]}}


def _table(world: World, table: RouteTable) -> Body:
    return {
        "RouteTableId": table.id,
        "RouteTableName": "",
        "RouteTableType": table.type,
        "RouterType": "VRouter",
        "RouterId": f"vrt-{world.file.vpc.id}",
        "VpcId": world.file.vpc.id,
        "AssociateType": "VSwitch",
        "Status": "Available",
        "VSwitchIds": {"VSwitchId": [each.id for each in world.file.vswitch if each.table == table.id]},
        "GatewayIds": {"GatewayIds": []},
        "RoutePropagationEnable": True,
        "Description": "",
        "Tags": {"Tag": []},
    }


def _list_vpcs(world: World, params: Params, _now: float) -> Body:
    file = world.file
    asked = [each for each in params.get("VpcId", "").split(",") if each]
    found = [file] if params["RegionId"] == file.region and (not asked or file.vpc.id in asked) else []
    page, numbers = _page(found, params)
    vpc = {
        "VpcId": file.vpc.id,
        "VpcName": "",
        "RegionId": file.region,
        "CidrBlock": str(file.vpc.cidr),
        "SecondaryCidrBlocks": {"SecondaryCidrBlock": []},
        "UserCidrs": {"UserCidr": []},
        "Ipv6CidrBlock": "",
        "Ipv6CidrBlocks": {"Ipv6CidrBlock": []},
        "VRouterId": f"vrt-{file.vpc.id}",
        "VSwitchIds": {"VSwitchId": [each.id for each in file.vswitch]},
        "RouterTableIds": {"RouterTableIds": [each.id for each in file.route_table]},
        "Status": "Available",
        "IsDefault": False,
    }
    return numbers | {"Vpcs": {"Vpc": [vpc] if page else []}}


def _list_vswitches(world: World, params: Params, _now: float) -> Body:
    wanted = {"VSwitchId": "id", "RouteTableId": "table", "ZoneId": "zone"}
    found = [
        vswitch
        for vswitch in _in_vpc(world, params, world.file.vswitch)
        if all(not params.get(name) or params[name] == getattr(vswitch, field) for name, field in wanted.items())
    ]
    page, numbers = _page(found, params)
    return numbers | {"VSwitches": {"VSwitch": [_vswitch(world, vswitch) for vswitch in page]}}


def _vswitch(world: World, vswitch: VSwitch) -> Body:
    used = sum(each.vswitch == vswitch.id for each in world.file.instance)
    return {
        "VSwitchId": vswitch.id,
        "VpcId": world.file.vpc.id,
        "ZoneId": vswitch.zone,
        "CidrBlock": str(vswitch.cidr),
        "Ipv6CidrBlock": "",
        "Status": "Available",
        # The cloud keeps the first address and the last three of every vSwitch.
        "AvailableIpAddressCount": max(0, vswitch.cidr.num_addresses - 4 - used),
        "RouteTable": {"RouteTableId": vswitch.table, "RouteTableType": world.tables[vswitch.table].type},
    }


def _in_vpc(world: World, params: Params, items: Sequence[T]) -> Sequence[T]:
    here = params.get("VpcId") in {None, "", world.file.vpc.id} and params["RegionId"] == world.file.region
    return items if here else ()


def _page(items: Sequence[T], params: Params) -> tuple[Sequence[T], Body]:
    number, size = _number(params, "PageNumber", 1), _number(params, "PageSize", 10)
    if number < 1 or not 1 <= size <= _MOST_ITEMS:
        raise ApiError("InvalidParameter", f"PageNumber starts at 1, and PageSize is between 1 and {_MOST_ITEMS}.")
    start = (number - 1) * size
    return items[start : start + size], {"PageNumber": number, "PageSize": size, "TotalCount": len(items)}


def _offset(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token)) if token else 0
    except (ValueError, binascii.Error):
        raise ApiError("IllegalParam.NextToken", "Specified NextToken is not valid.") from None


def _must(params: Params, name: str) -> str:
    if not params.get(name):
        raise ApiError("MissingParameter", f"Miss mandatory parameter. {name}")
    return params[name]


def _number(params: Params, name: str, default: int) -> int:
    try:
        return int(params.get(name) or default)
    except ValueError:
        raise ApiError("InvalidParameter", f"Specified parameter {name} is not a number.") from None


def _flag(params: Params, name: str) -> bool:
    return params.get(name, "").lower() == "true"


_ACTIONS: Final[Mapping[str, Callable[[World, Params, float], Body]]] = {
    "CreateRouteEntry": _create,
    "ModifyRouteEntry": _modify,
    "DeleteRouteEntry": _delete,
    "DescribeRouteEntryList": _list_entries,
    "DescribeRouteTableList": _list_tables,
    "DescribeVpcs": _list_vpcs,
    "DescribeVSwitches": _list_vswitches,
}
