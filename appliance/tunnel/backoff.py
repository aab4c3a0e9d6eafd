"""When to try again: at once, then ever later, never later than the cap. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST: Final = 0.25
CAP: Final = 5.0
"""Seconds; what a person waits at most after the cause is gone."""


class Backoff:
    """Counts failures in a row. `random` returns a float in [0, 1) and spreads clients that lost the same server."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    def succeeded(self) -> None:
        """Start from the beginning."""
        self._failures = 0

    def failed(self) -> float:
        """Return how many seconds to wait now: 0 the first time."""
        self._failures += 1
        if self._failures == 1:
            return 0.0
        longest = min(CAP, FIRST * (1 << min(self._failures - 1, 10)))
        return longest * (0.5 + self._random() / 2)
