"""A few rules and disjoint sets say exactly what a rule per CIDR, the most specific first, would say."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kernel.prefixes import disjoint, network_of
from appliance.kernel.rules import Action, Chain, Rules, State, layout, version_of
from appliance.kernel.state import Network

devices = st.sampled_from(["tun-hk", "tun-us", "tun-a"])
FAR: Final = 2**32 - 1


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Draw from few bits, so that one often lies in another."""
    length = draw(st.integers(0, 32))
    return ip_network((draw(st.integers(0, 15)) << 28 | draw(st.integers(0, 15)), length), strict=False)


@settings(deadline=None)
@given(st.dictionaries(networks(), st.integers(0, 2), max_size=8), st.integers(0, FAR) | st.integers(0, 15))
def test_an_address_is_in_the_set_of_its_most_specific_cidr_and_in_no_other(kinds: dict[Network, int], at: int) -> None:
    around = [network for network in kinds if ip_address(at) in network]
    expected = [kinds[max(around, key=lambda network: network.prefixlen)]] if around else []
    sets = disjoint(kinds, 32)
    assert [kind for kind in sets for prefix in sets[kind] if ip_address(at) in network_of(prefix, 4)] == expected


@settings(deadline=None)
@given(st.dictionaries(networks(), st.integers(0, 2), max_size=8))
def test_prefixes_never_overlap_and_none_is_everything(kinds: dict[Network, int]) -> None:
    prefixes = sorted(network_of(prefix, 4) for several in disjoint(kinds, 32).values() for prefix in several)
    assert all(prefix.prefixlen >= 1 for prefix in prefixes)
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(prefixes))


def verdict(rules: Rules, chain: Chain, outgoing: str, address: str) -> Action | None:
    """Return what a new packet from the VPC meets first."""
    found = layout(rules)
    for line in found.lines:
        met = line.chain is chain and line.destination and line.outgoing in {"", outgoing}
        if met and any(ip_address(address) in network_of(prefix, 4) for prefix in found.sets[line.destination]):
            return line.action
    return None


def test_a_narrow_cidr_is_not_let_out_by_the_device_of_a_wide_one() -> None:
    wide, narrow = (ip_network("10.0.0.0/8"), "tun-us"), (ip_network("10.244.0.0/16"), "tun-hk")
    rules = Rules(masquerade=frozenset({wide, narrow}), forward=frozenset({"tun-hk", "tun-us"}), vpc="eth0")
    assert verdict(rules, Chain.FORWARD, "tun-hk", "10.244.1.20") is Action.ACCEPT
    assert verdict(rules, Chain.FORWARD, "tun-us", "10.244.1.20") is Action.REJECT
    assert verdict(rules, Chain.FORWARD, "tun-us", "10.1.1.1") is Action.ACCEPT
    assert verdict(rules, Chain.FORWARD, "eth0", "10.1.1.1") is Action.REJECT
    assert verdict(rules, Chain.FORWARD, "eth0", "192.0.2.1") is None


def test_a_narrow_cidr_that_keeps_its_source_is_not_caught_by_a_wide_masqueraded_one() -> None:
    wide, narrow = (ip_network("10.0.0.0/8"), "tun-hk"), (ip_network("10.244.0.0/16"), "tun-hk")
    rules = Rules(masquerade=frozenset({wide}), plain=frozenset({narrow}), vpc="eth0")
    assert verdict(rules, Chain.POSTROUTING, "tun-hk", "10.244.1.20") is None
    assert verdict(rules, Chain.POSTROUTING, "tun-hk", "10.1.1.1") is Action.MASQUERADE


def meets(rules: Rules, chain: Chain, packet: Packet) -> Action | None:
    """Return what a packet meets at last in this chain, None where nothing of ours concerns it."""
    found = layout(rules)

    def is_in(name: str, address: str) -> bool:
        at = ip_address(address)
        version = version_of(name)
        return at.version == version and any(at in network_of(each, version) for each in found.sets[name])

    def device(wanted: str, seen: str) -> bool:
        return not wanted or (wanted[1:] != seen if wanted.startswith("!") else wanted == seen)

    for line in found.lines:
        if (
            line.chain is chain
            and device(line.incoming, packet.incoming)
            and device(line.outgoing, packet.outgoing)
            and (not line.destination or is_in(line.destination, packet.destination))
            and (not line.source or is_in(line.source, packet.source))
            and line.state in {State.ANY, packet.state}
            and (packet.icmp or not line.icmp)
        ):
            return line.action
    return None


@dataclass(frozen=True)
class Packet:
    """By default, what opens a connection from a pod to a host."""

    source: str = "10.244.1.20"
    destination: str = "172.18.1.10"
    state: State = State.ANY
    incoming: str = "tun-hk"
    outgoing: str = "eth0"
    icmp: bool = False


SUBNET = (ip_network("100.64.240.0/24"), "tun-hk")
CLOSED = Rules(
    masquerade=frozenset({(ip_network("10.244.0.0/16"), "tun-hk")}),
    plain=frozenset({(ip_network("10.245.0.0/16"), "tun-us"), (ip_network("fd00:10::/32"), "tun-hk")}),
    forward=frozenset({"tun-hk", "tun-us"}),
    vpc="eth0",
    guarded=frozenset({"tun-hk", "tun-us"}),
    own=frozenset({SUBNET}),
    six=True,
)
OPEN = replace(CLOSED, inbound=frozenset({"tun-hk"}))
REPLY = Packet(state=State.ESTABLISHED)
METADATA = "100.100.100.200"


