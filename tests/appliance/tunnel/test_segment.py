import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import virtio
from appliance.tunnel.segment import split

FIN, PSH, CWR = 0x01, 0x08, 0x80


def fold(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def words(data: bytes | bytearray) -> int:
    data += bytes(len(data) % 2)
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def pseudo(version: int, packet: bytes | bytearray, protocol: int, length: int) -> int:
    """Sum of the pseudo header, folded: what the field of an unfinished checksum holds (not complemented)."""
    addresses = packet[12:20] if version == 4 else packet[8:40]
    return fold(words(addresses) + protocol + length)


def super_packet(version: int, protocol: int, payload: bytes, flags: int = FIN | PSH | CWR) -> bytes:
    if protocol == 6:
        transport = struct.pack("!HHIIBBHHH", 1, 2, 0xFFFFFF00, 9, 8 << 4, flags, 100, 0, 0) + bytes(12)
    else:
        transport = struct.pack("!HHHH", 1, 2, 8 + len(payload), 0)
    length = len(transport) + len(payload)
    if version == 4:
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 2, 20 + length, 0xFFFE, 0x4000, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2"
        )
    else:
        head = struct.pack("!IHBB16s16s", 6 << 28, length, protocol, 64, b"\1" * 16, b"\2" * 16)
    at = {6: 16, 17: 6}[protocol]
    transport = transport[:at] + struct.pack("!H", pseudo(version, head, protocol, length)) + transport[at + 2 :]
    return head + transport + payload


@given(st.sampled_from([4, 6]), st.sampled_from([6, 17]), st.binary(min_size=1, max_size=9000), st.integers(200, 1460))
def test_the_packets_carry_the_payload_in_order_each_right_in_itself(version, protocol, payload, segment):
    kind = virtio.TCP if protocol == 6 else virtio.UDP
    whole = super_packet(version, protocol, payload)
    start = len(whole) - len(payload)
    transport = 20 if version == 4 else 40
    carried, out = b"", bytearray(virtio.HEADER.size)
    for number, (shape, _, piece) in enumerate(split(virtio.UNSUMMED | kind, segment, memoryview(whole))):
        virtio.rebuild(shape, 0, memoryview(piece), out)  # its own lengths agree, and the kernel is asked to sum it
        assert virtio.HEADER.unpack(out)[0] == virtio.NEEDS_CSUM
        if version == 4:
            assert fold(words(piece[:20])) == 0xFFFF
            assert int.from_bytes(piece[4:6]) == (0xFFFE + number) & 0xFFFF
        at = transport + (16 if protocol == 6 else 6)
        assert int.from_bytes(piece[at : at + 2]) == pseudo(version, piece, protocol, len(piece) - transport)
        if protocol == 6:
            assert int.from_bytes(piece[transport + 4 : transport + 8]) == (0xFFFFFF00 + len(carried)) & 0xFFFFFFFF
            flags, last = piece[transport + 13], len(carried) + segment >= len(payload)
            assert bool(flags & CWR) is (number == 0)
            assert bool(flags & (FIN | PSH)) is last
        else:
            assert int.from_bytes(piece[transport + 4 : transport + 6]) == len(piece) - transport
        assert len(piece) - start <= segment
        carried += piece[start:]
    assert carried == payload


@given(
    st.sampled_from([4, 6]),
    st.sampled_from([6, 17]),
    st.binary(min_size=1, max_size=9000),
    st.integers(200, 1460),
    st.integers(0, 9000),
)
def test_larger_pieces_stand_for_the_same_packets_and_are_no_larger_than_asked_for(
    version, protocol, payload, segment, most
):
    shape = virtio.UNSUMMED | (virtio.TCP if protocol == 6 else virtio.UDP)
    whole = super_packet(version, protocol, payload)
    single = list(split(shape, segment, memoryview(whole)))
    pieces, out = list(split(shape, segment, memoryview(whole), most)), bytearray(virtio.HEADER.size)
    again: list[tuple[int, int, bytearray]] = []
    for kind, size, piece in pieces:
        virtio.rebuild(kind, size, memoryview(piece), out)
        again += split(kind, size, memoryview(piece)) if size else [(kind, size, piece)]
        assert len(piece) <= most or not size
    assert again == single
    assert len(pieces) == len(single) or most > segment


@given(st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=100))
def test_whatever_it_is_given_it_refuses_or_cuts(shape, segment, packet):
    with contextlib.suppress(virtio.BadPacket):
        assert list(split(shape, segment, memoryview(packet)))


def test_what_is_no_super_packet_is_refused():
    with pytest.raises(virtio.BadPacket):
        list(split(virtio.SINGLE, 0, memoryview(super_packet(4, 6, b"x"))))
