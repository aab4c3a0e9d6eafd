from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.stats import Ratio, median, ratio, window

_rates = st.floats(min_value=1e-3, max_value=1e6)


def test_median_leaves_out_what_was_not_read() -> None:
    assert median([None, 3.0, 1.0, None, 2.0]) == 2.0
    assert median([None, None]) is None
    assert median([]) is None


def test_ratios_are_taken_within_a_round() -> None:
    # The machine slows down by half in each round: the ratio of medians would be as good here, but not below.
    assert ratio([8.0, 4.0, 2.0], [4.0, 2.0, 1.0]) == Ratio(2.0, 2.0, 2.0, 3)
    assert ratio([10.0, 1.0, 4.0], [1.0, 1.0, 2.0]) == Ratio(2.0, 1.0, 10.0, 3)


def test_a_round_that_failed_on_either_side_makes_no_ratio() -> None:
    assert ratio([None, 6.0, 4.0], [1.0, None, 2.0]) == Ratio(2.0, 2.0, 2.0, 1)
    assert ratio([1.0], [0.0]) is None
    assert ratio([], [1.0]) is None


def test_fewer_rounds_of_a_peer_pair_with_the_first_of_ours() -> None:
    assert ratio([3.0, 100.0], [1.0]) == Ratio(3.0, 3.0, 3.0, 1)


@settings(deadline=None)
@given(st.lists(_rates, min_size=1, max_size=9), _rates)
def test_drift_of_the_machine_does_not_change_a_ratio(drift: list[float], advantage: float) -> None:
    found = ratio([speed * advantage for speed in drift], drift)
    assert found is not None
    assert found.median == pytest.approx(advantage)


@settings(deadline=None)
@given(st.lists(st.tuples(_rates, _rates), min_size=1, max_size=9))
def test_the_median_ratio_lies_between_the_least_and_the_greatest(pairs: list[tuple[float, float]]) -> None:
    found = ratio([one for one, _ in pairs], [other for _, other in pairs])
    assert found is not None
    assert found.low <= found.median <= found.high
    assert found.median == statistics.median(one / other for one, other in pairs)


def test_a_window_counts_what_arrived_in_it() -> None:
    marks = [(1.0, 1000), (2.0, 1000), (4.0, 5000)]
    assert window(marks, 1, 2) == 0.0
    assert window(marks, 2, 4) == 4000 * 8 / 2
    assert window(marks, 0, 4) == 5000 * 8 / 4
    assert window(marks, 3, 4) == 2000 * 8


def test_a_window_that_the_marks_do_not_reach_has_no_rate() -> None:
    assert window([], 0, 1) is None
    assert window([(1.0, 10)], 0, 2) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 1 << 20)), min_size=1, max_size=20), st.floats(0.1, 0.9))
def test_two_windows_hold_together_what_one_holds(steps: list[tuple[float, int]], where: float) -> None:
    marks, seconds, total = [], 0.0, 0
    for step, size in steps:
        seconds, total = seconds + step, total + size
        marks.append((seconds, total))
    cut = seconds * where
    first, second, whole = window(marks, 0, cut), window(marks, cut, seconds), window(marks, 0, seconds)
    assert first is not None
    assert second is not None
    assert whole is not None
    assert first * cut + second * (seconds - cut) == pytest.approx(whole * seconds)
