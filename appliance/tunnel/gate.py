"""What stands before authentication: how many may knock, for how long. Pure.

A stranger costs one place until it has said who it is. Places are few in all and fewer for one source, so that a flood
from one address, or a crowd that connects and says nothing, leaves room for a client that comes home.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

PLACES: Final = 256
PLACES_PER_SOURCE: Final = 16
PATIENCE: Final = 5.0
"""Seconds in which a stranger must have said who it is."""


class Gate:
    """Counts strangers by source address."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()
        self.turned_away = 0

    def enter(self, source: str) -> bool:
        """Give a stranger a place; return False if there is none."""
        if self._inside.total() >= PLACES or self._inside[source] >= PLACES_PER_SOURCE:
            self.turned_away += 1
            return False
        self._inside[source] += 1
        return True

    def leave(self, source: str) -> None:
        """Take the place back."""
        self._inside[source] -= 1
        if not self._inside[source]:
            del self._inside[source]
