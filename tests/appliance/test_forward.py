from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance.forward import Forward, Pace
from appliance.forwardclient import ForwardClient
from appliance.forwardserver import ForwardServer
from appliance.intent import IntentStore, StoreUnavailable
from appliance.intentreader import IntentReader
from appliance.kernel.rules import Rules
from appliance.kernel.state import Drift, Route
from appliance.links import Links
from appliance.model import Intent
from appliance.status import LayerState
from tests.appliance.fakes import (
    POD,
    SERVICE,
    Ends,
    FakeFirewall,
    FakeRoutes,
    FakeSysctls,
    chosen,
    make_links,
    tun,
    until,
)

TUNNEL = Route(POD, "tun-hk", 50)
BEHIND = Route(POD, None, 4000)
SUBNET = Route(ip_network("100.64.240.0/24"), None, 4000)
OWN = Route(SUBNET.destination, "tun-hk", 50)  # behind the kernel's own
FAST = Pace(glance=0.01, whole=60, first_retry=0.01, last_retry=0.02)


@dataclass
class Bench:
    store: IntentStore
    links: Links
    routes: FakeRoutes
    firewall: FakeFirewall
    sysctls: FakeSysctls
    forward: Forward
    client: ForwardClient
    state: Path

    async def settled(self) -> None:
        """Wait for a whole pass that found nothing to do."""
        while True:
            did, observed = len(self.routes.did), self.routes.observed
            self.forward.wake()
            await until(lambda before=observed: self.routes.observed > before and self._idle())  # type: ignore[misc]
            if did == len(self.routes.did):
                return

    def _idle(self) -> bool:
        return not (self.forward._wake.is_set() or self.forward._kernel.locked())


@contextlib.asynccontextmanager
async def running(tmp_path: Path, routes: FakeRoutes | None = None, **made: object) -> AsyncIterator[Bench]:
    make_links(tmp_path)
    store = IntentStore(tmp_path / "nexthop.db")
    links = Links(tmp_path, tmp_path / "run")
    routes = routes or FakeRoutes(tun())
    firewall, sysctls = FakeFirewall(routes.did), FakeSysctls(routes.did)
    pace = made.pop("pace", FAST)
    assert isinstance(pace, Pace)
    prepare = made.pop("prepare", None)
    reader = made.pop("reader", store)
    assert isinstance(reader, IntentStore | IntentReader)
    other = made.pop("other", None)
    others = (other,) if isinstance(other, FakeFirewall) else ()
    picked = chosen(firewall, *others, reason="no TCPMSS")

    def make(server: ForwardServer) -> Forward:
        return Forward(reader, links, routes, picked, server, sysctls=sysctls, pace=pace, jitter=lambda: 0.5)

    ends = Ends(tmp_path, store, links, make)
    store.on_change(ends.forward.wake)
    links.on_change(ends.forward.wake)
    bench = Bench(store, links, routes, firewall, sysctls, ends.forward, ends.client, tmp_path)
    if callable(prepare):
        prepare(bench)
    loop = asyncio.get_running_loop()
    runs = (ends.server.run(ends.forward), ends.client.run(), ends.forward.run())
    tasks = [loop.create_task(each) for each in runs]
    try:
        await until(ends.server.listens)
        yield bench
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        store.close()


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


def test_a_machine_that_does_not_know_what_is_asked_for_does_not_begin_to_forward(tmp_path: Path) -> None:
    (tmp_path / "nexthop.db").write_bytes(b"this is no database" * 100)

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await until(bench.forward.ready)
            assert not bench.sysctls.asked

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


def test_a_sysctl_that_cannot_be_set_is_shown_and_does_not_keep_routes_from_being_installed(tmp_path: Path) -> None:
    drift = Drift("sysctl net/ipv4/ip_forward", "0", "0", "1")

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.sysctls.stubborn = [drift]
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying and bench.forward.problem() is not None)
            assert "ip_forward is 0 and cannot be set to 1" in str(bench.forward.problem())

    asyncio.run(scenario())


def test_waits_for_a_device_that_is_not_there_and_answers_unreachable_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, FakeRoutes()) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: BEHIND in bench.routes.table)
            await bench.settled()
            assert bench.forward.layer(POD).code == "no-device"
            assert bench.forward.layer(POD).state is LayerState.PENDING
            assert not bench.forward.carrying
            bench.routes.devices["tun-hk"] = tun()
            bench.routes.change()
            await until(lambda: POD in bench.forward.carrying)

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


