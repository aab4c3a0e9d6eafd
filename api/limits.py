"""How often somebody may ask: token buckets, one for each key. Pure; `now` in seconds of any monotonic clock."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

_MOST: Final = 4096  # keys; whoever was seen longest ago is forgotten, and so begins anew


class Buckets:
    """`rate` requests a second for each key, `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._level: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when that was

    def take(self, key: str, now: float) -> float:
        """Take one; return 0.0, or after how many seconds there will be one again."""
        left, at = self._level.pop(key, (float(self._burst), now))
        left = min(float(self._burst), left + max(0.0, now - at) * self._rate)
        if left < 1.0:
            self._level[key] = (left, now)
            return (1.0 - left) / self._rate
        self._level[key] = (left - 1.0, now)
        if len(self._level) > _MOST:
            self._level.popitem(last=False)
        return 0.0
