"""How fast the datagram channel sends: as fast as datagrams arrive, and not in bursts. Pure: the clock is passed in.

UDP has nobody to slow it down. What the line or the far end's socket cannot take first waits there, which the round
trip of the probes tells, and is then lost, a unit for each of its datagrams. So when the round trip is longer than it
was and units are lost, the rate follows what arrived; else it grows until it no longer matters. What has to wait then
waits in our own queue, where flows take turns and their senders hear of it.
"""

from __future__ import annotations

from typing import Final

_STEP: Final = 0.01
"""Seconds by which the round trip has to grow to mean a queue, at least; and a quarter of the least one."""

_BACK: Final = 0.85
_FORTH: Final = 1.2
_NEAR: Final = 1.03
"""Instead of that, around the rate at which it was too much last: to find out that it still is costs units."""

_FREE: Final = 4.0
"""How many times of what arrives the rate is no limit any more."""

_SLOWEST: Final = 12.5e6
"""Bytes per second that are always allowed: on a slower line the flows inside find their share by themselves, and what
fills it may be somebody else's."""

_BURST: Final = 0.002
"""Seconds of the rate that may go at once: longer bursts hit policers."""

_TICK: Final = 1e-6


class Pacing:
    """One channel's. `rate` is in bytes per second, None without a limit."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self.congested = False
        self._least: float | None = None
        self._too_much = _SLOWEST
        self._credit = 0.0
        self._at = 0.0

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing may be sent."""
        if self.rate is None:
            return 0.0
        self._credit = min(self._credit + (now - self._at) * self.rate, _BURST * self.rate)
        self._at = now
        wait = -self._credit / self.rate
        return wait if wait > _TICK else 0.0

    def sent(self, length: int) -> None:
        """Take note of bytes that were sent. One unit is always sent whole, so the credit may become negative."""
        if self.rate is not None:
            self._credit -= length

    def reported(self, sent: int, share: float, seconds: float, rtt: float, now: float) -> None:
        """Hear which share arrived of the bytes sent within so many seconds, and the latest round trip."""
        self._least = rtt if self._least is None else min(self._least * 1.001, rtt)
        self.congested = share < 1 and rtt > self._least + max(_STEP, self._least / 4)
        measured = sent * share / max(seconds, 1e-3)
        if self.congested:
            self._too_much = max(_SLOWEST, measured if self.rate is None else min(self.rate, measured))
            self.rate = max(_SLOWEST, _BACK * self._too_much)
        elif self.rate is not None:
            self.rate *= _NEAR if _BACK <= self.rate / self._too_much <= 1 / _BACK else _FORTH
            if self.rate > _FREE * max(measured, _SLOWEST):
                self.rate = None
        self._at = now
