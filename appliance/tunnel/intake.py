"""Datagrams in, opened units out, and what the peer is told of them. Thin around `arrivals`, `reassembly` and `unit`.

Nothing in a datagram is to be trusted before its unit is whole and opened. What turns out to be another session's, a
replay, or forged costs itself, and is counted.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from . import arrivals, keys, unit
from .reassembly import Reassembly

REPORT: Final = struct.Struct("!QQ")
"""Behind the echo of a probe: how many units the peer has sealed, as far as we know, and how many of them came."""

_READS: Final = 8
_WITHHELD: Final = 50
"""Of so many units one is told to be lost while parts are being forged."""


class Intake:
    """What one session's units come through. `part`: bytes of a unit in each datagram, at first."""

    def __init__(self, session: keys.Session, direction: keys.Direction, part: int, counters: Counter[str]) -> None:
        self.opener = unit.Opener(session, direction)
        self._session_id, self._counters = session.session_id, counters
        self._arrivals, self._reassembly = arrivals.Arrivals(part), Reassembly()
        self._plain = memoryview(bytearray(unit.LARGEST))
        self._contradicted = self._withheld = 0
        self._told = (-1, 0)  # at the last report: the newest unit, and how many parts had been forged

    def receive(self, sock: socket.socket, *, calm: bool = False) -> Iterator[tuple[int, memoryview]]:
        """Read a little and yield what units became whole; each is borrowed until the next one is asked for.

        With `calm` one read is enough, and is most likely all.
        """
        for _ in range(1 if calm else _READS):
            try:
                came = self._arrivals.read(sock, calm=calm)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error that came back: silence is judged elsewhere
            for arrival in came:
                yield from self._add(*arrival)

    def take(self, datagram: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Take one datagram; yield the unit that it completes, if it does and is authentic."""
        yield from self._add(*arrivals.alone(datagram))

    def report(self) -> bytes:
        """Return what the peer is told of its units. Where parts are being forged, a few count as lost.

        That makes its units small, so that there is less to forge in.
        """
        window = self.opener.window
        if self._reassembly.contradictions > self._told[1]:
            self._withheld += 1 + (window.newest - self._told[0]) // _WITHHELD
        self._told = window.newest, self._reassembly.contradictions
        return REPORT.pack(window.newest + 1, max(0, window.taken - self._withheld))

    def _add(self, place: unit.Place | None, count: int, parts: memoryview) -> Iterator[tuple[int, memoryview]]:
        if place is None or place.session_id != self._session_id:
            self._counters["drop_malformed" if place is None else "drop_stray"] += 1
            return
        if place.spare and not self.opener.window.fresh(place.counter):  # it was not needed
            return
        sealed = self._reassembly.add(place, count, parts, time.monotonic())
        if self._reassembly.contradictions > self._contradicted:
            self._counters["drop_forged"] += 1
            self._contradicted = self._reassembly.contradictions
        if sealed is None:
            return
        try:
            length = self.opener.open(place, sealed, self._plain)
        except keys.NotAuthentic:
            fresh = self.opener.window.fresh(place.counter)
            self._counters["drop_forged" if fresh else "drop_replayed"] += 1
            if not fresh:
                self._reassembly.done(place)
            return
        if len(parts) < place.length:
            self._reassembly.done(place)
        yield place.kind, self._plain[:length]