def test_without_its_rules_a_cidr_is_not_routed_into_the_tunnel(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await until(bench.forward.ready)
            bench.firewall.fault = "the table is locked"
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.forward.problem() == "the table is locked")
            assert TUNNEL not in bench.routes.table
            assert BEHIND in bench.routes.table
            assert not bench.forward.carrying
            assert "locked" in bench.forward.layer(POD).detail
            bench.firewall.fault = None
            await until(lambda: POD in bench.forward.carrying and bench.forward.problem() is None)

    asyncio.run(scenario())


def test_a_route_that_is_in_the_way_concerns_that_cidr_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.routes.refuse[POD] = "a route is there that is not ours"
            bench.store.put(Intent(POD, "hk"))
            bench.store.put(Intent(SERVICE, "hk"))
            await until(lambda: bench.forward.carrying == {SERVICE})
            assert bench.forward.layer(POD).state is LayerState.ERROR
            assert bench.forward.layer(POD).code == "kernel-refused"

    asyncio.run(scenario())


def test_what_does_not_read_back_is_not_carried(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.routes.swallow = True
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.forward.problem() is not None)
            assert "not there" in str(bench.forward.problem())
            assert not bench.forward.carrying

    asyncio.run(scenario())


def test_a_cidr_via_a_link_that_is_not_there_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "sg"))
            await until(lambda: bench.forward.layer(POD).code == "link-unknown")
            assert bench.forward.layer(POD).state is LayerState.ERROR

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


def test_without_a_database_it_goes_on_with_what_it_knew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise StoreUnavailable("disk full")

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            for method in ("all", "get", "drop", "record"):
                monkeypatch.setattr(bench.store, method, broken)
            bench.routes.table.discard(TUNNEL)
            bench.routes.change()
            await until(lambda: TUNNEL in bench.routes.table)
            await until(lambda: bench.forward.problem() == "disk full")
            assert POD in bench.forward.carrying

    asyncio.run(scenario())


def test_while_the_state_directory_is_away_nothing_is_deleted_and_drift_is_repaired(tmp_path: Path) -> None:
    state = tmp_path / "state"

    async def scenario() -> None:
        async with running(state, reader=IntentReader(state / "nexthop.db")) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            await bench.settled()
            bench.routes.did.clear()
            state.rename(tmp_path / "away")
            bench.store.close()
            for place in ("nothing", "an empty directory, where it was mounted"):
                if place != "nothing":
                    state.mkdir()
                bench.routes.table.discard(TUNNEL)
                bench.routes.change()
                await until(lambda: TUNNEL in bench.routes.table and bench.forward.problem())
                assert "tun-hk" in bench.routes.devices
                assert POD in bench.forward.carrying
            assert {what for what, _ in bench.routes.did} == {"add"}
            shutil.rmtree(state)
            (tmp_path / "away").rename(state)
            await until(lambda: bench.forward.problem() is None)
            bench.links.rm("hk")
            await until(lambda: "tun-hk" not in bench.routes.devices)

    asyncio.run(scenario())


def test_with_nothing_known_it_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "nexthop.db").write_bytes(b"this is no database" * 100)

    async def scenario() -> None:
        routes = FakeRoutes(tun())
        routes.table |= {TUNNEL, BEHIND}
        async with running(tmp_path, routes) as bench:
            await until(bench.forward.ready)
            assert bench.forward.problem() is not None
            assert (routes.did, routes.table) == ([], {TUNNEL, BEHIND})

    asyncio.run(scenario())


def test_a_fault_of_ours_is_shown_and_does_not_end_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await until(bench.forward.ready)
            with monkeypatch.context() as patch:
                patch.setattr(bench.links, "devices", lambda: 1 / 0)
                bench.forward.wake()
                await until(lambda: "ZeroDivisionError" in str(bench.forward.problem()))
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: POD in bench.forward.carrying)
            assert bench.forward.problem() is None

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


def test_the_other_back_end_is_purged_only_once_our_rules_are_in_force(tmp_path: Path) -> None:
    other = FakeFirewall()

    def broken(bench: Bench) -> None:
        bench.firewall.fault = "locked"

    async def scenario() -> None:
        async with running(tmp_path, other=other, prepare=broken) as bench:
            await until(lambda: bench.forward.problem() == "locked")
            assert other.purged == 0
            bench.firewall.fault = None
            await until(lambda: bench.forward.problem() is None)
            await bench.settled()
            assert other.purged == 1
            found = bench.forward.state().firewall
            assert (found.name, found.fallback_reason) == ("fake", "no TCPMSS")

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
