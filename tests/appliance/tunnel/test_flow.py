import struct

from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.flow import classify

ADDRESSES = st.binary(min_size=8, max_size=8)
PORTS = st.binary(min_size=4, max_size=4)


def ipv4(addresses: bytes, protocol: int, payload: bytes, *, fragment: int = 0, options: int = 0) -> memoryview:
    head = struct.pack("!BBHHHBBH", 0x45 + options, 0, 0, 0, fragment, 64, protocol, 0)
    return memoryview(head + addresses + bytes(options * 4) + payload)


@given(ADDRESSES, st.sampled_from([6, 17]), PORTS, st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 10))
def test_packets_of_one_flow_stay_together_whatever_they_carry(addresses, protocol, ports, one, other, options):
    first = classify(ipv4(addresses, protocol, ports + one))
    assert first == classify(ipv4(addresses, protocol, ports + other, options=options))
    assert first[1] is (protocol == 6)


@given(ADDRESSES, PORTS, st.binary(max_size=20))
def test_all_fragments_of_a_packet_stay_together(addresses, ports, later):
    first = classify(ipv4(addresses, 17, ports, fragment=0x2000))
    assert first == classify(ipv4(addresses, 17, later, fragment=0x00B9))
    assert first == classify(ipv4(addresses, 17, later, fragment=0x2100))


@given(st.binary(min_size=32, max_size=32), PORTS, st.binary(max_size=20))
def test_ipv6_flows_and_fragments_stay_together(addresses, ports, rest):
    def ipv6(following: int, payload: bytes) -> memoryview:
        return memoryview(struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + addresses + payload)

    assert classify(ipv6(6, ports)) == classify(ipv6(6, ports + rest))
    one = classify(ipv6(44, b"\x11\0\0\1abcd" + ports))
    assert one == classify(ipv6(44, b"\x11\0\x05\xa8abcd" + rest))


def test_flows_spread():
    found = {classify(ipv4(bytes(8), 6, struct.pack("!HH", port, 80)))[0] % 4 for port in range(64)}
    assert found == {0, 1, 2, 3}


@given(st.binary(min_size=20, max_size=60))
def test_no_packet_is_too_odd_to_have_a_flow(packet):
    classify(memoryview(packet))
