"""Large packets between the kernel and the tunnel: the virtio header that goes before each packet of a TUN. Pure.

A TUN with IFF_VNET_HDR hands out up to 64 KiB at once, a "super-packet" that the peer's kernel will cut into segments
later, and takes the same when written to. On the wire such a packet keeps only a one-byte shape and its segment size.
The header that we hand to a kernel is always rebuilt from the packet itself: a peer's idea of where the checksum stands
is no business of our kernel, and the hdr_len that Linux fills in on the forward path is wrong anyway.

Layout and flags: linux/virtio_net.h, struct virtio_net_hdr, 10 bytes in host byte order.
"""

from __future__ import annotations

import struct
from typing import Final

_IPV4: Final = struct.Struct("!BxH2xHxB")
"""Version and header length, length, flags and offset, protocol (RFC 791, section 3.1)."""

HEADER: Final = struct.Struct("=BBHHHH")
PLAIN: Final = bytes(HEADER.size)

NEEDS_CSUM: Final = 1
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80

# The shape byte on the wire.
SINGLE: Final = 0
TCP: Final = 1
UDP: Final = 2
SEGMENTED: Final = 3
ECN: Final = 0x40
UNSUMMED: Final = 0x80

_SHAPES: Final = {0: SINGLE, GSO_TCPV4: TCP, GSO_TCPV6: TCP, GSO_UDP_L4: UDP}
_PROTOCOL_TCP: Final = 6
_PROTOCOL_UDP: Final = 17
_CHECKSUM_AT: Final = {_PROTOCOL_TCP: 16, _PROTOCOL_UDP: 6}
_MOST_HEADERS: Final = 0xFFFF
"""What the virtio header's fields can say; extension headers may claim more."""

_EXTENSIONS: Final = frozenset({0, 43, 60})


class BadPacket(Exception):
    """The packet is not what its shape says; drop it."""


def shape(header: bytes | bytearray) -> tuple[int, int]:
    """Return (shape, segment size) of a packet that the kernel handed out with this virtio header."""
    if header == PLAIN:
        return SINGLE, 0
    flags, kind, _, segment, _, _ = HEADER.unpack(header)
    try:
        found = _SHAPES[kind & ~GSO_ECN]
    except KeyError:
        raise BadPacket(f"a segmentation type that we never asked for: {kind}") from None
    if kind & GSO_ECN:
        found |= ECN
    if flags & NEEDS_CSUM:
        found |= UNSUMMED
    return found, segment


def rebuild(wire_shape: int, segment: int, packet: memoryview, header: bytearray) -> None:
    """Fill in the virtio header for writing `packet` to a TUN; raise `BadPacket` when the two do not fit."""
    version, protocol, transport = locate(packet)
    kind = wire_shape & SEGMENTED
    if not wire_shape & UNSUMMED:
        if kind:
            raise BadPacket("a super-packet comes without its checksum")
        header[:] = PLAIN
        return
    if protocol not in _CHECKSUM_AT:
        raise BadPacket("only TCP and UDP leave a checksum to others")
    headers = transport + (tcp_header(packet, transport) if protocol == _PROTOCOL_TCP else 8)
    if headers > min(len(packet), _MOST_HEADERS):
        raise BadPacket("the packet ends in its headers, or is nothing else")
    gso = 0
    if kind and len(packet) - headers > segment:
        if segment == 0 or kind != (TCP if protocol == _PROTOCOL_TCP else UDP):
            raise BadPacket("a segment size that does not fit the packet")
        gso = GSO_UDP_L4 if kind == UDP else GSO_TCPV4 if version == 4 else GSO_TCPV6
        if wire_shape & ECN and kind == TCP:
            gso |= GSO_ECN
    HEADER.pack_into(
        header, 0, NEEDS_CSUM, gso, headers if gso else 0, segment if gso else 0, transport, _CHECKSUM_AT[protocol]
    )


def large(kind: int, segment: int, headers: memoryview, header: bytearray) -> None:
    """Fill in the virtio header of a super-packet of our own making (`coalesce`), from all its headers."""
    transport = 20 if headers[0] >> 4 == 4 else 40
    protocol, gso = (
        (_PROTOCOL_UDP, GSO_UDP_L4) if kind == UDP else (_PROTOCOL_TCP, GSO_TCPV4 if transport == 20 else GSO_TCPV6)
    )
    HEADER.pack_into(header, 0, NEEDS_CSUM, gso, len(headers), segment, transport, _CHECKSUM_AT[protocol])


def locate(packet: memoryview) -> tuple[int, int, int]:
    """Return (IP version, transport protocol, transport header's offset); raise `BadPacket` on what is no packet."""
    if len(packet) < 20:
        raise BadPacket("too short for IP")
    first, length, fragment, protocol = _IPV4.unpack_from(packet)
    version = first >> 4
    if version == 4:
        headers = (first & 15) * 4
        if headers < 20 or length != len(packet):
            raise BadPacket("the IPv4 header contradicts the packet's length")
        # A fragment other than the first has no transport header to look at.
        return 4, 0xFF if fragment & 0x1FFF else protocol, headers
    if version == 6:
        return _locate_v6(packet)
    raise BadPacket("neither IPv4 nor IPv6")


def _locate_v6(packet: memoryview) -> tuple[int, int, int]:
    if len(packet) < 40 or int.from_bytes(packet[4:6]) != len(packet) - 40:
        raise BadPacket("the IPv6 header contradicts the packet's length")
    following, offset = packet[6], 40
    while following in _EXTENSIONS:
        if offset + 8 > len(packet):
            raise BadPacket("the packet ends in its extension headers")
        following, offset = packet[offset], offset + (packet[offset + 1] + 1) * 8
    return 6, following, offset


def tcp_header(packet: memoryview, transport: int) -> int:
    """Return the length of the TCP header, in bytes; raise `BadPacket` on what is none."""
    if transport + 20 > len(packet):
        raise BadPacket("too short for TCP")
    length = (packet[transport + 12] >> 4) * 4
    if length < 20:
        raise BadPacket("a TCP header of less than 20 bytes")
    return length
