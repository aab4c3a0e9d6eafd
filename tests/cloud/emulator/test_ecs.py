"""What old and other clients ask for beside the route calls: the same world, in the shapes that they read."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.emulator.actions import perform
from cloud.emulator.params import records, values
from cloud.emulator.world import ApiError, World
from tests.cloud.world import world_file


def ask(world: World, action: str, version: str = "2014-05-26", **params: str) -> dict[str, Any]:
    call = {"Version": version, "RegionId": "cn-shenzhen", "Action": action}
    return perform(world, call | {name.replace("_", "."): value for name, value in params.items()}, 0.0)


def test_an_interfaces_source_check_is_shown_and_switched() -> None:
    world = World(world_file())
    for state in ("True", "false"):
        ask(world, "ModifyNetworkInterfaceAttribute", NetworkInterfaceId="eni-nexthop", SourceDestCheck=state)
        shown = ask(world, "DescribeNetworkInterfaceAttribute", NetworkInterfaceId="eni-nexthop")
        assert shown["SourceDestCheck"] is (state == "True")
    listed = ask(world, "DescribeNetworkInterfaces", NetworkInterfaceId_1="eni-nexthop", NetworkInterfaceId_2="eni-x")
    (only,) = listed["NetworkInterfaceSets"]["NetworkInterfaceSet"]
    assert (only["InstanceId"], only["PrivateIpAddress"]) == ("i-nexthop", "172.18.2.10")


def test_instances_and_groups_are_listed_minimally() -> None:
    world = World(world_file())
    (only,) = ask(world, "DescribeInstances", InstanceIds='["i-host"]')["Instances"]["Instance"]
    assert only["VpcAttributes"]["PrivateIpAddress"]["IpAddress"] == ["172.18.1.5"]
    group = ask(world, "DescribeSecurityGroupAttribute", SecurityGroupId="sg-app", Direction="ingress")
    rules = group["Permissions"]["Permission"]
    assert [(rule["SourceCidrIp"], rule["IpProtocol"]) for rule in rules] == [("172.18.0.0/16", "ALL")]


def test_the_ecs_actions_belong_to_their_version_and_the_route_calls_to_both() -> None:
    world = World(world_file(settle_ms=0))
    with pytest.raises(ApiError, match=r"InvalidAction\.NotFound"):
        ask(world, "DescribeInstances", "2016-04-28")
    for version, cidr in (("2014-05-26", "10.1.0.0/16"), ("2016-04-28", "10.2.0.0/16")):
        made = {"RouteTableId": "vtb-system", "DestinationCidrBlock": cidr, "NextHopId": "i-nexthop"}
        assert ask(world, "CreateRouteEntry", version, **made)["RouteEntryId"].startswith("rte-")


def test_the_older_list_has_entries_inside_tables_and_a_flat_next_hop() -> None:
    world = World(world_file(settle_ms=0))
    ask(world, "CreateRouteEntry", RouteTableId="vtb-system", DestinationCidrBlock="10.1.0.0/16", NextHopId="i-host")
    (router,) = ask(world, "DescribeVRouters")["VRouters"]["VRouter"]
    assert "vtb-other" in router["RouteTableIds"]["RouteTableId"]
    listed = ask(world, "DescribeRouteTables", VRouterId=router["VRouterId"], PageSize="50")["RouteTables"][
        "RouteTable"
    ]
    (made,) = [e for table in listed for e in table["RouteEntrys"]["RouteEntry"] if e["Type"] == "Custom"]
    assert (made["InstanceId"], made["NextHopType"], made["Status"]) == ("i-host", "Instance", "Available")
    with pytest.raises(ApiError, match="MissingParameter"):
        ask(world, "DescribeRouteTables")


def test_one_vpc_and_one_vswitch_can_be_asked_for_by_name() -> None:
    world = World(world_file())
    assert ask(world, "DescribeVpcAttribute", VpcId="vpc-sz")["CidrBlock"] == "172.18.0.0/16"
    assert ask(world, "DescribeVSwitchAttributes", VSwitchId="vsw-hosts")["RouteTable"]["RouteTableId"] == "vtb-system"
    for action, name in (("DescribeVpcAttribute", "VpcId"), ("DescribeVSwitchAttributes", "VSwitchId")):
        with pytest.raises(ApiError, match="NotFound"):
            ask(world, action, **{name: "none"})


def test_lists_are_read_in_the_order_of_their_numbers() -> None:
    params = {"A.10": "ten", "A.2": "two", "A.0": "x", "A.b": "x", "B.1.Name": "n", "B.1.Value": "v", "A": "x"}
    assert values(params, "A") == ["two", "ten"]
    assert records(params, "B") == [{"Name": "n", "Value": "v"}]
