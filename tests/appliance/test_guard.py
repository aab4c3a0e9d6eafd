from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.guard import FORBIDDEN, SHORTEST, Facts, Severity, judge, overlap, refused, trespasses
from appliance.model import Intent, Network
from tests.appliance.fakes import POD, VPC

FACTS = Facts(
    vpc=VPC,
    tunnel_servers=frozenset({ip_address("203.0.113.10"), ip_address("2001:db8::10")}),
    tunnel_subnets=frozenset({ip_network("100.64.240.0/24"), ip_network("10.99.0.0/24")}),
    local_networks=frozenset({("docker0", ip_network("172.17.0.0/16")), ("eth0", ip_network("172.18.2.0/24"))}),
    intents=(Intent(ip_network("10.50.0.0/16"), "sg"), Intent(POD, "hk")),
    links=frozenset({"hk", "sg"}),
)


def codes(cidr: str, facts: Facts = FACTS, via: str | None = "hk") -> list[str]:
    return [reason.code for reason in judge(ip_network(cidr), facts, via=via)]


@pytest.mark.parametrize("cidr", ["10.244.0.0/16", "10.96.0.0/16", "8.8.8.8/32", "fd00:10:244::/56", "192.0.0.0/24"])
def test_a_far_network_may_be_proxied(cidr: str) -> None:
    assert codes(cidr) == []


