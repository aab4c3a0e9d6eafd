"""TUN -> channel: packets leave the kernel, are told apart by flow, and queue at the channel of their flow. Thin.

1. read a packet into a fresh batch (readv: the virtio header aside, the packet in its place)
2. classify it; its flow says which channel
3. queue it there; the queue bounds the time that it waits

The TUN is never left unread because one channel is full: 500 super-packets would queue in its ring, in front of every
other flow's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from . import buffers, flow, frame, virtio
from .copies import Ticket
from .fairqueue import FairQueue


class Ways(Protocol):
    """Where packets can go."""

    def choose(self, flow: int, tcp: bool) -> Outlet | None:  # noqa: FBT001 - called for every packet
        """Return where a flow goes; None while there is no way."""

    def spread(
        self, flow: int, outlet: Outlet, length: int, now: float
    ) -> tuple[Ticket | None, Sequence[Outlet]] | None:
        """Return the ways that copies of a packet go, and its ticket; None if it goes where `choose` says."""


class DeviceBroke(Exception):
    """The TUN is gone or unusable."""


class Outlet(Protocol):
    """Where packets queue."""

    queue: FairQueue


class Outbound:
    """Reads one TUN."""

    def __init__(self, device: int, pool: buffers.Pool, counters: Counter[str]) -> None:
        self._device, self._pool, self._counters = device, pool, counters
        self._header = bytearray(virtio.PLAIN)

    def fill(self, ways: Ways, now: float) -> bool:
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
            self._queue(batch, room[:length], ways, now)
        return True

    def _queue(self, batch: buffers.Batch, packet: memoryview, ways: Ways, now: float) -> None:
        count, length = self._counters, len(packet)
        key, tcp = flow.classify(packet)
        outlet = ways.choose(key, tcp)
        if outlet is None:
            count["drop_no_channel"] += 1
            self._pool.give(batch)
            return
        shape, segment = virtio.shape(self._header)
        spread = ways.spread(key, outlet, length, now) if tcp else None
        ticket, outlets = spread or (None, (outlet,))
        if ticket is None:
            batch.put(shape, segment, length, now)
            outlets[0].queue.put(batch, key, now)
        else:
            for each in outlets:
                copy = self._pool.take()
                copy.copy(ticket, shape, segment, packet, now)
                each.queue.put(copy, key, now)
            self._pool.give(batch)
        count["tx_packets"] += 1
        count["tx_bytes"] += length
        if shape & virtio.SEGMENTED:
            count["tx_super_packets"] += 1
