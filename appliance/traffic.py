"""What went through each link lately: the last ten minutes, sampled every two seconds. Pure; bounded by its rings.

A rate is the growth of a counter over the time between two samples; where a counter fell, its gtun was started anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from appliance.status import LinkStatus

EVERY: Final = 2.0  # seconds
KEPT: Final = 300  # samples


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment of one link. `at`: seconds since the epoch; `loss`: 0 to 1; None where it is not known."""

    at: float
    tx_bps: float
    rx_bps: float
    rtt_ms: float | None
    loss: float | None


@dataclass(slots=True)
class _Line:
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))
    last: tuple[float, int, int] | None = None  # when, and what was sent and received until then


class Traffic:
    """The rings of all links."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def take(self, at: float, links: Iterable[LinkStatus], losses: Mapping[str, float | None]) -> None:
        """Note how the links do at `at`; links that are no more are forgotten."""
        known = {link.name: link for link in links}
        self._lines = {name: self._lines.get(name) or _Line() for name in known}
        for name, link in known.items():
            line = self._lines[name]
            now = (at, link.counters.get("tx_bytes", 0), link.counters.get("rx_bytes", 0))
            tx, rx = (0.0, 0.0) if line.last is None else _rates(line.last, now)
            if line.last is not None:
                line.samples.append(Sample(at, tx, rx, link.rtt_ms, losses.get(name)))
            line.last = now

    def all(self) -> Mapping[str, tuple[Sample, ...]]:
        """Return the samples of each link, oldest first."""
        return {name: tuple(line.samples) for name, line in self._lines.items()}


def _rates(before: tuple[float, int, int], now: tuple[float, int, int]) -> tuple[float, float]:
    seconds = now[0] - before[0]
    if seconds <= 0:
        return 0.0, 0.0
    return max(0, now[1] - before[1]) * 8 / seconds, max(0, now[2] - before[2]) * 8 / seconds
