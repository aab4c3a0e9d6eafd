"""Memory for packets on their way out: batches that are filled, queued, sealed and used again. Pure.

A batch holds packets as `frame` lays them out. The kernel writes each packet straight into its place in a fresh batch;
small ones then join the batch that waits, since the cost of sealing and sending is per batch.
"""

from __future__ import annotations

from typing import Final

from . import frame

CAPACITY: Final = frame.LARGEST_BATCH


class Batch:
    """Packets that will be sealed as one record. `since`: when its first packet came, in seconds."""

    __slots__ = ("length", "memory", "packets", "since")

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(CAPACITY))
        self.length = 0
        self.packets = 0
        self.since = 0.0

    def put(self, shape: int, segment: int, length: int, now: float) -> None:
        """Account for a packet of `length` bytes that already stands behind its prefix's place."""
        frame.PACKET.pack_into(self.memory, self.length, shape << 24 | length, segment)
        if not self.packets:
            self.since = now
        self.length += frame.PACKET.size + length
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

    def clear(self) -> None:
        """Make it empty."""
        self.length = self.packets = 0


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
        batch.clear()
        if len(self._free) < self._keep:
            self._free.append(batch)


class Queue:
    """Batches that wait for their connection; the time that one waits is bounded, not their number.

    `admit` says no once the oldest batch has waited for `LONGEST`: then the line is slower than what comes, and the
    senders must hear of it by a lost packet, now, rather than by a second of delay. A little is always taken, so that a
    stall of the process is not mistaken for one of the line.
    """

    LONGEST: Final = 0.02
    ALWAYS: Final = 2 * frame.BATCH

    def __init__(self, pool: Pool) -> None:
        self.largest = frame.BATCH
        self._pool = pool
        self._batches: list[Batch] = []
        self._length = 0

    def __len__(self) -> int:
        return len(self._batches)

    def admit(self, now: float) -> bool:
        """Return whether another packet may wait."""
        return not self._batches or self._length < self.ALWAYS or now - self._batches[0].since < self.LONGEST

    def put(self, batch: Batch, now: float) -> None:
        """Queue a batch: a small one joins the last that waits, if it fits, and is then free again."""
        self._length += batch.length
        last = self._batches[-1] if self._batches else None
        if last is not None and last.length + batch.length <= self.largest:
            last.take(batch, now)
            self._pool.give(batch)
        else:
            self._batches.append(batch)

    def peek(self) -> Batch:
        """Return the oldest batch, which stays."""
        return self._batches[0]

    def pop(self) -> Batch:
        """Return the oldest batch; the caller gives it back to the pool."""
        batch = self._batches.pop(0)
        self._length -= batch.length
        return batch
