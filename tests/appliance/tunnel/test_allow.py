from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.allow import Sources

V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(IPv6Address)


def packet_from(address: IPv4Address | IPv6Address) -> memoryview:
    if address.version == 4:
        return memoryview(b"\x45" + bytes(11) + address.packed + bytes(4))
    return memoryview(b"\x60" + bytes(7) + address.packed + bytes(16))


def prefixes(addresses):
    return st.lists(
        st.builds(lambda a, n: ip_network((a, n), strict=False), addresses, st.integers(1, 32)), min_size=1, max_size=4
    )


@given(prefixes(V4) | prefixes(V6), V4 | V6)
def test_exactly_the_configured_prefixes_may_send(allowed, address):
    inside = any(prefix.version == address.version and address in prefix for prefix in allowed)
    assert Sources(allowed).permit(packet_from(address)) is inside


@given(prefixes(V4), st.data())
def test_an_address_inside_may_send(allowed, data):
    prefix = data.draw(st.sampled_from(allowed))
    address = IPv4Address(data.draw(st.integers(int(prefix[0]), int(prefix[-1]))))
    assert Sources(allowed).permit(packet_from(address))


def test_a_lease_permits_its_address_and_not_the_next_one_nor_ipv6():
    sources = Sources([ip_network("100.64.240.50/32")])
    assert sources.permit(packet_from(IPv4Address("100.64.240.50")))
    assert not sources.permit(packet_from(IPv4Address("100.64.240.51")))
    assert not sources.permit(packet_from(IPv6Address("::ffff:100.64.240.50")))


def test_without_prefixes_anything_may_come():
    assert Sources([]).permit(packet_from(IPv4Address("8.8.8.8")))
