"""Young flows go over every connection at once, and what comes first counts. Pure: the clock is passed in.

On a lossy line a lost segment holds up all that follows it on its connection for a round trip or more. To a sender that
has just begun that looks like a queue: CUBIC stops doubling its rate (HyStart: all round trips of a window are longer
by an eighth), at a hundredth of the line, and needs ten seconds for the rest. While a flow is small, copies cost little
and hide that: only when all connections are held up at once, the flow is.

Each packet of a young flow has a ticket: the flow's tag and a number that grows. Every connection keeps order, so a
number that has not been seen comes with all before it seen, and one that is not above the last is a copy.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar, cast

W = TypeVar("W", bound=Hashable)

_YOUNG: Final = 1 << 20
"""Bytes that a flow is young for; with more than some 300 segments on their way, all connections are held up anyway."""

_AGAIN: Final = 2.0
"""Seconds of silence after which a flow is young again: by then nothing of it is on its way."""

_MOST: Final = 1024
"""Flows that are remembered; the one longest without a packet is forgotten first."""

Ticket = tuple[int, int]
"""Tag and number."""


@dataclass(slots=True)
class _Flow:
    tag: int
    number: int = 0
    bytes: int = 0
    last: float = 0.0
    way: Hashable = None


class Tickets:
    """The sender's side: the flows that are young, and where those went that were."""

    def __init__(self) -> None:
        self._flows: dict[int, _Flow] = {}
        self._tags = itertools.count(int.from_bytes(os.urandom(4)))

    def __contains__(self, flow: int) -> bool:
        return flow in self._flows

    def draw(self, flow: int, length: int, now: float) -> Ticket | None:
        """Return the ticket of a flow's next packet; None if the flow is not young any more."""
        known = self._flows.pop(flow, None)
        if known is None or now - known.last > _AGAIN:
            known = _Flow(next(self._tags) & 0xFFFFFFFF)
            if len(self._flows) >= _MOST:
                del self._flows[next(iter(self._flows))]
        self._flows[flow] = known
        known.last = now
        known.bytes += length
        if known.bytes > _YOUNG:
            return None
        known.number += 1
        return known.tag, known.number

    def way(self, flow: int, ways: Mapping[W, object], rate: Callable[[W], float], now: float) -> W:
        """Return the way of a flow that has grown up: at first the one with the best rate for each flow on it.

        Any will do, since copies of all that came before went over each of them; from then on it stays.
        """
        known = self._flows[flow]
        if known.way not in ways:
            taken = Counter(other.way for other in self._flows.values() if now - other.last < _AGAIN)
            known.way = max(ways, key=lambda way: rate(way) / (1 + taken[way]))
        return cast("W", known.way)


class Losses:
    """Whether a line loses segments, by what its connections say of themselves; those of long ago count ever less."""

    LOSSY: Final = 0.001
    SAMPLE: Final = 500
    """Segments before which anything is possible."""

    _MEMORY: Final = 50_000

    def __init__(self) -> None:
        self._sent = self._again = 0.0
        self._last = (0, 0)

    def heard(self, sent: int, again: int) -> bool:
        """Hear how many segments were sent so far, and sent again; return whether that is a lossy line, or may be."""
        before, self._last = self._last, (sent, again)
        self._sent += max(0, sent - before[0])
        self._again += max(0, again - before[1])
        if self._sent > self._MEMORY:
            self._sent, self._again = self._sent / 2, self._again / 2
        return self._sent < self.SAMPLE or self._again > self.LOSSY * self._sent


class Seen:
    """The receiver's side."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def first(self, ticket: Ticket) -> bool:
        """Return whether this is the first copy that came."""
        tag, number = ticket
        last = self._last.pop(tag, 0)
        if not last and len(self._last) >= _MOST:
            del self._last[next(iter(self._last))]
        self._last[tag] = max(last, number)
        return number > last
