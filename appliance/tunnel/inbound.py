"""Channel -> TUN: opened batches come apart into packets, and those that the peer may send go to the kernel. Thin.

1. cut the batch into packets, and leave out copies of what came before
2. look at the source, once for a super-packet
3. rebuild the virtio header from the packet, and write both

What the kernel does not take is dropped and counted; the peer that sends it is authentic, but not to be trusted.
"""

from __future__ import annotations

import errno
import os
from collections import Counter

from . import frame, virtio
from .allow import Sources
from .copies import Seen


class Inbound:
    """Writes one TUN."""

    def __init__(self, device: int, counters: Counter[str]) -> None:
        self._device, self._counters = device, counters
        self._header = bytearray(virtio.PLAIN)
        self._seen = Seen()

    def deliver(self, batch: memoryview, sources: Sources) -> None:
        """Write a batch's packets; raise `RemoteProtocolError` if it is none."""
        count, header = self._counters, self._header
        for shape, segment, packet in frame.packets(batch):
            if shape & frame.COPY:
                if len(packet) < frame.TICKET.size or not self._seen.first(frame.TICKET.unpack_from(packet)):
                    count["rx_copies"] += 1
                    continue
                packet = packet[frame.TICKET.size :]  # noqa: PLW2901
            try:
                virtio.rebuild(shape, segment, packet, header)
                if not sources.permit(packet):
                    count["drop_source"] += 1
                    continue
                os.writev(self._device, (header, packet))
            except virtio.BadPacket:
                count["drop_shape"] += 1
                continue
            except OSError as error:
                count["drop_device_" + errno.errorcode.get(error.errno or 0, "other").lower()] += 1
                continue
            count["rx_packets"] += 1
            count["rx_bytes"] += len(packet)
            if shape & virtio.SEGMENTED:
                count["rx_super_packets"] += 1
