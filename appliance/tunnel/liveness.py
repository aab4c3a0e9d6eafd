"""Is the other end there? Pure: the clock is passed in, in seconds.

A probe goes through the tunnel's own sealed channel every second and comes back as an echo: only a round trip proves
that the tunnel carries. Three seconds without one is dead. The first echo makes a session alive.
"""

from __future__ import annotations

import struct
from typing import Final

EVERY: Final = 1.0
DEAD_AFTER: Final = 3.0
_STAMP: Final = struct.Struct("!d")
PROBE: Final = _STAMP.size
"""Bytes of a probe."""

_LONGEST: Final = 60.0
"""Seconds that a probe may take; no line is as long, and no queue."""

_GAIN: Final = 1 / 8
"""Of a new sample in the smoothed round trip (RFC 6298, section 2)."""


class Liveness:
    """One session's probes."""

    def __init__(self, now: float, every: float = EVERY) -> None:
        self._every = every
        self.alive = False
        self.rtt: float | None = None
        self.latest: float | None = None
        self._heard = now
        self._next = now

    def next_deadline(self) -> float:
        """Return when `due` or `dead` will next have something to say."""
        return min(self._next, self._heard + DEAD_AFTER)

    def next_probe(self) -> float:
        """Return when `due` will next have something to say, whether the session lives or not."""
        return self._next

    def due(self, now: float) -> bytes | None:
        """Return a probe to send, if it is time for one."""
        if now < self._next:
            return None
        self._next = now + self._every
        return _STAMP.pack(now)

    def echoed(self, payload: bytes, now: float) -> None:
        """Take an echo. It is for the peer to say what we said, so a time that cannot be ours is no echo."""
        if len(payload) != _STAMP.size:
            return
        sample = now - sent_at(payload)
        if not 0 <= sample <= _LONGEST:
            return
        self._heard = now
        if not self.alive:
            # The first round trip also opened the connection at the far end: measure the next one, at once.
            self.alive, self._next = True, now
            return
        self.latest = sample
        self.rtt = sample if self.rtt is None else self.rtt + _GAIN * (sample - self.rtt)

    def dead(self, now: float) -> bool:
        """Return whether the session has been silent for too long."""
        return self.silence(now) >= DEAD_AFTER

    def silence(self, now: float) -> float:
        """Return for how many seconds nothing came back."""
        return now - self._heard


def sent_at(probe: bytes) -> float:
    """Return when a probe was sent."""
    when: float = _STAMP.unpack_from(probe)[0]
    return when
