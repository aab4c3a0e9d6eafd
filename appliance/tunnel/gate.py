"""What stands before authentication: how many may knock, for how long. Pure.

A stranger costs one place until it has said who it is. Places are few in all and fewer for one source. When all are
taken, the newcomer gets the place of whoever has had one for longest: a client that comes home says who it is within a
few round trips, and a crowd that connects and says nothing is always the older one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

PLACES: Final = 1024
PLACES_PER_SOURCE: Final = 16
PATIENCE: Final = 5.0
"""Seconds in which a stranger must have said who it is."""

_TLS: Final = b"\x16\x03"
"""A handshake record of any TLS (RFC 8446, section 5.1)."""

RECORD_HEADER: Final = 6
"""Bytes of TLS to judge by: a record's header, and the type of the message in it."""

_CLIENT_HELLO: Final = 1
_LONGEST_GREETING: Final = 4096
"""Bytes; a hello with the large keys of ML-KEM has some 1,800."""


@dataclass(eq=False, slots=True)
class Place:
    """A stranger's place. `cut` ends whatever it is at; it leaves by itself then."""

    source: str
    cut: Callable[[], object]


class Gate:
    """Counts strangers by source address."""

    def __init__(self) -> None:
        self._inside: dict[Place, None] = {}  # the oldest first
        self._by_source: Counter[str] = Counter()
        self.turned_away = 0

    def enter(self, source: str) -> Place | None:
        """Give a stranger a place, or None if its source has too many; the oldest gives way where there is none."""
        whose = _whose(source)
        if self._by_source[whose] >= PLACES_PER_SOURCE:
            self.turned_away += 1
            return None
        if len(self._inside) >= PLACES:
            oldest = next(iter(self._inside))
            self.turned_away += 1
            oldest.cut()
            self.leave(oldest)
        place = Place(whose, lambda: None)
        self._inside[place] = None
        self._by_source[whose] += 1
        return place

    def leave(self, place: Place) -> None:
        """Take the place back; a second time changes nothing."""
        if place not in self._inside:
            return
        del self._inside[place]
        self._by_source[place.source] -= 1
        if not self._by_source[place.source]:
            del self._by_source[place.source]


class Pace:
    """How many handshakes of TLS are done in a second: they cost a thousand times what they cost who only asks.

    A few can be done at once after a quiet time, as when all clients come back together.
    """

    RATE: Final = 200.0
    AT_ONCE: Final = 64.0

    def __init__(self) -> None:
        self._left, self._at = self.AT_ONCE, 0.0

    def take(self, now: float) -> float:
        """Take a turn and return 0.0, or return the seconds until there is one."""
        self._left = min(self.AT_ONCE, self._left + (now - self._at) * self.RATE)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self.RATE
        self._left -= 1
        return 0.0


class Breath:
    """How long until those who have come meanwhile are seen to, together: being woken for each costs more than each.

    It doubles as long as somebody is waiting at its end, since a crowd costs a third less the more come at once.
    """

    SHORTEST: Final = 0.005
    LONGEST: Final = 0.04

    def __init__(self) -> None:
        self._length, self._over = self.SHORTEST, 0.0

    def take(self, now: float) -> float:
        """Return the seconds until the next look, now that somebody has come."""
        somebody_waited = now < self._over + self.SHORTEST
        self._length = min(2 * self._length, self.LONGEST) if somebody_waited else self.SHORTEST
        return self._length

    def over(self, now: float) -> None:
        """Hear that there will be a look as soon as somebody comes: a busy machine may be later than it was asked."""
        self._over = now


def plausible(first: bytes, preface: bytes) -> bool:
    """Return whether a connection may begin with these bytes, of which there may be few yet."""
    return any(first[: len(start)] == start[: len(first)] for start in (_TLS, preface))


def greeting_length(header: bytes) -> int:
    """Return how many bytes a TLS client's first record has, from its first six; 0 if it is none."""
    if len(header) < RECORD_HEADER or not header.startswith(_TLS) or header[5] != _CLIENT_HELLO:
        return 0
    length = 5 + int.from_bytes(header[3:5])
    return length if length <= _LONGEST_GREETING else 0


def _whose(source: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 that anybody with IPv6 has all addresses of."""
    return str(ip_network((source, 64), strict=False)) if ":" in source else source
