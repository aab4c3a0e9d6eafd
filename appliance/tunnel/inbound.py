"""Channel -> TUN: opened batches come apart into packets, and those that the peer may send go to the kernel. Thin.

1. cut the batch into packets, leave out copies of what came before, and merge neighbours that come in small
2. look at the source, once for a super-packet
3. rebuild the virtio header from the packet, and write both

What the kernel does not take is dropped and counted; the peer that sends it is authentic, but not to be trusted.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator

from . import frame, virtio
from .allow import Sources
from .coalesce import Packet, coalesce
from .copies import Order
from .segment import split


class Inbound:
    """Writes one TUN."""

    def __init__(self, device: int, counters: Counter[str]) -> None:
        self._device, self._counters = device, counters
        self._header = bytearray(virtio.PLAIN)
        self._order = Order()
        self._large_udp = True

    def begin(self) -> None:
        """Forget what waits of the session before: another one counts its flows anew."""
        self._order = Order()

    def deliver(self, batch: memoryview, sources: Sources, *, ordered: bool) -> None:
        """Write a batch's packets; raise `RemoteProtocolError` if it is none. `ordered`: whether its channel is."""
        if (only := frame.only(batch)) is not None:
            self._write(*only, sources)
            return
        for shape, segment, pieces in coalesce(self._first(batch, ordered=ordered)):
            if len(pieces) == 1:
                self._write(shape, segment, pieces[0], sources)
            elif not self._write_large(shape & virtio.SEGMENTED, segment, pieces, sources):
                for single, size, packet in split(shape, segment, memoryview(b"".join(pieces))):
                    self._write(single, size, memoryview(packet), sources)

    def _first(self, batch: memoryview, *, ordered: bool) -> Iterator[Packet]:
        """Yield the batch's packets without copies of what came before, and those that have waited for one of them."""
        for shape, segment, packet in frame.packets(batch):
            if not shape & frame.COPY:
                yield shape, segment, packet
                continue
            if len(packet) < frame.TICKET.size:
                raise frame.RemoteProtocolError("a ticket is cut off")
            first = shape & ~frame.COPY, segment, packet[frame.TICKET.size :]
            if (turn := self._order.take(frame.TICKET.unpack_from(packet), first, ordered=ordered)) is None:
                self._counters["rx_copies"] += 1
            else:
                yield from turn

    def _write(self, shape: int, segment: int, packet: memoryview, sources: Sources) -> None:
        count, header = self._counters, self._header
        try:
            virtio.rebuild(shape, segment, packet, header)
            if not sources.permit(packet):
                count["drop_source"] += 1
                return
            os.writev(self._device, (header, packet))
        except virtio.BadPacket:
            count["drop_shape"] += 1
            return
        except OSError as error:
            self._refused(error, 1)
            return
        count["rx_packets"] += 1
        count["rx_bytes"] += len(packet)
        if shape & virtio.SEGMENTED:
            count["rx_super_packets"] += 1

    def _write_large(self, kind: int, segment: int, pieces: list[memoryview], sources: Sources) -> bool:
        """Write what was merged, from all its headers and a payload for each packet; False if this kernel does not."""
        if kind == virtio.UDP and not self._large_udp:
            return False
        count, packets = self._counters, len(pieces) - 1
        virtio.large(kind, segment, pieces[0], self._header)
        if not sources.permit(pieces[0]):
            count["drop_source"] += packets
            return True
        try:
            written = os.writev(self._device, (self._header, *pieces))
        except OSError as error:
            if kind == virtio.UDP and error.errno == errno.EINVAL:  # Linux before 6.2
                self._large_udp = False
                return False
            self._refused(error, packets)
            return True
        count["rx_packets"] += packets
        count["rx_coalesced"] += packets
        count["rx_bytes"] += written - virtio.HEADER.size + (packets - 1) * len(pieces[0])
        return True

    def _refused(self, error: OSError, packets: int) -> None:
        self._counters["drop_device_" + errno.errorcode.get(error.errno or 0, "other").lower()] += packets
