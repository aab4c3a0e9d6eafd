"""TUN -> channel: packets leave the kernel, are told apart by flow, and queue at the channel of their flow. Thin.

1. read a packet into a fresh batch (readv: the virtio header aside, the packet in its place)
2. classify it; its flow says which channel
3. queue it there, unless that queue is over its time: then drop it, so that its sender hears of it now

The TUN is never left unread because one channel is full: 500 super-packets would queue in its ring, in front of every
other flow's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from . import buffers, flow, frame, virtio

Choose = Callable[[int, bool], "Outlet | None"]
"""(hash of the flow, whether it is TCP) -> where it goes; None while there is no way."""


class DeviceBroke(Exception):
    """The TUN is gone or unusable."""


class Outlet(Protocol):
    """Where packets queue."""

    queue: buffers.Queue


class Outbound:
    """Reads one TUN."""

    def __init__(self, device: int, pool: buffers.Pool, counters: Counter[str]) -> None:
        self._device, self._pool, self._counters = device, pool, counters
        self._header = bytearray(virtio.PLAIN)

    def fill(self, choose: Choose, now: float) -> bool:
        """Read packets until about a batch has come; return whether the device may have more."""
        total = 0
        while total < frame.BATCH:
            batch = self._pool.take()
            room = batch.room
            try:
                length = os.readv(self._device, (self._header, room)) - virtio.HEADER.size
            except BlockingIOError:
                self._pool.give(batch)
                return False
            except OSError as error:
                self._pool.give(batch)
                raise DeviceBroke(f"the device broke: {error.strerror}") from None
            total += length
            self._queue(batch, room[:length], choose, now)
        return True

    def _queue(self, batch: buffers.Batch, packet: memoryview, choose: Choose, now: float) -> None:
        count, length = self._counters, len(packet)
        outlet = choose(*flow.classify(packet))
        if outlet is None or not outlet.queue.admit(now):
            count["drop_no_channel" if outlet is None else "drop_queue"] += 1
            self._pool.give(batch)
            return
        shape, segment = virtio.shape(self._header)
        batch.put(shape, segment, length, now)
        outlet.queue.put(batch, now)
        count["tx_packets"] += 1
        count["tx_bytes"] += length
        if shape & virtio.SEGMENTED:
            count["tx_super_packets"] += 1
