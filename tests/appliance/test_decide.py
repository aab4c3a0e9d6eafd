"""What a pass is to do follows from what it has seen and what is remembered, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from appliance.decide import Decision, Limits, Memory, Seen, decide
from appliance.desired import unreachable
from appliance.kernel.state import Device, KernelState, Route
from appliance.model import Intent, Phase
from appliance.reconcile import Installed
from tests.appliance.fakes import ETH0, POD, SERVICE, tun
from tests.appliance.forwardbench import BEHIND, OWN, SUBNET, TUNNEL

NOTHING = KernelState(frozenset(), frozenset(), {"eth0": ETH0, "tun-hk": tun()}, "eth0")
FRESH = Memory()
WHOLE = replace(NOTHING, routes=frozenset({TUNNEL, BEHIND, SUBNET, OWN}))


def seen(*intents: Intent, state: KernelState = WHOLE) -> Seen:
    return Seen(intents, {"hk": "tun-hk"}, state)


def decided(what: Seen, memory: Memory = FRESH) -> Decision:
    return decide(memory.seeing(what), what, Limits())


def test_what_is_given_back_keeps_its_rules_until_its_route_is_gone() -> None:
    withdrawn = Intent(POD, "hk", phase=Phase.WITHDRAWN)
    decision = decided(seen(withdrawn, Intent(SERVICE, "hk")))
    assert decision.going == (POD,)
    assert decision.installed == {POD: Installed.WHOLE, SERVICE: Installed.NONE}
    assert {network for network, _ in decision.rules.carried} == {POD, SERVICE}
    assert {network for network, _ in decision.want.rules.carried} == {SERVICE}
    gone = decided(seen(withdrawn, state=NOTHING))
    assert (gone.going, gone.rules) == ((POD,), gone.want.rules)


def test_only_a_device_of_ours_whose_link_is_no_more_is_an_orphan() -> None:
    devices: dict[str, Device] = {
        "tun-hk": tun(),
        "tun-sg": tun("sg", index=8),
        "tun-vpn": replace(tun("vpn", index=9), alias=""),
        "tun-else": replace(tun("odd", index=10), name="tun-else"),
    }
    assert decided(seen(state=replace(NOTHING, devices=devices))).orphans == ("tun-sg",)


def test_what_the_kernel_stops_showing_is_remembered_and_forgotten_with_its_link() -> None:
    memory = Memory().seeing(seen())
    bare = KernelState(frozenset(), frozenset(), {"eth0": ETH0, "lo": ETH0, "ens7": replace(ETH0, name="ens7")}, None)
    later = memory.seeing(seen(state=bare))
    assert later.vpc == "eth0"
    assert later.subnets == {"hk": frozenset({ip_network("100.64.240.0/24")})}
    want = decide(later, seen(Intent(POD, "hk"), state=bare), Limits()).want
    assert unreachable(ip_network("100.64.240.0/24")) in want.wanted
    assert later.seeing(Seen((), {}, bare)).subnets == {}


def test_a_route_is_ours_as_long_as_it_is_wanted_or_waits_for_its_device() -> None:
    memory = Memory().seeing(seen())
    memory = memory.after(decided(seen(Intent(POD, "hk"))).want, WHOLE)
    assert memory.ours == WHOLE.routes
    away = replace(NOTHING, devices={"eth0": ETH0}, routes=frozenset({BEHIND}))
    waiting = seen(Intent(POD, "hk"), state=away)
    assert TUNNEL in memory.after(decided(waiting, memory).want, away).ours
    assert not memory.after(decided(seen(state=NOTHING), memory).want, NOTHING).ours & {TUNNEL, BEHIND}
    assert Route(SERVICE, None, 4000) not in memory.ours


def test_the_first_look_ever_finds_nothing_to_repair() -> None:
    assert Memory().seeing(seen()) == Memory("eth0", {"hk": frozenset({ip_network("100.64.240.0/24")})})
