"""The loop towards the cloud: what it asks for, in which order, and when it says that nothing is left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance.model import Intent, Phase
from appliance.status import LayerState
from tests.appliance.attract_bench import running
from tests.appliance.fakes import POD, SERVICE, until


def test_wants_only_what_the_kernel_carries(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "waiting-kernel")
            assert bench.cloud.did == []
            bench.forward.carry(POD)
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            assert bench.cloud.did == [("ensure", POD)]
            assert {e.table for e in bench.cloud.entries} == {"vtb-1", "vtb-2"}

    asyncio.run(scenario())


def test_an_entry_stays_while_the_kernel_repairs_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await bench.attracting(POD)
            bench.forward.carry()
            await bench.settled()
            assert bench.cloud.did == [("ensure", POD)]

    asyncio.run(scenario())


def test_marks_withdrawn_only_after_a_pass_that_saw_nothing_and_sent_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await bench.attracting(POD)
            bench.cloud.lands = False  # the answer says done, but it is not
            bench.store.leave(POD)
            await until(lambda: bench.cloud.did.count(("withdraw", POD)) > 2)
            intent = bench.store.get(POD)
            assert intent is not None
            assert intent.phase is Phase.LEAVING
            bench.cloud.lands = True
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.cloud.entries == []

    asyncio.run(scenario())


def test_a_leaving_cidr_whose_request_is_under_way_is_not_marked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.cloud.gate = asyncio.Event()
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.cloud.did == [("ensure", POD)])
            bench.store.leave(POD)
            await asyncio.sleep(0)
            assert bench.store.get(POD) == replace(bench.store.all()[0], phase=Phase.LEAVING)
            bench.cloud.gate.set()
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.cloud.did == [("ensure", POD), ("withdraw", POD)]

    asyncio.run(scenario())


def test_a_second_pass_without_change_sends_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await bench.attracting(POD)
            await bench.settled()
            await bench.settled()
            assert bench.cloud.did == [("ensure", POD)]

    asyncio.run(scenario())


def test_looks_again_between_two_requests_when_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.entryrequests._AT_ONCE", 1)

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            first, second, third = (ip_network(f"10.{i}.0.0/16") for i in (1, 2, 3))
            bench.store.put(Intent(first, "hk"))
            bench.store.put(Intent(third, "hk"))
            await until(lambda: bench.attract.layer(third).code == "waiting-kernel")
            bench.cloud.gate = asyncio.Event()
            bench.forward.carry(first, second, third)
            await until(lambda: bench.cloud.did == [("ensure", first)])
            bench.store.put(Intent(second, "hk"))
            bench.cloud.gate.set()
            await until(lambda: bench.attract.layer(third).state is LayerState.OK)
            assert bench.cloud.did == [("ensure", first), ("ensure", second), ("ensure", third)]

    asyncio.run(scenario())


def test_many_are_asked_for_together_and_given_back_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            many = [ip_network(f"10.{i}.0.0/16") for i in range(60)]
            for network in many:
                bench.store.put(Intent(network, "hk"))
            await until(lambda: bench.attract.layer(many[-1]).code == "waiting-kernel")
            bench.forward.carry(*many)
            await until(lambda: all(bench.attract.layer(network).state is LayerState.OK for network in many))
            for network in many:
                bench.store.leave(network)
            await until(lambda: all(intent.phase is Phase.WITHDRAWN for intent in bench.store.all()))
            asked = [len(networks) for what, networks in bench.cloud.requests if what == "ensure"]
            assert asked == [50, 10]
            assert sum(len(networks) for what, networks in bench.cloud.requests if what == "withdraw") == 60

    asyncio.run(scenario())


def test_a_cidr_that_was_given_back_meanwhile_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.entryrequests._AT_ONCE", 1)

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(SERVICE, "hk"))
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "waiting-kernel")
            bench.cloud.gate = asyncio.Event()
            bench.forward.carry(POD, SERVICE)
            await until(lambda: bench.cloud.did == [("ensure", SERVICE)])
            bench.store.leave(POD)
            bench.cloud.gate.set()
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.cloud.did == [("ensure", SERVICE)]

    asyncio.run(scenario())
