"""A few rules and disjoint sets say exactly what a rule per CIDR, the most specific first, would say."""

from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_network
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kernel.prefixes import disjoint, network_of
from appliance.kernel.rules import Action, Chain, Rules, layout
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


def test_a_thousand_cidrs_are_as_many_rules_as_one() -> None:
    many = [(ip_network((10 << 24 | number << 8, 24)), "tun-hk") for number in range(1000)]
    assert (
        layout(Rules(masquerade=frozenset(many), vpc="eth0")).lines
        == layout(Rules(masquerade=frozenset(many[:1]), vpc="eth0")).lines
    )


def test_a_name_fits_into_what_the_kernel_gives_it() -> None:
    longest = (ip_network("fd00::/48"), "tun-abcdefghijk")
    (name,) = layout(Rules(plain=frozenset({longest}), mss=frozenset({(*longest, 65535)}), vpc="eth0")).sets
    assert len(name) <= 31  # IPSET_MAXNAMELEN, less the NUL


def test_what_no_list_of_rules_can_say_is_refused() -> None:
    pod = ip_network("10.244.0.0/16")
    with pytest.raises(ValueError, match="towards the VPC"):
        Rules(forward=frozenset({"tun-hk"}))
    with pytest.raises(ValueError, match="by one device"):
        Rules(masquerade=frozenset({(pod, "tun-hk")}), plain=frozenset({(pod, "tun-us")}), vpc="eth0")
    with pytest.raises(ValueError, match="is carried"):
        Rules(masquerade=frozenset({(pod, "tun-hk")}), mss=frozenset({(pod, "tun-us", 1300)}), vpc="eth0")
    assert layout(Rules()).lines == ()
