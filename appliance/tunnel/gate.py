"""What stands before authentication: how many may knock, for how long. Pure.

A stranger costs one place until it has said who it is. Places are few in all and fewer for one source, so that a flood
from one address, or a crowd that connects and says nothing, leaves room for a client that comes home.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
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
        whose = _whose(source)
        if self._inside.total() >= PLACES or self._inside[whose] >= PLACES_PER_SOURCE:
            self.turned_away += 1
            return False
        self._inside[whose] += 1
        return True

    def leave(self, source: str) -> None:
        """Take the place back."""
        whose = _whose(source)
        self._inside[whose] -= 1
        if not self._inside[whose]:
            del self._inside[whose]


def _whose(source: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 that anybody with IPv6 has all addresses of."""
    return str(ip_network((source, 64), strict=False)) if ":" in source else source
