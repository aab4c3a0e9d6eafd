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
from cloud.emulator.actions import WRITES, perform
from cloud.emulator.world import ApiError, NextHop, Wanted, World
from cloud.errors import classify
from cloud.provider import CloudError, Conflict, Denied, Owner, QuotaExceeded, Throttled, Unavailable
from cloud.retry import Pace
from cloud.route_table import AliyunProvider
from tests.cloud.world import ME, POD_CIDR, SERVICE_CIDR, world_file

PACE = Pace(first=0.0, longest=0.0, tries=4, poll=0.0, settle=1.0)


class Faulty:
    """Sends calls straight into a world. `faults` are used up by writes, one each; "late" happens before it fails."""

    def __init__(self, *faults: CloudError | str | None) -> None:
        self.world = World(world_file(settle_ms=0, tables=1))
        self.faults = list(faults)
        self.sent: list[tuple[str, Mapping[str, str]]] = []
        self.under_way = 0

    async def __call__(self, action: str, params: Mapping[str, str]) -> dict[str, Any]:
        self.sent.append((action, params))
        fault = self.faults.pop(0) if action in WRITES and self.faults else None
        if isinstance(fault, CloudError):
            raise fault
        self.under_way += action in WRITES
        assert self.under_way <= 1, "two writes at once"
        await asyncio.sleep(0)
        self.under_way -= action in WRITES
        call = {**params, "Action": action, "Version": "2016-04-28", "RegionId": "cn-shenzhen"}
        try:
            answer = perform(self.world, call, 0.0)
        except ApiError as error:
            raise classify(error.code, error.status)(error.message, code=error.code) from None
        if fault == "late":
            raise Unavailable("timed out")
        return answer

    def provider(self) -> AliyunProvider:
        return AliyunProvider(self, ME, Mark("i-nexthop"), pace=PACE, chance=lambda: 0.0)

    def writes(self) -> list[str]:
        return [action for action, _ in self.sent if action in WRITES]

    def ours(self) -> list[str]:
        return [str(entry.destination) for entry in self.world.entries("vtb-system", 0.0) if entry.custom]


@pytest.mark.parametrize("fault", [Throttled("x"), Conflict("x"), Unavailable("x")])
def test_a_write_that_failed_is_sent_again_after_a_look_with_the_same_token(fault: CloudError) -> None:
    cloud = Faulty(fault, fault)
    asyncio.run(cloud.provider().ensure(POD_CIDR))
    assert cloud.ours() == [str(POD_CIDR)]
    assert len({params["ClientToken"] for action, params in cloud.sent if action == "CreateRouteEntry"}) == 1
    actions = [action for action, _ in cloud.sent][1:]
    assert actions == ["DescribeRouteEntryList", "CreateRouteEntry"] * 3 + ["DescribeRouteEntryList"]


def test_a_write_that_happened_but_was_not_answered_is_not_sent_again() -> None:
    cloud = Faulty("late", "late")
    provider = cloud.provider()
    asyncio.run(provider.ensure(POD_CIDR))
    asyncio.run(provider.withdraw(POD_CIDR))
    assert cloud.writes() == ["CreateRouteEntry", "DeleteRouteEntry"]
    assert cloud.ours() == []


@pytest.mark.parametrize("fault", [Denied("x"), QuotaExceeded("x")])
def test_what_does_not_pass_is_not_tried_again(fault: CloudError) -> None:
    cloud = Faulty(fault)
    with pytest.raises(type(fault)):
        asyncio.run(cloud.provider().ensure(POD_CIDR))
    assert cloud.writes() == ["CreateRouteEntry"]


def test_an_error_that_stays_is_handed_on_after_the_allowed_tries() -> None:
    cloud = Faulty(*[Throttled("x", code="Throttling.User", request_id="R-1")] * 9)
    with pytest.raises(Throttled) as caught:
        asyncio.run(cloud.provider().ensure(POD_CIDR))
    assert caught.value.request_id == "R-1"
    assert len(cloud.writes()) == PACE.tries


def test_each_create_has_a_token_of_its_own() -> None:
    cloud = Faulty()
    provider = cloud.provider()
    asyncio.run(provider.ensure(POD_CIDR))
    asyncio.run(provider.ensure(SERVICE_CIDR))
    asyncio.run(provider.withdraw(POD_CIDR))
    asyncio.run(provider.ensure(POD_CIDR))
    tokens = [params["ClientToken"] for action, params in cloud.sent if action == "CreateRouteEntry"]
    assert len(set(tokens)) == 3
    assert all(len(token) <= 64 and token.isascii() for token in tokens)


def test_a_delete_names_the_entry_by_its_own_id() -> None:
    cloud = Faulty()
    provider = cloud.provider()
    asyncio.run(provider.ensure(POD_CIDR))
    asyncio.run(provider.withdraw(POD_CIDR))
    assert [set(params) for action, params in cloud.sent if action == "DeleteRouteEntry"] == [{"RouteEntryId"}]


faults = st.lists(
    st.sampled_from([None, "late", Throttled("x"), Conflict("x"), Unavailable("x"), Denied("x")]), max_size=12
)
steps = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(faults=faults, steps=steps)
def test_whatever_fails_strangers_stay_and_the_end_state_comes_when_the_faults_stop(
    faults: list[CloudError | str | None], steps: list[tuple[bool, int]]
) -> None:
    async def main() -> None:
        cloud = Faulty(*faults)
        foreign = Wanted("vtb-system", "10.0.0.0/16", NextHop("Instance", "i-host"))
        cloud.world.create(foreign, 0.0)
        before = [entry for entry in cloud.world.entries("vtb-system", 0.0) if entry.custom]
        provider = cloud.provider()
        wanted: dict[int, bool] = {}
        for there, n in steps:
            wanted[n] = there
            act = provider.ensure if there else provider.withdraw
            with contextlib.suppress(CloudError):
                await act(IPv4Network(f"10.{n}.0.0/16"))
        cloud.faults.clear()
        for n, there in wanted.items():
            try:
                await (provider.ensure if there else provider.withdraw)(IPv4Network(f"10.{n}.0.0/16"))
            except CloudError:
                assert n == 0
        seen = await provider.observe()
        ours = {str(entry.destination) for entry in seen.entries if entry.owner is Owner.OURS}
        assert ours == {f"10.{n}.0.0/16" for n, there in wanted.items() if there and n != 0}
        assert before[0] in cloud.world.entries("vtb-system", 0.0)

    logging.disable(logging.INFO)
    try:
        asyncio.run(main())
    finally:
        logging.disable(logging.NOTSET)


def test_an_entry_that_never_settles_ends_in_an_error_that_says_so() -> None:
    cloud = Faulty()
    cloud.world = World(world_file(settle_ms=1000, tables=1))  # and its clock stands still
    pace = replace(PACE, settle=0.02)
    with pytest.raises(Unavailable, match=r"10\.244\.0\.0/16 in vtb-system has not settled"):
        asyncio.run(AliyunProvider(cloud, ME, Mark("i-nexthop"), pace=pace).ensure(POD_CIDR))
    assert cloud.writes() == ["CreateRouteEntry"]
