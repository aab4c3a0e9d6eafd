"""The provider over a world without HTTP, whose calls fail on demand: after every failure the table is read first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.answers import Mark
from cloud.emulator.world import Change, NextHop, Wanted
from cloud.provider import (
    CloudError,
    Conflict,
    Denied,
    Duplicate,
    Owner,
    Quota,
    QuotaExceeded,
    Rejected,
    Throttled,
    Unavailable,
)
from tests.cloud.direct import PACE, ROOMY, Direct, Fault
from tests.cloud.world import ME, POD_CIDR, SERVICE_CIDR, world_file


@pytest.mark.parametrize("fault", [Throttled("x"), Conflict("x"), Unavailable("x")])
def test_a_write_that_failed_is_sent_again_after_a_look_with_the_same_token(fault: CloudError) -> None:
    cloud = Direct(fault, fault)
    asyncio.run(cloud.provider().ensure([POD_CIDR]))
    assert cloud.ours() == [str(POD_CIDR)]
    assert len({params["ClientToken"] for action, params in cloud.sent if action == "CreateRouteEntry"}) == 1
    actions = [action for action, _ in cloud.sent][1:]
    assert actions == ["DescribeRouteEntryList", "CreateRouteEntry"] * 3 + ["DescribeRouteEntryList"]


def test_a_write_that_happened_but_was_not_answered_is_not_sent_again() -> None:
    cloud = Direct("late", "late")
    provider = cloud.provider()
    asyncio.run(provider.ensure([POD_CIDR]))
    asyncio.run(provider.withdraw([POD_CIDR]))
    assert cloud.writes() == ["CreateRouteEntry", "DeleteRouteEntry"]
    assert cloud.ours() == []


def test_what_does_not_pass_is_not_tried_again() -> None:
    cloud = Direct(Denied("x"))
    with pytest.raises(Denied):
        asyncio.run(cloud.provider().ensure([POD_CIDR]))
    assert cloud.writes() == ["CreateRouteEntry"]


@pytest.mark.parametrize("fault", [QuotaExceeded("x"), Rejected("x")])
def test_what_concerns_one_cidr_is_returned_and_stops_no_other(fault: CloudError) -> None:
    cloud = Direct(fault)
    assert asyncio.run(cloud.provider().ensure([POD_CIDR, SERVICE_CIDR])) == {POD_CIDR: fault}
    assert cloud.writes() == ["CreateRouteEntry"] * 2
    assert cloud.ours() == [str(SERVICE_CIDR)]


def test_an_error_that_stays_is_handed_on_after_the_allowed_tries() -> None:
    cloud = Direct(*[Throttled("x", code="Throttling.User", request_id="R-1")] * 9)
    with pytest.raises(Throttled) as caught:
        asyncio.run(cloud.provider().ensure([POD_CIDR]))
    assert caught.value.request_id == "R-1"
    assert len(cloud.writes()) == PACE.tries


def test_each_create_has_a_token_of_its_own() -> None:
    cloud = Direct()
    provider = cloud.provider()
    asyncio.run(provider.ensure([POD_CIDR]))
    asyncio.run(provider.ensure([SERVICE_CIDR]))
    asyncio.run(provider.withdraw([POD_CIDR]))
    asyncio.run(provider.ensure([POD_CIDR]))
    tokens = [params["ClientToken"] for action, params in cloud.sent if action == "CreateRouteEntry"]
    assert len(set(tokens)) == 3
    assert all(len(token) <= 64 and token.isascii() for token in tokens)


def test_a_delete_names_the_entry_by_its_own_id() -> None:
    cloud = Direct()
    provider = cloud.provider()
    asyncio.run(provider.ensure([POD_CIDR]))
    asyncio.run(provider.withdraw([POD_CIDR]))
    assert [set(params) for action, params in cloud.sent if action == "DeleteRouteEntry"] == [{"RouteEntryId"}]


faults = st.lists(
    st.sampled_from([None, "late", Throttled("x"), Conflict("x"), Unavailable("x"), Denied("x")]), max_size=12
)
steps = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(faults=faults, steps=steps)
def test_whatever_fails_strangers_stay_and_the_end_state_comes_when_the_faults_stop(
    faults: list[Fault], steps: list[tuple[bool, int]]
) -> None:
    async def main() -> None:
        cloud = Direct(*faults)
        foreign = Wanted("vtb-system", "10.0.0.0/16", NextHop("Instance", "i-host"))
        cloud.world.create(foreign, 0.0)
        before = [entry for entry in cloud.world.entries("vtb-system", 0.0) if entry.custom]
        provider = cloud.provider()
        wanted: dict[int, bool] = {}
        for there, n in steps:
            wanted[n] = there
            act = provider.ensure if there else provider.withdraw
            with contextlib.suppress(CloudError):
                await act([IPv4Network(f"10.{n}.0.0/16")])
        cloud.faults.clear()
        for n, there in wanted.items():
            refused = await (provider.ensure if there else provider.withdraw)([IPv4Network(f"10.{n}.0.0/16")])
            assert not refused or n == 0
        seen = await provider.observe()
        ours = {str(entry.destination) for entry in seen.entries if entry.owner is Owner.OURS}
        assert ours == {f"10.{n}.0.0/16" for n, there in wanted.items() if there and n != 0}
        assert before[0] in cloud.world.entries("vtb-system", 0.0)

    logging.disable(logging.INFO)
    try:
        asyncio.run(main())
    finally:
        logging.disable(logging.NOTSET)


# ---- what concerns one, and what concerns all ------------------------------------------------------------------------


def against(cidr: IPv4Network, error: CloudError, **more: Any) -> Direct:
    """Return a cloud in which every single write about one CIDR fails."""

    class Against(Direct):
        async def __call__(self, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
            ids = {entry.id: entry.destination for entry in self.world.entries("vtb-system", self.now)}
            about = params.get("DestinationCidrBlock") or ids.get(str(params.get("RouteEntryId")))
            self.fail = lambda _: error if str(about) == str(cidr) else None
            return await super().__call__(action, params)

    return Against(**more)


LASTING = [Conflict("x", code="TaskConflict"), Unavailable("x", code="NeverHeardOf.That"), Unavailable("timed out")]


@pytest.mark.parametrize("error", LASTING)
def test_a_write_that_fails_for_ever_is_told_for_its_cidr_and_the_others_are_done(error: CloudError) -> None:
    cloud = against(POD_CIDR, error)
    provider = cloud.provider()
    others = many(3)
    assert asyncio.run(provider.ensure([POD_CIDR, *others])) == {POD_CIDR: error}
    assert cloud.ours() == [str(cidr) for cidr in others]
    assert len(cloud.writes()) == PACE.tries + 3


@pytest.mark.parametrize("error", LASTING)
def test_a_deletion_that_fails_for_ever_is_told_for_its_cidr_and_the_others_go(error: CloudError) -> None:
    cloud = against(POD_CIDR, error)
    others = many(3)
    for cidr in [POD_CIDR, *others]:
        cloud.world.create(
            Wanted("vtb-system", str(cidr), NextHop("Instance", "i-nexthop"), *texts(Mark("i-nexthop"))), 0.0
        )
    assert asyncio.run(cloud.provider().withdraw([POD_CIDR, *others])) == {POD_CIDR: error}
    assert cloud.ours() == [str(POD_CIDR)]


def texts(mark: Mark) -> tuple[str, str]:
    return mark.name, mark.description


def test_a_batch_that_fails_for_ever_is_taken_apart() -> None:
    cloud = Direct()
    cloud.fail = lambda action: Unavailable("x", code="NeverHeardOf.That") if action == "CreateRouteEntries" else None
    assert asyncio.run(cloud.provider().ensure(many(8))) == {}
    assert cloud.writes() == ["CreateRouteEntries"] * PACE.tries + ["CreateRouteEntry"] * 8


@pytest.mark.parametrize("error", LASTING)
def test_where_no_write_is_taken_the_walk_ends_soon_and_tells_what_it_had_given_up(error: CloudError) -> None:
    cloud = Direct()
    cloud.fail = lambda _: error
    with pytest.raises(type(error)) as caught:
        asyncio.run(cloud.provider().ensure(many(50)))
    assert caught.value is error
    assert len(cloud.writes()) == 2 * PACE.tries
    assert 0 < len(error.refused) < PACE.tries


def test_a_cloud_that_is_gone_ends_the_walk_at_once() -> None:
    cloud = Direct("lost")
    whole = cloud._act

    def gone(action: str, params: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
        if cloud.writes():
            raise Unavailable("no answer")
        return whole(action, params, fault)

    cloud._act = gone  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="no answer"):
        asyncio.run(cloud.provider().ensure(many(3)))
    assert cloud.writes() == ["CreateRouteEntry"]


@pytest.mark.parametrize("which", ["vtb-other", "vtb-system"])
def test_what_is_denied_in_one_table_is_done_in_the_other_and_asked_for_once(which: str) -> None:
    denied = Denied("no", code="Forbidden.RAM")

    class Half(Direct):
        async def __call__(self, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
            self.fail = lambda _: denied if params.get("RouteTableId") == which else None
            return await super().__call__(action, params)

    cloud = Half(file=world_file(settle_ms=0))
    wanted = many(3)
    assert asyncio.run(cloud.provider().ensure(wanted)) == dict.fromkeys(wanted, denied)
    assert len(cloud.writes()) == 4
    (other,) = {"vtb-other", "vtb-system"} - {which}
    assert cloud.ours(other) == [str(cidr) for cidr in wanted]
    # Nor is there another outcome when nothing is left to do in the other table.
    assert asyncio.run(cloud.provider().ensure(wanted)) == dict.fromkeys(wanted, denied)


def test_an_entry_that_never_settles_is_told_for_its_cidr_and_the_others_are_done() -> None:
    class Stuck(Direct):
        async def __call__(self, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
            answer = await super().__call__(action, params)
            for entry in answer.get("RouteEntrys", {}).get("RouteEntry", []):
                if entry["DestinationCidrBlock"] == str(POD_CIDR):
                    entry["Status"] = "Pending"
            return answer

    cloud = Stuck()
    refused = asyncio.run(cloud.provider(pace=replace(PACE, settle=0.02)).ensure([POD_CIDR, SERVICE_CIDR]))
    assert set(refused) == {POD_CIDR}
    assert isinstance(refused[POD_CIDR], Unavailable)
    assert "10.244.0.0/16 in vtb-system has not settled in 0.02 s" in str(refused[POD_CIDR])
    assert cloud.writes() == ["CreateRouteEntry"] * 2
    assert cloud.ours() == [str(POD_CIDR), str(SERVICE_CIDR)]


# ---- many at once ---------------------------------------------------------------------------------------------------


def many(count: int) -> list[IPv4Network]:
    return [IPv4Network(f"10.{n // 250}.{n % 250}.0/24") for n in range(count)]


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


# ---- taking over ----------------------------------------------------------------------------------------------------

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
