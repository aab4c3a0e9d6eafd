"""Whose an entry is when machines take over from each other, and when somebody changes one by hand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from cloud.answers import Mark
from cloud.emulator.world import Change, NextHop, Wanted
from cloud.provider import Duplicate, Owner, Rejected
from tests.cloud.direct import ROOMY, Direct, many
from tests.cloud.world import ME, POD_CIDR, SERVICE_CIDR, world_file

PEER = replace(ME, instance_id="i-host", private_ip=IPv4Address("172.18.1.5"))


def taken_over(cloud: Direct, count: int) -> list[int]:
    """Let one instance of an appliance hold CIDRs, and another take them over; count those routed after every call."""
    wanted = many(count)
    routed: list[int] = []

    def watch() -> None:
        hops = {hop.destination for hop in cloud.world.hops(cloud.now) if hop.via is not None}
        listed = {entry.destination for entry in cloud.world.entries("vtb-system", cloud.now)}
        routed.append(sum(cidr in hops and cidr in listed for cidr in wanted))

    async def main() -> None:
        assert await cloud.provider(Mark("a"), identity=PEER, quota=ROOMY).ensure(wanted) == {}
        cloud.watch = watch
        assert await cloud.provider(Mark("a", epoch=2), quota=ROOMY).ensure(wanted) == {}

    asyncio.run(main())
    assert {entry.hop.id for entry in cloud.world.entries("vtb-system", cloud.now) if entry.custom} == {"i-nexthop"}
    return routed


def test_two_hundred_entries_are_taken_over_without_a_moment_in_which_one_is_missing() -> None:
    cloud = Direct(file=world_file(settle_ms=15, tables=1))
    assert set(taken_over(cloud, 200)) == {200}
    assert set(cloud.writes()) == {"CreateRouteEntries", "ModifyRouteEntry"}


@pytest.mark.parametrize("code", ["InvalidAction.NotFound", "OperationDenied.NextHopTypeNotPermitted"])
def test_where_an_entry_cannot_be_changed_in_place_it_is_made_again_at_once(code: str) -> None:
    cloud = Direct()
    cloud.fail = lambda action: Rejected("no", code=code) if action == "ModifyRouteEntry" else None
    assert min(taken_over(cloud, 2)) == 1  # one at a time
    assert cloud.writes()[2:] == ["ModifyRouteEntry"] * 2 + ["DeleteRouteEntry", "CreateRouteEntry"] * 2


def test_two_machines_of_one_appliance_leave_each_others_entries_alone() -> None:
    """Nobody said that one of them takes over: neither points the other's entries here, nor removes them."""

    async def main() -> None:
        cloud = Direct()
        one, other = cloud.provider(Mark("a"), identity=PEER), cloud.provider(Mark("a"))
        await one.ensure([POD_CIDR])
        assert isinstance((await other.ensure([POD_CIDR]))[POD_CIDR], Duplicate)
        assert await other.withdraw([POD_CIDR]) == {}
        assert [entry.owner for entry in (await other.observe()).to(POD_CIDR)] == [Owner.FOREIGN]
        assert [entry.owner for entry in (await one.observe()).to(POD_CIDR)] == [Owner.OURS]
        assert cloud.writes() == ["CreateRouteEntry"]

    asyncio.run(main())


def test_who_takes_over_points_entries_here_and_removes_none_that_leads_to_the_other_machine() -> None:
    async def main() -> None:
        cloud = Direct()
        old, new = cloud.provider(Mark("a"), identity=PEER), cloud.provider(Mark("a", epoch=2))
        await old.ensure([POD_CIDR, SERVICE_CIDR])
        assert {entry.owner for entry in (await new.observe()).to(POD_CIDR)} == {Owner.EARLIER}
        assert await new.withdraw([POD_CIDR]) == {}
        assert await new.ensure([SERVICE_CIDR]) == {}
        hops = {
            str(entry.destination): entry.hop.id for entry in cloud.world.entries("vtb-system", 0.0) if entry.custom
        }
        assert hops == {str(POD_CIDR): "i-host", str(SERVICE_CIDR): "i-nexthop"}
        # From here on the old one keeps its hands off what was taken over, and still has the rest.
        assert set(await old.ensure([POD_CIDR, SERVICE_CIDR])) == {SERVICE_CIDR}
        assert await old.withdraw([POD_CIDR, SERVICE_CIDR]) == {}
        assert cloud.ours() == [str(SERVICE_CIDR)]
        assert await new.withdraw([SERVICE_CIDR]) == {}
        assert cloud.ours() == []

    asyncio.run(main())


def test_what_a_later_epoch_took_over_is_not_taken_back() -> None:
    async def main() -> None:
        cloud = Direct()
        await cloud.provider(Mark("a", epoch=2), identity=PEER).ensure([POD_CIDR])
        old = cloud.provider(Mark("a"))
        assert isinstance((await old.ensure([POD_CIDR]))[POD_CIDR], Duplicate)
        await old.withdraw([POD_CIDR])
        assert cloud.writes() == ["CreateRouteEntry"]

    asyncio.run(main())


def test_a_next_hop_that_somebody_changed_by_hand_is_shown_and_not_fought_over() -> None:
    async def main() -> None:
        cloud = Direct()
        provider = cloud.provider()
        await provider.ensure([POD_CIDR])
        (entry,) = (await provider.observe()).to(POD_CIDR)
        cloud.world.modify(entry.entry_id, Change(hop=NextHop("Instance", "i-host")), cloud.now)
        (changed,) = (await provider.observe()).to(POD_CIDR)
        assert changed.owner is Owner.CHANGED
        with_what = (await provider.ensure([POD_CIDR]))[POD_CIDR]
        assert isinstance(with_what, Duplicate)
        assert "by hand" in str(with_what)
        assert await provider.withdraw([POD_CIDR]) == {}
        assert cloud.writes() == ["CreateRouteEntry"]
        await provider.adopt(POD_CIDR)
        (back,) = (await provider.observe()).to(POD_CIDR)
        assert (back.owner, back.next_hop, back.entry_id) == (Owner.OURS, "i-nexthop", entry.entry_id)

    asyncio.run(main())


@pytest.mark.parametrize("hop", ["i-host", "i-nexthop"])
def test_adopting_marks_the_entry_that_is_there(hop: str) -> None:
    async def main() -> None:
        cloud = Direct("late")
        provider = cloud.provider()
        theirs = cloud.world.create(Wanted("vtb-system", str(POD_CIDR), NextHop("Instance", hop)), 0.0)
        await provider.adopt(POD_CIDR)
        (entry,) = (await provider.observe()).to(POD_CIDR)
        assert (entry.owner, entry.next_hop, entry.entry_id) == (Owner.OURS, "i-nexthop", theirs)
        assert cloud.writes() == ["ModifyRouteEntry"]

    asyncio.run(main())


def test_the_clouds_own_entry_is_not_adopted() -> None:
    cloud = Direct()
    with pytest.raises(Rejected, match="nothing to adopt"):
        asyncio.run(cloud.provider().adopt(IPv4Network("172.18.1.0/24")))
    assert cloud.writes() == []
