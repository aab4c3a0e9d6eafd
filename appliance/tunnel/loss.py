"""What share of what we sent was lost on the way, over the last seconds. Pure: the clock is passed in.

The peer tells how many of our units it has seen pass by and how many it has taken, with each echo. The difference
between now and a few seconds ago is the loss of these seconds; one that is late counts as lost until it comes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW: Final = 5.0
"""Seconds over which loss is told."""


class Loss:
    """The reports of one channel's peer."""

    def __init__(self) -> None:
        self._reports: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])

    def reported(self, sent: int, taken: int, now: float) -> None:
        """Hear that of the first `sent` units `taken` were taken; a report that is older than the last is none."""
        if sent < self._reports[-1][1] or taken < self._reports[-1][2]:
            return
        self._reports.append((now, sent, taken))
        while len(self._reports) > 2 and self._reports[1][0] <= now - WINDOW:
            self._reports.popleft()

    @property
    def ratio(self) -> float:
        """Return the share lost, 0 to 1; 0 where nothing was sent."""
        (_, sent_before, taken_before), (_, sent, taken) = self._reports[0], self._reports[-1]
        return max(0.0, 1 - (taken - taken_before) / (sent - sent_before)) if sent > sent_before else 0.0
