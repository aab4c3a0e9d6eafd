"""Many CIDRs at once, over a world without HTTP: few writes, none of them blind, and room left in the table."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

import pytest

from cloud.emulator.world import NextHop, Wanted
from cloud.provider import Conflict, Duplicate, Quota, QuotaExceeded, Rejected, Unavailable
from tests.cloud.direct import Direct, Fault, many
from tests.cloud.world import world_file


def test_two_hundred_cidrs_into_an_empty_table_are_four_writes_and_a_second_apply_is_none() -> None:
    cloud = Direct(file=world_file(settle_ms=15, tables=1))  # its quota is 200, and so is what we think of it
    provider = cloud.provider()
    assert asyncio.run(provider.ensure(many(200))) == {}
    assert cloud.writes() == ["CreateRouteEntries"] * 4
    assert len(cloud.ours()) == 200
    assert asyncio.run(provider.ensure(many(200))) == {}
    assert len(cloud.writes()) == 4
    assert asyncio.run(provider.withdraw(many(200))) == {}
    assert cloud.writes()[4:] == ["DeleteRouteEntries"] * 4
    assert cloud.ours() == []


def test_each_entry_of_a_batch_that_fails_is_told_and_the_others_are_made() -> None:
    cloud = Direct()
    wanted = [*many(6), IPv4Network("172.18.1.0/25"), IPv4Network("10.9.0.0/16")]
    cloud.world.create(Wanted("vtb-system", "10.9.0.0/16", NextHop("Instance", "i-host")), 0.0)
    refused = asyncio.run(cloud.provider().ensure(wanted))
    assert {cidr: type(error) for cidr, error in refused.items()} == {wanted[6]: Rejected, wanted[7]: Duplicate}
    assert set(cloud.ours()) == {str(cidr) for cidr in wanted if cidr != wanted[6]}
    # The batch's rules may be stricter than the single call's (their pages differ), so that one has the last word.
    assert cloud.writes() == ["CreateRouteEntries", "CreateRouteEntry"]


@pytest.mark.parametrize("fault", ["late", "lost", Conflict("x"), Unavailable("x")])
def test_a_batch_without_an_answer_is_read_back_before_anything_else(fault: Fault) -> None:
    cloud = Direct(fault)
    assert asyncio.run(cloud.provider().ensure(many(6))) == {}
    assert cloud.writes() == ["CreateRouteEntries"] * (1 if fault == "late" else 2)
    first = [action for action, _ in cloud.sent].index("CreateRouteEntries")
    assert cloud.sent[first + 1][0] == "DescribeRouteEntryList"
    assert len(cloud.ours()) == 6


def test_where_the_cloud_has_no_batches_it_goes_one_by_one() -> None:
    cloud = Direct()
    unknown = Rejected("no such call", code="InvalidAction.NotFound")
    cloud.fail = lambda action: unknown if action.endswith("Entries") else None
    provider = cloud.provider()
    assert asyncio.run(provider.ensure(many(6))) == {}
    assert asyncio.run(provider.withdraw(many(6))) == {}
    assert cloud.writes() == [
        *("CreateRouteEntries", *["CreateRouteEntry"] * 6, "DeleteRouteEntries", *["DeleteRouteEntry"] * 6)
    ]


def test_a_table_is_filled_up_to_the_reserve_that_others_need_and_an_exact_aggregate_is_named() -> None:
    cloud = Direct()
    cloud.world.create(Wanted("vtb-system", "10.9.0.0/16", NextHop("Instance", "i-host")), 0.0)
    wanted = many(8)
    refused = asyncio.run(cloud.provider(quota=Quota(limit=10, reserve=3)).ensure(wanted))
    assert set(refused) == set(wanted[6:])
    assert all(isinstance(error, QuotaExceeded) for error in refused.values())
    assert "10.0.0.0/21 is exactly 10.0.0.0/24, 10.0.1.0/24" in str(refused[wanted[7]])
    assert len(cloud.ours()) == 7


def test_a_list_that_is_short_of_its_own_count_is_no_answer() -> None:
    cloud = Direct()
    whole = cloud._act

    def short(action: str, params: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
        answer = whole(action, params, fault)
        return answer | {"RouteEntrys": {"RouteEntry": []}} if "RouteEntrys" in answer else answer

    cloud._act = short  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="is short: 0 of 3"):
        asyncio.run(cloud.provider().observe())
