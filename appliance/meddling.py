"""Somebody who keeps changing what is put right again: how often which thing was mended of late. Pure.

One repair is drift, and over. The same one again and again is another program at work: mending does not end that, and
between two looks packets are lost. So a person must hear of it.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from appliance.status import Repeated

WINDOW: Final = 60.0  # seconds that count
OFTEN: Final = 5  # repairs of one thing within these
QUIET: Final = 15.0  # seconds without a repair after which it is over
_KEPT: Final = 1000  # repairs


class Meddling:
    """What was put right over the last minute. `now` is in seconds, of any clock that only goes forward."""

    def __init__(self) -> None:
        self._mended: deque[tuple[float, str, str]] = deque(maxlen=_KEPT)

    def note(self, kind: str, what: str, now: float) -> None:
        """Note one repair."""
        self._mended.append((now, kind, what))

    def often(self, now: float) -> tuple[Repeated, ...]:
        """Return what is being changed again and again, the most frequent first."""
        counts, last = Counter[tuple[str, str]](), dict[tuple[str, str], float]()
        for at, kind, what in self._mended:
            if at > now - WINDOW:
                counts[kind, what] += 1
                last[kind, what] = at
        return tuple(
            Repeated(*thing, count)
            for thing, count in counts.most_common()
            if count >= OFTEN and last[thing] > now - QUIET
        )
