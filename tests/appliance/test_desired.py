from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

from appliance.desired import by_destination, desired, installed, rules, tunnel_subnets
from appliance.kernel.rules import Rules
from appliance.kernel.state import KernelState, Route
from appliance.model import Intent
from appliance.reconcile import Installed
from appliance.status import LayerState
from tests.appliance.fakes import ETH0, POD, SERVICE, tun

DEVICES = {"hk": "tun-hk"}
STATE = KernelState(frozenset(), frozenset(), {"eth0": ETH0, "tun-hk": tun()}, "eth0")
SIX = ip_network("fd00:10:244::/64")


def test_what_answers_unreachable_comes_before_any_route_into_a_tunnel() -> None:
    subnet = ip_network("100.64.240.0/24")
    want = desired([Intent(POD, "hk"), Intent(SERVICE, "hk")], DEVICES, {"hk": [subnet]}, STATE, "eth0")
    assert want.routes == (
        Route(subnet, None, 4000),
        Route(POD, None, 4000),
        Route(SERVICE, None, 4000),
        Route(subnet, "tun-hk", 50),
        Route(POD, "tun-hk", 50),
        Route(SERVICE, "tun-hk", 50),
    )
    assert want.blocked == {}


def test_a_cidr_that_cannot_be_carried_yet_is_answered_unreachable_and_says_why() -> None:
    down = replace(STATE, devices={"tun-hk": tun(up=False)})
    gone = replace(STATE, devices={})
    cases = [
        ("device-down", desired([Intent(POD, "hk")], DEVICES, {}, down, "eth0")),
        ("no-device", desired([Intent(POD, "hk")], DEVICES, {}, gone, "eth0")),
        ("link-unknown", desired([Intent(POD, "sg")], DEVICES, {}, STATE, "eth0")),
        ("no-default-route", desired([Intent(POD, "hk")], DEVICES, {}, STATE, None)),
        ("no-ipv6-firewall", desired([Intent(SIX, "hk")], DEVICES, {}, STATE, "eth0", "no table")),
    ]
    for code, want in cases:
        assert [layer.code for layer in want.blocked.values()] == [code]
        assert [route.device for route in want.routes] == [None]


def test_an_ipv6_cidr_is_not_carried_by_a_link_that_has_no_ipv6_address() -> None:
    """A link-local one does not count: masquerading would take it, and nobody could answer."""
    local = replace(tun(), addresses=(*tun().addresses, ip_interface("fe80::1/64")))
    served = replace(local, addresses=(*local.addresses, ip_interface("fd64::50/64")))
    for device, codes in (
        (tun(), ["no-ipv6"]),
        (local, ["no-ipv6"]),
        (served, []),
        (tun(address=None), ["no-address"]),
    ):
        state = replace(STATE, devices={"tun-hk": device})
        want = desired([Intent(SIX, "hk")], DEVICES, {}, state, "eth0")
        assert [layer.code for layer in want.blocked.values()] == codes
        assert (SIX in want.through) is (not codes)
    blocked = desired([Intent(SIX, "hk")], DEVICES, {}, STATE, "eth0").blocked[SIX]
    assert blocked.state is LayerState.ERROR
    assert "serves no IPv6" in blocked.detail


def test_a_firewall_that_knows_no_ipv6_is_given_none() -> None:
    carried = [Intent(SIX, "hk"), Intent(POD, "hk", snat=False)]
    found = rules(carried, DEVICES, "eth0", "no table")
    hk = frozenset({"tun-hk"})
    assert found == Rules(plain=frozenset({(POD, "tun-hk")}), forward=hk, clamp=hk, vpc="eth0", guarded=hk)
    assert rules(carried, DEVICES, "eth0").masquerade == {(SIX, "tun-hk")}


def test_every_tunnel_is_guarded_whatever_is_known_and_none_may_begin_connections_unasked() -> None:
    subnet = ip_network("100.64.240.0/24")
    devices = {"hk": "tun-hk", "sg": "tun-sg"}
    both = frozenset(devices.values())
    own = frozenset({(subnet, "tun-hk")})
    assert rules([], devices, None) == Rules(guarded=both, six=True)
    found = rules([Intent(POD, "hk")], devices, "eth0", subnets={"hk": [subnet]})
    assert (found.guarded, found.own, found.inbound, found.six) == (both, own, frozenset(), True)
    found = rules([], devices, "eth0", "no table", subnets={"hk": [subnet]}, inbound=["sg", "gone"])
    assert (found.guarded, found.own, found.inbound, found.six) == (both, own, frozenset({"tun-sg"}), False)
    assert rules([], {}, None) == Rules()


def test_a_tunnels_subnets_are_read_off_its_device() -> None:
    device = replace(tun(), addresses=tuple(map(ip_interface, ("100.64.240.50/24", "fe80::1/64", "10.9.9.9/32"))))
    state = replace(STATE, devices={"tun-hk": device, "tun-sg": tun("sg", None)})
    devices = {"hk": "tun-hk", "sg": "tun-sg", "tk": "tun-tk"}
    assert tunnel_subnets(devices, state) == {"hk": {ip_network("100.64.240.0/24")}}


def test_installed_is_whole_only_with_both_routes() -> None:
    intent = Intent(POD, "hk")
    through, behind = Route(POD, "tun-hk", 50), Route(POD, None, 4000)
    assert installed(intent, DEVICES, by_destination({through, behind})) is Installed.WHOLE
    assert installed(intent, DEVICES, by_destination({behind})) is Installed.PART
    assert installed(intent, DEVICES, by_destination({Route(POD, "tun-sg", 50), behind})) is Installed.PART
    assert installed(intent, DEVICES, by_destination({Route(SERVICE, "tun-hk", 50)})) is Installed.NONE
    assert installed(Intent(POD, "sg"), DEVICES, by_destination({through, behind})) is Installed.PART
