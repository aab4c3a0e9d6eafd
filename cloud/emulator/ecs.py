"""The ECS product's part (version 2014-05-26): instances, their network interfaces and security groups. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from cloud.emulator.params import Body, Params, flag, must, number, page, slice_of, values
from cloud.emulator.world import ApiError, World
from cloud.emulator.worldfile import Instance, SecurityGroup


def _instances(world: World, params: Params, _now: float) -> Body:
    try:
        wanted = json.loads(params.get("InstanceIds") or "[]")
    except ValueError:
        raise ApiError("InvalidParameter", "InstanceIds is a JSON array.") from None
    found = [
        each
        for each in world.instances.values()
        if (not wanted or each.id in wanted)
        and params.get("VpcId") in {None, "", world.file.vpc.id}
        and params.get("VSwitchId") in {None, "", each.vswitch}
        and params["RegionId"] == world.file.region
    ]
    shown, numbers = page(found, params)
    return numbers | {"Instances": {"Instance": [_instance(world, each) for each in shown]}}


def _instance(world: World, instance: Instance) -> Body:
    return {
        "InstanceId": instance.id,
        "InstanceName": instance.id,
        "RegionId": world.file.region,
        "ZoneId": world.vswitches[instance.vswitch].zone,
        "Status": "Running",
        "InstanceNetworkType": "vpc",
        "VpcAttributes": {
            "VpcId": world.file.vpc.id,
            "VSwitchId": instance.vswitch,
            "PrivateIpAddress": {"IpAddress": [str(instance.ip)]},
        },
        "EipAddress": {"IpAddress": str(instance.eip or "")},
        "SecurityGroupIds": {"SecurityGroupId": _groups(instance)},
        "NetworkInterfaces": {"NetworkInterface": [{"NetworkInterfaceId": instance.eni, "MacAddress": instance.mac}]},
    }


def _interfaces(world: World, params: Params, _now: float) -> Body:
    wanted = values(params, "NetworkInterfaceId")
    found = [
        each
        for each in world.instances.values()
        if (not wanted or each.eni in wanted)
        and params.get("InstanceId") in {None, "", each.id}
        and params.get("VSwitchId") in {None, "", each.vswitch}
        and params["RegionId"] == world.file.region
    ]
    if params.get("NextToken") or params.get("MaxResults"):
        shown, numbers = slice_of(found, params, number(params, "MaxResults", 10))
    else:
        shown, numbers = page(found, params)
    sets = [_interface(world, each) for each in shown]
    return numbers | {"NetworkInterfaceSets": {"NetworkInterfaceSet": sets}}


def _interface_attribute(world: World, params: Params, _now: float) -> Body:
    return _interface(world, _owner(world, params))


def _interface(world: World, instance: Instance) -> Body:
    return {
        "NetworkInterfaceId": instance.eni,
        "InstanceId": instance.id,
        "MacAddress": instance.mac,
        "Status": "InUse",
        "Type": "Primary",
        "VpcId": world.file.vpc.id,
        "VSwitchId": instance.vswitch,
        "PrivateIpAddress": str(instance.ip),
        "SourceDestCheck": world.source_dest_check[instance.eni],
        "SecurityGroupIds": {"SecurityGroupId": _groups(instance)},
    }


def _modify_interface(world: World, params: Params, _now: float) -> Body:
    instance = _owner(world, params)
    if params.get("SourceDestCheck"):
        world.source_dest_check[instance.eni] = flag(params, "SourceDestCheck")
    return {}


def _owner(world: World, params: Params) -> Instance:
    eni = must(params, "NetworkInterfaceId")
    for instance in world.instances.values():
        if instance.eni == eni:
            return instance
    raise ApiError("InvalidEniId.NotFound", "The specified NetworkInterfaceId does not exist.", status=404)


def _groups(instance: Instance) -> list[str]:
    return [instance.security_group] if instance.security_group else []


def _security_groups(world: World, params: Params, _now: float) -> Body:
    here = params.get("VpcId") in {None, "", world.file.vpc.id} and params["RegionId"] == world.file.region
    kind = params.get("SecurityGroupType")
    found = [each for each in world.file.security_group if here and kind in {None, "", each.type}]
    shown, numbers = page(found, params)
    groups = [
        {
            "SecurityGroupId": each.id,
            "SecurityGroupName": each.id,
            "SecurityGroupType": each.type,
            "VpcId": world.file.vpc.id,
            "Description": "",
            "ServiceManaged": False,
            "Tags": {"Tag": []},
        }
        for each in shown
    ]
    return numbers | {"RegionId": world.file.region, "SecurityGroups": {"SecurityGroup": groups}}


def _group_attribute(world: World, params: Params, _now: float) -> Body:
    wanted = must(params, "SecurityGroupId")
    for group in world.file.security_group:
        if group.id == wanted:
            return _group(world, group, params.get("Direction", "all").lower())
    raise ApiError("InvalidSecurityGroupId.NotFound", "The SecurityGroupId does not exist.", status=404)


def _group(world: World, group: SecurityGroup, direction: str) -> Body:
    rules = [
        {
            "Direction": rule.direction,
            "IpProtocol": rule.protocol,
            "PortRange": rule.ports,
            "Policy": rule.policy,
            "Priority": str(rule.priority),
            "SourceCidrIp": str(rule.cidr) if rule.direction == "ingress" else "",
            "DestCidrIp": str(rule.cidr) if rule.direction == "egress" else "",
            "NicType": "intranet",
        }
        for rule in group.rule
        if direction in {"all", rule.direction}
    ]
    return {
        "SecurityGroupId": group.id,
        "SecurityGroupName": group.id,
        "RegionId": world.file.region,
        "VpcId": world.file.vpc.id,
        "InnerAccessPolicy": "Accept",
        "NextToken": "",
        "Permissions": {"Permission": rules},
    }


ACTIONS: Final[Mapping[str, Callable[[World, Params, float], Body]]] = {
    "DescribeInstances": _instances,
    "DescribeNetworkInterfaces": _interfaces,
    "DescribeNetworkInterfaceAttribute": _interface_attribute,
    "ModifyNetworkInterfaceAttribute": _modify_interface,
    "DescribeSecurityGroupAttribute": _group_attribute,
    "DescribeSecurityGroups": _security_groups,
}
