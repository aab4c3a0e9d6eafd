"""What somebody else takes away comes back, and is counted; what was only never seen is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance.kernel.state import Drift, Route
from appliance.model import Intent
from tests.appliance.fakes import (
    POD,
    SERVICE,
    FakeRoutes,
    tun,
    until,
)
from tests.appliance.forwardbench import BEHIND, SUBNET, TUNNEL, Bench, running


@pytest.mark.parametrize(("route", "kind"), [(TUNNEL, "route"), (BEHIND, "unreachable"), (SUBNET, "unreachable")])
def test_a_route_that_somebody_removes_comes_back_and_is_counted(tmp_path: Path, route: Route, kind: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            assert not bench.forward.repairs()
            bench.routes.table.discard(route)
            bench.routes.change()
            await until(lambda: route in bench.routes.table and bench.forward.repairs())
            assert bench.forward.repairs() == {kind: 1}
            await until(lambda: bench.store.history(1)[0].what == f"repaired {kind}")

    asyncio.run(scenario())


def test_rules_that_vanish_without_an_event_come_back_and_are_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            wanted, bench.firewall.rules = bench.firewall.rules, None
            await until(lambda: bench.firewall.rules == wanted)
            await until(lambda: bench.forward.repairs() == {"firewall": 1})

    asyncio.run(scenario())


def test_a_sysctl_that_somebody_changes_is_counted_but_not_the_first_setting(tmp_path: Path) -> None:
    drift = Drift("sysctl net/ipv4/ip_forward", "0", "1", "1")

    async def scenario() -> None:
        async with running(tmp_path, prepare=lambda bench: bench.sysctls.drifts.append(drift)) as bench:
            await until(bench.forward.ready)
            await bench.settled()
            assert not bench.forward.repairs()
            bench.sysctls.drifts = [drift]
            await until(lambda: bench.forward.repairs() == {"sysctl": 1})
            assert bench.sysctls.asked[-1] == ("eth0", frozenset({"tun-hk"}), False)

    asyncio.run(scenario())


def test_a_device_that_goes_and_comes_back_gets_its_route_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            device = replace(bench.routes.devices["tun-hk"], index=9)
            await bench.routes.delete_device("tun-hk")
            await until(lambda: not bench.forward.carrying)
            bench.routes.devices["tun-hk"] = device
            bench.routes.change()
            await until(lambda: POD in bench.forward.carrying)
            assert bench.forward.repairs() == {"route": 1, "device": 1}

    asyncio.run(scenario())


def test_what_answers_unreachable_for_the_tunnels_subnet_outlives_its_device(tmp_path: Path) -> None:
    async def scenario() -> None:
        routes = FakeRoutes()
        routes.table |= {SUBNET, Route(SERVICE, "tun-hk", 50)}  # left by an earlier run of the daemon
        async with running(tmp_path, routes) as bench:
            await until(lambda: Route(SERVICE, "tun-hk", 50) not in routes.table)
            await bench.settled()
            assert SUBNET in routes.table
            routes.devices["tun-hk"] = tun(address="100.64.241.9/24")
            routes.change()
            await until(lambda: SUBNET not in routes.table)
            assert Route(ip_network("100.64.241.0/24"), None, 4000) in routes.table

    asyncio.run(scenario())


def test_the_device_towards_the_vpc_is_remembered_when_somebody_deletes_the_default_route(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await until(bench.forward.ready)
            bench.routes.default = None
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            assert bench.firewall.rules is not None
            assert bench.firewall.rules.vpc == "eth0"

    asyncio.run(scenario())


def test_events_that_break_off_are_subscribed_to_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        routes = FakeRoutes(tun())
        good = routes.changes
        calls: list[None] = []

        async def changes() -> AsyncIterator[None]:
            calls.append(None)
            if len(calls) == 1:
                raise OSError("overrun")
            async for each in good():
                yield each

        monkeypatch.setattr(routes, "changes", changes)
        async with running(tmp_path, routes) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying and len(calls) > 1)
            await bench.settled()
            routes.table.discard(TUNNEL)
            routes.change()
            await until(lambda: TUNNEL in routes.table)

    asyncio.run(scenario())


def test_a_restart_finds_everything_in_place_and_writes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        routes = FakeRoutes(tun())
        async with running(tmp_path, routes) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            rules = bench.firewall.rules
        routes.did.clear()

        def same_rules(bench: Bench) -> None:
            bench.firewall.rules = rules

        async with running(tmp_path, routes, prepare=same_rules) as bench:
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            assert routes.did == []
            assert not bench.forward.repairs()

    asyncio.run(scenario())
