"""How long the passes of the loops take, as counts in buckets: all that a histogram needs, and no more memory. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds


@dataclass(slots=True)
class Histogram:
    """`counts`: passes per bucket, the last for those longer than all bounds; `total`: seconds in all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0


class Timings:
    """One histogram for each loop."""

    def __init__(self) -> None:
        self._loops: dict[str, Histogram] = {}

    def note(self, loop: str, seconds: float) -> None:
        """Count one pass of `loop`."""
        found = self._loops.setdefault(loop, Histogram())
        found.counts[bisect_left(BOUNDS, seconds)] += 1
        found.total += seconds

    def all(self) -> Mapping[str, Histogram]:
        """Return the histograms, by loop."""
        return dict(self._loops)
