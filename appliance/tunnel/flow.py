"""Which packets must stay in order: those of one flow. Pure.

A flow is what addresses, protocol and ports say; of a fragment only addresses and protocol count, since all but the
first have no ports. A flow stays on one channel, so its packets keep their order.
"""

from __future__ import annotations

import struct
from typing import Final

TCP: Final = 6
_WITH_PORTS: Final = frozenset({TCP, 17, 132, 136})
_FRAGMENTED: Final = 0x3FFF
"""Of the IPv4 flags and offset: more fragments follow, or this is not the first (RFC 791, section 3.1)."""

_FRAGMENT_HEADER: Final = 44

_COMMON: Final = struct.Struct("!B5xHxB2x12s")
"""Of an IPv4 header without options: its length, flags and offset, protocol, addresses; and the ports behind it."""


def classify(packet: memoryview) -> tuple[int, bool]:
    """Return (hash of the flow, whether it is TCP) of an IP packet that the kernel handed out."""
    if len(packet) >= _COMMON.size:
        first, fragment, protocol, key = _COMMON.unpack_from(packet)
        if first == 0x45 and not fragment & _FRAGMENTED:
            return hash((protocol, key if protocol in _WITH_PORTS else key[:8])), protocol == TCP
    if packet[0] >> 4 == 4:
        protocol = packet[9]
        addresses_at, ports_at = 12, (packet[0] & 15) * 4
        if int.from_bytes(packet[6:8]) & _FRAGMENTED:
            ports_at = 0
        end = 20
    else:
        # Extension headers other than a fragment's are rare enough to be a flow of their own.
        protocol = packet[6]
        addresses_at, ports_at, end = 8, 40, 40
        if protocol == _FRAGMENT_HEADER:
            protocol, ports_at = packet[40] if len(packet) > 40 else 0, 0
    key = bytes(packet[addresses_at:end])
    if ports_at and protocol in _WITH_PORTS:
        key += bytes(packet[ports_at : ports_at + 4])
    return hash((protocol, key)), protocol == TCP
