"""The emulator misbehaves exactly as a rule says, and says afterwards what it did."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud.emulator.faults import BadFault, Faults, Kind
from cloud.emulator.worldfile import BadWorld, Fault, read_faults
from cloud.provider import CloudError, Conflict, Denied, Unavailable
from tests.cloud.world import POD_CIDR, QUICK, Running, running, world_file

WRITE = {
    "RouteTableId": "vtb-system",
    "DestinationCidrBlock": str(POD_CIDR),
    "NextHopType": "Instance",
    "NextHopId": "i-nexthop",
}
READ = {"RouteTableId": "vtb-system", "MaxResult": "100"}


def in_world(test: Callable[[Running], Awaitable[None]]) -> None:
    async def main() -> None:
        async with running(world_file(settle_ms=0)) as here:
            await test(here)

    asyncio.run(main())


def custom(body: Any) -> list[str]:
    return [each["DestinationCidrBlock"] for each in body["RouteEntrys"]["RouteEntry"] if each["Type"] == "Custom"]


def test_a_rule_meets_the_nth_call_of_its_action_or_so_many_or_by_chance() -> None:
    faults = Faults(lambda: 0.5)
    error = Fault("error", "Create*", code="TaskConflict")
    faults.add([replace(error, nth=2), replace(error, action="Delete*", times=1)])
    faults.add([replace(error, action="D?scribe", probability=0.5), replace(error, action="D?scribe", probability=0.6)])
    assert [len(faults.meet("CreateRouteEntry")) for _ in range(3)] == [0, 1, 0]
    assert [len(faults.meet("DeleteRouteEntry")) for _ in range(3)] == [1, 0, 0]
    assert [len(faults.meet("Describe")) for _ in range(2)] == [1, 1]
    assert [(rule["seen"], rule["met"]) for rule in faults.shown()] == [(3, 1), (3, 1), (2, 0), (2, 2)]
    faults.clear()
    assert faults.meet("DeleteRouteEntry") == []


@pytest.mark.parametrize("raw", [{"kind": "nonsense"}, {"kind": "error"}, {"kind": "slow", "seconds": -1}, {}, 7])
def test_a_rule_without_sense_is_refused(raw: object) -> None:
    with pytest.raises(BadWorld):
        Faults(lambda: 0.0).add(read_faults(raw))
    assert issubclass(BadFault, BadWorld)


def test_an_error_is_answered_and_nothing_is_done() -> None:
    async def test(here: Running) -> None:
        here.emulator.faults.add([Fault("error", "CreateRouteEntry", times=1, code="TaskConflict")])
        with pytest.raises(Conflict, match="TaskConflict: The operation is too frequent"):
            await here.rpc()("CreateRouteEntry", WRITE)
        assert custom(await here.rpc()("DescribeRouteEntryList", READ)) == []
        await here.rpc()("CreateRouteEntry", WRITE)
        assert [call.done for call in here.emulator.calls if call.write] == [False, True]

    in_world(test)


@pytest.mark.parametrize(("kind", "there"), [("lost", False), ("late", True)])
def test_a_time_out_comes_before_or_after_the_deed(kind: str, there: bool) -> None:
    async def test(here: Running) -> None:
        here.emulator.faults.add([Fault(kind, "CreateRouteEntry", times=1)])
        with pytest.raises(Unavailable, match="timed out"):
            await here.rpc(pace=replace(QUICK, read=0.3))("CreateRouteEntry", WRITE)
        assert bool(custom(await here.rpc()("DescribeRouteEntryList", READ))) is there
        assert [call.done for call in here.emulator.calls if call.write] == [there]

    in_world(test)


def test_a_stale_list_shows_what_was() -> None:
    async def test(here: Running) -> None:
        await here.rpc()("CreateRouteEntry", WRITE)
        here.emulator.faults.add([Fault("stale", "Describe*", seconds=3600.0)])
        assert custom(await here.rpc()("DescribeRouteEntryList", READ)) == []
        here.emulator.faults.clear()
        assert custom(await here.rpc()("DescribeRouteEntryList", READ)) == [str(POD_CIDR)]

    in_world(test)


def test_a_lost_page_leaves_its_items_out_and_the_count_as_it_was() -> None:
    async def test(here: Running) -> None:
        await here.rpc()("CreateRouteEntry", WRITE)
        here.emulator.faults.add([Fault("lost-page", "Describe*")])
        part = await here.rpc()("DescribeRouteEntryList", READ | {"MaxResult": "1"})
        assert (len(part["RouteEntrys"]["RouteEntry"]), part["NextToken"], part["TotalCount"]) == (1, "", 4)
        told = await here.rpc()("DescribeVSwitches", {"VpcId": "vpc-sz"})
        assert (told["VSwitches"]["VSwitch"], told["TotalCount"]) == ([], 2)

    in_world(test)


def test_a_slow_answer_is_an_answer() -> None:
    async def test(here: Running) -> None:
        here.emulator.faults.add([Fault("slow", "DescribeVpcs", seconds=0.2)])
        assert (await here.rpc()("DescribeVpcs", {}))["TotalCount"] == 1
        with pytest.raises(Unavailable, match="timed out"):
            await here.rpc(pace=replace(QUICK, read=0.05))("DescribeVpcs", {})

    in_world(test)


async def asked(here: Running, method: str, path: str, body: object = None) -> Any:
    def ask() -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{here.api}/_emulator/{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    return await asyncio.to_thread(ask)


def test_rules_are_set_and_lifted_over_http_without_a_signature() -> None:
    async def test(here: Running) -> None:
        rule = {"kind": "error", "action": "*", "code": "Throttling.User", "times": 1}
        assert len((await asked(here, "POST", "faults", [rule]))["faults"]) == 1
        with pytest.raises(CloudError, match="flow control"):
            await here.rpc()("DescribeVpcs", {})
        assert (await asked(here, "GET", "faults"))["faults"][0]["met"] == 1
        assert (await asked(here, "DELETE", "faults"))["faults"] == []

    in_world(test)


def test_a_permission_that_is_taken_away_is_a_403_from_then_on() -> None:
    async def test(here: Running) -> None:
        principal = next(iter((await asked(here, "GET", "permissions"))["permissions"]))
        await here.rpc()("DescribeVpcs", {})
        await asked(here, "PUT", "permissions", {principal: ["vpc:Describe*"]})
        with pytest.raises(Denied) as caught:
            await here.rpc()("CreateRouteEntry", WRITE)
        assert caught.value.code == "Forbidden.RAM"
        await here.rpc()("DescribeVpcs", {})

    in_world(test)


def test_the_console_does_what_a_person_would_and_is_not_in_the_log() -> None:
    async def test(here: Running) -> None:
        here.emulator.faults.add([Fault("error", "*", code="TaskConflict")])
        await asked(here, "POST", "console", WRITE | {"Action": "CreateRouteEntry"})
        here.emulator.faults.clear()
        assert custom(await here.rpc()("DescribeRouteEntryList", READ)) == [str(POD_CIDR)]
        assert [call.action for call in here.emulator.calls if call.write] == []

    in_world(test)


def test_every_kind_is_in_the_readme() -> None:
    text = (Path(__file__).parents[3] / "cloud" / "emulator" / "README.md").read_text()
    assert [kind.value for kind in Kind if f"`{kind.value}`" not in text] == []
