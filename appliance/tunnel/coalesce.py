"""Making large packets of small ones: neighbours of one flow become one super-packet, for the kernel. Pure.

Where packets come in small (a plain NIC, a host without offloads) the cost is per packet, on the rest of the way and in
the receiver's acknowledgements; one write of 64 KiB costs little more than one of 1500 bytes.

What is merged must come apart as it came: the kernel's own segmentation (`segment`) of the super-packet equals the
packets, bit for bit. So packets must agree in all headers but what segmentation itself counts up: lengths, IPv4
identification, TCP sequence number, checksums; only the last may be shorter or carry FIN or PSH. A checksum that is
there is verified first, for the kernel will make a new one: damage must not become valid. GRO does the same
(tcp_gro_receive and udp_gro_receive in net/ipv4).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Final

from . import virtio

Packet = tuple[int, int, memoryview]
"""Shape, segment size, packet."""

Merged = tuple[int, int, list[memoryview]]
"""Shape, segment size, and the pieces that make the packet; the first one holds all headers."""

_TCP: Final = 6
_UDP: Final = 17
_LARGEST: Final = 65_535
_MOST: Final = 64
"""Packets in one: as many as every kernel takes (UDP_MAX_SEGMENTS was 64 before Linux 6.11)."""

_LAST: Final = 0x09
"""FIN and PSH: only the last segment carries them."""

_ALONE: Final = 0xE6
"""CWR, ECE, URG, RST and SYN: what they say is about one packet."""

_WORTH_CUTTING: Final = 512
"""Bytes to be summed."""

_UNFRAGMENTED: Final = 0xBFFF
"""Of the IPv4 flags and offset, all but don't-fragment."""


def coalesce(packets: Iterable[Packet]) -> Iterator[Merged]:
    """Yield the packets in their order, neighbours merged where that can be undone."""
    run: _Run | None = None
    for shape, segment, packet in packets:
        if run is not None:
            if run.add(shape, packet):
                continue
            yield run.merged()
        run = _begin(shape, packet)
        if run is None:
            yield shape, segment, [packet]
    if run is not None:
        yield run.merged()


class _Run:
    """Packets that can be merged, at least one.

    The headers of the next one are known: as a number, the first one's plus so many steps, but for what `mask` hides.
    """

    __slots__ = ("expected", "headers", "last", "length", "mask", "packets", "protocol", "shape", "size", "step", "v4")

    def __init__(self, shape: int, packet: memoryview, v4: bool, protocol: int, headers: int) -> None:  # noqa: FBT001
        self.shape, self.v4, self.protocol, self.headers = shape, v4, protocol, headers
        self.packets = [packet]
        self.length, self.size = len(packet), len(packet) - headers
        self.mask = _mask(v4, protocol, headers)
        self.step = 1 << 8 * (headers - 6) if v4 else 0
        if protocol == _TCP:
            self.step += self.size << 8 * (headers - (28 if v4 else 48))
        self.expected = (int.from_bytes(packet[:headers]) & self.mask) + self.step
        self.last = False

    def add(self, shape: int, packet: memoryview) -> bool:
        """Take in one more packet; return whether it fits."""
        payload = len(packet) - self.headers
        if (
            self.last
            or shape != self.shape
            or not 0 < payload <= self.size
            or self.length + payload > _LARGEST
            or len(self.packets) == _MOST
            or int.from_bytes(packet[: self.headers]) & self.mask != self.expected
            or not _sound_ip(packet, self.v4)
            or not _sound(packet, shape, self.protocol, self.v4)
        ):
            return False
        at = 33 if self.v4 else 53
        self.last = payload < self.size or (self.protocol == _TCP and bool(packet[at] & _LAST))
        self.packets.append(packet)
        self.length += payload
        self.expected += self.step
        return True

    def merged(self) -> Merged:
        """Return the super-packet; of a single packet, itself."""
        first = self.packets[0]
        if len(self.packets) == 1:
            return self.shape, 0, [first]
        headers, transport = bytearray(first[: self.headers]), 20 if self.v4 else 40
        if self.v4:
            headers[2:4] = self.length.to_bytes(2)
            headers[10:12] = bytes(2)
            headers[10:12] = (0xFFFF - _sum(headers[:20])).to_bytes(2)
        else:
            headers[4:6] = (self.length - 40).to_bytes(2)
        if self.protocol == _TCP:
            headers[transport + 13] |= self.packets[-1][transport + 13] & _LAST
            at = transport + 16
        else:
            headers[transport + 4 : transport + 6] = (self.length - transport).to_bytes(2)
            at = transport + 6
        headers[at : at + 2] = _sum(_pseudo(first, self.protocol, self.length - transport, self.v4)).to_bytes(2)
        payloads = [packet[self.headers :] for packet in self.packets]
        kind = virtio.TCP if self.protocol == _TCP else virtio.UDP
        return virtio.UNSUMMED | kind, self.size, [memoryview(headers), *payloads]


