"""How large units may be, while some are lost. Pure: the clock is passed in, in seconds."""

from __future__ import annotations

from typing import Final

from . import frame


class Sizing:
    """How many bytes a unit may hold, by what the peer says of those that arrived.

    A unit is lost with any of its datagrams, so loss shrinks units: by half at first, since it may be a burst that some
    buffer did not take, which small units would make no better and a third of the speed; and far when the next report
    tells of much loss as well. Every second without loss grows them.
    """

    GROW_EVERY: Final = 1.0
    TOLERATED: Final = 0.002
    """Share of units lost that is taken for chance."""

    MUCH: Final = 0.02
    """The share from which on it is the line that loses, when it goes on."""

    def __init__(self) -> None:
        self.limit = frame.BATCH
        self.smallest = 0
        self.loss = 0.0
        self._reported = (0, 0)
        self._grow_at = 0.0

    def arrived(self, sent: int, taken: int) -> float:
        """Return the share that arrived of the units since the last report, before that is heard as `reported`."""
        sent_since, taken_since = sent - self._reported[0], taken - self._reported[1]
        return min(1.0, max(0.0, taken_since / sent_since)) if sent_since > 0 else 0.0

    def reported(self, sent: int, taken: int, now: float, *, shrink: bool = True) -> None:
        """Hear from the peer that it has taken `taken` of the first `sent` units of this session.

        Without `shrink`, what is missing has another reason than the length of units.
        """
        sent_since, taken_since = sent - self._reported[0], taken - self._reported[1]
        if sent_since <= 0 or taken_since < 0:
            return
        self._reported = (sent, taken)
        before, self.loss = self.loss, max(0.0, 1 - taken_since / sent_since)
        if self.loss > self.TOLERATED and not shrink:
            self._grow_at = now + self.GROW_EVERY
        elif self.loss > self.TOLERATED:
            goes_on = before > self.TOLERATED and self.loss >= self.MUCH
            self.limit = max(self.smallest, self.limit // (8 if goes_on else 2))
            self._grow_at = now + self.GROW_EVERY
        elif now >= self._grow_at:
            self.limit = min(frame.BATCH, self.limit * 2)
            self._grow_at = now + self.GROW_EVERY
