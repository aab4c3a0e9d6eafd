"""The list of rules is a faithful image of `Rules`: nothing but that list reads back as them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kernel.firewall import Action, Chain, Line, Rules, aimed, lines, rules_of, sourced
from appliance.kernel.state import Network

devices = st.sampled_from(["tun-hk", "tun-us", "tun-a"])


@st.composite
def networks(draw: st.DrawFn) -> Network:
    if draw(st.booleans()):
        return ip_network((draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 32))), strict=False)
    address = IPv6Address(draw(st.integers(0, 2**128 - 1)))
    return ip_network((int(address), draw(st.integers(0, 128))), strict=False)


@st.composite
def rule_sets(draw: st.DrawFn) -> Rules:
    pairs = draw(st.dictionaries(st.tuples(networks(), devices), st.booleans(), max_size=6))
    return Rules(
        masquerade=frozenset(pair for pair, masked in pairs.items() if masked),
        plain=frozenset(pair for pair, masked in pairs.items() if not masked),
        forward=draw(st.frozensets(devices)),
        clamp=draw(st.frozensets(devices)),
        vpc="eth0",
        mss=frozenset(
            (network, device, draw(st.integers(0, 9000))) for network, device in pairs if draw(st.booleans())
        ),
    )


@settings(deadline=None)
@given(rule_sets())
def test_what_is_written_reads_back_the_same(rules: Rules) -> None:
    assert rules_of(lines(rules)) == rules


@settings(deadline=None)
@given(rule_sets(), st.data())
def test_a_line_missing_doubled_or_moved_is_not_the_same(rules: Rules, data: st.DataObject) -> None:
    written = list(lines(rules))
    at = data.draw(st.integers(0, len(written) - 1))
    assert rules_of(written[:at] + written[at + 1 :]) != rules
    assert rules_of([*written, written[at]]) is None
    if at and written[at] != written[at - 1]:
        written[at - 1], written[at] = written[at], written[at - 1]
        assert rules_of(written) is None


@settings(deadline=None)
@given(rule_sets())
def test_a_shape_has_a_destination_always_or_never(rules: Rules) -> None:
    for line in lines(rules):
        assert aimed(line.chain, line.action, line.state, line.outgoing) == (line.destination is not None)
        assert sourced(line.chain, line.action, line.incoming) == (line.source is not None)


def _verdict(rules: Rules, chain: Chain, outgoing: str, address: str) -> Action | None:
    """What a new packet from the VPC meets first."""
    for line in lines(rules):
        if line.chain is not chain or line.destination is None or line.outgoing not in {"", outgoing}:
            continue
        if IPv4Address(address) in line.destination:
            return line.action
    return None


def test_a_narrow_cidr_is_not_let_out_by_the_device_of_a_wide_one() -> None:
    wide, narrow = (ip_network("10.0.0.0/8"), "tun-us"), (ip_network("10.244.0.0/16"), "tun-hk")
    rules = Rules(masquerade=frozenset({wide, narrow}), forward=frozenset({"tun-hk", "tun-us"}), vpc="eth0")
    assert _verdict(rules, Chain.FORWARD, "tun-hk", "10.244.1.20") is Action.ACCEPT
    assert _verdict(rules, Chain.FORWARD, "tun-us", "10.244.1.20") is Action.REJECT
    assert _verdict(rules, Chain.FORWARD, "tun-us", "10.1.1.1") is Action.ACCEPT
    assert _verdict(rules, Chain.FORWARD, "eth0", "10.1.1.1") is Action.REJECT


def test_a_narrow_cidr_that_keeps_its_source_is_not_caught_by_a_wide_masqueraded_one() -> None:
    wide, narrow = (ip_network("10.0.0.0/8"), "tun-hk"), (ip_network("10.244.0.0/16"), "tun-hk")
    rules = Rules(masquerade=frozenset({wide}), plain=frozenset({narrow}), vpc="eth0")
    assert _verdict(rules, Chain.POSTROUTING, "tun-hk", "10.244.1.20") is Action.RETURN
    assert _verdict(rules, Chain.POSTROUTING, "tun-hk", "10.1.1.1") is Action.MASQUERADE


def test_nothing_can_be_forwarded_while_the_vpc_device_is_unknown() -> None:
    with pytest.raises(ValueError, match="towards the VPC"):
        Rules(forward=frozenset({"tun-hk"}))
    assert lines(Rules()) == ()


def test_a_line_of_no_shape_of_ours_is_no_rules() -> None:
    assert rules_of([Line(Chain.FORWARD, Action.ACCEPT)]) is None
