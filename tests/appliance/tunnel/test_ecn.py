import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import ecn


def ipv4(tos: int, rest: bytes) -> bytearray:
    packet = bytearray((0x45, tos)) + rest
    packet[10:12] = bytes(2)
    packet[10:12] = (~total(packet) & 0xFFFF).to_bytes(2)
    return packet


def total(packet: bytearray) -> int:
    value = sum(int.from_bytes(packet[at : at + 2]) for at in range(0, 20, 2))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


@given(st.integers(0, 255), st.binary(min_size=18, max_size=18))
def test_a_mark_leaves_the_header_in_order(tos, rest):
    packet = ipv4(tos, rest)
    before = bytes(packet)
    marked = ecn.mark(memoryview(packet))
    assert marked == bool(tos & 3)
    assert total(packet) == 0xFFFF
    if marked:
        assert packet[1] == tos | 3
        assert packet[2:10] + packet[12:] == before[2:10] + before[12:]
    else:
        assert packet == before


@pytest.mark.parametrize(("traffic_class", "marked"), [(0, False), (1, True), (2, True), (3, True), (0xB8, False)])
def test_ipv6_is_marked_in_its_traffic_class(traffic_class, marked):
    packet = bytearray((0x60 | traffic_class >> 4, (traffic_class & 15) << 4 | 0x0A)) + bytes(38)
    assert ecn.mark(memoryview(packet)) is marked
    assert (packet[0] & 15) << 4 | packet[1] >> 4 == (traffic_class | 3 if marked else traffic_class)
    assert packet[1] & 15 == 0x0A


def test_what_is_no_ip_packet_is_left_alone():
    packet = bytearray(40)
    assert not ecn.mark(memoryview(packet))
    assert packet == bytes(40)