@pytest.mark.parametrize(
    ("cidr", "code"),
    [
        ("0.0.0.0/0", "default-route"),
        ("::/0", "default-route"),
        ("172.18.0.0/16", "contains-vpc"),
        ("172.16.0.0/12", "contains-vpc"),
        ("172.0.0.0/7", "contains-vpc"),
        ("172.18.1.0/24", "overlaps-vswitch"),
        ("172.18.1.77/32", "overlaps-vswitch"),
        ("172.18.0.0/23", "overlaps-vswitch"),
        ("100.100.100.200/32", "metadata"),
        ("100.100.100.0/24", "reserved"),
        ("100.64.0.0/10", "reserved"),
        ("100.0.0.0/8", "reserved"),
        ("203.0.113.10/32", "tunnel-server"),
        ("203.0.112.0/20", "tunnel-server"),
        ("2001:db8::/32", "tunnel-server"),
        ("100.64.240.0/24", "tunnel-subnet"),
        ("10.99.0.128/25", "tunnel-subnet"),
        ("10.0.0.0/8", "tunnel-subnet"),
        ("127.0.0.0/8", "loopback"),
        ("127.1.2.3/32", "loopback"),
        ("::1/128", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("fe80::/64", "link-local"),
        ("224.0.0.5/32", "multicast"),
        ("ff02::/16", "multicast"),
        ("0.0.0.0/8", "this-host"),
        ("::/128", "this-host"),
        ("240.0.0.0/4", "future-use"),
        ("255.255.255.255/32", "broadcast"),
        ("::ffff:10.0.0.0/104", "v4-mapped"),
        ("172.17.4.0/24", "local-network"),
        ("32.0.0.0/7", "too-short"),
        ("2400::/8", "too-short"),
        ("10.50.1.0/24", "other-link"),
        ("10.50.0.0/16", "other-link"),
    ],
)
def test_names_first_what_is_most_to_the_point(cidr: str, code: str) -> None:
    reasons = judge(ip_network(cidr), FACTS, via="hk")
    assert reasons[0].code == code
    assert reasons[0].severity is Severity.REFUSE
    assert reasons[0].text
    assert reasons[0].next_step


def test_a_block_that_covers_several_forbidden_ones_is_told_of_each() -> None:
    assert codes("64.0.0.0/2") == ["loopback", "reserved", "tunnel-subnet", "metadata", "too-short"]


def test_who_is_told_about_the_vpc_need_not_hear_of_each_vswitch() -> None:
    assert codes("172.18.0.0/16") == ["contains-vpc"]
    assert codes("172.18.2.0/24") == ["overlaps-vswitch"]


def test_inside_the_vpc_but_in_no_vswitch_is_allowed_with_a_warning() -> None:
    (reason,) = judge(ip_network("172.18.200.0/24"), FACTS, via="hk")
    assert (reason.code, reason.severity) == ("inside-vpc", Severity.WARN)
    assert refused((reason,)) == ()


def test_a_secondary_cidr_of_the_vpc_counts_too() -> None:
    facts = replace(FACTS, vpc=replace(VPC, cidrs=(*VPC.cidrs, ip_network("192.168.0.0/16"))))
    assert codes("192.168.0.0/16", facts) == ["contains-vpc"]


def test_asking_for_ones_own_cidr_again_is_no_objection() -> None:
    assert codes("10.244.0.0/16") == []
    assert codes("10.244.7.0/24") == []
    assert codes("10.244.0.0/16", via="sg") == ["other-link"]


def test_a_link_that_is_not_there_is_named() -> None:
    (reason,) = judge(POD, FACTS, via="mars")
    assert reason.code == "link-unknown"
    assert "hk, sg" in reason.text
    assert codes("10.244.0.0/16", via=None) == []


def test_a_tunnel_server_without_an_address_is_a_warning() -> None:
    (reason,) = judge(POD, replace(FACTS, unresolved=("gw.example.net",)), via="hk")
    assert (reason.code, reason.severity) == ("tunnel-server-unknown", Severity.WARN)


V4 = st.builds(
    lambda bits, length: IPv4Network((bits >> (32 - length) << (32 - length) if length else 0, length)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
V6 = st.builds(
    lambda bits, length: IPv6Network((bits >> (128 - length) << (128 - length) if length else 0, length)),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)


def forbidden() -> list[Network]:
    blocks: list[Network] = [block.network for block in FORBIDDEN]
    blocks += [ip_network(server) for server in FACTS.tunnel_servers]
    blocks += FACTS.tunnel_subnets
    blocks += [network for _, network in FACTS.local_networks]
    blocks += [network for _, network in VPC.vswitches]
    blocks += [intent.network for intent in FACTS.intents if intent.via != "hk"]
    return blocks


# Anywhere, and close to what is forbidden, where a mistake would be.
NEAR = st.sampled_from(forbidden()).flatmap(
    lambda block: st.integers(0, block.max_prefixlen).map(
        lambda length: (
            block.supernet(new_prefix=length)
            if length <= block.prefixlen
            else next(iter(block.subnets(new_prefix=min(length, block.prefixlen + 12))))
        )
    )
)


@given(st.one_of(V4, V6, NEAR))
@example(ip_network("100.0.0.0/8"))
@example(ip_network("64.0.0.0/2"))
def test_whatever_overlaps_a_forbidden_block_is_refused_and_nothing_else(network: Network) -> None:
    bad = any(overlap(network, block) for block in forbidden())
    bad |= any(cidr.version == network.version and cidr.subnet_of(network) for cidr in VPC.cidrs)  # type: ignore[arg-type]
    bad |= network.prefixlen < SHORTEST[network.version]
    assert bool(refused(judge(network, FACTS, via="hk"))) == bad


@given(V4, V6)
def test_networks_of_different_versions_never_overlap(four: IPv4Network, six: IPv6Network) -> None:
    assert not overlap(four, six)
    assert not overlap(six, four)


def test_what_takes_from_the_vpc_itself_is_named_by_the_most_that_it_takes() -> None:
    for cidr, code in {
        "172.18.1.0/24": "overlaps-vswitch",
        "172.18.1.128/25": "overlaps-vswitch",
        "172.16.0.0/12": "contains-vpc",
        "172.18.0.0/16": "contains-vpc",
    }.items():
        why = trespasses(ip_network(cidr), VPC)
        assert why is not None
        assert why.code == code
        assert judge(ip_network(cidr), Facts(vpc=VPC))[0] == why
    for cidr in ("10.244.0.0/16", "172.18.128.0/20", "fd00::/16"):
        assert trespasses(ip_network(cidr), VPC) is None
