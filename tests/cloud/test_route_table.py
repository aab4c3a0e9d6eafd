"""The provider over a world without HTTP, whose calls fail on demand: after every failure the table is read first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.answers import Mark
from cloud.emulator.world import NextHop, Wanted
from cloud.provider import (
    CloudError,
    Conflict,
    Denied,
    Owner,
    QuotaExceeded,
    Rejected,
    Throttled,
    Unavailable,
)
from tests.cloud.direct import PACE, Direct, Fault, many
from tests.cloud.world import POD_CIDR, SERVICE_CIDR, world_file


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
