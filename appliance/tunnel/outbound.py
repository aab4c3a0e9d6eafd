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
from typing import Final, Generic, Protocol, TypeVar

from . import buffers, flow, frame, virtio
from .copies import Ticket
from .fairqueue import FairQueue

_HEADER: Final = virtio.HEADER.size


class Outlet(Protocol):
    """Where packets queue."""

    queue: FairQueue


W = TypeVar("W", bound=Outlet)
W_co = TypeVar("W_co", bound=Outlet, covariant=True)


class Ways(Protocol[W_co]):
    """Where packets can go."""

    def choose(self, flow: int, tcp: bool, now: float) -> W_co | None:  # noqa: FBT001 - called for every packet
        """Return where a flow goes; None while there is no way."""

    def spread(self, flow: int, outlet: object, length: int, now: float) -> tuple[Ticket | None, Sequence[W_co]] | None:
        """Return the ways that copies of a packet go, and its ticket; None if it goes where `choose` says."""


class DeviceBroke(Exception):
    """The TUN is gone or unusable."""


class Outbound(Generic[W]):
    """Reads one TUN."""

    def __init__(self, device: int, pool: buffers.Pool, counters: Counter[str]) -> None:
        self._device, self._pool, self._counters = device, pool, counters
        self._header = bytearray(virtio.PLAIN)
        self.begun: list[W] = []
        """Where nothing waited before; what waited somewhere is sent when that can be, and wakes nobody now."""

    def fill(self, ways: Ways[W], now: float, *, calm: bool = False) -> bool:
        """Read packets until about a batch has come; return whether the device may have more.

        With `calm` one is enough, and is most likely all: to look for another costs as much as to send it.
        """
        total = 0
        while total < frame.BATCH:
            batch = self._pool.take()
            try:
                length = os.readv(self._device, (self._header, batch.place)) - _HEADER
            except BlockingIOError:
                self._pool.give(batch)
                return False
            except OSError as error:
                self._pool.give(batch)
                raise DeviceBroke(f"the device broke: {error.strerror}") from None
            total += length
            self._queue(batch, batch.place[:length], ways, now)
            if calm:
                return False
        return True

    def _queue(self, batch: buffers.Batch, packet: memoryview, ways: Ways[W], now: float) -> None:
        count, length = self._counters, len(packet)
        key, tcp = flow.classify(packet)
        outlet = ways.choose(key, tcp, now)
        if outlet is None:
            count["drop_no_channel"] += 1
            self._pool.give(batch)
            return
        shape, segment = virtio.shape(self._header)
        ticket, outlets = (tcp and ways.spread(key, outlet, length, now)) or (None, (outlet,))
        if ticket is None:
            batch.put(shape, segment, length, now)
        for each in outlets:
            if not each.queue.count:
                self.begun.append(each)
            if ticket is None:
                each.queue.put(batch, key, now)
            else:
                copy = self._pool.take()
                copy.copy(ticket, shape, segment, packet, now)
                each.queue.put(copy, key, now)
        if ticket is not None:
            self._pool.give(batch)
        count["tx_packets"] += 1
        count["tx_bytes"] += length
        if shape & virtio.SEGMENTED:
            count["tx_super_packets"] += 1
