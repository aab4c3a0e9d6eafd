"""Cutting a super-packet into packets, as the kernel would (tcp_gso_segment, udp_gso_segment). Pure.

Only a lossy datagram path needs it: a unit that holds a whole super-packet is lost with any one of its datagrams. What
may be larger than a packet stays a super-packet: each packet by itself would cost as much as that.

The checksums stay unfinished, as they were: in each packet the field holds the sum of the pseudo header, of which
only the length differs from packet to packet, and the receiving kernel completes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import virtio

_FIN_PSH: Final = 0x09
_CWR: Final = 0x80
_CHECKSUM_AT: Final = {virtio.TCP: 16, virtio.UDP: 6}


def split(shape: int, segment: int, packet: memoryview, most: int = 0) -> Iterator[tuple[int, int, bytearray]]:
    """Yield (shape, segment size, packet) of what a super-packet is cut into; raise `BadPacket` if it is none.

    That is the packets that it stands for, or, where `most` bytes hold several, super-packets of no more than that.
    """
    kind = shape & virtio.SEGMENTED
    version, _, transport = virtio.locate(packet)
    if kind not in _CHECKSUM_AT or not segment:
        raise virtio.BadPacket("not a super-packet")
    headers = transport + (virtio.tcp_header(packet, transport) if kind == virtio.TCP else 8)
    payload = len(packet) - headers
    if payload < 0:
        raise virtio.BadPacket("the packet ends in its headers")
    together = max(1, (most - headers) // segment)
    pieces = max(1, -(-payload // (together * segment)))
    for number in range(pieces):
        ahead = number * together * segment
        piece = bytearray(packet[:headers]) + packet[headers + ahead : headers + ahead + together * segment]
        _set_length(piece, version, transport, number * together)
        _adjust_sum(piece, transport + _CHECKSUM_AT[kind], len(packet) - transport, len(piece) - transport)
        if kind == virtio.TCP:
            _set_tcp(piece, transport, ahead, first=number == 0, last=number == pieces - 1)
        else:
            piece[transport + 4 : transport + 6] = (len(piece) - transport).to_bytes(2)
        if len(piece) - headers <= segment:
            yield virtio.UNSUMMED | virtio.SINGLE, 0, piece
        else:
            yield (shape if number == 0 else shape & ~virtio.ECN), segment, piece


def _set_length(piece: bytearray, version: int, transport: int, number: int) -> None:
    if version == 6:
        piece[4:6] = (len(piece) - 40).to_bytes(2)
        return
    piece[2:4] = len(piece).to_bytes(2)
    piece[4:6] = ((int.from_bytes(piece[4:6]) + number) & 0xFFFF).to_bytes(2)
    piece[10:12] = bytes(2)
    total = sum(int.from_bytes(piece[at : at + 2]) for at in range(0, transport, 2))
    piece[10:12] = (~_fold(total) & 0xFFFF).to_bytes(2)


def _set_tcp(piece: bytearray, transport: int, ahead: int, *, first: bool, last: bool) -> None:
    sequence = (int.from_bytes(piece[transport + 4 : transport + 8]) + ahead) & 0xFFFFFFFF
    piece[transport + 4 : transport + 8] = sequence.to_bytes(4)
    if not last:
        piece[transport + 13] &= ~_FIN_PSH & 0xFF
    if not first:
        piece[transport + 13] &= ~_CWR & 0xFF


def _adjust_sum(piece: bytearray, at: int, before: int, now: int) -> None:
    """Change the length that is part of the pseudo header's sum (RFC 1624, for a sum that is not complemented)."""
    total = int.from_bytes(piece[at : at + 2]) + (~before & 0xFFFF) + now
    piece[at : at + 2] = _fold(total).to_bytes(2)


def _fold(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
