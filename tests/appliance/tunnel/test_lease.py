"""A server chooses our address, and with it what the kernel sends into the tunnel."""

from ipaddress import IPv4Address, ip_address, ip_interface

import pytest

from appliance.tunnel.lease import objection

SERVER = ip_address("203.0.113.10")


@pytest.mark.parametrize(
    "given", ["100.64.240.50/24", "10.9.0.2/30", "192.168.77.5/16", "fd12:3456::5/64", "fd12::5/48"]
)
def test_an_address_of_a_tunnel_of_its_own_is_taken(given):
    assert objection(ip_interface(given).network, SERVER) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("100.100.100.201/31", "overlaps 100.100.100.200/32"),
        ("100.100.100.201/24", "overlaps 100.100.100.200/32"),
        ("100.100.2.130/25", "overlaps 100.100.0.0/16"),
        ("169.254.169.253/30", "overlaps 169.254.0.0/16"),
        ("127.0.0.5/24", "overlaps 127.0.0.0/8"),
        ("10.0.0.1/8", "wider than /16"),
        ("0.0.0.1/0", "wider than /16"),
        ("47.74.1.1/24", "on the Internet"),
        ("203.0.113.77/24", "server, 203.0.113.10, lies in it"),
        ("fe80::5/64", "overlaps fe80::/10"),
        ("fd00:ec2::253/64", "overlaps fd00:ec2::254/128"),
        ("fd00::1/32", "wider than /48"),
    ],
)
def test_one_that_would_bring_something_else_into_the_tunnel_is_not(given, why):
    assert why in (objection(ip_interface(given).network, SERVER) or "")


def test_a_gateway_lies_in_the_subnet():
    given = ip_interface("100.64.240.50/24").network
    assert objection(given, SERVER, IPv4Address("100.64.240.1")) is None
    assert "gateway" in (objection(given, SERVER, IPv4Address("100.64.241.1")) or "")
