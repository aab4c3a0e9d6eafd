"""What the API lists of the VPC, its vSwitches and its route tables, in the API's own shapes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from cloud.emulator.params import Body, Params, must, page, records
from cloud.emulator.world import ApiError, World
from cloud.emulator.worldfile import RouteTable, VSwitch

T = TypeVar("T")


def router_id(world: World) -> str:
    """Return the id of the VPC's one vRouter."""
    return f"vrt-{world.file.vpc.id}"


def _table_list(world: World, params: Params, _now: float) -> Body:
    wanted = {"RouteTableId": "id", "RouteTableType": "type"}
    found = [
        table
        for table in _in_vpc(world, params, tuple(world.tables.values()))
        if all(not params.get(name) or params[name] == getattr(table, field) for name, field in wanted.items())
        and _has_tags(table, params)
    ]
    shown, numbers = page(found, params)
    return numbers | {"RouterTableList": {"RouterTableListType": [_table(world, table) for table in shown]}}


def _has_tags(table: RouteTable, params: Params) -> bool:
    """Tell whether the table carries every tag that is asked for; one that is asked for without a value has any."""
    there = [_tag(each) for each in table.tags]
    return all(
        any(tag["Key"] == asked.get("Key") and asked.get("Value", "") in {"", tag["Value"]} for tag in there)
        for asked in records(params, "Tag")
    )


def _tag(text: str) -> dict[str, str]:
    key, _, value = text.partition("=")
    return {"Key": key, "Value": value}


def _table(world: World, table: RouteTable) -> Body:
    return {
        "RouteTableId": table.id,
        "RouteTableName": "",
        "RouteTableType": table.type,
        "RouterType": "VRouter",
        "RouterId": router_id(world),
        "VpcId": world.file.vpc.id,
        "AssociateType": "VSwitch",
        "Status": "Available",
        "VSwitchIds": {"VSwitchId": _users(world, table)},
        "GatewayIds": {"GatewayIds": []},
        "RoutePropagationEnable": True,
        "Description": "",
        "Tags": {"Tag": [_tag(each) for each in table.tags]},
    }


def chosen_tables(world: World, params: Params) -> tuple[Sequence[RouteTable], Body]:
    """Return the tables that a DescribeRouteTables call is about, and the numbers of its page."""
    router = params.get("VRouterId") or params.get("RouterId") or router_id(world)
    found = [
        table
        for table in world.tables.values()
        if router == router_id(world)
        and params.get("RouteTableId") in {None, "", table.id}
        and params.get("Type", params.get("RouteTableType")) in {None, "", table.type}
        and params["RegionId"] == world.file.region
    ]
    return page(found, params)


def old_table(world: World, table: RouteTable) -> Body:
    """Return a table as DescribeRouteTables shows it, but for its entries."""
    return {
        "RouteTableId": table.id,
        "VRouterId": router_id(world),
        "RouteTableType": table.type,
        "CreationTime": "2026-01-01T00:00:00Z",
        "Status": "Available",
        "ResourceGroupId": "",
        "VSwitchIds": {"VSwitchId": _users(world, table)},
    }


def _users(world: World, table: RouteTable) -> list[str]:
    return [each.id for each in world.file.vswitch if each.table == table.id]


def _vrouters(world: World, params: Params, _now: float) -> Body:
    here = params.get("VRouterId") in {None, "", router_id(world)} and params["RegionId"] == world.file.region
    shown, numbers = page([world.file] if here else [], params)
    router = {
        "VRouterId": router_id(world),
        "VRouterName": "",
        "VpcId": world.file.vpc.id,
        "RegionId": world.file.region,
        "CreationTime": "2026-01-01T00:00:00Z",
        "Description": "",
        "RouteTableIds": {"RouteTableId": list(world.tables)},
    }
    return numbers | {"VRouters": {"VRouter": [router] if shown else []}}


def _vpcs(world: World, params: Params, _now: float) -> Body:
    asked = [each for each in params.get("VpcId", "").split(",") if each]
    here = params["RegionId"] == world.file.region and (not asked or world.file.vpc.id in asked)
    shown, numbers = page([world.file] if here else [], params)
    tables = {"RouterTableIds": {"RouterTableIds": list(world.tables)}}
    return numbers | {"Vpcs": {"Vpc": [_vpc(world) | tables] if shown else []}}


def _vpc(world: World) -> Body:
    file = world.file
    return {
        "VpcId": file.vpc.id,
        "VpcName": "",
        "RegionId": file.region,
        "CidrBlock": str(file.vpc.cidr),
        "SecondaryCidrBlocks": {"SecondaryCidrBlock": []},
        "UserCidrs": {"UserCidr": []},
        "Ipv6CidrBlock": "",
        "Ipv6CidrBlocks": {"Ipv6CidrBlock": []},
        "VRouterId": router_id(world),
        "VSwitchIds": {"VSwitchId": [each.id for each in file.vswitch]},
        "Status": "Available",
        "IsDefault": False,
    }


def _vpc_attribute(world: World, params: Params, _now: float) -> Body:
    if must(params, "VpcId") != world.file.vpc.id:
        raise ApiError("InvalidVpcId.NotFound", "Specified VPC does not exist.", status=404)
    return _vpc(world) | {
        "AssociatedCens": {"AssociatedCen": []},
        "CloudResources": {"CloudResourceSetType": [{"ResourceType": "VRouter", "ResourceCount": 1}]},
        "ClassicLinkEnabled": False,
    }


def _vswitches(world: World, params: Params, _now: float) -> Body:
    wanted = {"VSwitchId": "id", "RouteTableId": "table", "ZoneId": "zone"}
    found = [
        vswitch
        for vswitch in _in_vpc(world, params, world.file.vswitch)
        if all(not params.get(name) or params[name] == getattr(vswitch, field) for name, field in wanted.items())
    ]
    shown, numbers = page(found, params)
    return numbers | {"VSwitches": {"VSwitch": [_vswitch(world, vswitch) for vswitch in shown]}}


def _vswitch_attributes(world: World, params: Params, _now: float) -> Body:
    vswitch = world.vswitches.get(must(params, "VSwitchId"))
    if vswitch is None:
        raise ApiError("InvalidVswitchID.NotFound", "Specified VSwitch does not exist.", status=404)
    return _vswitch(world, vswitch) | {"CloudResources": {"CloudResourceSetType": []}}


def _vswitch(world: World, vswitch: VSwitch) -> Body:
    used = sum(each.vswitch == vswitch.id for each in world.file.instance)
    return {
        "VSwitchId": vswitch.id,
        "VSwitchName": "",
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


ACTIONS: Final[Mapping[str, Callable[[World, Params, float], Body]]] = {
    "DescribeRouteTableList": _table_list,
    "DescribeVpcs": _vpcs,
    "DescribeVpcAttribute": _vpc_attribute,
    "DescribeVRouters": _vrouters,
    "DescribeVSwitches": _vswitches,
    "DescribeVSwitchAttributes": _vswitch_attributes,
}
