import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import virtio


def ipv4(protocol: int, payload: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    return (
        struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | words,
            0,
            words * 4 + len(payload),
            1,
            fragment,
            64,
            protocol,
            0,
            b"\x0a\0\0\1",
            b"\x0a\0\0\2",
        )
        + options
        + payload
    )


def ipv6(protocol: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB16s16s", 0x60000000, len(payload), protocol, 64, b"\1" * 16, b"\2" * 16) + payload


def tcp(payload: bytes, words: int = 5) -> bytes:
    return struct.pack("!HHIIBBHHH", 1, 2, 3, 4, words << 4, 0x10, 100, 0, 0) + bytes(words * 4 - 20) + payload


def header(flags: int, gso: int, segment: int) -> bytes:
    return virtio.HEADER.pack(flags, gso, 0, segment, 0, 0)


def rebuilt(shape: int, segment: int, packet: bytes) -> tuple[int, ...]:
    out = bytearray(virtio.HEADER.size)
    virtio.rebuild(shape, segment, memoryview(packet), out)
    return virtio.HEADER.unpack(out)


@pytest.mark.parametrize(
    ("packet", "gso", "transport", "headers"),
    [
        (ipv4(6, tcp(b"x" * 5000)), virtio.GSO_TCPV4, 20, 40),
        (ipv4(6, tcp(b"x" * 5000, words=8)), virtio.GSO_TCPV4, 20, 52),
        (ipv4(6, tcp(b"x" * 5000), options=bytes(8)), virtio.GSO_TCPV4, 28, 48),
        (ipv6(6, tcp(b"x" * 5000)), virtio.GSO_TCPV6, 40, 60),
    ],
)
def test_a_tcp_super_packet_gets_the_header_that_its_own_bytes_call_for(packet, gso, transport, headers):
    shape, segment = virtio.shape(header(virtio.NEEDS_CSUM, gso, 1448))
    assert rebuilt(shape, segment, packet) == (virtio.NEEDS_CSUM, gso, headers, 1448, transport, 16)


def test_a_udp_super_packet_keeps_its_segment_size():
    shape, segment = virtio.shape(header(virtio.NEEDS_CSUM, virtio.GSO_UDP_L4, 1000))
    assert rebuilt(shape, segment, ipv4(17, bytes(8 + 3000))) == (1, virtio.GSO_UDP_L4, 28, 1000, 20, 6)


def test_the_ecn_mark_of_a_super_packet_survives():
    shape, segment = virtio.shape(header(1, virtio.GSO_TCPV4 | virtio.GSO_ECN, 1448))
    assert rebuilt(shape, segment, ipv4(6, tcp(b"x" * 3000)))[1] == virtio.GSO_TCPV4 | virtio.GSO_ECN


def test_a_packet_that_is_whole_needs_no_header():
    assert rebuilt(virtio.SINGLE, 0, ipv4(1, b"ping")) == (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("shape", "segment", "packet"),
    [
        (virtio.UNSUMMED | virtio.TCP, 1448, ipv4(17, bytes(5000))),
        (virtio.UNSUMMED | virtio.UDP, 1448, ipv4(6, tcp(bytes(5000)))),
        (virtio.UNSUMMED | virtio.TCP, 0, ipv4(6, tcp(bytes(5000)))),
        (virtio.UNSUMMED, 0, ipv4(1, b"ping")),
        (virtio.TCP, 1448, ipv4(6, tcp(bytes(5000)))),
        (virtio.UNSUMMED | virtio.TCP, 1448, ipv4(6, tcp(bytes(5000)), fragment=100)),
        (virtio.UNSUMMED | virtio.TCP, 1448, ipv4(6, tcp(bytes(5000)))[:-1]),
        (virtio.UNSUMMED | virtio.TCP, 1448, ipv4(6, b"short")),
        (virtio.SINGLE, 0, b"\x50" + bytes(30)),
    ],
)
def test_a_shape_that_contradicts_the_packet_is_refused(shape, segment, packet):
    with pytest.raises(virtio.BadPacket):
        rebuilt(shape, segment, packet)


@given(st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=120))
def test_whatever_comes_from_the_wire_the_kernel_gets_a_header_within_the_packet(shape, segment, packet):
    try:
        _, gso, length, size, start, offset = rebuilt(shape, segment, packet)
    except virtio.BadPacket:
        return
    assert length <= len(packet)
    assert start + offset <= len(packet)
    assert not gso or size
