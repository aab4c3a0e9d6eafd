"""The batch calls: fifty at once, each with an answer of its own."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.emulator.actions import MOST_AT_ONCE, perform
from cloud.emulator.world import ApiError, World
from tests.cloud.world import world_file

TABLE = "vtb-system"


def call(world: World, action: str, items: list[dict[str, str]], now: float = 0.0, **more: str) -> dict[str, Any]:
    listed = {f"RouteEntries.{n}.{key}": value for n, item in enumerate(items, 1) for key, value in item.items()}
    head = {"Version": "2016-04-28", "RegionId": "cn-shenzhen", "Action": action}
    return perform(world, head | listed | more, now)


def wish(destination: str, hop: str = "i-nexthop", table: str = TABLE) -> dict[str, str]:
    return {"RouteTableId": table, "DstCidrBlock": destination, "NextHop": hop, "NextHopType": "Instance", "Name": "n"}


def custom(world: World, now: float = 1e9) -> list[str]:
    return [str(entry.destination) for entry in world.entries(TABLE, now) if entry.custom]


def test_fifty_entries_are_one_call_and_one_settling() -> None:
    world = World(world_file(settle_ms=500))
    told = call(world, "CreateRouteEntries", [wish(f"10.{n}.0.0/16") for n in range(50)])
    assert (told["SuccessCount"], told["FailedCount"], len(told["RouteEntryIds"])) == (50, 0, 50)
    assert "Code" not in told
    with pytest.raises(ApiError, match="TaskConflict"):
        call(world, "CreateRouteEntries", [wish("10.200.0.0/16")], 0.1)
    assert len(custom(world)) == 50


def test_one_that_fails_fails_alone_and_says_which() -> None:
    world = World(world_file(settle_ms=0))
    call(world, "CreateRouteEntries", [wish("10.1.0.0/16")])
    told = call(world, "CreateRouteEntries", [wish("10.1.0.0/16"), wish("10.2.0.0/16"), wish("10.3.0.0/16", "i-gone")])
    assert (told["SuccessCount"], told["FailedCount"]) == (1, 2)
    assert [(each["DstCidrBlock"], each["FailedCode"]) for each in told["FailedRouteEntries"]] == [
        ("10.1.0.0/16", "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE"),
        ("10.3.0.0/16", "InvalidNextHopId.NotFound"),
    ]
    assert custom(world) == ["10.1.0.0/16", "10.2.0.0/16"]


def test_a_batch_deletes_by_id_or_by_table_and_destination() -> None:
    world = World(world_file(settle_ms=0))
    ids = call(world, "CreateRouteEntries", [wish("10.1.0.0/16"), wish("10.2.0.0/16")])["RouteEntryIds"]
    second = {"RouteTableId": TABLE, "DstCidrBlock": "10.2.0.0/16", "NextHop": "i-nexthop"}
    gone = {"RouteTableId": TABLE, "RouteEntryId": "rte-gone"}
    told = call(world, "DeleteRouteEntries", [{"RouteTableId": TABLE, "RouteEntryId": ids[0]}, second, gone])
    assert told["SuccessCount"] == 2
    failed = [(each["RouteEntryId"], each["FailedCode"]) for each in told["FailedRouteEntries"]]
    assert failed == [("rte-gone", "VPC_ROUTER_ENTRY_NOT_EXIST")]
    assert custom(world) == []


def test_a_dry_run_of_a_batch_changes_nothing() -> None:
    world = World(world_file(settle_ms=0))
    with pytest.raises(ApiError, match="DryRunOperation"):
        call(world, "CreateRouteEntries", [wish("10.1.0.0/16")], DryRun="TRUE")
    assert custom(world) == []


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([], "MissingParameter"),
        ([wish(f"10.{n}.0.0/16") for n in range(MOST_AT_ONCE + 1)], "InvalidParameter"),
        ([{"DstCidrBlock": "10.0.0.0/8", "NextHop": "i-nexthop"}], "MissingParam.RouteTableId"),
    ],
)
def test_a_batch_as_a_whole_is_refused(items: list[dict[str, str]], code: str) -> None:
    with pytest.raises(ApiError) as caught:
        call(World(world_file(settle_ms=0)), "CreateRouteEntries", items)
    assert caught.value.code == code
