"""Congestion marks: telling a sender to slow down without losing its packet (RFC 3168). Pure."""

from __future__ import annotations

from typing import Final

_MARK: Final = 0b11
"""Congestion experienced; 0 is a flow that does not take part."""


def mark(packet: memoryview) -> bool:
    """Mark an IP packet, or every segment of a super-packet; return whether its flow takes part in this."""
    version = packet[0] >> 4
    if version == 4:
        before = packet[1]
        if not before & _MARK:
            return False
        packet[1] = before | _MARK
        # The header's checksum changes by as much as the word does (RFC 1624, equation 3).
        total = (~int.from_bytes(packet[10:12]) & 0xFFFF) + (~before & 0xFFFF) + packet[1]
        total = (total & 0xFFFF) + (total >> 16)
        packet[10:12] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2)
        return True
    if version != 6 or not packet[1] >> 4 & _MARK:
        return False
    packet[1] |= _MARK << 4
    return True