@pytest.mark.parametrize(
    ("packet", "closed", "open_"),
    [
        (Packet(), Action.DROP, Action.ACCEPT),
        (Packet(source="100.64.240.1"), Action.DROP, Action.ACCEPT),
        (Packet(source="fd00:10::1", destination="fd00:18::1"), Action.DROP, Action.ACCEPT),
        (Packet(source="172.18.1.11"), Action.DROP, Action.DROP),  # it claims to be a host of the VPC
        (Packet(source="10.245.0.1"), Action.DROP, Action.DROP),  # another link's
        (Packet(source="10.245.0.1", incoming="tun-us"), Action.DROP, Action.DROP),  # not that link
        (Packet(outgoing="tun-us", destination="10.245.0.1"), Action.DROP, Action.DROP),
        (Packet(destination=METADATA), Action.DROP, Action.DROP),
        (Packet(destination=METADATA, state=State.ESTABLISHED), Action.DROP, Action.DROP),
        (Packet(destination="169.254.169.254"), Action.DROP, Action.DROP),
        (Packet(source="fd00:10::1", destination="fd00:ec2::254"), Action.DROP, Action.DROP),
        (REPLY, Action.ACCEPT, Action.ACCEPT),
        (replace(REPLY, source="203.0.113.7", icmp=True), Action.ACCEPT, Action.ACCEPT),  # an error of a far router's
        (replace(REPLY, outgoing="docker0"), Action.RETURN, Action.RETURN),  # begun on this side
        (Packet("172.18.1.10", "10.244.1.20", incoming="eth0", outgoing="tun-hk"), Action.ACCEPT, Action.ACCEPT),
    ],
)
def test_out_of_a_tunnel_comes_what_was_asked_for_and_more_only_where_it_may(
    packet: Packet, closed: Action, open_: Action
) -> None:
    assert meets(CLOSED, Chain.FORWARD, packet) is closed
    assert meets(OPEN, Chain.FORWARD, packet) is open_


@pytest.mark.parametrize("rules", [CLOSED, OPEN])
def test_a_far_end_reaches_of_the_appliance_what_answers_pings_and_nothing_that_listens(rules: Rules) -> None:
    me = Packet(destination="100.64.240.50", outgoing="")
    ping = replace(me, source="100.64.240.1", icmp=True)
    assert meets(rules, Chain.INPUT, ping) is Action.RETURN
    assert meets(rules, Chain.INPUT, replace(ping, source="10.244.1.20")) is Action.RETURN
    assert meets(rules, Chain.INPUT, replace(ping, source="172.18.1.11")) is Action.DROP
    assert meets(rules, Chain.INPUT, replace(ping, source="100.64.240.1", icmp=False)) is Action.DROP
    assert meets(rules, Chain.INPUT, replace(me, destination="172.18.2.10")) is Action.DROP
    assert meets(rules, Chain.INPUT, replace(me, source="fe80::1", destination="fe80::2")) is Action.DROP
    assert meets(rules, Chain.INPUT, replace(me, state=State.ESTABLISHED)) is Action.RETURN
    assert meets(rules, Chain.INPUT, replace(me, incoming="eth0")) is None


def test_the_subnet_of_one_tunnel_is_not_that_of_another_whose_name_ends_alike() -> None:
    names = ("tun-a", "tun-b-tun-a")
    own = frozenset({(ip_network("10.1.0.0/24"), names[0]), (ip_network("10.2.0.0/24"), names[1])})
    rules = Rules(guarded=frozenset(names), own=own)
    packet = Packet(source="10.2.0.1", incoming="tun-a", outgoing="", icmp=True)
    assert meets(rules, Chain.INPUT, packet) is Action.DROP
    assert meets(rules, Chain.INPUT, replace(packet, incoming="tun-b-tun-a")) is Action.RETURN


def test_a_thousand_cidrs_are_as_many_rules_as_one() -> None:
    many = [(ip_network((10 << 24 | number << 8, 24)), "tun-hk") for number in range(1000)]
    assert (
        layout(Rules(masquerade=frozenset(many), vpc="eth0")).lines
        == layout(Rules(masquerade=frozenset(many[:1]), vpc="eth0")).lines
    )


def test_a_name_fits_into_what_the_kernel_gives_it() -> None:
    longest = (ip_network("fd00::/48"), "tun-abcdefghijk")
    (name,) = layout(Rules(plain=frozenset({longest}), mss=frozenset({(*longest, 65535)}), vpc="eth0")).sets
    guarded = layout(Rules(guarded=frozenset({longest[1]}), own=frozenset({longest}), six=True)).sets
    assert all(len(each) <= 31 for each in (name, *guarded))  # IPSET_MAXNAMELEN, less the NUL


def test_what_no_list_of_rules_can_say_is_refused() -> None:
    pod = ip_network("10.244.0.0/16")
    with pytest.raises(ValueError, match="towards the VPC"):
        Rules(forward=frozenset({"tun-hk"}))
    with pytest.raises(ValueError, match="by one device"):
        Rules(masquerade=frozenset({(pod, "tun-hk")}), plain=frozenset({(pod, "tun-us")}), vpc="eth0")
    with pytest.raises(ValueError, match="is carried"):
        Rules(masquerade=frozenset({(pod, "tun-hk")}), mss=frozenset({(pod, "tun-us", 1300)}), vpc="eth0")
    with pytest.raises(ValueError, match="guarded"):
        Rules(vpc="eth0", inbound=frozenset({"tun-hk"}))
    assert layout(Rules()).lines == ()
