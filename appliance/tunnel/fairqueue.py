"""Where packets wait for their channel: each flow in a queue of its own, whose time in it is bounded. Pure.

Flow queuing as in RFC 8290: flows are spread over `LANES` lanes, which take turns; a lane that was empty goes first, so
a new connection or a ping never waits behind a bulk transfer. Within a lane the time of waiting is controlled as in
RFC 8289 (CoDel): one packet is marked, or dropped where its flow does not know marks, once packets have waited longer
than `target` for a whole `interval`, and then ever more often.

The target is two round trips of the line and the interval eight, one cycle in which BBR looks for more, and not CoDel's
5 and 100 ms. BBR beneath us finds out that the line bears more only while something waits, a quarter more in each
cycle, and a loss-based sender that is told to slow down before that takes many seconds to come back. Only the flow that
fills its lane pays for this, and with time alone.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from . import ecn, frame
from .buffers import Batch, Pool

LANES: Final = 64
_QUANTUM: Final = frame.BATCH
"""Bytes that a lane sends before it is another's turn."""

_LEAST_TARGET: Final = 0.02
_LEAST_INTERVAL: Final = 0.1
_TOO_OLD: Final = 0.5
"""Seconds after which a packet is no use to anybody; longer than a target on the longest line that is sensible."""

_ALWAYS: Final = 2 * frame.BATCH
"""Bytes in a lane that are no queue: a stall of the process must not be mistaken for one of the line."""

_MOST: Final = 96
"""Batches that wait in all, so 6 MiB."""


class _Lane:
    """Packets of one flow, or of a few that share its number."""

    __slots__ = ("above_since", "active", "batches", "credit", "drops", "length", "next_drop")

    def __init__(self) -> None:
        self.batches: deque[Batch] = deque()
        self.length = 0
        self.active = False  # whether it stands in one of the two rows
        self.credit = 0
        self.above_since = 0.0  # 0 while the time of waiting is fine
        self.next_drop = 0.0  # 0 while nothing is dropped
        self.drops = 0


class FairQueue:
    """The packets that wait for one channel, in `count` batches.

    `largest`: up to how many bytes small packets are gathered.
    """

    def __init__(self, pool: Pool, counters: Counter[str]) -> None:
        self.largest = frame.BATCH
        self._pool, self.counters = pool, counters
        self._lanes = [_Lane() for _ in range(LANES)]
        self._new: deque[_Lane] = deque()
        self._old: deque[_Lane] = deque()
        self.count = 0
        self._alone: Batch | None = None  # what came while nothing waited; mostly it is gone before the next one comes
        self._flow = 0
        self.tune(0.0)

    def tune(self, rtt: float) -> None:
        """Adapt to the line's round trip, in seconds."""
        self._target, self._interval = max(_LEAST_TARGET, 2 * rtt), max(_LEAST_INTERVAL, 8 * rtt)
        self._too_old = max(_TOO_OLD, 6 * rtt)

    def put(self, batch: Batch, flow: int, now: float) -> None:
        """Queue a batch of a flow; a small one joins the flow's last, if it fits, and is then free again."""
        if not self.count:
            self._alone, self._flow, self.count = batch, flow, 1
            return
        if self._alone is not None:
            alone, self._alone, self.count = self._alone, None, 0
            self._line_up(alone, self._flow, now)
        self._line_up(batch, flow, now)

    def _line_up(self, batch: Batch, flow: int, now: float) -> None:
        lane = self._lanes[(flow >> 8) % LANES]  # the lowest bits have chosen the channel
        batches, length = lane.batches, batch.length
        lane.length += length
        if batches:
            last = batches[-1]
            if last.length + length <= self.largest:
                last.take(batch, now)
                self._pool.give(batch)
                return
        elif not lane.active:
            lane.active, lane.credit = True, _QUANTUM
            self._new.append(lane)
        batches.append(batch)
        self.count += 1
        if self.count > _MOST:
            self._drop_oldest(max(self._lanes, key=_length))

    def pop(self, now: float) -> Batch | None:
        """Return what goes next, small batches of different flows together; the caller gives it back to the pool."""
        if not self.count:
            return None
        if (first := self._alone) is not None:
            self._alone, self.count = None, 0
            return first
        while first is None:
            if (lane := self._turn()) is None:
                return None
            first = self._take(lane, now, frame.LARGEST_BATCH)
        while self.count and (room := self.largest - first.length) > 0:
            lane = self._turn()
            if lane is None or (other := self._take(lane, now, room)) is None:
                break
            first.take(other, now)
            self._pool.give(other)
        return first

    def _turn(self) -> _Lane | None:
        """Return the lane whose turn it is, with something in it; None if nothing waits anywhere."""
        while lanes := self._new or self._old:
            lane = lanes[0]
            if lane.credit > 0 and lane.batches:
                return lane
            lanes.popleft()
            if lane.credit <= 0:
                lane.credit += _QUANTUM
                self._old.append(lane)
            elif lanes is self._new:  # or it could be a new one again and again
                self._old.append(lane)
            else:
                lane.active = False
        return None

    def _take(self, lane: _Lane, now: float, room: int) -> Batch | None:
        """Take the first batch of a lane that need not be dropped; None if there is none, or it is too large."""
        while lane.batches and lane.batches[0].length <= room:
            batch = lane.batches.popleft()
            self.count -= 1
            lane.length -= batch.length
            if self._keep(lane, batch, now):
                lane.credit -= batch.length
                return batch
            self._drop(batch)
        return None

    def _keep(self, lane: _Lane, batch: Batch, now: float) -> bool:
        waited = now - batch.since
        if waited < self._target or lane.length <= _ALWAYS:
            lane.above_since = lane.next_drop = 0.0
            return True
        if waited >= self._too_old:
            return False
        if not self._due(lane, now):
            return True
        if _mark(batch):
            self.counters["marked"] += 1
            return True
        if batch.packets == 1:
            return False
        batch.drop_first()
        self.counters["drop_queue"] += 1
        return True

    def _due(self, lane: _Lane, now: float) -> bool:
        """Tell whether it is time for another drop, given that the packets of this lane wait too long."""
        if not lane.above_since:
            lane.above_since = now + self._interval
            return False
        if lane.next_drop:
            if now < lane.next_drop:
                return False
            lane.drops += 1
        else:
            if now < lane.above_since:
                return False
            lane.drops = 1
        lane.next_drop = now + self._interval / lane.drops**0.5
        return True

    def _drop_oldest(self, lane: _Lane) -> None:
        batch = lane.batches.popleft()
        self.count -= 1
        lane.length -= batch.length
        self._drop(batch)

    def _drop(self, batch: Batch) -> None:
        self.counters["drop_queue"] += batch.packets
        self._pool.give(batch)


def _length(lane: _Lane) -> int:
    return lane.length


def _mark(batch: Batch) -> bool:
    """Mark the first packet of a batch, where its flow knows what that means."""
    for shape, _, packet in frame.packets(batch.memory[: batch.length]):
        return ecn.mark(packet[frame.TICKET.size :] if shape & frame.COPY else packet)
    return False
