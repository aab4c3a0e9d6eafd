"""Young flows go several ways at once, and what comes first counts. Pure: the clock is passed in.

On a lossy line a lost segment holds up all that follows it on its connection for a round trip or more. To a sender that
has just begun that looks like a queue: CUBIC stops doubling its rate (HyStart: what a window begins with took longer
by an eighth), at a hundredth of the line, and needs ten seconds for the rest. While a flow is young, copies cost little
and hide that.

Each packet of a young flow has a ticket: the flow's tag and a number that grows by one. At first copies go over every
connection, so that whichever turns out best can have the flow; then over that one alone. And where datagrams pass, the
flow goes by them, too, with spare parts for what is lost: nothing holds them up. A connection keeps order, so what it
brings comes with all before it; what a datagram brings waits for what is missing before it, which the connection has.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

W = TypeVar("W", bound=Hashable)

_YOUNG: Final = 1 << 20
"""Bytes that a flow is young for; with more than some 300 segments on their way, all connections are held up anyway."""

_YOUNG_BESIDE: Final = 4 << 20
"""The same where copies go by datagram, too: a window that doubles has then come to 2 MiB."""

_EVERYWHERE: Final = 1 << 18
"""Bytes of which there are copies on all connections, where copies go by datagram, too."""

_AGAIN: Final = 2.0
"""Seconds of silence after which a flow is young again: by then nothing of it is on its way."""

_MOST: Final = 1024
"""Flows that are remembered; the one longest without a packet is forgotten first."""

_HELD: Final = 4 << 20
"""Bytes, at most, that wait for what is missing before them, with what it costs to keep each packet."""

_KEPT: Final = 512
"""Bytes that a packet costs beside its own: without, a peer could send a million that are empty."""

Ticket = tuple[int, int]
"""Tag and number."""

Packet = tuple[int, int, memoryview]
"""Shape, segment size, packet."""


@dataclass(slots=True)
class _Flow:
    tag: int
    number: int = 0
    bytes: int = 0
    last: float = 0.0
    way: Hashable = None
    grown: bool = False


class Tickets:
    """The sender's side: the flows that are young, and where those went that were."""

    def __init__(self) -> None:
        self._flows: dict[int, _Flow] = {}
        self._tags = itertools.count(int.from_bytes(os.urandom(4)))

    def __contains__(self, flow: int) -> bool:
        return flow in self._flows

    def draw(self, flow: int, length: int, now: float, *, beside: bool = False) -> tuple[Ticket | None, bool]:
        """Return the ticket of a flow's next packet, None once it is not young any more, and whether it goes all ways.

        `beside`: whether copies go by datagram, too.
        """
        known = self._flows.pop(flow, None)
        if known is None or now - known.last > _AGAIN:
            known = _Flow(next(self._tags) & 0xFFFFFFFF)
            if len(self._flows) >= _MOST:
                del self._flows[next(iter(self._flows))]
        self._flows[flow] = known
        known.last = now
        known.bytes += length
        if known.grown or known.bytes > (_YOUNG_BESIDE if beside else _YOUNG):
            known.grown = True
            return None, False
        known.number += 1
        return (known.tag, known.number), known.way is None and not (beside and known.bytes > _EVERYWHERE)

    def way(self, flow: int, ways: Mapping[W, object], rate: Callable[[W], float], now: float) -> W:
        """Return the one way of a flow that does not go all ways any more, at first the best in rate per flow on it.

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


@dataclass(slots=True)
class _Arrived:
    last: int = 0
    held: dict[int, Packet] = field(default_factory=dict)


class Order:
    """The receiver's side."""

    def __init__(self) -> None:
        self._flows: dict[int, _Arrived] = {}
        self._held = 0

    def take(self, ticket: Ticket, packet: Packet, *, ordered: bool) -> Sequence[Packet] | None:
        """Return the packets whose turn it is now that this one has come, None if it is a copy of one that was there.

        `ordered`: whether it came with all before it that are still to come. Packets that have to wait are kept by
        value, those that are returned with this one included; this one is the caller's.
        """
        tag, number = ticket
        if (flow := self._flows.pop(tag, None)) is None:
            flow = self._new()
        self._flows[tag] = flow
        if number <= flow.last or (number in flow.held and not ordered):
            return None
        if number > flow.last + 1 and not ordered:
            self._hold(flow, number, packet)
            return ()
        if not flow.held:
            flow.last = number
            return (packet,)
        before = [self._release(flow, each) for each in sorted(flow.held) if each < number]
        if number in flow.held:
            self._release(flow, number)
        flow.last = number
        turn = [*before, packet]
        while flow.last + 1 in flow.held:
            flow.last += 1
            turn.append(self._release(flow, flow.last))
        return turn

    def _new(self) -> _Arrived:
        if len(self._flows) >= _MOST:
            self._forget(self._flows.pop(next(iter(self._flows))))
        return _Arrived()

    def _forget(self, flow: _Arrived) -> None:
        self._held -= sum(map(_cost, flow.held.values()))
        flow.held.clear()

    def _hold(self, flow: _Arrived, number: int, packet: Packet) -> None:
        """Keep a packet; what has been waiting in flows that are silent for longer gives way."""
        shape, segment, content = packet
        while self._held + _cost(packet) > _HELD:
            oldest = next(each for each in self._flows.values() if each.held)
            self._forget(oldest)
            if oldest is flow:
                return
        flow.held[number] = shape, segment, memoryview(bytes(content))
        self._held += _cost(packet)

    def _release(self, flow: _Arrived, number: int) -> Packet:
        packet = flow.held.pop(number)
        self._held -= _cost(packet)
        return packet


def _cost(packet: Packet) -> int:
    return _KEPT + len(packet[2])
