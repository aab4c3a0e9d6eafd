"""Is the server there? Pure: the clock is passed in, in seconds.

A client sends a heartbeat every 3 s, as its original does; three in a row after which nothing at all was heard, and the
server is dead. Anything heard counts, and not the answer alone: the original server drops its answers when its queue of
ten packets is full, which a busy line is no reason to call dead. That our own packets arrive is seen by TCP.
"""

from __future__ import annotations

from typing import Final

EVERY: Final = 3.0
MISSED: Final = 3
_GAIN: Final = 1 / 8
"""Of a new sample in the smoothed round trip (RFC 6298, section 2)."""


class Heartbeat:
    """One connection's heartbeats. `rtt` is in seconds, smoothed, None until the first answer."""

    def __init__(self, now: float) -> None:
        self.rtt: float | None = None
        self._sent: float | None = None
        self._next = now
        self._unheard = 0

    def next_deadline(self) -> float:
        """Return when `dead` and `due` will next have something to say."""
        return self._next

    def dead(self, now: float) -> bool:
        """Return whether `MISSED` heartbeats had their time and nothing came."""
        return now >= self._next and self._unheard >= MISSED

    def due(self, now: float) -> bool:
        """Return whether to send one now; true counts as sent."""
        if now < self._next:
            return False
        self._next, self._sent = now + EVERY, now
        self._unheard += 1
        return True

    def heard(self) -> None:
        """Take note of any message."""
        self._unheard = 0

    def answered(self, now: float) -> None:
        """Take an answer: to the latest heartbeat, since a slower one counts as missed; strays are no measure."""
        if self._sent is None:
            return
        sample, self._sent = now - self._sent, None
        self.rtt = sample if self.rtt is None else self.rtt + _GAIN * (sample - self.rtt)
