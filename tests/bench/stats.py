"""Medians, and ratios pair by pair. Pure.

A machine whose clock speed or load drifts makes absolute figures drift; two measurements of one round drift together.
So a ratio is taken within each round first, and the median of those ratios is what is reported: not the ratio of two
medians.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of `count` ratios, with the least and the greatest of them."""

    median: float
    low: float
    high: float
    count: int


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of what was read, None if nothing was."""
    read = [value for value in values if value is not None]
    return statistics.median(read) if read else None


def ratio(mine: Sequence[float | None], theirs: Sequence[float | None]) -> Ratio | None:
    """Return mine/theirs over the rounds in which both were read and theirs is above zero; None if there are none."""
    pairs = [
        one / other
        for one, other in zip(mine, theirs, strict=False)
        if one is not None and other is not None and other > 0
    ]
    return Ratio(statistics.median(pairs), min(pairs), max(pairs), len(pairs)) if pairs else None


def window(marks: Sequence[tuple[float, int]], begin: float, end: float) -> float | None:
    """Return the rate in bit/s between two times, from (seconds, bytes so far) marks in order of time.

    Between marks, bytes are taken to arrive evenly. None if the marks do not reach `end`.
    """
    if not marks or marks[-1][0] < end:
        return None
    return (_at(marks, end) - _at(marks, begin)) * 8 / (end - begin)


def _at(marks: Sequence[tuple[float, int]], when: float) -> float:
    before = (0.0, 0)
    for mark in marks:
        if mark[0] >= when:
            span = mark[0] - before[0]
            share = (when - before[0]) / span if span > 0 else 1.0
            return before[1] + share * (mark[1] - before[1])
        before = mark
    return before[1]
