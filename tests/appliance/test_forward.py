"""What is asked for is carried, in an order in which nothing leaks; what is given back goes the other way round."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from appliance.kernel.rules import Rules
from appliance.kernel.state import Route
from appliance.model import Intent
from appliance.status import LayerState
from tests.appliance.fakes import (
    POD,
    FakeRoutes,
    make_links,
    tun,
    until,
)
from tests.appliance.forwardbench import BEHIND, FAST, OWN, SUBNET, TUNNEL, Bench, running


def test_adds_firewall_first_then_what_answers_unreachable_then_the_tunnels_route(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            did = [what for what in bench.routes.did if what[1] not in {"", SUBNET, OWN}]
            assert did == [("firewall", "10.244.0.0/16"), ("add", BEHIND), ("add", TUNNEL)]
            assert bench.routes.table == {TUNNEL, BEHIND, SUBNET, OWN}
            assert bench.forward.layer(POD).state is LayerState.OK
            assert bench.forward.problem() is None

    asyncio.run(scenario())


def test_the_machine_forwards_only_once_rules_and_what_answers_unreachable_are_there(tmp_path: Path) -> None:
    """A machine that boots is sent packets by the cloud before anything of ours is in its kernel."""

    async def scenario() -> None:
        def prepare(bench: Bench) -> None:
            bench.store.put(Intent(POD, "hk"))
            bench.firewall.fault = "the table is locked"

        async with running(tmp_path, prepare=prepare) as bench:
            await until(lambda: bench.forward.problem() == "the table is locked")
            assert not bench.sysctls.before
            bench.firewall.fault = None
            await until(lambda: POD in bench.forward.carrying)
            assert {("firewall", "10.244.0.0/16"), ("add", BEHIND), ("add", SUBNET)} <= set(bench.sysctls.before)
            assert not bench.forward.repairs()

    asyncio.run(scenario())


def test_a_pass_without_change_writes_nothing_and_wakes_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            did, writes, observed = list(bench.routes.did), bench.firewall.writes, bench.routes.observed
            told: list[None] = []
            bench.client.on_carrying(lambda: told.append(None))
            bench.forward.wake()
            await until(lambda: bench.routes.observed > observed)
            await bench.settled()
            assert (bench.routes.did, bench.firewall.writes, told) == (did, writes, [])

    asyncio.run(scenario())


def test_carries_a_leaving_cidr_and_removes_a_withdrawn_one_after_shrinking(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            carried_at_removal: list[bool] = []
            bench.routes.before_remove = lambda: carried_at_removal.append(POD in bench.forward.carrying)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            bench.store.leave(POD)
            await bench.settled()
            assert POD in bench.forward.carrying
            bench.store.withdrawn(POD)
            await until(lambda: bench.store.get(POD) is None)
            assert carried_at_removal == [False, False]
            removed = [what for kind, what in bench.routes.did if kind == "remove"]
            assert removed == [TUNNEL, BEHIND]  # the other way round, nothing would answer for a moment
            await bench.settled()
            assert bench.firewall.rules is not None
            assert not bench.firewall.rules.carried
            assert bench.store.released() == {POD}

    asyncio.run(scenario())


def test_rules_stay_until_the_route_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            bench.routes.did.clear()
            bench.store.leave(POD)
            bench.store.withdrawn(POD)
            await until(lambda: bench.store.get(POD) is None)
            await bench.settled()
            assert bench.routes.did == [("remove", TUNNEL), ("remove", BEHIND), ("firewall", "")]

    asyncio.run(scenario())


def test_what_is_asked_for_again_during_the_pass_is_not_removed(tmp_path: Path) -> None:
    """The one interleaving in which a stale decision would make a black hole; see test_phases.py."""

    async def scenario() -> None:
        async with running(tmp_path, pace=replace(FAST, glance=60)) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            reads = bench.firewall.reads
            bench.store.leave(POD)
            bench.store.withdrawn(POD)
            original = bench.firewall.holds

            def revive(rules: Rules) -> bool:  # in the middle of the pass, long before the removal
                bench.firewall.holds = original  # type: ignore[method-assign]
                asyncio_loop.call_soon_threadsafe(bench.store.put, Intent(POD, "hk"))
                return original(rules)

            asyncio_loop = asyncio.get_running_loop()
            bench.firewall.holds = revive  # type: ignore[method-assign]
            await until(lambda: bench.firewall.reads > reads + 1)
            await bench.settled()
            assert ("remove", TUNNEL) not in bench.routes.did
            assert POD in bench.forward.carrying

    asyncio.run(scenario())


def test_deletes_the_device_of_a_link_that_was_removed_and_no_other(tmp_path: Path) -> None:
    stranger = replace(tun("vpn", index=9), alias="")
    odd = replace(tun("odd", index=10), name="tun-else")

    async def scenario() -> None:
        routes = FakeRoutes(tun(), tun("sg", "100.64.250.50/24", index=8), stranger, odd)
        async with running(tmp_path, routes) as bench:
            await until(lambda: "tun-sg" not in routes.devices)
            await bench.settled()
            assert set(routes.devices) == {"eth0", "tun-hk", "tun-vpn", "tun-else"}
            bench.links.rm("hk")
            await until(lambda: "tun-hk" not in routes.devices)

    asyncio.run(scenario())


def test_a_new_link_takes_over_a_cidr(tmp_path: Path) -> None:
    make_links(tmp_path, ("hk", "sg"))

    async def scenario() -> None:
        async with running(tmp_path, FakeRoutes(tun(), tun("sg", "100.64.250.50/24", index=8))) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            bench.store.put(Intent(POD, "sg"))
            await until(lambda: Route(POD, "tun-sg", 50) in bench.routes.table)
            await bench.settled()
            assert TUNNEL not in bench.routes.table
            assert POD in bench.forward.carrying
            assert bench.firewall.rules is not None
            assert bench.firewall.rules.masquerade == {(POD, "tun-sg")}

    asyncio.run(scenario())
