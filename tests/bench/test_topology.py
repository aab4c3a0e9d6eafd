from __future__ import annotations

import ipaddress
from collections import Counter

import pytest

from tests.bench.topology import birth, draw, settle

KEYS = ("none", "stream", "wireguard-go")


@pytest.mark.parametrize("delay", [False, True])
def test_every_device_and_address_is_there_once(delay: bool) -> None:
    plan = draw(KEYS, delay=delay)
    ends = [end for cable in plan.cables for end in cable]
    assert max(Counter((end.machine, end.device) for end in ends).values()) == 1
    assert max(Counter(end.address for end in ends if end.address).values()) == 1
    assert {end.machine for end in ends} == set(plan.machines)
    assert all(len(end.device) < 16 for end in ends)  # IFNAMSIZ, with its closing zero


@pytest.mark.parametrize("delay", [False, True])
def test_both_ends_of_a_cable_are_in_one_network(delay: bool) -> None:
    for one, other in draw(KEYS, delay=delay).cables:
        if one.address and other.address:
            assert ipaddress.ip_interface(one.address).network == ipaddress.ip_interface(other.address).network


@pytest.mark.parametrize("delay", [False, True])
def test_every_gateway_is_at_the_far_end_of_a_cable(delay: bool) -> None:
    plan = draw(KEYS, delay=delay)
    for machine, _, gateway in plan.routes:
        networks = [
            ipaddress.ip_interface(end.address).network
            for cable in plan.cables
            for end in cable
            if end.machine == machine and end.address
        ]
        assert any(ipaddress.ip_address(gateway) in network for network in networks)


def test_a_cable_is_born_once() -> None:
    plan = draw(KEYS, delay=True)
    full = {name: f"nhabcd-{name}" for name in plan.machines}
    lines = "".join(birth(plan, machine, full) for machine in plan.machines).splitlines()
    assert len(lines) == len(plan.cables)
    assert "link add to-1 type veth peer name lan netns nhabcd-near-none" in lines


def test_a_machine_is_brought_up_before_its_routes() -> None:
    lines = settle(draw(KEYS, delay=False), "near-stream").splitlines()
    assert lines[0] == "link set lo up"
    assert lines[-1] == "route add default via 198.18.2.1"
