"""What cannot be done is shown, keeps nothing else from being done, and ends no loop."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from appliance.intent import StoreUnavailable
from appliance.intentreader import IntentReader
from appliance.kernel.state import Drift, KernelState
from appliance.model import Intent
from appliance.status import LayerState
from tests.appliance.fakes import (
    POD,
    SERVICE,
    FakeFirewall,
    FakeRoutes,
    tun,
    until,
)
from tests.appliance.forwardbench import BEHIND, FAST, TUNNEL, Bench, running


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


def test_a_failing_pass_that_takes_longer_than_the_wait_after_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        routes = FakeRoutes(tun())
        quick = routes.observe

        async def slow() -> KernelState:
            await asyncio.sleep(2 * FAST.last_retry)
            return await quick()

        monkeypatch.setattr(routes, "observe", slow)
        async with running(tmp_path, routes) as bench:
            bench.firewall.fault = "the table is locked"
            bench.store.put(Intent(POD, "hk"))
            for _ in range(2):  # what the first failing pass has changed wakes another
                await until(lambda: bench.forward.problem() == "the table is locked")
                passes = routes.observed
                await until(lambda before=passes: routes.observed > before + 3)  # type: ignore[misc]
            bench.firewall.fault = None
            await until(lambda: POD in bench.forward.carrying)

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


def test_a_machine_that_does_not_know_what_is_asked_for_does_not_begin_to_forward(tmp_path: Path) -> None:
    (tmp_path / "nexthop.db").write_bytes(b"this is no database" * 100)

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await until(bench.forward.ready)
            assert not bench.sysctls.asked

    asyncio.run(scenario())