@functools.cache
def _mask(v4: bool, protocol: int, headers: int) -> int:  # noqa: FBT001
    """Return the bits of the headers that are the same in all packets, or are counted up."""
    mask = bytearray(b"\xff" * headers)
    if v4:
        mask[2:4] = mask[10:12] = bytes(2)  # length, checksum
    else:
        mask[4:6] = bytes(2)
    transport = 20 if v4 else 40
    if protocol == _TCP:
        mask[transport + 13] = ~_LAST & 0xFF
        mask[transport + 16 : transport + 18] = bytes(2)
    else:
        mask[transport + 4 : transport + 8] = bytes(4)
    return int.from_bytes(mask)


def _wraps(packet: memoryview, v4: bool, protocol: int) -> bool:  # noqa: FBT001
    """Tell whether what is counted up may begin anew within a run; then there is none."""
    if v4 and int.from_bytes(packet[4:6]) > 0xFFFF - _MOST:
        return True
    at = 24 if v4 else 44
    return protocol == _TCP and int.from_bytes(packet[at : at + 4]) > 0xFFFFFFFF - _LARGEST


def _begin(shape: int, packet: memoryview) -> _Run | None:
    """Return a run that begins with this packet; None if nothing can be merged with it."""
    length = len(packet)
    if shape & ~virtio.UNSUMMED or length < 48:
        return None
    v4 = packet[0] == 0x45
    if v4:
        if int.from_bytes(packet[6:8]) & _UNFRAGMENTED:
            return None
        protocol, transport = packet[9], 20
    elif packet[0] >> 4 == 6:
        protocol, transport = packet[6], 40
    else:
        return None
    headers = transport + _transport_header(packet, protocol, transport)
    if not transport < headers < length or not _sound_ip(packet, v4) or not _sound(packet, shape, protocol, v4):
        return None
    if _wraps(packet, v4, protocol):
        return None
    return _Run(shape, packet, v4, protocol, headers)


def _transport_header(packet: memoryview, protocol: int, transport: int) -> int:
    """Return the length of the header of a packet that others may follow, 0 of any other."""
    if protocol == _UDP:
        return 8
    if protocol != _TCP or len(packet) <= transport + 20 or packet[transport + 13] & (_ALONE | _LAST):
        return 0
    length = (packet[transport + 12] >> 4) * 4
    return length if length >= 20 else 0


def _sound_ip(packet: memoryview, v4: bool) -> bool:  # noqa: FBT001
    """Tell whether the IP header says the packet's length, and its checksum is right."""
    if v4:
        return int.from_bytes(packet[2:4]) == len(packet) and not int.from_bytes(packet[:20]) % 0xFFFF
    return int.from_bytes(packet[4:6]) == len(packet) - 40


def _sound(packet: memoryview, shape: int, protocol: int, v4: bool) -> bool:  # noqa: FBT001
    """Tell whether length and checksum are right, or the kernel will make one; UDP without any is left as it is."""
    transport = 20 if v4 else 40
    length = len(packet) - transport
    if protocol == _UDP:
        if int.from_bytes(packet[transport + 4 : transport + 6]) != length:
            return False
        if not int.from_bytes(packet[transport + 6 : transport + 8]):
            return False
    if shape & virtio.UNSUMMED:
        return True
    # In one's complement arithmetic 0xFFFF is zero, so a sum is what is left of the number itself, and 256 times a
    # number is itself with its bytes swapped, so they can be read in either order (RFC 1071). To add quarters first
    # takes three quarters of the time. What the pseudo header begins with, the addresses, stands right before.
    start = 12 if v4 else 8
    if length < _WORTH_CUTTING:
        value = int.from_bytes(packet[start:], "little")
    else:
        quarter = (len(packet) - start) // 8 * 2
        second, third, fourth = start + quarter, start + 2 * quarter, start + 3 * quarter
        value = (
            int.from_bytes(packet[start:second], "little")
            + int.from_bytes(packet[second:third], "little")
            + int.from_bytes(packet[third:fourth], "little")
            + int.from_bytes(packet[fourth:], "little")
        )
    return not (value + 256 * (length + protocol)) % 0xFFFF


def _pseudo(packet: memoryview, protocol: int, length: int, v4: bool) -> bytes:  # noqa: FBT001
    """Return the pseudo header that a transport checksum includes (RFC 9293, section 3.1; RFC 8200, section 8.1)."""
    addresses = bytes(packet[12:20] if v4 else packet[8:40])
    return addresses + length.to_bytes(4) + protocol.to_bytes(4)


def _sum(data: bytes | bytearray) -> int:
    """Return the one's complement sum of an even number of bytes, not all zero."""
    return int.from_bytes(data) % 0xFFFF or 0xFFFF
