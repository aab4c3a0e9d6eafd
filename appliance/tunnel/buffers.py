"""Memory for packets on their way out: batches that are filled, queued, sealed and used again. Pure.

A batch holds packets as `frame` lays them out. The kernel writes each packet straight into its place in a fresh batch;
small ones then join the batch that waits, since the cost of sealing and sending is per batch.
"""

from __future__ import annotations

from typing import Final

from . import frame

_PREFIX: Final = frame.PACKET
_PREFIX_SIZE: Final = frame.PACKET.size
CAPACITY: Final = frame.LARGEST_BATCH


class Batch:
    """Packets that will be sealed as one record. `since`: when its first packet came, in seconds.

    `place`: where the first packet goes.
    """

    __slots__ = ("length", "memory", "packets", "place", "since")

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(CAPACITY))
        self.place = self.memory[frame.PACKET.size :]
        self.length = 0
        self.packets = 0
        self.since = 0.0

    def put(self, shape: int, segment: int, length: int, now: float) -> None:
        """Account for a packet of `length` bytes that already stands behind its prefix's place."""
        _PREFIX.pack_into(self.memory, self.length, shape << 24 | length, segment)
        if not self.packets:
            self.since = now
        self.length += _PREFIX_SIZE + length
        self.packets += 1

    @property
    def room(self) -> memoryview:
        """Return where the next packet goes."""
        return self.memory[self.length + frame.PACKET.size :]

    def take(self, other: Batch, now: float) -> None:
        """Append the packets of `other`, which must fit in below `frame.BATCH`."""
        self.memory[self.length : self.length + other.length] = other.memory[: other.length]
        if not self.packets:
            self.since = now
        self.length += other.length
        self.packets += other.packets

    def copy(self, ticket: tuple[int, int], shape: int, segment: int, packet: memoryview, now: float) -> None:
        """Hold a copy of a packet and its ticket, in this empty batch."""
        start, length = frame.PACKET.size + frame.TICKET.size, len(packet)
        frame.TICKET.pack_into(self.memory, frame.PACKET.size, *ticket)
        self.memory[start : start + length] = packet
        self.put(shape | frame.COPY, segment, frame.TICKET.size + length, now)

    def drop_first(self) -> None:
        """Throw away the first packet."""
        first = frame.PACKET.size + (frame.PACKET.unpack_from(self.memory)[0] & 0xFFFFFF)
        rest = self.length - first
        self.memory[:rest] = bytes(self.memory[first : self.length])
        self.length, self.packets = rest, self.packets - 1


class Pool:
    """Batches to use again, so that the packet path allocates nothing."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._free: list[Batch] = []

    def take(self) -> Batch:
        """Return an empty batch."""
        return self._free.pop() if self._free else Batch()

    def give(self, batch: Batch) -> None:
        """Take back one that is done with."""
        batch.length = batch.packets = 0
        if len(self._free) < self._keep:
            self._free.append(batch)
