"""A session's channels, and which of them a packet takes. Thin only in that channels hold sockets; it touches none.

    stream      every flow stays on one of the TCP connections
    datagram    everything by UDP, as long as UDP passes
    hybrid      TCP by stream, whose retransmissions hide the path's losses; everything else by datagram

Where UDP does not pass, everything goes by stream, and back when it does. A flow's order can break only at such a
change, or when its connection is lost.
"""

from __future__ import annotations

import base64
import ipaddress
import math
from collections import Counter
from typing import Any

from . import keys
from .allow import Sources
from .buffers import Pool
from .copies import Losses, Ticket, Tickets
from .datagram import Datagram
from .liveness import Liveness
from .messages import Mode
from .stream import LONG, Stream

Channel = Stream | Datagram

_DATAGRAM_PROBE: float = 0.25
"""Seconds: the datagram channel's probes also carry what shrinks units under loss."""

_CONNECTS_WITHIN: float = 10.0
"""Seconds until the first connection: a client sets up its device, which may have to start, before it opens one."""

_FORGET_AFTER: float = 10.0
"""Seconds for which a past epoch's keys are kept: far more than a datagram is under way."""


_LOOK_EVERY: float = 0.1


class Session:
    """What the parent said of a session, and its channels."""

    def __init__(self, message: dict[str, Any], pool: Pool, counters: Counter[str], now: float) -> None:
        self.keys = keys.Session(bytes.fromhex(message["session"]), base64.b64decode(message["secret"]))
        self._last: keys.Session | None = None
        self._next: keys.Session | None = None
        self._forget_at = math.inf
        client = message["role"] == "client"
        self.direction = keys.Direction.TO_SERVER if client else keys.Direction.TO_CLIENT
        self.sources = Sources(ipaddress.ip_network(prefix) for prefix in message["sources"])
        self.alive = False
        gso, probes = bool(message.get("gso", True)), Liveness(now, _DATAGRAM_PROBE)
        self.datagram = Datagram(self.keys, self.direction, pool, probes, counters, gso=gso)
        self._mode = Mode(message["mode"])
        self._datagrams, self._tcp_too = self._mode is not Mode.STREAM, self._mode is Mode.DATAGRAM
        self._slots: list[Stream | None] = [None] * message["connections"]
        self._numbers: dict[Stream, int] = {}
        self._connect_by = now + _CONNECTS_WITHIN
        self._tickets, self._losses = Tickets(), Losses()
        self._copies, self._look_at = False, 0.0

    # --- epochs: a new one's keys are installed at both ends before either seals with them ---------------------------

    def install(self, epoch: int, secret: bytes) -> None:
        """Be ready to open what is sealed in the next epoch."""
        self._next = keys.Session(self.keys.session_id, secret, epoch)
        for channel in self._all():
            channel.install(self._next)

    def switch(self, now: float) -> None:
        """Seal in the epoch that was installed last; datagrams of the one before may still be on their way."""
        if self._next is None:
            return
        for channel in self._all():
            channel.rekey(self._next)
        self._last, self.keys, self._next = self.keys, self._next, None
        self._forget_at = now + _FORGET_AFTER

    def forget(self, now: float) -> None:
        """Forget the keys of past epochs, when it is time."""
        if now >= self._forget_at:
            self._last, self._forget_at = None, math.inf
            self.datagram.forget()

    def seals(self, number: int) -> tuple[keys.Sealer, keys.Opener]:
        """Return what a new connection is sealed and opened with; its peer may be an epoch behind us, or ahead."""
        opener = keys.Opener(self._last or self.keys, self.direction.opposite, number)
        for later in (self.keys, self._next):
            if later is not None:
                opener.install(later)
        return keys.Sealer(self.keys, self.direction, number), opener

    def put(self, number: int, stream: Stream) -> Stream | None:
        """Take in a connection; return the one that it takes over from."""
        slot = number % len(self._slots)
        old, self._slots[slot] = self._slots[slot], stream
        if old is not None:
            del self._numbers[old]
        self._numbers[stream] = number
        return old

    def remove(self, stream: Stream) -> int | None:
        """Take out a connection; return its number, None if it is not in."""
        number = self._numbers.pop(stream, None)
        if number is not None:
            self._slots[number % len(self._slots)] = None
        return number

    def streams(self) -> tuple[Stream, ...]:
        """Return the connections that there are."""
        return tuple(self._numbers)

    def _all(self) -> tuple[Channel, ...]:
        return (*self._numbers, self.datagram)

    def channels(self) -> tuple[Channel, ...]:
        """Return the channels that carry."""
        return self._all() if self.datagram.usable else tuple(self._numbers)

    def choose(self, flow: int, tcp: bool, now: float) -> Channel | None:  # noqa: FBT001 - called for every packet
        """Return a flow's channel: for a stream always its own slot, any other while that is missing."""
        if (self._tcp_too if tcp else self._datagrams) and now < self.datagram.usable_until:
            return self.datagram
        slots = self._slots
        return slots[flow % len(slots)] or next(iter(self._numbers), None)

    def spread(
        self, flow: int, outlet: object, length: int, now: float
    ) -> tuple[Ticket | None, tuple[Channel, ...]] | None:
        """Return the channels that copies of a TCP packet go by, and its ticket.

        Without a ticket it goes one way that is its own; with None, where `choose` says.
        """
        if outlet is self.datagram or len(self._numbers) <= 1 or not (self._lossy(now) or flow in self._tickets):
            return None
        beside = (self.datagram,) if self._mode is not Mode.STREAM and self.datagram.usable else ()
        ticket, everywhere = self._tickets.draw(flow, length, now, beside=bool(beside))
        ways = tuple(self._numbers) if everywhere else (self._tickets.way(flow, self._numbers, _rate, now),)
        return ticket, ways if ticket is None else (*beside, *ways)

    def _lossy(self, now: float) -> bool:
        """Tell whether the line is long and loses segments, or may."""
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            sent, again = (sum(getattr(one, what) for one in self._numbers) for what in ("sent", "sent_again"))
            self._copies = self._losses.heard(sent, again) and any(one.rtt >= LONG for one in self._numbers)
        return self._copies

    def state(self) -> dict[str, object]:
        """Return what the control socket tells of the channels."""
        alive = [channel.liveness.rtt for channel in self.channels() if channel.liveness.rtt is not None]
        return {
            "rtt": min(alive, default=None),
            "channels": {
                "mode": self._mode.value,
                "in_use": self._mode.value if self.datagram.usable else Mode.STREAM.value,
                "connections": len(self._numbers),
                "datagram": self.datagram.state if self.datagram.usable else None,
                "epoch": self.keys.epoch,
                "key_used": max(channel.used for channel in self._all()),
            },
        }

    def next_deadline(self) -> float:
        """Return when there is something to do."""
        deadlines = [stream.liveness.next_deadline() for stream in self._numbers]
        if self.datagram.fd >= 0:
            deadlines.append(self.datagram.liveness.next_probe())
            if self.datagram.resume_at:
                deadlines.append(self.datagram.resume_at)
        return min(deadlines, default=self._connect_by)

    def lives(self, now: float) -> bool:
        """Return whether the peer is still there, by any channel."""
        return bool(self._numbers) or self.datagram.lives(now)

    def dead(self, now: float) -> bool:
        """Return whether nothing carries, and nothing will."""
        return now >= self._connect_by and not self.lives(now)


def _rate(stream: Stream) -> float:
    return stream.rate
