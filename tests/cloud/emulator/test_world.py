"""The emulated VPC takes and refuses what the cloud does, and its packets follow a write only when it has settled."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.emulator.actions import perform
from cloud.emulator.world import ApiError, Change, Hop, NextHop, Wanted, World
from cloud.emulator.worldfile import QUOTA
from tests.cloud.world import world_file

TABLE = "vtb-system"
VERSION = {"Version": "2016-04-28", "RegionId": "cn-shenzhen"}
LIST = VERSION | {"Action": "DescribeRouteEntryList", "RouteTableId": TABLE}
ME, HOST = NextHop("Instance", "i-nexthop"), NextHop("Instance", "i-host")


def wanted(destination: str = "10.244.0.0/16", hop: NextHop = ME, **more: str) -> Wanted:
    return Wanted(**({"table": TABLE} | more), destination=destination, hop=hop)


def fresh(settle_ms: int = 0) -> World:
    return World(world_file(settle_ms=settle_ms))


def custom(world: World, now: float = 1e9) -> list[str]:
    return [f"{entry.destination} {entry.status}" for entry in world.entries(TABLE, now) if entry.custom]


def routed(world: World, now: float) -> set[Hop]:
    return {hop for hop in world.hops(now) if hop.via is not None}


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        (wanted("10.244.0.0/33"), "InvalidCidrBlock.Malformed"),
        (wanted("nonsense"), "InvalidCidrBlock.Malformed"),
        (wanted("172.18.1.0/24"), "InvalidCidrBlock"),
        (wanted("172.18.1.128/25"), "InvalidCidrBlock"),
        (wanted("172.18.1.7"), "InvalidCidrBlock"),
        (wanted("100.64.0.0/10"), "InvalidCidrBlock"),
        (wanted("100.64.240.0/24"), "InvalidCidrBlock"),
        (wanted("127.0.0.0/8"), "IllegalParam.CidrBlock"),
        (wanted("169.254.1.0/24"), "IllegalParam.CidrBlock"),
        (wanted("2001:db8::/32"), "OperationDenied.VpcIpv6NotEnabled"),
        (wanted(hop=NextHop("Instance", "i-gone")), "InvalidNextHopId.NotFound"),
        (wanted(hop=NextHop("VpnGateway", "vpn-1")), "InvalidNextHopType"),
        (wanted(table="vtb-none"), "InvalidRouteTableId.NotFound"),
        (wanted(name="https://x"), "InvalidRouteEntryName.Malformed"),
        (wanted(name="x" * 129), "InvalidRouteEntryName.Malformed"),
        (wanted(description="http://x"), "InvalidDescription.Malformed"),
    ],
)
def test_what_the_cloud_never_takes(wish: Wanted, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        fresh().create(wish, 0.0)
    assert caught.value.code == code


@pytest.mark.parametrize("destination", ["0.0.0.0/0", "172.16.0.0/12", "172.18.0.0/16", "172.18.9.0/24", "192.0.2.7"])
def test_what_it_does_take(destination: str) -> None:
    world = fresh()
    world.create(wanted(destination), 0.0)
    assert len(custom(world)) == 1


def test_an_entry_is_pending_until_it_settles_and_packets_follow_it_only_then() -> None:
    world = fresh(settle_ms=500)
    entry = world.create(wanted(), 0.0)
    assert custom(world, 0.4) == ["10.244.0.0/16 Pending"]
    assert routed(world, 0.4) == set()
    assert world.next_change(0.4) == pytest.approx(0.1)
    assert custom(world, 0.5) == ["10.244.0.0/16 Available"]
    hop = Hop(TABLE, IPv4Network("10.244.0.0/16"), IPv4Address("172.18.2.10"), "router0")
    assert routed(world, 0.5) == {hop}
    world.modify(entry, Change(hop=HOST), 1.0)
    assert routed(world, 1.4) == {hop}
    assert [each.via for each in routed(world, 1.5)] == [IPv4Address("172.18.1.5")]
    world.delete(entry, 2.0)
    assert custom(world, 2.4) == ["10.244.0.0/16 Deleting"]
    assert len(routed(world, 2.4)) == 1
    assert routed(world, 2.5) == set()
    assert custom(world, 2.5) == []
    assert world.next_change(2.5) is None


def test_nothing_is_written_while_another_entry_settles() -> None:
    world = fresh(settle_ms=500)
    first = world.create(wanted("10.1.0.0/16"), 0.0)
    with pytest.raises(ApiError, match="TaskConflict"):
        world.create(wanted("10.2.0.0/16"), 0.1)
    with pytest.raises(ApiError, match="IncorrectRouteEntryStatus"):
        world.delete(first, 0.1)


def test_a_second_entry_for_a_cidr_is_a_duplicate_by_two_names() -> None:
    world = fresh()
    world.create(wanted(), 0.0)
    with pytest.raises(ApiError, match=r"Duplicated\.VpcNextHop"):
        world.create(wanted(), 0.0)
    with pytest.raises(ApiError, match=r"InvalidCIDRBlock\.Duplicate"):
        world.create(wanted(hop=HOST), 0.0)


def test_a_client_token_makes_a_create_repeatable_but_not_changeable() -> None:
    world = fresh()
    first = world.create(wanted(), 0.0, token="t")
    assert world.create(wanted(), 1.0, token="t") == first
    with pytest.raises(ApiError, match="IdempotentParameterMismatch"):
        world.create(wanted("10.2.0.0/16"), 0.0, token="t")


def test_a_dry_run_says_yes_by_an_error_and_changes_nothing() -> None:
    world = fresh()
    with pytest.raises(ApiError, match="DryRunOperation"):
        world.create(wanted(), 0.0, dry_run=True)
    assert custom(world) == []


def test_system_entries_cannot_be_changed() -> None:
    world = fresh()
    system = world.entries(TABLE, 0.0)[0].id
    with pytest.raises(ApiError, match="OperationDenied"):
        world.delete(system, 0.0)
    with pytest.raises(ApiError, match="OperationDenied"):
        world.modify(system, Change(hop=ME), 0.0)


def test_a_next_hop_is_not_modified_to_itself_and_texts_change_at_once() -> None:
    world = fresh(settle_ms=500)
    entry = world.create(wanted(), 0.0)
    with pytest.raises(ApiError, match=r"OperationDenied\.NextHopNotChanged"):
        world.modify(entry, Change(hop=ME), 1.0)
    world.modify(entry, Change(name="n", description="d"), 1.0)
    assert custom(world, 1.0) == ["10.244.0.0/16 Available"]


def test_a_table_holds_its_quota_and_no_more() -> None:
    world = fresh()
    for n in range(QUOTA):
        world.create(wanted(f"10.200.{n}.0/24"), 0.0)
    with pytest.raises(ApiError, match="QuotaExceeded"):
        world.create(wanted(), 0.0)


@given(size=st.integers(1, 100), count=st.integers(0, 40))
def test_pages_put_together_are_the_table(size: int, count: int) -> None:
    world = fresh()
    for n in range(count):
        world.create(wanted(f"10.200.{n}.0/24"), 0.0)
    call = {
        "Version": "2016-04-28",
        "Action": "DescribeRouteEntryList",
        "RegionId": "cn-shenzhen",
        "RouteTableId": TABLE,
    }
    call["MaxResult"] = str(size)
    listed: list[str] = []
    token = ""
    while True:
        page = perform(world, call | {"NextToken": token}, 0.0)
        items = page["RouteEntrys"]["RouteEntry"]
        assert len(items) <= size
        listed += [item["RouteEntryId"] for item in items]
        token = page["NextToken"]
        if not token:
            break
    assert listed == [entry.id for entry in world.entries(TABLE, 0.0)]


def test_ten_to_a_page_unless_asked_otherwise() -> None:
    world = fresh()
    for n in range(20):
        world.create(wanted(f"10.200.{n}.0/24"), 0.0)
    call = {
        "Version": "2016-04-28",
        "Action": "DescribeRouteEntryList",
        "RegionId": "cn-shenzhen",
        "RouteTableId": TABLE,
    }
    assert len(perform(world, call, 0.0)["RouteEntrys"]["RouteEntry"]) == 10
    shown = perform(world, LIST | {"RouteEntryType": "custom", "MaxResult": "100"}, 0.0)
    assert shown["TotalCount"] == 20


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"Action": "CreateRouteEntry"}, "MissingParameter"),
        ({"Action": "DeleteRouteEntry"}, "ParamExclusive.RouteEntryIdAndRouteTableIdOrDestCidrBlock"),
        ({"Action": "DeleteRouteEntry", "RouteEntryId": "rte-none"}, "InvalidRouteEntry.NotFound"),
        (
            {"Action": "DeleteRouteEntry", "RouteTableId": TABLE, "DestinationCidrBlock": "1.0.0.0/8"},
            "InvalidRouteEntry.NotFound",
        ),
        ({"Action": "DescribeRouteEntryList", "RouteTableId": TABLE, "MaxResult": "101"}, "IllegalParam.MaxResult"),
        ({"Action": "DescribeRouteEntryList", "RouteTableId": TABLE, "NextToken": "?"}, "IllegalParam.NextToken"),
        ({"Action": "DescribeRouteEntryList", "RouteTableId": "vtb-none"}, "InvalidRouteTable.NotFound"),
        ({"Action": "DescribeVpcs", "PageSize": "51"}, "InvalidParameter"),
        ({"Action": "Nonsense"}, "InvalidAction.NotFound"),
        ({"Action": "DescribeVpcs", "Version": "1999-01-01"}, "InvalidVersion"),
        ({"Action": "DescribeVpcs", "RegionId": ""}, "MissingRegionId"),
    ],
)
def test_a_malformed_call_has_its_code(params: dict[str, str], code: str) -> None:
    with pytest.raises(ApiError) as caught:
        perform(fresh(), VERSION | params, 0.0)
    assert caught.value.code == code


def test_tables_are_listed_with_the_vswitches_that_use_them() -> None:
    call = {"Version": "2016-04-28", "Action": "DescribeRouteTableList", "RegionId": "cn-shenzhen", "VpcId": "vpc-sz"}
    told = perform(fresh(), call, 0.0)["RouterTableList"]["RouterTableListType"]
    assert {each["RouteTableId"]: each["VSwitchIds"]["VSwitchId"] for each in told} == {
        "vtb-system": ["vsw-hosts"],
        "vtb-other": ["vsw-router"],
        "vtb-unused": [],
    }
