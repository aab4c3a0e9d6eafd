"""Routes and devices in a real kernel: idempotent, never anybody else's, and changes are told."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from appliance.kernel import host
from appliance.kernel.route import Routes
from appliance.kernel.state import TUNNEL_METRIC, UNREACHABLE_METRIC, DeviceGone, Refused, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .conftest import Space

pytestmark = pytest.mark.lab

POD, POD6 = ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/48")
ALL = tuple(
    Route(network, device, metric)
    for network in (POD, POD6, ip_network("10.9.9.9/32"))
    for device, metric in (("tun-hk", TUNNEL_METRIC), (None, UNREACHABLE_METRIC))
)
TUN = """
ip tuntap add dev tun-hk mode tun; ip link set tun-hk alias 'nexthop link hk'; ip addr add 100.64.240.50/24 dev tun-hk
ip link set tun-hk up; ip link set lo up
"""
VPC = """
ip link add eth0 type veth peer name far; ip addr add 172.18.2.10/24 dev eth0; ip link set eth0 up; ip link set far up
ip route add default via 172.18.2.253
"""


def _within(space: Space, work: Callable[[Routes], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Routes() as routes:
            async with asyncio.timeout(20):
                await work(routes)

    with space.entered():
        asyncio.run(main())


def test_routes_are_added_once_seen_and_removed_once(space: Space) -> None:
    space.sh(TUN)

    async def work(routes: Routes) -> None:
        for _ in range(2):
            for route in ALL:
                await routes.add(route)
        assert routes.writes == len(ALL)
        assert (await routes.observe()).routes == frozenset(ALL)
        for _ in range(2):
            for route in ALL:
                await routes.remove(route)
        assert routes.writes == 2 * len(ALL)
        assert (await routes.observe()).routes == frozenset()

    _within(space, work)


def test_a_link_without_carrier_takes_routes_and_the_unreachable_one_answers(space: Space) -> None:
    space.sh(TUN + VPC)

    async def work(routes: Routes) -> None:
        assert not (await routes.observe()).devices["tun-hk"].carrier
        for route in ALL:
            await routes.add(route)
        host.keep(host.wanted("eth0", ["tun-hk"]))

    _within(space, work)
    assert "No route to host" in space.sh("ip route get 10.244.1.20 2>&1 || true")
    assert "No route to host" in space.sh("ip -6 route get fd00:10:244::1 2>&1 || true")
    assert "linkdown" in space.sh("ip route show 10.244.0.0/16 dev tun-hk")


@pytest.mark.parametrize("breakage", ["ip link set tun-hk down", "ip link del tun-hk"])
def test_a_device_that_is_down_or_absent_is_to_be_waited_for(space: Space, breakage: str) -> None:
    space.sh(TUN + breakage)

    async def work(routes: Routes) -> None:
        for route in ALL:
            if route.device is None:
                await routes.add(route)
            else:
                with pytest.raises(DeviceGone, match="tun-hk"):
                    await routes.add(route)
                await routes.remove(route)
        assert {route.device for route in (await routes.observe()).routes} == {None}

    _within(space, work)


def test_a_foreign_route_is_never_displaced_or_removed(space: Space) -> None:
    space.sh(TUN + VPC)
    space.sh(f"ip route add {POD} via 172.18.2.253 metric {TUNNEL_METRIC} proto static")
    space.sh(f"ip -6 route add {POD6} dev eth0 metric {TUNNEL_METRIC} proto static")
    before = space.sh("ip route; ip -6 route")

    async def work(routes: Routes) -> None:
        for network in (POD, POD6):
            with pytest.raises(Refused, match="not ours"):
                await routes.add(Route(network, "tun-hk", TUNNEL_METRIC))
            await routes.remove(Route(network, "tun-hk", TUNNEL_METRIC))
            await routes.remove(Route(network, "eth0", TUNNEL_METRIC))
        assert routes.writes == 0
        state = await routes.observe()
        assert state.routes == frozenset()
        assert {POD, POD6, ip_network("0.0.0.0/0"), ip_network("172.18.2.0/24")} <= state.foreign

    _within(space, work)
    assert space.sh("ip route; ip -6 route") == before


def test_a_route_of_ours_that_somebody_bent_is_seen_as_missing_and_put_right(space: Space) -> None:
    space.sh(TUN + VPC)
    wanted = Route(POD, "tun-hk", TUNNEL_METRIC)

    async def work(routes: Routes) -> None:
        for bent in ("dev eth0", "via 172.18.2.7"):
            await routes.add(wanted)
            space.sh(f"ip route replace {POD} {bent} metric {TUNNEL_METRIC} proto 110")
            assert wanted not in (await routes.observe()).routes
            await routes.add(wanted)
            assert (await routes.observe()).routes == {wanted}

    _within(space, work)


def test_devices_are_seen_as_they_are(space: Space) -> None:
    space.sh(TUN + VPC)

    async def work(routes: Routes) -> None:
        state = await routes.observe()
        tun, eth0 = state.devices["tun-hk"], state.devices["eth0"]
        assert (tun.kind, tun.alias, tun.up, tun.carrier, tun.ours) == ("tun", "nexthop link hk", True, False, True)
        assert ip_interface("100.64.240.50/24") in tun.addresses
        assert (eth0.kind, eth0.up, eth0.carrier, eth0.ours) == ("veth", True, True, False)
        assert state.default_device == "eth0"
        assert host.vpc_device(state) == "eth0"
        assert host.link_devices(state) == ("tun-hk",)

    _within(space, work)


def test_the_vpc_device_is_known_even_when_all_routes_are_gone(space: Space) -> None:
    space.sh(TUN + VPC + "ip route flush table main")

    async def work(routes: Routes) -> None:
        state = await routes.observe()
        assert state.default_device is None
        assert host.vpc_device(state) == "eth0"

    _within(space, work)


def test_only_tunnel_devices_of_ours_are_deleted(space: Space) -> None:
    space.sh(TUN + VPC + "ip tuntap add dev tun-x mode tun")

    async def work(routes: Routes) -> None:
        for name in ("eth0", "tun-x"):
            with pytest.raises(Refused, match="not a tunnel device"):
                await routes.delete_device(name)
        await routes.delete_device("tun-hk")
        await routes.delete_device("tun-hk")
        assert routes.writes == 1

    _within(space, work)
    assert "tun-hk" not in space.sh("ip -br link")
    assert "tun-x" in space.sh("ip -br link")


@pytest.mark.parametrize(
    "change",
    [
        "ip link set tun-hk down",
        "ip link del tun-hk",
        "ip addr del 100.64.240.50/24 dev tun-hk",
        "ip addr add fd00::1/64 dev tun-hk nodad",
        "ip route add 10.1.0.0/16 dev tun-hk",
        "ip route del default",
        "ip -6 route add fd01::/64 dev tun-hk",
    ],
)
def test_a_change_is_told(space: Space, change: str) -> None:
    space.sh(TUN + VPC)

    async def work(routes: Routes) -> None:
        async with contextlib.aclosing(routes.changes()) as changes:
            await anext(changes)
            space.sh(change)
            await anext(changes)

    _within(space, work)


def test_many_may_ask_at_once(space: Space) -> None:
    space.sh(TUN)

    async def work(routes: Routes) -> None:
        async with asyncio.TaskGroup() as group:
            seen = [group.create_task(routes.observe()) for _ in range(10)]
            for route in ALL:
                group.create_task(routes.add(route))
        assert all("tun-hk" in task.result().devices for task in seen)
        assert (await routes.observe()).routes == frozenset(ALL)

    _within(space, work)


def test_purge_removes_what_is_ours_and_nothing_else(space: Space) -> None:
    space.sh(TUN + VPC)

    async def work(routes: Routes) -> None:
        before = space.sh("ip route show dev eth0; ip -br addr show dev eth0")
        for route in ALL:
            await routes.add(route)
        removed = await host.purge(routes, ())
        assert len(removed) == len(ALL) + 1
        assert space.sh("ip route show dev eth0; ip -br addr show dev eth0") == before
        assert await host.purge(routes, ()) == ()

    _within(space, work)
    assert "proto 110" not in space.sh("ip route show table all; ip -6 route show table all")
